//! Where the configuration is found, what is read, what is refused. Case numbers: L13, L15
//! (secrets).

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::registry::credentials::{Credential, Secret};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn environment(&self) -> ClientEnvironment {
        ClientEnvironment::new("/").with("HOME", self.0.path())
    }

    fn parse(&self, content: &str) -> Result<Tofurc, TofurcError> {
        Tofurc::load_file(&self.file("parsed", content), &self.environment())
    }
}

#[test]
fn host_blocks_say_where_services_are() {
    let home = Home::new();
    let hcl = home
        .parse(
            "host \"a.b\" {\n  services = {\n    \"providers.v1\" = \"https://c.d/v1/\"\n    other = true\n  }\n}\n\
             host \"no host\" {\n}\n",
        )
        .unwrap();
    let (host, services) = &hcl.services[0];
    assert_eq!((host.as_str(), services["providers.v1"].as_str()), ("a.b", "https://c.d/v1/"));
    assert_eq!((hcl.services.len(), services.len()), (1, 1));
    let json = r#"{"host": {"a.b": {"services": {"providers.v1": "https://c.d/v1/"}}}}"#;
    assert_eq!(home.parse(json).unwrap().services, hcl.services);
    assert!(home.parse("host \"a.b\" {\n  services = \"x\"\n}\n").is_err());
}

/// A configuration that names itself by its label.
fn named(label: &str) -> String {
    format!("oci_credentials \"{label}\" {{\n  docker_credentials_helper = \"h\"\n}}\n")
}

fn labels(tofurc: &Tofurc) -> Vec<String> {
    tofurc.blocks.iter().map(|block| block.prefix.to_string()).collect()
}

#[test]
fn the_file_is_found_where_opentofu_finds_it() {
    const TOFURC: &str = ".tofurc";
    const OLD: &str = ".terraformrc";
    const XDG: &str = "xdg/opentofu/tofurc";
    const DIR: &str = ".terraform.d/b.tfrc";
    const XDG_DIR: &str = "xdg/opentofu/c.tfrc";
    let table: &[(&[&str], &[&str], &[&str])] = &[
        // present, variables set, read
        (&[TOFURC, OLD], &[], &[TOFURC]),
        (&[OLD], &[], &[OLD]),
        (&[OLD, XDG], &["XDG_CONFIG_HOME"], &[OLD]),
        (&[XDG], &["XDG_CONFIG_HOME"], &[XDG]),
        (&[XDG], &[], &[]),
        (&[TOFURC, DIR, XDG_DIR], &["XDG_CONFIG_HOME"], &[TOFURC, DIR]),
        (&[TOFURC, XDG_DIR], &["XDG_CONFIG_HOME"], &[TOFURC, XDG_DIR]),
        (
            &[TOFURC, ".terraform.d/z.tfrc.json", ".terraform.d/a.tfrc", ".terraform.d/x.hcl"],
            &[],
            &[TOFURC, ".terraform.d/a.tfrc", ".terraform.d/z.tfrc.json"],
        ),
        (&[TOFURC, DIR, "named"], &["TF_CLI_CONFIG_FILE"], &["named"]),
        (&[TOFURC, DIR, "other"], &["TERRAFORM_CONFIG"], &["other"]),
        (&["named", "other"], &["TF_CLI_CONFIG_FILE", "TERRAFORM_CONFIG"], &["named"]),
        (&[TOFURC, DIR], &["TF_CLI_CONFIG_FILE"], &[]),
    ];
    for (present, variables, read) in table {
        let home = Home::new();
        for (n, name) in present.iter().enumerate() {
            home.file(name, &named(&format!("r{n}.io")));
        }
        let mut environment = home.environment();
        for variable in *variables {
            let value = match *variable {
                "XDG_CONFIG_HOME" => "xdg",
                "TF_CLI_CONFIG_FILE" => "named",
                _ => "other",
            };
            environment = environment.with(variable, home.path(value));
        }
        let tofurc = Tofurc::load(&environment).unwrap();
        assert_eq!(
            tofurc.files,
            read.iter().map(|n| home.path(n)).collect::<Vec<_>>(),
            "{present:?} {variables:?}"
        );
        assert_eq!(tofurc.blocks.len(), read.len());
        // a file that the environment names and that is missing is worth a warning, no more
        let missing = variables.contains(&"TF_CLI_CONFIG_FILE") && read.is_empty();
        assert_eq!(tofurc.warnings.len(), usize::from(missing), "{:?}", tofurc.warnings);
    }
    assert!(
        Tofurc::load_file(Path::new("/nonexistent/file"), &ClientEnvironment::new("/")).is_err()
    );
}

