//! What cannot be published: one sentence, and the exit code tells wrong use from failure.

use super::providers::{package, zip_name};
use super::*;
use crate::support::hostile::Hostile;

#[test]
fn what_cannot_be_published_is_told_in_a_sentence() {
    let bed = Bed::new();
    bed.module("network");
    fs::create_dir(bed.path("empty")).unwrap();
    bed.write("out/main.tf", "x");
    std::os::unix::fs::symlink("/etc/hostname", bed.path("out/link.tf")).unwrap();
    bed.write(&format!("mixture/{}", zip_name("linux_amd64")), package("linux_amd64"));
    bed.write("mixture/main.tf", "x");
    let zip = zip_name("linux_amd64");
    bed.write(&zip, package("linux_amd64"));
    bed.write("terraform-provider-hello_0.1.0_SHA256SUMS", format!("{}  {zip}\n", "0".repeat(64)));
    bed.write("file.txt", "x");
    let registry = Hostile::start();
    let host = registry.host();
    let to = |place: &str| format!("{host}/acme/{place}");
    for (code, words, part) in [
        (1, vec!["empty", &to("x:1")], "holds no file"),
        (1, vec!["out", &to("x:1")], "link.tf: it is a link that leads out of the tree"),
        (1, vec!["mixture", &to("x:0.1.0")], "one or the other"),
        (1, vec![&zip, &to("x:0.2.0")], "is of version 0.1.0, and the tag says 0.2.0"),
        (1, vec![&zip, &to("x:latest")], "latest is no version"),
        (1, vec![&zip, "terraform-provider-hello_0.1.0_SHA256SUMS", &to("x")], &"0".repeat(64)),
        (1, vec!["nowhere", &to("x:1")], "nowhere"),
        (1, vec!["file.txt", &to("x:1")], "neither a directory nor a zip archive"),
        (2, vec!["network", &to("x")], "a tag is missing"),
        (2, vec!["network", &to("X:1")], "not a repository name"),
        (2, vec!["network", &to("x:.1")], "not a tag"),
        (2, vec!["network", &to(&format!("x@sha256:{}", "0".repeat(64)))], "cannot be chosen"),
        (2, vec!["network", "x:1"], "REFERENCE is"),
        (2, vec!["network", "oci:store/x:1"], "no component of the path is a HOST"),
        (2, vec![&zip, "network", &to("x")], "each has to be a provider's zip"),
        (2, vec!["--annotation", "x", "network", &to("x:1")], "KEY=VALUE"),
        (2, vec!["--tag", "a b", "network", &to("x:1")], "not a tag"),
        (2, vec!["network"], "tofufs help push"),
    ] {
        let error = bed.refused(code, &[&["--plain-http", &host], &words[..]].concat());
        assert!(error.contains(part), "{words:?}: {error}");
    }
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
}

#[test]
fn another_digest_under_the_tag_is_told_with_both() {
    let bed = Bed::new();
    bed.module("network");
    let registry = Hostile::start();
    let host = registry.host();
    let reference = format!("{host}/acme/network:1.3.0");
    let first = digest_of(&bed.pushed(&["--plain-http", &host, "network", &reference]));
    bed.write("network/more.tf", "# more\n");
    let dry = digest_of(bed.pushed(&["--dry-run", "network", &reference]).lines().next().unwrap());
    let error = bed.refused(1, &["--plain-http", &host, "network", &reference]);
    assert!(
        error.contains(&first) && error.contains(&dry) && error.contains("--allow-overwrite"),
        "{error}"
    );
    let again = bed.pushed(&["--plain-http", &host, "--allow-overwrite", "network", &reference]);
    assert_eq!(digest_of(&again), dry);
    let annotated = bed.pushed(&["--dry-run", "--annotation", "a=b", "network", &reference]);
    assert!(annotated.contains("\"annotations\":{\"a\":\"b\"}"), "{annotated}");
    assert_ne!(digest_of(annotated.lines().next().unwrap()), dry);
}

/// O06: the disk on which packages are made is full.
#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    let bed = Bed::new();
    bed.write("network/main.tf", "x");
    let mut noise = vec![0; 3 << 20];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    bed.write("network/noise.bin", noise);
    let disk = bed.path("disk");
    fs::create_dir(&disk).unwrap();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(e) = mount("tofufs-test", &disk, "tmpfs", flags, Some(c"size=1m,mode=0700")) {
        return support::skip(&format!("a tmpfs cannot be mounted here: {e}"));
    }
    let outcome = std::panic::catch_unwind(|| {
        let error = bed.refused(
            1,
            &["--state-dir", "disk", "network", "oci:store/registry.example/acme/network:1"],
        );
        assert!(error.contains("No space left"), "{error}");
        assert_eq!(fs::read_dir(disk.join("push")).unwrap().count(), 0);
        assert!(!bed.path("store").exists());
    });
    unmount(&disk, UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}
