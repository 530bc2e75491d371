//! What is said to be in the cache is there.

use std::path::Path;
use std::process::Output;

use crate::support::mount::finish;
use crate::support::{SmallDisk, pack};
use crate::{Bench, packages};

/// A store of providers of 5 MiB that cannot be made smaller, and a lock file that holds each.
fn bench(kinds: &[&str]) -> Bench {
    let bench = Bench::new();
    for (at, kind) in kinds.iter().enumerate() {
        let package = pack::provider_zip(kind, "1.0.0", &pack::noise(at as u64 + 1, 5 << 20));
        bench.publish(kind, "1.0.0", &[("linux_amd64", package)], true);
        let lock = format!("provider \"example.com/acme/{kind}\" {{\n  version = \"1.0.0\"\n}}\n");
        bench.write(&format!("{kind}.hcl"), &lock);
    }
    bench
}

/// Runs `words` for some lock files, and then looks offline and without the store whether they were
/// kept in `cache`.
fn kept(bench: &Bench, cache: &Path, words: &[&str], kinds: &[&str]) -> (Output, bool) {
    let files: Vec<String> = kinds.iter().map(|kind| format!("{kind}.hcl")).collect();
    let mut needs: Vec<&str> = files.iter().flat_map(|file| ["--lock-file", file]).collect();
    needs.extend(["--platform", "linux_amd64"]);
    let from = format!("oci:{}", bench.store().display());
    let rule = ["--oci-mirror", "reg.example/providers/${type}", "--include", "example.com/acme/*"];
    let run = |words: &[&str]| {
        let mut command = bench.command([words, &needs, &rule[..]].concat());
        command.env("XDG_CACHE_HOME", cache.parent().unwrap());
        finish(command)
    };
    let output = run(&[words, &["--from", &from]].concat());
    (output, run(&["pull", "--offline"]).status.success())
}

#[test]
fn what_a_full_disk_does_not_keep_is_an_error() {
    for words in [&["pull"][..], &["cache", "pin"]] {
        let bench = bench(&["one", "two"]);
        let Some(disk) = SmallDisk::new(&bench.join("small"), 8 << 20) else { return };
        let cache = disk.path().join("tofufs");
        let (output, is_kept) = kept(&bench, &cache, words, &["one", "two"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && !is_kept, "{words:?}: {output:?}");
        assert!(said.contains("is full") && said.contains("--cache-dir"), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
        // What the disk has room for is kept, whatever lay there before.
        let (output, is_kept) = kept(&bench, &cache, words, &["one"]);
        assert!(output.status.success() && is_kept, "{words:?}: {output:?}");
        let (output, is_kept) = kept(&bench, &cache, words, &["two"]);
        let pinned = words.len() > 1;
        assert_eq!((output.status.success(), is_kept), (!pinned, !pinned), "{words:?}: {output:?}");
    }
}

#[test]
fn what_the_cache_may_not_hold_is_an_error_unless_it_is_pinned() {
    let bench = bench(&["one", "two"]);
    let cache = bench.join("home/.cache/tofufs");
    let small = ["pull", "--cache-size", "8MiB"];
    let (output, is_kept) = kept(&bench, &cache, &small, &["one", "two"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--cache-size") && !is_kept, "{said}");
    // One after the other: what is needed now stays, what was needed before goes.
    for kind in ["one", "two", "one"] {
        let (output, is_kept) = kept(&bench, &cache, &small, &[kind]);
        assert!(output.status.success() && is_kept, "{kind}: {output:?}");
    }
    let (output, is_kept) =
        kept(&bench, &cache, &["cache", "pin", "--cache-size", "8MiB"], &["one", "two"]);
    assert!(output.status.success() && is_kept, "{output:?}");
    // What is pinned leaves no room.
    bench.publish("three", "1.0.0", &packages("three", "1.0.0", &["linux_amd64"]), true);
    bench.write("three.hcl", "provider \"example.com/acme/three\" {\n  version = \"1.0.0\"\n}\n");
    let (output, _) = kept(&bench, &cache, &small, &["three"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("are pinned beside it"), "{said}");
    let (output, is_kept) = kept(&bench, &cache, &["pull"], &["three"]);
    assert!(output.status.success() && is_kept, "{output:?}");
}
