//! `tofufs lock`.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use serde_json::Value;
use tofufs::digest::Digest;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::hostile::Hostile;
use crate::support::mount::finish;
use crate::support::{layouts, pack};
use crate::{Bench, add_to_mirror, clients, packages};

const PLATFORMS: [&str; 12] = [
    "darwin_amd64",
    "darwin_arm64",
    "freebsd_386",
    "freebsd_amd64",
    "freebsd_arm",
    "linux_386",
    "linux_amd64",
    "linux_arm",
    "linux_arm64",
    "windows_386",
    "windows_amd64",
    "windows_arm64",
];

/// The root module that requires these, each `NAME CONSTRAINTS`.
fn requiring(providers: &[&str]) -> String {
    let lines = providers.iter().map(|provider| {
        let (kind, version) = provider.split_once(' ').unwrap_or((provider, ""));
        let version =
            if version.is_empty() { String::new() } else { format!(", version = \"{version}\"") };
        format!("    {kind} = {{ source = \"example.com/acme/{kind}\"{version} }}\n")
    });
    format!("terraform {{\n  required_providers {{\n{}  }}\n}}\n", lines.collect::<String>())
}

fn hashes(packages: &[(&str, Vec<u8>)]) -> Vec<String> {
    let both = |package: &[u8]| [pack::h1(package), format!("zh:{}", Digest::of(package).hex())];
    let mut all: Vec<String> = packages.iter().flat_map(|(_, package)| both(package)).collect();
    all.sort();
    all
}

fn block(kind: &str, version: &str, constraints: &str, hashes: &[String]) -> String {
    let hashes: String = hashes.iter().map(|hash| format!("    \"{hash}\",\n")).collect();
    let version = match constraints {
        "" => format!("  version = \"{version}\"\n"),
        constraints => {
            format!("  version     = \"{version}\"\n  constraints = \"{constraints}\"\n")
        }
    };
    format!("provider \"example.com/acme/{kind}\" {{\n{version}  hashes = [\n{hashes}  ]\n}}\n")
}

#[test]
fn ten_providers_of_twelve_platforms_are_locked_without_downloading_one() {
    let registry = Hostile::start();
    let bench = Bench::new();
    let kinds: Vec<String> = (0..10).map(|n| format!("kind{n}")).collect();
    let mut text = "# This file is maintained automatically by \"tofu init\".\n\
         # Manual edits may be lost in future updates.\n"
        .to_owned();
    let mirror = bench.join("mirror");
    for kind in &kinds {
        let packages = packages(kind, "1.2.0", &PLATFORMS);
        let release = pack::annotated_provider_of(&packages);
        for blob in &release.blobs {
            registry.put_blob(blob);
        }
        for document in &release.manifests {
            registry.put_manifest(
                &format!("providers/{kind}"),
                Some("1.2.0"),
                document.media_type,
                &document.bytes,
            );
        }
        text += &format!("\n{}", block(kind, "1.2.0", "~> 1.0", &hashes(&packages)));
        add_to_mirror(&mirror, kind, "1.2.0", &packages);
    }
    let required: Vec<String> = kinds.iter().map(|kind| format!("{kind} ~> 1.0")).collect();
    bench.write("main.tf", &requiring(&required.iter().map(String::as_str).collect::<Vec<_>>()));
    let host = registry.host();
    let template = format!("{host}/providers/${{type}}");
    let words = [
        "lock",
        "--json",
        "--plain-http",
        &host,
        "--oci-mirror",
        &template,
        "--include",
        "example.com/acme/*",
    ];
    let began = std::time::Instant::now();
    let output = finish(bench.command(words));
    eprintln!("tofufs lock of 10 providers x 12 platforms: {:?}", began.elapsed());
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(bench.lock_file(), text);
    // A list of tags, an index and twelve manifests for each.
    assert_eq!(
        (said["requests"]["blob"].as_u64(), said["requests"]["total"].as_u64()),
        (Some(0), Some(140)),
        "{said}"
    );
    assert!(
        said["providers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p["computed"] == serde_json::json!([])),
        "{said}"
    );
    // The clients take the file, and have nothing to add to it.
    for client in clients() {
        let output =
            bench.client(&client, &mirror, &["init", "-input=false", "-lockfile=readonly"]);
        assert!(output.status.success(), "{output:?}");
        let output = bench.client(&client, &mirror, &["init", "-input=false"]);
        assert!(output.status.success() && bench.lock_file() == text, "{output:?}");
        fs::remove_dir_all(bench.work().join(".terraform")).unwrap();
        let began = std::time::Instant::now();
        let mirrored = format!("-fs-mirror={}", mirror.display());
        let platforms = PLATFORMS.map(|platform| format!("-platform={platform}"));
        let mut words = vec!["providers", "lock", &mirrored];
        words.extend(platforms.iter().map(String::as_str));
        let output = bench.client(&client, &mirror, &words);
        eprintln!("{} providers lock from a local mirror: {:?}", client.display(), began.elapsed());
        // Terraform always puts its own name into the first line.
        let same = bench.lock_file().replace("terraform init", "tofu init") == text;
        assert!(output.status.success() && same, "{}", String::from_utf8_lossy(&output.stderr));
        bench.write(".terraform.lock.hcl", &text);
    }
    // And again from the cache alone, with the registry gone.
    drop(registry);
    fs::remove_file(bench.work().join(".terraform.lock.hcl")).unwrap();
    let output = finish(bench.command(words.iter().chain(&["--offline"])));
    assert!(output.status.success() && bench.lock_file() == text, "{output:?}");
}

#[test]
fn a_registry_that_wants_a_login_is_logged_in_to() {
    let Some(registry) = DockerRegistry::start(Access::Htpasswd, true) else { return };
    let bench = Bench::new();
    let packages = packages("a", "1.0.0+b1", &["linux_amd64", "darwin_arm64"]);
    registry.push("providers/a").artifact("1.0.0_b1", &pack::annotated_provider_of(&packages));
    bench.write("main.tf", &requiring(&["a"]));
    let template = format!("{}/providers/${{type}}", registry.host());
    let ca = registry.ca_file().expect("an authority").display().to_string();
    let words =
        ["lock", "--oci-mirror", &template, "--include", "example.com/acme/*", "--ca-file", &ca];
    let output = finish(bench.command(words));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("no credential"), "{said}");
    let config = registry.write_docker_config(&bench.join("login"));
    let mut command = bench.command(words);
    command.env("REGISTRY_AUTH_FILE", config);
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    assert!(
        bench.lock_file().ends_with(&block("a", "1.0.0+b1", "", &hashes(&packages))),
        "{}",
        bench.lock_file()
    );
}

