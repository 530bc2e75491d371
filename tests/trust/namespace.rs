//! Behind a gap that is one: a mount of a bundle with a policy, and clients, in a network namespace
//! without interfaces.

use rustix::mount::{UnmountFlags, unmount};

use crate::*;

const ORIGIN: &str = "registry.opentofu.org/acme";

/// A command without any network.
fn apart(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program).stdin(Stdio::null());
    command
}

/// A mount whose process has no network. Unmounted when it is dropped.
struct Apart(PathBuf);

impl Apart {
    fn mount(trust: &Trust, name: &str) -> Apart {
        let point = trust.path(&format!("mnt-{name}"));
        fs::create_dir(&point).unwrap();
        let mut command = apart(&support::world::program());
        command.args(["mount", "--offline", "--read-only", "--policy", "policy.hcl"]);
        command.args(["--cache-dir", &format!("cache-{name}"), "--state-dir"]);
        command.args([&format!("state-{name}"), &format!("oci-archive:{name}.tar")]).arg(&point);
        command.current_dir(trust.dir.path()).env("HOME", trust.path("home"));
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        Apart(point)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// S16. Clients install what is signed from a bundle; of two providers of which one lost its
/// signature on the way, that one alone fails.
#[test]
fn clients_install_across_the_gap_what_is_signed_and_nothing_else() {
    let alone = support::program("unshare")
        .is_some_and(|_| support::mount::finish(apart(Path::new("true"))).status.success());
    let has_fuse = fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !alone || !has_fuse || !rustix::process::geteuid().is_root() {
        return support::skip("this takes a network namespace and FUSE in it");
    }
    let clients: Vec<PathBuf> =
        ["tofu", "terraform"].into_iter().filter_map(support::program).collect();
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    server.list_referrers();
    let host = server.host();
    let mut references = Vec::new();
    for kind in ["signed", "stripped"] {
        let provider = pack::provider(kind, "1.0.0", &["linux_amd64"]);
        let digest = server.publish(&format!("acme/{kind}"), "1.0.0", &provider);
        sign(&server, &trust, &format!("acme/{kind}"), digest, Some("1.0.0"));
        references.push(format!("{host}/acme/{kind}:1.0.0"));
    }
    trust.policy(&host, "bind = \"tag\"");
    let mapping = format!("{host}/acme/${{type}}");
    let rules = ["--oci-mirror", &*mapping, "--include", "registry.opentofu.org/acme/*"];
    let bundle = |to: &str, more: &[&str], what: &[&str]| {
        let words = ["bundle", "-o", to, "--platform", "linux_amd64"];
        trust.ran(&host, &[&words[..], &rules, more, what].concat());
    };
    let (one, two) = (&*references[0], &*references[1]);
    bundle("oci-archive:whole.tar", &[], &[one, two]);
    bundle("oci-archive:part.tar", &[], &[one]);
    bundle("oci-archive:part.tar", &["--referrers", "none"], &[two]);
    drop(server);
    let (whole, part) = (Apart::mount(&trust, "whole"), Apart::mount(&trust, "part"));
    for (at, client) in clients.iter().enumerate() {
        let init = |mount: &Apart, kinds: &[&str]| {
            let dir = trust.path(&format!("{at}-{}", kinds.join("-")));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            let required: String = kinds
                .iter()
                .map(|kind| format!("    {kind} = {{ source = \"{ORIGIN}/{kind}\" }}\n"))
                .collect();
            let text = format!("terraform {{\n  required_providers {{\n{required}  }}\n}}\n");
            fs::write(dir.join("main.tf"), text).unwrap();
            let configuration = format!(
                "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
                mount.0.join("plugins").display()
            );
            fs::write(dir.join("rc"), configuration).unwrap();
            let mut command = apart(client);
            command.args(["init", "-no-color"]).current_dir(&dir);
            command.env("TF_CLI_CONFIG_FILE", dir.join("rc")).env("CHECKPOINT_DISABLE", "1");
            support::mount::finish(command)
        };
        let both = init(&whole, &["signed", "stripped"]);
        assert!(both.status.success(), "{both:?}");
        assert!(init(&part, &["signed"]).status.success());
        let failed = init(&part, &["stripped"]);
        assert!(!failed.status.success(), "{failed:?}");
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(said.contains("acme/stripped"), "{said}");
    }
    let plugin = format!("plugins/{ORIGIN}/stripped/1.0.0/linux_amd64");
    assert_eq!(errno(fs::read_dir(part.0.join(plugin))), Some(Errno::PERM));
}
