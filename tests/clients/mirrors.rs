//! Many machines that share one download by a pull-through cache.

use std::fs;
use std::time::Duration;

use tofufs::digest::Digest;

use super::support::docker_registry::DockerRegistry;
use super::support::hostile::Hostile;
use super::support::mount::{Mount, Options};
use super::support::{pack, wait_until};
use super::{module_package, tree};

/// R62, and an outage is not an absence, with mirrors.
#[test]
fn many_machines_share_one_download_and_outlive_the_registry() {
    let mut origin = Hostile::start();
    let package = module_package();
    let digest = Digest::of(&package);
    for (tag, artifact) in
        [("1.0.0", pack::module_of(package)), ("2.0.0", pack::module(&[("main.tf", b"# 2\n")]))]
    {
        for blob in &artifact.blobs {
            origin.put_blob(blob);
        }
        origin.put_manifest("acme/net", Some(tag), tofufs::oci::IMAGE, &artifact.root().bytes);
    }
    let Some(cache) = DockerRegistry::pull_through(&format!("http://{}", origin.host())) else {
        return;
    };
    let host = origin.host();
    let mirror = format!("http://{}", cache.host());
    let machine = || {
        let options =
            Options::new().args(["--plain-http", &host, "--mirror", &format!("{host}={mirror}")]);
        Mount::start(&[format!("{host}/acme")], options)
    };
    let fetched = || {
        let gets = origin
            .requests()
            .into_iter()
            .filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"));
        gets.count()
    };
    let kept = cache
        .dir()
        .join("storage/docker/registry/v2/repositories/acme/net/_layers/sha256")
        .join(digest.hex());
    let mut trees = Vec::new();
    let mut after_first = 0;
    for n in 0..3 {
        let Some(mount) = machine() else { return };
        trees.push(tree(&mount.join(&host).join("acme/net/1.0.0")));
        let source = &mount.status()["sources"][0];
        assert_eq!(
            (source["state"].as_str(), source["mirrors"][0].as_str()),
            (Some("ok"), Some(&*mirror))
        );
        if n == 0 {
            // distribution fetches twice, once for who asks first and once for its own store
            assert!(
                wait_until(Duration::from_secs(20), || kept.join("link").exists()),
                "{}",
                cache.log()
            );
            after_first = fetched();
        }
    }
    assert!(trees[0] == trees[1] && trees[1] == trees[2]);
    assert!((1..=2).contains(&after_first), "{after_first}");
    assert_eq!(fetched(), after_first, "what the first machine fetched serves all others");

    origin.stop();
    let Some(mount) = machine() else { return };
    let release = mount.join(&host).join("acme/net:1.0.0");
    assert!(tree(&release) == trees[0], "the mirror stands in");
    assert!(mount.xattr(&release, "user.tofufs.stale").is_some(), "and is not taken for confirmed");
    assert!(
        fs::read_dir(mount.join(&host).join("acme/net:2.0.0")).is_err(),
        "nobody has fetched that one"
    );
}