#[test]
fn what_is_locked_stays_and_what_is_missing_is_added() {
    let bench = Bench::new();
    let (old, new) = (
        packages("a", "1.0.0", &["linux_amd64", "darwin_arm64"]),
        packages("a", "1.1.0", &["linux_amd64"]),
    );
    bench.publish("a", "1.0.0", &old, true);
    bench.publish("a", "1.1.0", &new, true);
    bench.write("main.tf", &requiring(&["a >= 1.0"]));
    // A lock that was made on another platform, in a mirror of unpacked packages (D10), and edited
    // by hand.
    let foreign = format!(
        "# by hand\n\nprovider \"example.com/acme/a\" {{\n  version     = \"1.0.0\" # not 1.1.0, see #7\n  constraints = \
         \">= 1.0.0\"\n  hashes = [\n    \"{}\",\n  ]\n}}\n\nprovider \"other.example/x/y\" {{\n  version = \"3.0.0\"\n}}\n",
        pack::h1(&old[1].1)
    );
    bench.write(".terraform.lock.hcl", &foreign);
    let said = bench.fails(&["lock", "--check"]);
    assert!(
        said.contains("3 hashes of example.com/acme/a 1.0.0") && bench.lock_file() == foreign,
        "{said}"
    );
    let said = bench.json(&["lock", "--platform", "linux_amd64"]);
    assert_eq!(said["providers"][0]["added"].as_array().unwrap().len(), 2, "{said}");
    let locked = bench.lock_file();
    assert!(
        locked.contains("# not 1.1.0, see #7")
            && locked.contains("# by hand")
            && locked.contains("other.example/x/y")
    );
    for hash in hashes(&old).iter().filter(|hash| !hash.ends_with(&Digest::of(&old[1].1).hex())) {
        assert!(locked.contains(hash), "{hash} in {locked}");
    }
    bench.json(&["lock"]);
    bench.json(&["lock", "--check"]);
    // A constraint that the locked version does not fulfil selects another one, whose hashes are
    // its own.
    bench.write("main.tf", &requiring(&["a ~> 1.1"]));
    assert!(bench.fails(&["lock", "--check"]).contains("1.1.0 (it has 1.0.0"));
    bench.json(&["lock"]);
    let entry = tofufs::lockfile::LockFile::parse(&bench.lock_file()).unwrap();
    let (_, lock) = entry.locks().next().unwrap();
    assert_eq!(lock.version.to_string(), "1.1.0");
    assert_eq!(lock.hashes.iter().map(|hash| hash.to_string()).collect::<Vec<_>>(), hashes(&new));
}

