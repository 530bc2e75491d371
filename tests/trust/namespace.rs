//! Behind a gap that is one: a mount of a bundle with a policy, and clients, in a network namespace
//! without interfaces.

use crate::support::gap::{self, Gap, network_calls, traced, without_network};
use crate::*;

const ORIGIN: &str = "registry.opentofu.org/acme";

/// A mount of the bundle `name` with the policy.
fn mounted(trust: &Trust, name: &str) -> Gap {
    let point = trust.path(&format!("mnt-{name}"));
    fs::create_dir(&point).unwrap();
    let archive = format!("oci-archive:{}", trust.path(&format!("{name}.tar")).display());
    let policy = trust.path("policy.hcl").display().to_string();
    Gap::mount(&point, &trust.path(&format!("gap-{name}")), &["--policy", &policy, &archive])
}

/// S16. Clients install what is signed from a bundle; of two providers of which one lost its
/// signature on the way, that one alone fails.
#[test]
fn clients_install_across_the_gap_what_is_signed_and_nothing_else() {
    let has_fuse = fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !gap::can_be_made() {
        return;
    }
    if !has_fuse || !rustix::process::geteuid().is_root() {
        return support::skip("this takes FUSE in a network namespace");
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
    let (whole, part) = (mounted(&trust, "whole"), mounted(&trust, "part"));
    for (at, client) in clients.iter().enumerate() {
        let init = |mount: &Gap, kinds: &[&str]| {
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
                mount.path().join("plugins").display()
            );
            fs::write(dir.join("rc"), configuration).unwrap();
            let mut command = Command::new(client);
            command.args(["init", "-no-color"]).current_dir(&dir);
            command.env("TF_CLI_CONFIG_FILE", dir.join("rc")).env("CHECKPOINT_DISABLE", "1");
            command.env("HOME", trust.path("home"));
            let log = dir.join("connects");
            let output = support::mount::finish(without_network(&traced(&command, &log)));
            assert_eq!(network_calls(&log).1, Vec::<String>::new(), "{client:?} {kinds:?}");
            output
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
    assert_eq!(errno(fs::read_dir(part.path().join(plugin))), Some(Errno::PERM));
    for gap in [whole, part] {
        let (calls, to_network) = gap.network_calls();
        assert!(to_network.is_empty() && calls > 0, "{to_network:?}");
    }
}
