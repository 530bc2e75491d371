//! `tofufs pull` and `tofufs cache pin`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, Options, finish};
use crate::support::{layouts, pack};
use crate::{Bench, packages};

/// A store of modules that call each other and of two providers, and a root module that needs most
/// of it.
fn working_directory(mount_point: &str) -> Bench {
    let bench = Bench::new();
    let module = |repo: &str, tag: &str, files: &[(&str, String)]| {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        layouts::add(&bench.store(), "reg.example", repo, tag, &pack::module(&files));
    };
    let call =
        |name: &str, source: &str| format!("module \"{name}\" {{\n  source = \"{source}\"\n}}\n");
    module(
        "modules/network",
        "1.2.0",
        &[
            (
                "main.tf",
                call("sub", "./sub")
                    + &call("unpinned", "oci://reg.example/modules/names")
                    + &call("neighbour", "../../neighbour/1.0.0"),
            ),
            (
                "sub/main.tf",
                call("far", &format!("{mount_point}/reg.example/modules/far:2.0.0//deep")),
            ),
        ],
    );
    module("modules/neighbour", "1.0.0", &[("main.tf", call("astray", "github.com/acme/x"))]);
    module("modules/names", "latest", &[("main.tf", String::new())]);
    module(
        "modules/far",
        "2.0.0",
        &[("deep/main.tf", call("up", "../")), ("main.tf", String::new())],
    );
    module("modules/unused", "1.0.0", &[("main.tf", String::new())]);
    for (kind, versions) in [("one", ["1.0.0", "1.1.0"]), ("two", ["2.0.0", "2.1.0+b"])] {
        for version in versions {
            bench.publish(
                kind,
                version,
                &packages(kind, version, &["linux_amd64", "darwin_arm64"]),
                true,
            );
        }
    }
    bench.write(
        "main.tf",
        &(call("network", &format!("{mount_point}/reg.example/modules/network/1.2.0"))
            + &call("registry", "hashicorp/consul/aws")
            + "terraform {\n  required_providers {\n    one = { source = \"example.com/acme/one\" }\n    two = { source = \
               \"example.com/acme/two\" }\n  }\n}\n"),
    );
    bench.write(
        ".terraform.lock.hcl",
        "provider \"example.com/acme/one\" {\n  version = \"1.0.0\"\n}\n\n\
         provider \"elsewhere.example/x/y\" {\n  version = \"1.0.0\"\n}\n",
    );
    bench
}

fn references(said: &Value) -> Vec<&str> {
    said["artifacts"].as_array().unwrap().iter().map(|a| a["reference"].as_str().unwrap()).collect()
}

fn left_out(said: &Value) -> Vec<&str> {
    said["left_out"].as_array().unwrap().iter().map(|l| l["what"].as_str().unwrap()).collect()
}

const NEEDED: [&str; 6] = [
    "reg.example/modules/far:2.0.0",
    "reg.example/modules/names:latest",
    "reg.example/modules/neighbour:1.0.0",
    "reg.example/modules/network:1.2.0",
    "reg.example/providers/one:1.0.0",
    "reg.example/providers/two:2.1.0_b",
];