/// As after a kill between making the new file and putting it into its place.
#[test]
fn what_a_killed_lock_left_is_cleared_by_the_next() {
    let bench = Bench::new();
    bench.publish("a", "1.0.0", &packages("a", "1.0.0", &["linux_amd64"]), true);
    bench.write("main.tf", &requiring(&["a"]));
    let left = format!(".terraform.lock.hcl.{:032x}.part", 1);
    bench.write(&left, "provider");
    bench.json(&["lock"]);
    let mut names: Vec<_> =
        fs::read_dir(bench.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".terraform.lock.hcl", "main.tf"]);
}

/// A check that could not be made has failed.
#[test]
fn a_check_of_nothing_is_no_success() {
    let bench = Bench::new();
    bench.publish("a", "1.0.0", &packages("a", "1.0.0", &["linux_amd64"]), true);
    let check = |part: &str| {
        let said = bench.fails(&["lock", "--check"]);
        assert!(said.contains(part), "{part:?} in {said}");
    };
    check("neither a configuration nor a lock file");
    // No rule is for what is required, with a lock file or without.
    let other =
        "terraform {\n  required_providers {\n    b = { source = \"other.example/x/b\" }\n  }\n}\n";
    bench.write("main.tf", other);
    check("no rule maps other.example/x/b to a repository");
    let lock_b = "provider \"other.example/x/b\" {\n  version = \"1.0.0\"\n}\n";
    bench.write(".terraform.lock.hcl", lock_b);
    check("no rule maps other.example/x/b to a repository");
    assert!(bench.fails(&["lock"]).contains("nothing could be locked"));
    assert_eq!(bench.lock_file(), lock_b);
    // The lock file alone says what is wanted.
    fs::remove_file(bench.work().join("main.tf")).unwrap();
    check("no rule maps other.example/x/b to a repository");
    // Nothing is locked yet; then one of two is, and no rule is for the other.
    fs::remove_file(bench.work().join(".terraform.lock.hcl")).unwrap();
    bench.write("main.tf", &requiring(&["a"]));
    check("lacks 2 hashes of example.com/acme/a 1.0.0");
    bench.json(&["lock"]);
    bench.json(&["lock", "--check"]);
    bench.write("more.tf", "resource \"b_thing\" \"x\" {}\n");
    check("lacks registry.opentofu.org/hashicorp/b, which no rule maps");
    let lock_b = "\nprovider \"registry.opentofu.org/hashicorp/b\" {\n  version = \"1.0.0\"\n}\n";
    bench.write(".terraform.lock.hcl", &(bench.lock_file() + lock_b));
    bench.json(&["lock", "--check"]);
    // Modules that cannot be read may require anything.
    fs::remove_file(bench.work().join("more.tf")).unwrap();
    bench.write("main.tf", "module \"m\" {\n  source = \"hashicorp/consul/aws\"\n}\n");
    fs::remove_file(bench.work().join(".terraform.lock.hcl")).unwrap();
    check("the providers of modules are not known");
    // Nothing is required: that is a check.
    bench.write("main.tf", "locals {}\n");
    bench.json(&["lock", "--check"]);
}