/// One configuration in both syntaxes.
const HCL: &str = r#"
    # comment
    plugin_cache_dir = "$HOME/cache" // another
    credentials "app.terraform.io" { token = "x" }
    oci_credentials "r.io" {
      username = "u"
      password = "p\"${x}\n"
    }
    oci_credentials "r.io:5000/a/b" {
      access_token  = "acc"
      refresh_token = "ref"
    }
    /* one more */
    oci_credentials "s.io" { docker_credentials_helper = "pass" }
    oci_default_credentials {
      docker_style_config_files = ["one.json", "/two.json",]
      docker_credentials_helper = "osx"
    }
    provider_installation {
      dev_overrides { "hashicorp/null" = "/tmp/null" }
      oci_mirror {
        repository_template = "r.io/${namespace}/${type == "x" ? "y" : type}"
        include             = ["*/*"]
      }
      filesystem_mirror { path = "/m" }
      network_mirror { url = "https://m/" }
      direct { exclude = ["a/*"] }
    }
"#;

/// See [`HCL`].
const JSON: &str = r#"{
    "credentials": {"app.terraform.io": {"token": "x"}},
    "oci_credentials": {
      "r.io": {"username": "u", "password": "p\"${x}\n"},
      "r.io:5000/a/b": {"access_token": "acc", "refresh_token": "ref", "username": null},
      "s.io": [{"docker_credentials_helper": "pass"}]
    },
    "oci_default_credentials": [{
      "docker_style_config_files": ["one.json", "/two.json"], "docker_credentials_helper": "osx"
    }],
    "provider_installation": {
      "dev_overrides": {"hashicorp/null": "/tmp/null"},
      "oci_mirror": [{
        "repository_template": "r.io/${namespace}/${type == \"x\" ? \"y\" : type}", "include": ["*/*"]
      }],
      "filesystem_mirror": {"path": "/m"},
      "network_mirror": {"url": "https://m/"},
      "direct": {"exclude": ["a/*"]}
    }
}"#;

#[test]
fn hcl_and_json_say_the_same() {
    let home = Home::new();
    let secret = |text: &str| Secret::new(text.to_owned());
    for content in [HCL, JSON] {
        let tofurc = home.parse(content).unwrap();
        assert_eq!(labels(&tofurc), ["r.io", "r.io:5000/a/b", "s.io"]);
        let logins: Vec<&Login> = tofurc.blocks.iter().map(|b| &b.login).collect();
        let basic = Credential::Basic { username: "u".to_owned(), password: secret("p\"${x}\n") };
        assert_eq!(*logins[0], Login::Credential(basic));
        let tokens =
            Credential::Tokens { access: Some(secret("acc")), refresh: Some(secret("ref")) };
        assert_eq!(*logins[1], Login::Credential(tokens));
        assert_eq!(*logins[2], Login::Program("pass".parse().unwrap()));
        let defaults = tofurc.defaults.clone().unwrap();
        assert_eq!(defaults.files, Some(vec![home.path("one.json"), "/two.json".into()]));
        assert_eq!(defaults.program, Some("osx".parse().unwrap()));
        let methods = tofurc.installation.unwrap();
        let locations: Vec<_> = methods.iter().map(|m| m.location.clone()).collect();
        let template = r#"r.io/${namespace}/${type == "x" ? "y" : type}"#;
        assert_eq!(
            locations,
            [
                InstallationLocation::OciMirror(template.to_owned()),
                InstallationLocation::FilesystemMirror("/m".into()),
                InstallationLocation::NetworkMirror("https://m/".to_owned()),
                InstallationLocation::Direct,
            ]
        );
        assert_eq!(
            (methods[0].include.as_slice(), methods[3].exclude.as_slice()),
            (&["*/*".into()][..], &["a/*".into()][..])
        );
    }
}

