//! What a client's walk costs, and that nothing makes it fail.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::docker_registry::DockerRegistry;
use crate::support::mount::{Mount, Options};
use crate::support::{pack, wait_until};
use crate::{declared, here, mapped, names, registry, walk};

/// More tags for a release that was pushed as `1.0.0`, without a request each: as the server's own
/// files.
fn tag_again(registry: &DockerRegistry, repo: &str, tags: impl Iterator<Item = String>) {
    let dir = registry
        .dir()
        .join("storage/docker/registry/v2/repositories")
        .join(repo)
        .join("_manifests/tags");
    let link = fs::read(dir.join("1.0.0/current/link")).unwrap();
    for tag in tags {
        fs::create_dir_all(dir.join(&tag).join("current")).unwrap();
        fs::write(dir.join(&tag).join("current/link"), &link).unwrap();
    }
}

const PROVIDERS: usize = 20;
const VERSIONS: usize = 100;

#[test]
fn a_walk_of_plugins_costs_one_request_per_provider_and_none_again() {
    let Some(mut registry) = registry() else { return };
    let release = pack::provider("p", "1.0.0", &[&here()]);
    let providers: Vec<String> = (0..PROVIDERS).map(|i| format!("acme/p{i}")).collect();
    for provider in &providers {
        let repo = format!("mirror/{provider}");
        registry.push(&repo).artifact("1.0.0", &release);
        tag_again(&registry, &repo, (1..VERSIONS).map(|minor| format!("1.{minor}.0")));
    }
    let flags = declared(&providers.iter().map(String::as_str).collect::<Vec<_>>());
    let options = mapped(&registry).args(flags).args(["--tag-ttl", "1h"]);
    let Some(mut mount) = Mount::start(&[registry.host()], options) else { return };
    for (round, requests) in [("cold", PROVIDERS as u64), ("warm", PROVIDERS as u64)] {
        let began = Instant::now();
        assert_eq!(walk(&mount.join("plugins")).len(), PROVIDERS * VERSIONS);
        eprintln!("{PROVIDERS} providers of {VERSIONS} versions, {round}: {:?}", began.elapsed());
        assert_eq!(mount.requests(), (requests, 0), "{round}");
    }
    registry.stop();
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    let began = Instant::now();
    assert_eq!(walk(&mount.join("plugins")).len(), PROVIDERS * VERSIONS);
    eprintln!(
        "{PROVIDERS} providers of {VERSIONS} versions, registry stopped: {:?}",
        began.elapsed()
    );
}

#[test]
fn a_walk_of_mirror_costs_two_small_requests_per_version_more() {
    let Some(registry) = registry() else { return };
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        registry
            .push("mirror/acme/one")
            .artifact(version, &pack::provider("one", version, &[&here(), "plan9_mips"]));
    }
    let options = mapped(&registry).args(declared(&["acme/one"])).args(["--tag-ttl", "1h"]);
    let Some(mut mount) = Mount::start(&[registry.host()], options) else { return };
    for _ in 0..2 {
        let found = walk(&mount.join("mirror"));
        // index.json is at the depth of the packages.
        assert_eq!(found.len(), 3 + 1);
        assert_eq!(mount.requests(), (1 + 2 * 3, 0));
    }
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    assert_eq!(walk(&mount.join("mirror")).len(), 4);
    assert_eq!(mount.requests(), (0, 0), "what was learnt is kept");
    // Where the list of tags has to be asked for again, all the rest need not be, whoever has read
    // what meanwhile.
    let again = mapped(&registry).args(declared(&["acme/one"])).args(["--tag-ttl", "1s"]);
    assert!(mount.umount().status.success());
    assert!(mount.again_with(&[registry.host()], again).status.success());
    let zip = mount
        .join("mirror/registry.example.com/acme/one")
        .join(format!("terraform-provider-one_1.0.0_{}.zip", here()));
    fs::read(&zip).unwrap();
    let package = mount.join("plugins/registry.example.com/acme/one/1.1.0").join(here());
    fs::read(package.join("README.md")).unwrap();
    // The list is asked for again twice: by then what was learnt of single versions is old, too.
    for _ in 0..2 {
        let (before, _) = mount.requests();
        let one = mount.join("plugins/registry.example.com/acme/one");
        assert!(wait_until(Duration::from_secs(30), || names(&one).len() == 3
            && mount.requests().0 > before));
    }
    let (before, _) = mount.requests();
    assert_eq!(walk(&mount.join("mirror")).len(), 4);
    let (after, _) = mount.requests();
    assert!(after <= before + 1, "{before} {after}");
}

