//! What other tools have pushed is read back byte for byte, from registries that want a login.

use std::fs;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::{pack, peers};
use crate::{Entry, logged_in, module_package, tree, unzipped};
use tofufs::digest::Digest;

const KINDS: [Access; 2] = [Access::Htpasswd, Access::Token];

#[test]
fn a_module_that_another_tool_pushed_is_the_tree_of_its_package() {
    let package = module_package();
    let Some(wanted) = unzipped(&package) else { return };
    assert!(wanted.values().any(|e| matches!(e, Entry::File { executable: true, .. })));
    for access in KINDS {
        let Some(registry) = DockerRegistry::start(access, true) else { return };
        let mut repos = Vec::new();
        if peers::oras_push_module(&registry, "acme/by-oras", "1.0.0", &package) {
            repos.push("acme/by-oras");
        }
        if peers::skopeo_copy(
            &registry,
            "acme/by-skopeo",
            "1.0.0",
            &pack::module_of(package.clone()),
        ) {
            repos.push("acme/by-skopeo");
        }
        let host = registry.host();
        let Some(mount) = Mount::start(&[format!("{host}/acme")], logged_in(&registry)) else {
            return;
        };
        for repo in repos {
            let by_tag = mount.join(format!("{host}/{repo}/1.0.0"));
            assert_eq!(tree(&by_tag), wanted, "{access:?} {repo}");
            let digest = mount.xattr(&by_tag, "user.oci.digest").expect("a digest");
            for spelling in [format!("{host}/{repo}:1.0.0"), format!("{host}/{repo}@{digest}")] {
                assert_eq!(tree(&mount.join(&spelling)), wanted, "{access:?} {spelling}");
            }
        }
        // The files are there under three names and two repositories; the package is one blob.
        assert!(mount.requests().1 <= 1, "{:?}", mount.status());
    }
}

#[test]
fn a_provider_release_is_read_per_platform_unpacked_and_as_the_untouched_zip() {
    let platforms = ["linux_amd64", "darwin_arm64", "windows_amd64"];
    for access in KINDS {
        let Some(registry) = DockerRegistry::start(access, true) else { return };
        let packages: Vec<_> = (0..)
            .zip(platforms)
            .map(|(seed, platform)| {
                (platform, pack::provider_zip("hello", "0.1.0", &crate::noise(seed, 1 << 20)))
            })
            .collect();
        registry.push("acme/providers/hello").artifact("0.1.0", &pack::provider_of(&packages));
        let host = registry.host();
        let Some(mount) = Mount::start(&[&host], logged_in(&registry)) else { return };
        let release = mount.join(format!("{host}/acme/providers/hello/0.1.0"));
        let mut listed: Vec<_> = fs::read_dir(&release)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        listed.sort();
        let mut wanted: Vec<_> =
            platforms.iter().flat_map(|p| [p.to_string(), format!("{p}.zip")]).collect();
        wanted.sort();
        assert_eq!(listed, wanted);
        for (platform, package) in &packages {
            let zip = release.join(format!("{platform}.zip"));
            assert_eq!(fs::metadata(&zip).unwrap().len(), package.len() as u64);
            assert!(
                fs::read(&zip).unwrap() == *package,
                "{access:?} {platform}: the zip is not the one pushed"
            );
            let zh = mount.xattr(&zip, "user.tofu.zh").expect("a hash");
            assert_eq!(zh, format!("zh:{}", Digest::of(package).hex()));
            if let Some(tree_of_zip) = unzipped(package) {
                assert_eq!(tree(&release.join(platform)), tree_of_zip, "{access:?} {platform}");
            }
        }
        assert_eq!(mount.requests().1, platforms.len() as u64);
    }
}

/// Requests beyond authentication for the cold open of one file.
#[test]
fn a_cold_open_of_one_file_needs_few_requests() {
    let Some(registry) = DockerRegistry::start(Access::Token, true) else { return };
    registry.push("acme/network").artifact("1.0.0", &pack::module_of(module_package()));
    let host = registry.host();
    for (path, most) in [("acme/network:1.0.0/main.tf", 3), ("acme/network/1.0.0/main.tf", 5)] {
        let Some(mount) = Mount::start(&[&host], logged_in(&registry)) else { return };
        assert_eq!(
            mount.requests(),
            (1, 0),
            "the look when the mount begins, which the first use needs too"
        );
        fs::read(mount.join(&host).join(path)).unwrap();
        let (total, blob) = mount.requests();
        eprintln!("{path}: {total} requests");
        assert!(total <= most && blob == 1, "{path}: {total} requests, {blob} of blobs");
    }
}

#[test]
fn a_long_listing_of_400_tags_is_one_request() {
    let Some(registry) = DockerRegistry::start(Access::Htpasswd, true) else { return };
    let artifact = pack::module(&[("main.tf", b"")]);
    let push = registry.push("acme/network");
    push.artifact("1.0.0", &artifact);
    for patch in 1..400 {
        push.manifest(&format!("1.0.{patch}"), artifact.root());
    }
    let host = registry.host();
    let Some(mount) = Mount::start(&[format!("{host}/acme/network")], logged_in(&registry)) else {
        return;
    };
    let printed =
        crate::sh("ls", ["-l".as_ref(), mount.join(format!("{host}/acme/network")).as_os_str()]);
    assert_eq!(printed.lines().count(), 401);
    let (total, blob) = mount.requests();
    assert_eq!((total, blob), (1, 0), "one list is one request");
}

/// However short the time to live, what a lookup has asked for is good for that lookup.
#[test]
fn a_tag_that_is_never_believed_is_asked_for_once_by_a_lookup() {
    let Some(registry) = DockerRegistry::start(Access::Htpasswd, true) else { return };
    registry.push("acme/network").artifact("1.0.0", &pack::module(&[("main.tf", b"")]));
    let host = registry.host();
    let options = logged_in(&registry).args(["--tag-ttl", "0s"]);
    let Some(mount) = Mount::start(&[format!("{host}/acme/network")], options) else { return };
    let release = format!("{host}/acme/network:1.0.0");
    let (look, _) = mount.requests();
    for lookups in 1..=3 {
        assert!(
            mount.xattr(&release, "user.oci.digest").is_some(),
            "a digest is known after lookup {lookups}"
        );
        assert_eq!(mount.requests(), (look + lookups, 0));
    }
}