#[test]
fn what_opentofu_refuses_is_refused_with_file_and_line() {
    let home = Home::new();
    let table = [
        ("\noci_credentials \"r.io\" {}", 2, "exactly one"),
        ("oci_credentials \"r.io\" {\n username = \"u\"\n}", 1, "username and password"),
        ("oci_credentials \"r.io\" {\n password = \"p\"\n}", 1, "username and password"),
        (
            "oci_credentials \"r.io\" {\n access_token = \"u\"\n}",
            1,
            "access_token and refresh_token",
        ),
        (
            "oci_credentials \"r.io\" {\n refresh_token = \"u\"\n}",
            1,
            "access_token and refresh_token",
        ),
        ("oci_credentials \"r.io\" {\n username = \"\"\n password = \"x\"\n}", 1, "empty username"),
        (
            "oci_credentials \"r.io\" {\n username = \"u\"\n access_token = \"x\"\n}",
            1,
            "exactly one",
        ),
        (
            "oci_credentials \"r.io\" {\n username = \"u\"\n docker_credentials_helper = \"x\"\n}",
            1,
            "exactly one",
        ),
        ("oci_credentials \"r.io\" {\n docker_credentials_helper = \"a/b\"\n}", 1, "without /"),
        ("oci_credentials \"r.io\" {\n docker_credentials_helper = \"\"\n}", 1, "without /"),
        (
            "oci_credentials \"r.io/a\" {\n docker_credentials_helper = \"h\"\n}",
            1,
            "whole registries",
        ),
        ("oci_credentials \"r.io/a:1\" {\n docker_credentials_helper = \"h\"\n}", 1, "label"),
        ("oci_credentials \"\" {\n docker_credentials_helper = \"h\"\n}", 1, "label"),
        ("oci_credentials {\n docker_credentials_helper = \"h\"\n}", 1, "label"),
        ("oci_credentials \"r.io\" \"s.io\" {}", 1, "label"),
        ("oci_credentials = {}", 1, "label"),
        (
            "oci_credentials \"r.io\" {\n username = [\"u\"]\n password = \"x\"\n}",
            2,
            "must be a text",
        ),
        (
            "oci_default_credentials {}\n\noci_default_credentials {}",
            3,
            "one oci_default_credentials",
        ),
        ("oci_default_credentials \"x\" {}", 1, "no label"),
        ("oci_default_credentials = {}", 1, "equals sign"),
        ("oci_default_credentials {\n docker_credentials_helper = \"a/b\"\n}", 1, "without /"),
        (
            "oci_default_credentials {\n discover_ambient_credentials = \"maybe\"\n}",
            2,
            "true or false",
        ),
        (
            "oci_default_credentials {\n discover_ambient_credentials = false\n \
             docker_style_config_files = []\n}",
            1,
            "discover_ambient_credentials is false",
        ),
        ("provider_installation {}\nprovider_installation {}", 2, "one provider_installation"),
        ("provider_installation {\n other {}\n}", 2, "no method"),
        ("provider_installation {\n direct {}\n dev_overrides {}\n}", 3, "before"),
        ("provider_installation {\n oci_mirror {}\n}", 2, "repository_template"),
        ("provider_installation {\n direct = {}\n}", 2, "equals sign"),
        ("a = 1\nb = \"canary\n", 2, "closing quote"),
        ("a = 1\nb {\n", 3, "closing brace"),
        ("a = canary", 1, "a value is expected"),
        ("a = \"canary\\q\"", 1, "escape"),
        ("a = <<EOF\ncanary\n", 2, "end mark"),
        ("/* canary", 1, "comment"),
        ("{\n\"a\": canary}", 2, "JSON"),
        ("{\"oci_default_credentials\":\n[{},{}]}", 1, "one oci_default_credentials"),
        ("{\"oci_credentials\": {\n\"r.io\": \"canary\"}}", 2, "object"),
    ];
    for (content, line, rule) in table {
        let error = home.parse(content).map(|_| content).unwrap_err();
        assert_eq!(error.line, Some(line), "{content}: {error}");
        let sentence = error.to_string();
        assert!(sentence.contains(rule), "{content}: {sentence}");
        assert!(sentence.contains("parsed") && !sentence.contains("canary"), "{sentence}");
    }
    let twice = home.parse(&format!("{}{}", named("r.io"), named("r.io"))).unwrap_err();
    assert_eq!(twice.line, Some(4), "{twice}");
}