/// Providers that cannot be reached, do not exist, are refused or are broken, beside one that is
/// fine.
#[test]
fn no_provider_fails_another() {
    let Some(registry) = registry() else { return };
    registry
        .push("mirror/acme/good")
        .artifact("1.0.0", &pack::provider("good", "1.0.0", &[&here()]));
    // What has the tag of a version need not be a provider, and what is one need not have this
    // platform.
    registry.push("mirror/acme/module").artifact("1.0.0", &pack::module(&[("main.tf", b"")]));
    registry
        .push("mirror/acme/other")
        .artifact("1.0.0", &pack::provider("other", "1.0.0", &["plan9_mips"]));
    registry
        .push("mirror/acme/broken")
        .artifact("1.0.0", &pack::provider_of(&[(&here(), b"no zip".to_vec())]));
    let gone = "127.0.0.1:9";
    let template = format!("{gone}/${{namespace}}/${{type}}");
    let options = mapped(&registry)
        .args([
            "--oci-mirror",
            &template,
            "--include",
            "gone.example.com/*/*",
            "--plain-http",
            gone,
        ])
        .args(declared(&["acme/good", "acme/module", "acme/other", "acme/broken", "acme/missing"]))
        .args(["--provider", "gone.example.com/acme/away", "--deadline", "2s"]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };

    let found = walk(&mount.join("plugins"));
    let plugins = mount.join("plugins/registry.example.com/acme");
    let package = |name: &str| plugins.join(name).join("1.0.0").join(here());
    assert!(found.contains(&package("good")));
    assert_eq!(names(&plugins), ["broken", "good", "missing", "module", "other"]);
    assert!(names(&plugins.join("missing")).is_empty());
    assert_eq!(mount.xattr("plugins/registry.example.com/acme/missing", "user.tofufs.error"), None);

    let away = Path::new("plugins/gone.example.com/acme/away");
    assert!(names(&mount.join(away)).is_empty(), "never seen, not reachable: empty");
    let error = mount.xattr(away, "user.tofufs.error").expect("and it says why");
    assert!(error.contains(gone), "{error}");
    assert!(mount.log().contains(&error), "{}", mount.log());
    let errno = fs::symlink_metadata(mount.join(away).join("1.0.0")).unwrap_err().raw_os_error();
    assert_eq!(
        errno,
        Some(rustix::io::Errno::HOSTUNREACH.raw_os_error()),
        "a name in it is not said to be absent"
    );
    let errno = fs::symlink_metadata(mount.join("plugins/gone.example.com/acme/never"))
        .unwrap_err()
        .raw_os_error();
    assert_eq!(errno, Some(rustix::io::Errno::HOSTUNREACH.raw_os_error()));

    assert_eq!(names(&package("good")).len(), 2);
    // Taken to be there until it is entered; then the truth.
    assert!(names(&plugins.join("other/1.0.0")) == [here()]);
    assert_eq!(fs::read_dir(package("other")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(names(&plugins.join("other/1.0.0")).is_empty());
    assert_eq!(fs::read_dir(package("module")).unwrap_err().raw_os_error(), Some(libc_enoent()));
    assert!(fs::read_dir(package("broken")).is_err());
    assert_eq!(walk(&mount.join("plugins")).iter().filter(|p| **p == package("good")).count(), 1);
    // mirror/ has to know sizes, and cannot of these.
    let found = walk(&mount.join("mirror"));
    let zip = format!("terraform-provider-good_1.0.0_{}.zip", here());
    assert!(found.iter().any(|path| path.ends_with(&zip)), "{found:?}");
    assert!(
        !found.iter().any(|path| path.to_string_lossy().contains("provider-module_")),
        "{found:?}"
    );
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

#[test]
fn platforms_are_asked_for_once_where_that_is_wanted() {
    let Some(mut registry) = registry() else { return };
    let push = registry.push("mirror/acme/one");
    push.artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here(), "plan9_mips"]));
    push.artifact("1.1.0", &pack::provider("one", "1.1.0", &["plan9_mips"]));
    let options = mapped(&registry).args(declared(&["acme/one"])).args([
        "--verify-platforms",
        "--platform",
        &here(),
        "--platform",
        "plan9_mips",
        "--tag-ttl",
        "1h",
    ]);
    let Some(mut mount) = Mount::start(&[registry.host()], options) else { return };
    let one = mount.join("plugins/registry.example.com/acme/one");
    let mut both = [here(), "plan9_mips".to_owned()];
    both.sort();
    let look = || {
        assert_eq!(names(&one.join("1.0.0")), both);
        assert_eq!(names(&one.join("1.1.0")), ["plan9_mips"]);
    };
    look();
    assert_eq!(mount.requests(), (3, 0), "a list of tags, and an index each");
    look();
    registry.stop();
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    look();
    assert_eq!(mount.requests(), (0, 0));
}

#[test]
fn offline_shows_what_was_seen() {
    let Some(registry) = registry() else { return };
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here()]));
    let Some(mut mount) = Mount::start(&[registry.host()], mapped(&registry)) else { return };
    let seen = (walk(&mount.join("plugins")), walk(&mount.join("mirror")));
    assert_eq!((seen.0.len(), seen.1.len()), (1, 2));
    assert!(mount.umount().status.success());
    let host = registry.host();
    let options = Options::new().args(crate::mirror_flags(&host)).args(["--offline"]);
    assert!(mount.again_with(&[host], options).status.success());
    assert_eq!((walk(&mount.join("plugins")), walk(&mount.join("mirror"))), seen);
}
