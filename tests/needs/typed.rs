//! What is typed: nothing is made on disk by an address or a path that was taken for the other.

use std::fs;
use std::path::Path;

use crate::Bench;
use crate::support::mount::finish;

/// Everything below a directory.
fn all_below(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for entry in
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() && !entry.is_symlink() {
            found.extend(all_below(&entry));
        }
        found.push(entry.display().to_string());
    }
    found.sort();
    found
}

#[test]
fn a_target_that_is_mistyped_makes_nothing_on_disk() {
    let bench = Bench::new();
    bench.write("network/main.tf", "");
    let before = all_below(&bench.join("."));
    // From the root of the file system, where an address that is taken for a path would lead.
    for words in [
        &["push", "network", "oci://tofufs.invalid/acme/network:1"][..],
        &["push", "network", "oci:///tofufs.invalid/acme/network:1"],
        &["push", "network", "./tofufs.invalid/acme/network:1"],
        &["copy", "a.b/c:1", "oci://tofufs.invalid/acme"],
        &["copy", "a.b/c:1", "oci:///tofufs.invalid"],
        &["copy", "a.b/c:1", "oci-archive://tofufs.invalid.tar"],
        &["bundle", "a.b/c:1", "-o", "oci://tofufs.invalid/acme"],
        &["bundle", "a.b/c:1", "-o", "oci:///tofufs.invalid"],
        &["bundle", "a.b/c:1", "-o", "oci-archive:///tofufs.invalid.tar"],
    ] {
        let output = finish(bench.command(words));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert_eq!(all_below(&bench.join(".")), before, "{words:?}");
        for made in ["/tofufs.invalid", "/tofufs.invalid.tar"] {
            assert!(!Path::new(made).exists(), "{words:?} made {made}");
        }
    }
}