#[test]
fn what_a_root_module_needs_is_there_offline_afterwards() {
    // The sources name a mount that exists somewhere else.
    let bench = working_directory("/nowhere/mnt");
    let platform = ["--platform", "linux_amd64"];
    let said = bench.json(&[&["pull", "--root", "."][..], &platform].concat());
    assert_eq!(references(&said), NEEDED);
    assert_eq!(left_out(&said), ["github.com/acme/x", "hashicorp/consul/aws"]);
    let fetched = |said: &Value| -> u64 {
        said["artifacts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["fetched_bytes"].as_u64().unwrap())
            .sum()
    };
    // The modules are in the cache already: they were read to see what they call.
    assert!(fetched(&said) > 0);
    let again = bench.json(
        &[&["pull", "--root", ".", "--lock-file", ".terraform.lock.hcl"][..], &platform].concat(),
    );
    assert_eq!((fetched(&again), references(&again)), (0, NEEDED.to_vec()));
    assert_eq!(
        left_out(&again),
        ["elsewhere.example/x/y", "github.com/acme/x", "hashicorp/consul/aws"]
    );
    let cache = bench.join("home/.cache/tofufs");
    let Some(mount) =
        Mount::start(&["reg.example"], Options::new().args(["--offline"]).cache(cache))
    else {
        return;
    };
    for (path, text) in [
        ("modules/network/1.2.0/sub/main.tf", "far:2.0.0"),
        ("modules/far:2.0.0/deep/main.tf", "../"),
        ("providers/one/1.0.0/linux_amd64/README.md", "a provider"),
    ] {
        let read = fs::read_to_string(mount.join("reg.example").join(path)).unwrap();
        assert!(read.contains(text), "{path}: {read}");
    }
    // What was not asked for is not there: another platform, another version.
    let tags: BTreeSet<_> = fs::read_dir(mount.join("reg.example/providers/one"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(tags.len(), 2);
    let missing =
        fs::read_dir(mount.join("reg.example/providers/one/1.0.0/darwin_arm64")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(rustix::io::Errno::HOSTUNREACH.raw_os_error()));
}

#[test]
fn a_path_below_a_mount_is_the_release_that_is_mounted_there() {
    let store = tempfile::tempdir().unwrap();
    let source = format!("oci:{}", store.path().display());
    let Some(mount) = Mount::start(&[source], Options::new()) else { return };
    let bench = working_directory(&mount.path().display().to_string());
    fs::rename(bench.store().join("reg.example"), store.path().join("reg.example")).unwrap();
    fs::remove_dir(bench.store()).unwrap();
    std::os::unix::fs::symlink(store.path(), bench.store()).unwrap();
    // By a relative path and through a link, too.
    std::os::unix::fs::symlink(mount.path(), bench.work().join("mounted")).unwrap();
    bench.write(
        "more.tf",
        "module \"linked\" {\n  source = \"./mounted/reg.example/modules/unused/1.0.0\"\n}\n",
    );
    let said = bench.json(&["pull", "--root", ".", "--platform", "linux_amd64"]);
    let mut wanted = NEEDED.to_vec();
    wanted.insert(4, "reg.example/modules/unused:1.0.0");
    assert_eq!(references(&said), wanted);
}

#[test]
fn a_module_that_cannot_be_had_is_named_with_the_one_that_calls_it() {
    let bench = working_directory("/nowhere/mnt");
    for (source, words) in [
        (
            "oci://reg.example/modules/network?tag=9.9.9",
            ["reg.example/modules/network:9.9.9", "no such release"],
        ),
        (
            "/nowhere/mnt/reg.example/modules/network/9.9.9",
            ["reg.example/modules/network:9.9.9", "no such release"],
        ),
        ("/nowhere/else", ["/nowhere/else", "no such directory"]),
        ("./none", ["none", "no such directory"]),
        (
            "/nowhere/mnt/reg.example/modules/network:1.2.0//none",
            ["no directory", "reg.example/modules/network:1.2.0"],
        ),
        ("oci://reg.example/providers/one?tag=1.0.0", ["provider release", "module \"x\""]),
    ] {
        bench.write("more.tf", &format!("module \"x\" {{\n  source = \"{source}\"\n}}\n"));
        let said = bench.fails(&["pull", "--root", "."]);
        assert!(words.iter().all(|word| said.contains(word)), "{source}: {said}");
    }
}

#[test]
fn references_and_patterns_are_fetched_from_a_registry_once() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let bench = Bench::new();
    let host = registry.host();
    for tag in ["1.0.0", "1.1.0", "2.0.0"] {
        registry.push("acme/network").artifact(tag, &pack::module(&[("main.tf", tag.as_bytes())]));
    }
    registry
        .push("acme/one")
        .artifact("1.0.0", &pack::provider("one", "1.0.0", &["linux_amd64", "darwin_arm64"]));
    let pull = |references: &[&str]| {
        let references = references.iter().map(|reference| format!("{host}/acme/{reference}"));
        let words = ["pull", "--json", "--plain-http", &host, "--platform", "darwin_arm64"]
            .map(str::to_owned);
        finish(bench.command(words.into_iter().chain(references)))
    };
    let output = pull(&["network:1.*", "one:1.0.0"]);
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(references(&said).len(), 3, "{said}");
    assert_eq!(said["requests"]["blob"], 3, "{said}");
    let output = pull(&["network:1.*", "one:1.0.0"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["requests"]["blob"], 0, "{said}");
    let words = ["pull", "--json", "--plain-http", &host, "--deadline", "3s"].map(str::to_owned);
    for (reference, rule) in [
        ("network:3.*", "none of its 3 tags"),
        (
            "network:3.0.0",
            "acme/network:3.0.0: there is no tag 3.0.0; there are 2.0.0, 1.1.0, 1.0.0",
        ),
        ("nothing:1.0.0", "acme/nothing:1.0.0: there is no repository acme/nothing"),
    ] {
        let output = pull(&[reference]);
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && line.contains(rule), "{line}");
    }
    assert_eq!(finish(bench.command(["pull"])).status.code(), Some(2));
    // Without the registry its last answers count, and that is said.
    drop(registry);
    let output =
        finish(bench.command(words.into_iter().chain([format!("{host}/acme/network:1.*")])));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("its last answers were used"), "{said}");
}

#[test]
fn what_is_pinned_outlives_a_full_cache_and_a_pruned_one() {
    let bench = working_directory("/nowhere/mnt");
    let lock = ["--lock-file", ".terraform.lock.hcl"];
    let pinned = bench.json(&[&["cache", "pin", "--platform", "linux_amd64"][..], &lock].concat());
    assert_eq!(references(&pinned), ["reg.example/providers/one:1.0.0"]);
    bench.json(&["cache", "pin", "reg.example/modules/far:2.*"]);
    bench.json(&["pull", "reg.example/modules/unused:1.0.0"]);
    let cache = |words: &[&str]| {
        let output = finish(bench.command([&["cache", "--json"][..], words].concat()));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let before = cache(&["info"]);
    assert!(
        before["pinned"]["objects"].as_u64().unwrap() >= 5
            && before["objects"].as_u64() > before["pinned"]["objects"].as_u64()
    );
    cache(&["prune"]);
    let after = cache(&["info"]);
    assert_eq!(
        (&after["objects"], &after["bytes"]),
        (&before["pinned"]["objects"], &before["pinned"]["bytes"])
    );
    // All of it is still there, without any source.
    let output =
        finish(bench.command(["pull", "--offline", "--json", "reg.example/modules/far:2.0.0"]));
    assert!(output.status.success(), "{output:?}");
    let listed = bench.json(&["cache", "pin"]);
    assert_eq!(listed["pins"].as_array().unwrap().len(), 2, "{listed}");
    bench.json(&[&["cache", "pin", "--remove"][..], &lock].concat());
    assert!(
        bench
            .fails(&[&["cache", "pin", "--remove"][..], &lock].concat())
            .contains("none of that is pinned")
    );
    bench.json(&["cache", "pin", "--remove", "reg.example/modules/far:*"]);
    cache(&["prune"]);
    assert_eq!(cache(&["info"])["objects"], 0);
}
