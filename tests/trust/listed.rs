//! `mount --list-signed`: what policies refuse is not listed, so that clients take what is signed.

use crate::support::hostile::{Behaviour, Reply};
use crate::support::mount::Options;
use crate::*;

const ORIGIN: &str = "registry.opentofu.org/acme/hello";

impl TrustBed {
    /// A provider and a module of four versions, of which the last two are not signed.
    fn of_versions() -> TrustBed {
        let bed = TrustBed::start();
        let (server, trust) = (&bed.server, &bed.trust);
        for (at, version) in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"].into_iter().enumerate() {
            let provider = pack::provider("hello", version, &["linux_amd64"]);
            let provider = server.publish("acme/hello", version, &provider);
            let module = server.publish("acme/net", version, &module(&format!("# {version}")));
            if at < 2 {
                sign(server, trust, "acme/hello", provider, Some(version));
                sign(server, trust, "acme/net", module, Some(version));
            }
        }
        trust.policy(&bed.host, "");
        bed
    }

    fn listing_signed(&self) -> Options {
        let policy = self.trust.path("policy.hcl");
        let mapping = format!("{}/acme/${{type}}", self.host);
        Options::new().args([
            "--plain-http",
            &self.host,
            "--policy",
            policy.to_str().unwrap(),
            "--list-signed",
            "--platform",
            "linux_amd64",
            "--oci-mirror",
            &mapping,
            "--include",
            "registry.opentofu.org/acme/*",
            "--provider",
            ORIGIN,
        ])
    }

    /// Requests for lists of referrers.
    fn lists(&self) -> usize {
        self.server.requests().iter().filter(|seen| seen.path.contains("/referrers/")).count()
    }
}

fn names(dir: PathBuf) -> Vec<String> {
    let list = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// S35
#[test]
fn what_is_refused_is_not_listed_and_each_version_is_looked_at_once() {
    let bed = TrustBed::of_versions();
    let host = &bed.host;
    let Some(mut mount) = Mount::start(&[host], bed.listing_signed()) else { return };
    let signed = ["1.0.0", "1.1.0"];
    let check = |mount: &Mount, newest: &str| {
        let mut listed: Vec<&str> = signed.to_vec();
        listed.extend((newest == "1.3.0").then_some("1.3.0"));
        assert_eq!(names(mount.join(format!("plugins/{ORIGIN}"))), listed, "{}", mount.log());
        assert_eq!(names(mount.join(format!("{host}/acme/hello"))), listed);
        assert_eq!(names(mount.join(format!("{host}/acme/net"))), listed);
        let index = fs::read_to_string(mount.join(format!("mirror/{ORIGIN}/index.json"))).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let versions: Vec<&String> = index["versions"].as_object().unwrap().keys().collect();
        assert_eq!(versions, listed);
        let zips = names(mount.join(format!("mirror/{ORIGIN}")));
        assert_eq!(zips.iter().filter(|name| name.ends_with(".zip")).count(), listed.len());
        for range in ["net/~>1.0", "net:>=1.0.0", "net/1.x"] {
            let link = fs::read_link(mount.join(format!("{host}/acme/{range}"))).unwrap();
            assert!(link.to_str().unwrap().ends_with(newest), "{range}: {}", link.display());
        }
    };
    check(&mount, "1.1.0");
    // By its name it is there, and says why it does not open.
    let hidden = format!("plugins/{ORIGIN}/1.2.0/linux_amd64");
    assert_eq!(errno(fs::read_dir(mount.join(&hidden))), Some(Errno::PERM));
    let asked = bed.server.requests().len();
    check(&mount, "1.1.0");
    assert_eq!(bed.server.requests().len(), asked, "each version is looked at once");
    let lists = bed.lists();
    mount.umount();
    assert!(mount.again_with(&[host], bed.listing_signed()).status.success());
    check(&mount, "1.1.0");
    assert_eq!(bed.lists(), lists, "ever");
    mount.umount();
    // What cannot be found out is listed.
    let new = TrustBed::of_versions();
    let digest = |name: &str| Digest::of(&new.server.manifest(name, "1.3.0").unwrap()).to_string();
    let unknown = [digest("acme/hello"), digest("acme/net")];
    new.server.rule(
        move |seen| {
            seen.path.contains("/referrers/") && unknown.iter().any(|d| seen.path.ends_with(d))
        },
        Behaviour::Answer(Reply::error(403, "DENIED")),
    );
    let Some(other) = Mount::start(&[&new.host], new.listing_signed()) else { return };
    assert_eq!(names(other.join(format!("plugins/{ORIGIN}"))), ["1.0.0", "1.1.0", "1.3.0"]);
    assert_eq!(names(other.join(format!("{}/acme/net", new.host))), ["1.0.0", "1.1.0", "1.3.0"]);
}

/// A client that wants the newest version gets the newest that is signed.
#[test]
fn init_takes_the_newest_version_that_is_signed() {
    let bed = TrustBed::of_versions();
    let clients: Vec<PathBuf> =
        ["tofu", "terraform"].into_iter().filter_map(support::program).collect();
    let Some(mount) = Mount::start(&[&bed.host], bed.listing_signed()) else { return };
    for (at, client) in clients.iter().enumerate() {
        let dir = bed.trust.path(&format!("root-{at}"));
        fs::create_dir(&dir).unwrap();
        let text = format!(
            "terraform {{\n  required_providers {{\n    hello = {{ source = \"{ORIGIN}\" }}\n  }}\n}}\n"
        );
        fs::write(dir.join("main.tf"), text).unwrap();
        let plugins = mount.join("plugins");
        let configuration = format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
            plugins.display()
        );
        fs::write(dir.join("rc"), configuration).unwrap();
        let mut command = Command::new(client);
        command.arg("init").current_dir(&dir).env("TF_CLI_CONFIG_FILE", dir.join("rc"));
        command.env("HOME", bed.trust.path("home")).env("CHECKPOINT_DISABLE", "1");
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}\n{}", mount.log());
        let lock = fs::read_to_string(dir.join(".terraform.lock.hcl")).unwrap();
        assert!(lock.contains("version = \"1.1.0\""), "{lock}");
    }
}