/// A zip as some publishers make them, with entries for directories, whose own h1 is not that of
/// the unpacked tree.
fn zip_with_directories(kind: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    writer.add_directory("docs", options).unwrap();
    for name in ["docs/readme.md".to_owned(), format!("terraform-provider-{kind}_v1.0.0")] {
        writer.start_file(name, options).unwrap();
        writer.write_all(b"#!/bin/sh\n").unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn what_is_not_annotated_is_computed_from_the_unpacked_tree_and_said() {
    // A client that unpacked such a zip records the hash of the directory.
    let bench = Bench::new();
    let package = zip_with_directories("d");
    bench.publish("d", "1.0.0", &[("linux_amd64", package.clone())], false);
    bench.write("main.tf", &requiring(&["d"]));
    let said = bench.json(&["lock"]);
    assert_eq!(said["providers"][0]["computed"], serde_json::json!(["linux_amd64"]), "{said}");
    let h1 = pack::h1(&package);
    assert!(bench.lock_file().contains(&h1), "{h1}");
    let mirror = bench.join("mirror");
    let unpacked = mirror.join("example.com/acme/d/1.0.0/linux_amd64");
    fs::create_dir_all(unpacked.join("docs")).unwrap();
    fs::write(unpacked.join("docs/readme.md"), "#!/bin/sh\n").unwrap();
    fs::write(unpacked.join("terraform-provider-d_v1.0.0"), "#!/bin/sh\n").unwrap();
    for client in clients() {
        let output =
            bench.client(&client, &mirror, &["init", "-input=false", "-lockfile=readonly"]);
        assert!(output.status.success(), "{output:?}");
        fs::remove_dir_all(bench.work().join(".terraform")).unwrap();
    }
}

#[test]
fn modules_are_followed_wherever_they_are() {
    let bench = Bench::new();
    for kind in ["root", "near", "far", "farther", "named"] {
        bench.publish(kind, "1.0.0", &packages(kind, "1.0.0", &["linux_amd64"]), true);
        bench.publish(kind, "2.0.0", &packages(kind, "2.0.0", &["linux_amd64"]), true);
    }
    let module = |files: &[(&str, &str)]| {
        pack::module(&files.iter().map(|(name, text)| (*name, text.as_bytes())).collect::<Vec<_>>())
    };
    let far = module(&[
        ("main.tf", "module \"in\" {\n  source = \"./in//x/..\"\n}\n"),
        (
            "in/main.tf.json",
            "{\"terraform\": {\"required_providers\": {\"far\": {\"source\": \"example.com/acme/far\", \"version\": \"< 2\"}}},\
          \"module\": {\"n\": {\"source\": \"/nowhere/mnt/reg.example/modules/named/1.0.0/sub\"}}}",
        ),
    ]);
    layouts::add(&bench.store(), "reg.example", "modules/far", "1.0.0", &far);
    let named = module(&[("sub/a.tofu", &requiring(&["named"])), ("sub/a.tf", "not hcl {")]);
    layouts::add(&bench.store(), "reg.example", "modules/named", "1.0.0", &named);
    bench.write(
        "main.tf",
        &(requiring(&["root"])
            + "module \"near\" {\n  source = \"../near\"\n}\nmodule \"far\" {\n  source = \"oci://reg.example/modules/far?tag=1.0.0\"\n}\n\
               module \"reg\" {\n  source = \"hashicorp/consul/aws\"\n}\nresource \"random_id\" \"x\" {}\n"),
    );
    bench.write("../near/main.tf", &requiring(&["near >= 1", "far >= 0.5"]));
    let said = bench.json(&["lock"]);
    let found: Vec<_> = said["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| format!("{} {}", p["provider"], p["version"]).replace('"', ""))
        .collect();
    assert_eq!(
        found,
        [
            "example.com/acme/far 1.0.0",
            "example.com/acme/named 2.0.0",
            "example.com/acme/near 2.0.0",
            "example.com/acme/root 2.0.0"
        ]
    );
    let left: Vec<_> =
        said["left_out"].as_array().unwrap().iter().map(|l| l["what"].as_str().unwrap()).collect();
    assert_eq!(left, ["hashicorp/consul/aws", "registry.opentofu.org/hashicorp/random"]);
    assert!(bench.lock_file().contains("constraints = \">= 0.5.0, < 2.0.0\""));
    // The same for the other client, whose default registry and files are other ones.
    fs::remove_file(bench.work().join(".terraform.lock.hcl")).unwrap();
    assert!(
        bench.fails(&["lock", "--client", "terraform"]).contains("a.tf"),
        "terraform reads a.tf"
    );
}

#[test]
fn bad_input_is_one_clear_line_and_nothing_is_written() {
    let bench = Bench::new();
    bench.publish("a", "1.0.0", &packages("a", "1.0.0", &["linux_amd64"]), true);
    layouts::add(
        &bench.store(),
        "reg.example",
        "providers/m",
        "1.0.0",
        &pack::module(&[("main.tf", b"")]),
    );
    for (text, words, said) in [
        (
            requiring(&["a ~> 3.0"]),
            &["lock"][..],
            "\"~> 3.0\"; reg.example/providers/a has 1 versions, up to 1.0.0",
        ),
        (requiring(&["b"]), &["lock"], "reg.example/providers/b has no version"),
        (
            requiring(&["a"]),
            &["lock", "--platform", "plan9_386"],
            "no package for plan9_386; it has linux_amd64",
        ),
        (requiring(&["m"]), &["lock"], "this is a module"),
        (requiring(&["a v1"]), &["lock"], "\"v1\""),
        ("terraform {".to_owned(), &["lock"], "main.tf: line 1"),
        ("module \"x\" {\n source = \"./none\"\n}".to_owned(), &["lock"], "module \"x\""),
    ] {
        bench.write("main.tf", &text);
        let line = bench.fails(words);
        assert!(line.contains(said), "{said:?} in {line}");
        assert!(!bench.work().join(".terraform.lock.hcl").exists());
    }
    bench.write("main.tf", &requiring(&["a"]));
    bench.write(".terraform.lock.hcl", "<<<<<<< HEAD\n");
    assert!(bench.fails(&["lock"]).contains(".terraform.lock.hcl: line 1"));
    assert_eq!(bench.lock_file(), "<<<<<<< HEAD\n");
    let missing = |path: &Path| !path.exists();
    assert!(missing(&bench.work().join(".terraform")));
}
