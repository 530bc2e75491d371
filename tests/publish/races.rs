//! O35: writers that meet.

use super::providers::{package, zip_name};
use super::*;
use crate::support::hostile::{Behaviour, Hostile};
use tofufs::digest::Digest;

/// Holds up whoever uploads first, until somebody else has come.
fn hold_up_the_first(registry: &Hostile) {
    let pause = Duration::from_secs(2);
    registry.script(
        |seen| seen.method == "POST",
        [Behaviour::Slow { piece: 1, pause }, Behaviour::Slow { piece: 1, pause }],
    );
}

fn start(bed: &Bed, words: &[&str]) -> std::process::Child {
    bed.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn of_two_pushes_to_one_tag_one_wins_and_the_other_is_told_both_digests() {
    let bed = Bed::new();
    let registry = Hostile::start();
    hold_up_the_first(&registry);
    let host = registry.host();
    let reference = format!("{host}/acme/network:1");
    let mut digests = Vec::new();
    let mut pushes = Vec::new();
    for name in ["a", "b"] {
        bed.write(&format!("{name}/main.tf"), name);
        digests
            .push(digest_of(bed.pushed(&["--dry-run", name, &reference]).lines().next().unwrap()));
        pushes.push(start(&bed, &["--plain-http", &host, name, &reference]));
    }
    let outputs: Vec<Output> =
        pushes.into_iter().map(|push| push.wait_with_output().unwrap()).collect();
    let winner = outputs.iter().position(|output| output.status.success()).expect("one wins");
    let loser = &outputs[1 - winner];
    let text = String::from_utf8_lossy(&loser.stderr);
    assert_eq!(loser.status.code(), Some(1), "{outputs:?}");
    assert!(digests.iter().all(|digest| text.contains(digest)), "{text}");
    let there = registry.manifest("acme/network", "1").unwrap();
    assert_eq!(Digest::of(&there).to_string(), digests[winner]);
}

#[test]
fn two_platforms_pushed_at_the_same_time_are_both_in_the_release() {
    let bed = Bed::new();
    let registry = Hostile::start();
    hold_up_the_first(&registry);
    let host = registry.host();
    let reference = format!("{host}/acme/hello:0.1.0");
    let pushes: Vec<_> = ["linux_amd64", "darwin_arm64"]
        .iter()
        .map(|platform| {
            bed.write(&zip_name(platform), package(platform));
            start(&bed, &["--plain-http", &host, &zip_name(platform), &reference])
        })
        .collect();
    for push in pushes {
        let output = push.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let index: serde_json::Value =
        serde_json::from_slice(&registry.manifest("acme/hello", "0.1.0").unwrap()).unwrap();
    let platforms: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]["os"]).collect();
    assert_eq!(platforms, ["darwin", "linux"]);
}
