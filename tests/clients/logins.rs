//! Logging in with what each documented source holds, against real registries.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::docker_registry::{Access, DockerRegistry, PASSWORD, USER};
use crate::support::mount::{Mount, Options};
use crate::support::token_server::{ANNOUNCED, REFRESH_TOKEN};
use crate::support::{pack, wait_until};
use crate::trusting;

const MAIN: &[u8] = b"output \"name\" {}\n";

/// A home with nothing in it, and a registry whose login belongs there.
struct Home<'a> {
    dir: tempfile::TempDir,
    registry: &'a DockerRegistry,
}

impl<'a> Home<'a> {
    fn new(registry: &'a DockerRegistry) -> Home<'a> {
        Home { dir: tempfile::tempdir().expect("a temporary directory"), registry }
    }

    fn host(&self) -> String {
        self.registry.host()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner may read.
    fn write(&self, name: &str, text: impl ToString) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a writable directory");
        fs::write(&path, text.to_string()).expect("a writable directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of ours");
        path
    }

    /// `auths` for the registry.
    fn auths(&self) -> Value {
        auths(&self.host(), PASSWORD)
    }

    /// A credential helper on the PATH that knows the registry alone, and fails if it was handed more
    /// than three pipes.
    fn helper(&self, name: &str) {
        let answer = json!({"ServerURL": format!("https://{}", self.host()), "Username": USER, "Secret": PASSWORD});
        let script = format!(
            "#!/bin/sh\nfor fd in /proc/$$/fd/*; do\n  case $(readlink \"$fd\") in pipe:*|\"$0\"|'') ;; \
             *) exit 3;; esac\ndone\n\
             test \"$1\" = get || exit 2\ntest \"$(cat)\" = 'https://{}' && echo '{answer}' && exit\n\
             echo 'credentials not found in native keychain'\nexit 1\n",
            self.host()
        );
        let path = self.write(&format!("bin/docker-credential-{name}"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("a file of ours");
    }

    /// Options of a mount by somebody whose home this is.
    fn options(&self) -> Options {
        let path = std::env::var("PATH").unwrap_or_default();
        trusting(self.registry)
            .env("HOME", self.dir.path().display())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
    }
}

fn auths(key: &str, password: &str) -> Value {
    json!({"auths": {key: {"auth": STANDARD.encode(format!("{USER}:{password}"))}}})
}

fn registry(access: Access) -> Option<DockerRegistry> {
    let registry = DockerRegistry::start(access, true)?;
    registry.push("acme/network").artifact("1.0.0", &pack::module(&[("main.tf", MAIN)]));
    Some(registry)
}

/// Reads the module by both spellings.
fn read(mount: &Mount, host: &str) -> std::io::Result<Vec<u8>> {
    let listed = fs::read_dir(mount.join(format!("{host}/acme/network")))?;
    assert_eq!(listed.count(), 1);
    fs::read(mount.join(format!("{host}/acme/network:1.0.0/main.tf")))?;
    fs::read(mount.join(format!("{host}/acme/network/1.0.0/main.tf")))
}

/// Prepares a home and says what a mount needs beside it.
type Source = (&'static str, fn(&Home) -> Options);

/// Each source alone is enough to log in.
fn each_logs_in(access: Access, sources: &[Source]) {
    let Some(registry) = registry(access) else { return };
    for (name, prepare) in sources {
        let home = Home::new(&registry);
        let options = prepare(&home);
        let Some(mount) = Mount::start(&[registry.host()], options) else { return };
        match read(&mount, &registry.host()) {
            Ok(bytes) => assert_eq!(bytes, MAIN, "{name}"),
            Err(e) => panic!("{name}: {e}: {:?}", mount.status()["errors"]),
        }
        assert!(!mount.log().contains(PASSWORD), "{name}");
    }
}

#[test]
fn the_cli_configuration_logs_in() {
    fn hcl(home: &Home) -> String {
        format!(
            "oci_credentials \"{}\" {{\n  username = \"{USER}\"\n  password = \"{PASSWORD}\"\n}}\n",
            home.host()
        )
    }
    fn json(home: &Home) -> String {
        json!({"oci_credentials": {home.host(): {"username": USER, "password": PASSWORD}}})
            .to_string()
    }
    each_logs_in(
        Access::Htpasswd,
        &[
            ("oci_credentials in HCL by --tofurc", |home| {
                let file = home.write("my.tofurc", hcl(home));
                home.options().args(["--tofurc".into(), file.display().to_string()])
            }),
            ("oci_credentials in JSON by --tofurc", |home| {
                let file = home.write("my.tofurc.json", json(home));
                home.options().args(["--tofurc".into(), file.display().to_string()])
            }),
            ("oci_credentials in HCL by TF_CLI_CONFIG_FILE", |home| {
                let file = home.write("config", hcl(home));
                home.options().env("TF_CLI_CONFIG_FILE", file.display())
            }),
            ("oci_credentials in JSON by TF_CLI_CONFIG_FILE", |home| {
                let file = home.write("config", json(home));
                home.options().env("TF_CLI_CONFIG_FILE", file.display())
            }),
            ("~/.tofurc", |home| {
                home.write(".tofurc", hcl(home));
                home.options()
            }),
            ("~/.terraformrc", |home| {
                home.write(".terraformrc", hcl(home));
                home.options()
            }),
            ("$XDG_CONFIG_HOME/opentofu/tofurc", |home| {
                let file = home.write("config/opentofu/tofurc", hcl(home));
                home.options().env("XDG_CONFIG_HOME", file.ancestors().nth(2).unwrap().display())
            }),
            ("~/.terraform.d/*.tfrc.json", |home| {
                home.write(".terraform.d/oci.tfrc.json", json(home));
                home.options()
            }),
            ("oci_credentials for a part of the registry", |home| {
                home.write(".tofurc", hcl(home).replace("\" {", "/acme\" {"));
                home.options()
            }),
            ("oci_credentials with a helper", |home| {
                home.helper("one");
                let block = format!(
                    "oci_credentials \"{}\" {{\n docker_credentials_helper = \"one\"\n}}\n",
                    home.host()
                );
                home.write(".tofurc", block);
                home.options()
            }),
            ("the helper of oci_default_credentials", |home| {
                home.helper("all");
                home.write(
                    ".tofurc",
                    "oci_default_credentials {\n  docker_credentials_helper = \"all\"\n}\n",
                );
                home.options()
            }),
            ("the files of oci_default_credentials", |home| {
                home.write("own/auth.json", home.auths());
                home.write(
                    ".tofurc",
                    "oci_default_credentials {\n  \
                     docker_style_config_files = [\"own/auth.json\"]\n}\n",
                );
                home.options()
            }),
        ],
    );
}

#[test]
fn docker_style_files_log_in() {
    each_logs_in(
        Access::Htpasswd,
        &[
            ("$XDG_RUNTIME_DIR/containers/auth.json", |home| {
                home.write("run/containers/auth.json", home.auths());
                home.options().env("XDG_RUNTIME_DIR", home.path("run").display())
            }),
            ("$XDG_CONFIG_HOME/containers/auth.json", |home| {
                home.write("config/containers/auth.json", home.auths());
                home.options().env("XDG_CONFIG_HOME", home.path("config").display())
            }),
            ("~/.config/containers/auth.json", |home| {
                home.write(".config/containers/auth.json", home.auths());
                home.options()
            }),
            ("~/.docker/config.json", |home| {
                home.write(".docker/config.json", home.auths());
                home.options()
            }),
            ("~/.dockercfg", |home| {
                home.write(".dockercfg", home.auths());
                home.options()
            }),
            ("an entry for one repository", |home| {
                home.write(
                    ".docker/config.json",
                    auths(&format!("{}/acme/network", home.host()), PASSWORD),
                );
                home.options()
            }),
            ("credHelpers", |home| {
                home.helper("one");
                home.write(".docker/config.json", json!({"credHelpers": {home.host(): "one"}}));
                home.options()
            }),
            ("credsStore", |home| {
                home.helper("all");
                home.write(".docker/config.json", json!({"credsStore": "all"}));
                home.options()
            }),
            ("REGISTRY_AUTH_FILE, which stands in for the usual places", |home| {
                home.write(".docker/config.json", auths(&home.host(), "another one's"));
                let file = home.write("elsewhere.json", home.auths());
                home.options().env("REGISTRY_AUTH_FILE", file.display())
            }),
            ("DOCKER_CONFIG, which stands in for the usual places", |home| {
                home.write(".docker/config.json", auths(&home.host(), "another one's"));
                home.write("docker/config.json", home.auths());
                home.options().env("DOCKER_CONFIG", home.path("docker").display())
            }),
        ],
    );
}

#[test]
fn what_a_token_service_takes_logs_in() {
    each_logs_in(
        Access::Token,
        &[
            ("a user name and password", |home| {
                home.write(".docker/config.json", home.auths());
                home.options()
            }),
            ("an identity token", |home| {
                home.write(
                    ".docker/config.json",
                    json!({"auths": {home.host(): {"identitytoken": REFRESH_TOKEN}}}),
                );
                home.options()
            }),
            ("an identity token beside an empty password, as docker login leaves it", |home| {
                let auth = STANDARD.encode("00000000-0000-0000-0000-000000000000:");
                let entry = json!({"auth": auth, "identitytoken": REFRESH_TOKEN});
                home.write(".docker/config.json", json!({"auths": {home.host(): entry}}));
                home.options()
            }),
            ("the tokens of oci_credentials", |home| {
                let server = home.registry.token_server().expect("a registry with a token server");
                let token = server.token(&["repository:acme/network:pull"]);
                let block = json!({"access_token": token, "refresh_token": REFRESH_TOKEN});
                home.write(".tofurc", json!({"oci_credentials": {home.host(): block}}));
                home.options().env("TF_CLI_CONFIG_FILE", home.path(".tofurc").display())
            }),
        ],
    );
}

/// The most specific source decides, wherever it stands.
#[test]
fn of_several_sources_the_most_specific_is_used() {
    let Some(registry) = registry(Access::Htpasswd) else { return };
    let home = Home::new(&registry);
    let wrong = format!(
        "oci_credentials \"{}\" {{\n  username = \"x\"\n  password = \"y\"\n}}\n",
        registry.host()
    );
    home.write(".tofurc", wrong);
    home.write(".docker/config.json", auths(&format!("{}/acme", registry.host()), PASSWORD));
    let Some(mount) = Mount::start(&[registry.host()], home.options()) else { return };
    assert_eq!(read(&mount, &registry.host()).unwrap(), MAIN);
    let outside = fs::read_dir(mount.join(format!("{}/other", registry.host()))).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::PermissionDenied);
}

/// The sentences of a mount that name `source`.
fn names(mount: &Mount, source: &str) -> bool {
    let errors = mount.status()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(Value::as_str).any(|sentence| sentence.contains(source))
}

fn refused(mount: &Mount, host: &str) {
    for path in
        [format!("{host}/acme/network:1.0.0/main.tf"), format!("{host}/acme/network/1.0.0/main.tf")]
    {
        let error = fs::read(mount.join(&path)).expect_err("nobody is let in");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
    }
}

#[test]
fn without_a_credential_access_is_denied() {
    for access in [Access::Htpasswd, Access::Token] {
        let Some(registry) = registry(access) else { return };
        let home = Home::new(&registry);
        let Some(mount) = Mount::start(&[registry.host()], home.options()) else { return };
        refused(&mount, &registry.host());
        assert!(names(&mount, "no credential"), "{:?}", mount.status()["errors"]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_where_a_credential_is_missing() {
    let Some(registry) = registry(Access::Htpasswd) else { return };
    let home = Home::new(&registry);
    let file = home.write(".docker/config.json", "{nonsense");
    let Some(mount) = Mount::start(&[registry.host()], home.options()) else { return };
    refused(&mount, &registry.host());
    assert!(
        names(&mount, &format!("{} cannot be: it is not valid JSON", file.display())),
        "{:?}",
        mount.status()
    );
}

/// A wrong password in the file of `name`; then the right one, and no new mount.
fn a_corrected_file_is_enough(access: Access, recover: fn(&Mount, &Path)) {
    let Some(registry) = registry(access) else { return };
    let host = registry.host();
    let home = Home::new(&registry);
    let file = home.write(".docker/config.json", auths(&host, "a wrong one"));
    let Some(mount) = Mount::start(&[&host], home.options()) else { return };
    refused(&mount, &host);
    let source = format!("auths[\"{host}\"] of {}", file.display());
    assert!(names(&mount, &source), "{access:?}: {source}: {:?}", mount.status()["errors"]);
    assert!(mount.log().contains(&source), "{}", mount.log());
    assert!(!mount.log().contains("a wrong one"), "{}", mount.log());
    let told = mount.xattr(format!("{host}/acme/network"), "user.tofufs.error");
    assert!(told.as_ref().is_some_and(|sentence| sentence.contains(&source)), "{told:?}");
    home.write(".docker/config.json", auths(&host, PASSWORD));
    recover(&mount, &mount.join(&host));
    assert_eq!(read(&mount, &host).unwrap(), MAIN);
    assert_eq!(mount.xattr(format!("{host}/acme/network"), "user.tofufs.error"), None);
}

#[test]
fn a_wrong_password_is_denied_with_its_source_until_the_file_is_corrected_and_refresh_says_so() {
    for access in [Access::Htpasswd, Access::Token] {
        a_corrected_file_is_enough(access, |mount, path| {
            let mut command = mount.command("refresh");
            crate::run(command.arg(path));
        });
    }
}

#[test]
fn a_corrected_file_is_used_by_itself_once_the_refusal_is_old() {
    a_corrected_file_is_enough(Access::Htpasswd, |mount, path| {
        let host = path.file_name().unwrap().to_str().unwrap();
        // The refusals of the tag and of the lists are remembered apart.
        let readable = || {
            fs::read(path.join("acme/network:1.0.0/main.tf")).is_ok() && read(mount, host).is_ok()
        };
        assert!(wait_until(Duration::from_secs(60), readable), "a refusal is remembered for ever");
    });
}

/// Q4: the registry takes a token for old long before the time that it was announced with.
#[test]
fn a_token_that_ends_during_the_mount_is_replaced() {
    let Some(registry) = registry(Access::Token) else { return };
    let push = registry.push("acme/network");
    for tag in ["2.0.0", "3.0.0"] {
        push.artifact(tag, &pack::module(&[("main.tf", tag.as_bytes())]));
    }
    let host = registry.host();
    let server = registry.token_server().expect("a registry with a token server");
    let Some(mount) = Mount::start(&[&host], crate::logged_in(&registry)) else { return };
    let read =
        |tag: &str| fs::read(mount.join(format!("{host}/acme/network:{tag}/main.tf"))).unwrap();
    server.set_lifetime(5);
    assert_eq!(read("1.0.0"), MAIN);
    let first = server.issued();
    std::thread::sleep(Duration::from_secs(7));
    server.set_lifetime(ANNOUNCED);
    assert_eq!(read("2.0.0"), b"2.0.0");
    let second = server.issued();
    assert!(second > first, "the registry still took the first token");
    assert_eq!(read("3.0.0"), b"3.0.0");
    assert_eq!(server.issued(), second, "a token is used until it is refused");
}