#[test]
fn a_block_that_two_files_have_is_refused() {
    let home = Home::new();
    home.file(".tofurc", &named("r.io"));
    let second = home.file(".terraform.d/a.tfrc", &named("r.io"));
    assert_eq!(Tofurc::load(&home.environment()).unwrap_err().file, second);
}

#[test]
fn docker_style_files_come_from_the_configuration_else_the_environment() {
    let home = Home::new();
    let at = |names: &[&str]| names.iter().map(|n| home.path(n)).collect::<Vec<_>>();
    let ambient = |names: &[&str]| DockerFiles::Ambient(at(names));
    let table: &[(&str, &[&'static str], DockerFiles)] = &[
        ("", &[], ambient(&[".config/containers/auth.json", ".docker/config.json", ".dockercfg"])),
        (
            "",
            &["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"],
            ambient(&[
                "XDG_RUNTIME_DIR/containers/auth.json",
                "XDG_CONFIG_HOME/containers/auth.json",
                ".docker/config.json",
                ".dockercfg",
            ]),
        ),
        ("", &["DOCKER_CONFIG"], ambient(&["DOCKER_CONFIG/config.json"])),
        ("", &["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"], ambient(&["REGISTRY_AUTH_FILE"])),
        (
            "",
            &["DOCKER_CONFIG", "REGISTRY_AUTH_FILE"],
            ambient(&["REGISTRY_AUTH_FILE", "DOCKER_CONFIG/config.json"]),
        ),
        ("docker_style_config_files = []", &["DOCKER_CONFIG"], DockerFiles::Listed(vec![])),
        ("docker_style_config_files = [\"a\"]", &[], DockerFiles::Listed(at(&["a"]))),
        ("discover_ambient_credentials = false", &["DOCKER_CONFIG"], DockerFiles::Listed(vec![])),
        (
            "discover_ambient_credentials = true",
            &["DOCKER_CONFIG"],
            ambient(&["DOCKER_CONFIG/config.json"]),
        ),
    ];
    for (arguments, variables, files) in table {
        let mut environment = home.environment();
        for name in *variables {
            environment = environment.with(name, home.path(name));
        }
        let tofurc = home.parse(&format!("oci_default_credentials {{\n{arguments}\n}}")).unwrap();
        assert_eq!(tofurc.credentials(&environment).files, *files, "{arguments} {variables:?}");
    }
    assert_eq!(Tofurc::default().credentials(&home.environment()).files, table[0].2);
}

// L13, L15
#[test]
fn secrets_are_not_printed_and_open_files_are_warned_of() {
    let home = Home::new();
    let content = "oci_credentials \"r.io\" {\n username = \"u\"\n password = \"canary\"\n}";
    let tofurc = home.parse(content).unwrap();
    assert!(
        !format!("{tofurc:#?} {:#?}", tofurc.credentials(&home.environment())).contains("canary")
    );
    assert!(tofurc.warnings.is_empty());
    let path = home.file("open", content);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let warnings = Tofurc::load_file(&path, &home.environment()).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("0640"), "{warnings:?}");
}

#[test]
fn hcl_texts_keep_their_templates() {
    let text = "a = \"${x(\"y\")}\\t$y %{z}\"\nb = <<-EOF\n  one\n    two\n  EOF\n\
         c = [1, \"x\", [true], { d = -1.5 }]\n";
    let document = syntax::parse(text).unwrap();
    let texts: Vec<(&str, usize, Option<&str>)> = document
        .items
        .iter()
        .map(|item| match &item.value {
            syntax::Value::Text(text) => (item.keys[0].as_str(), item.line, Some(text.as_str())),
            _ => (item.keys[0].as_str(), item.line, None),
        })
        .collect();
    assert_eq!(texts[0], ("a", 1, Some("${x(\"y\")}\t$y %{z}")));
    assert_eq!(texts[1], ("b", 2, Some("one\n  two\n")));
    assert_eq!((texts[2].0, texts[2].1), ("c", 6));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z\"{}=\\[\\],:$<\\-\\\\/*#\n\u{e4} ]{0,60}") {
        let _ = syntax::parse(&text);
    }
}
