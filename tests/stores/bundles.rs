//! `tofufs bundle`, and mounts of what it writes.

mod carried;
mod verified;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::io::Errno;
use serde_json::Value;
use tofufs::digest::Digest;

use crate::HOST;
use crate::readers::{finish, oras_reads};
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, Options};
use crate::support::{SmallDisk, layouts, pack, program};

/// Where a bundle says where its providers are.
const SAYS: &str = ".tofufs/providers.json";
const PLATFORMS: [&str; 3] = ["darwin_arm64", "linux_amd64", "windows_amd64"];

/// A place to work in, with the store that takes the place of the registry.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// A module of three releases, one that calls it, and a provider for three platforms.
    fn new() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().unwrap() };
        for version in ["1.0.0", "1.1.0", "2.0.0"] {
            let text = format!("# {version}\n");
            bed.release(
                "acme/net",
                version,
                &pack::module(&[("main.tf", text.as_bytes()), ("sub/main.tf", b"# sub")]),
            );
        }
        let calls =
            format!("module \"net\" {{\n  source = \"oci://{HOST}/acme/net?tag=1.1.0\"\n}}\n");
        bed.release("acme/vpc", "1.0.0", &pack::module(&[("main.tf", calls.as_bytes())]));
        bed.release("acme/providers/hello", "0.1.0", &provider());
        bed
    }

    fn release(&self, repo: &str, tag: &str, artifact: &pack::Artifact) {
        layouts::add(&self.path("registry"), HOST, repo, tag, artifact);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(crate::support::world::program());
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .arg("bundle")
            .args(words);
        if !words.contains(&"verify") {
            let from = format!("oci:{}", self.path("registry").display());
            command.args(["--from", &from, "--offline", "--cache-dir", "cache"]);
        }
        crate::support::mount::finish(command)
    }

    fn bundle(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `bundle verify` says, with its exit code.
    fn verify(&self, words: &[&str]) -> (Option<i32>, Value) {
        let output = self.run(&[&["verify", "--json"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}")),
        )
    }

    /// What mounting says that is to fail.
    fn mounting(&self, source: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
        command.current_dir(self.dir.path()).env_clear().env("HOME", self.path("home"));
        fs::create_dir_all(self.path("point")).unwrap();
        command.args(["mount", "--offline", source, "point"]);
        crate::support::mount::finish(command)
    }

    fn mount(&self, source: &str) -> Option<Mount> {
        let (scheme, file) = source.split_once(':').unwrap();
        let source = format!("{scheme}:{}", self.path(file).display());
        Mount::start(&[source], Options::new().args(["--read-only", "--offline"]))
    }
}

fn provider() -> pack::Artifact {
    pack::provider("hello", "0.1.0", &PLATFORMS)
}

/// The names and bytes of all files below `dir`.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path)
            } else {
                drop(
                    found.insert(
                        path.strip_prefix(dir).unwrap().to_owned(),
                        fs::read(&path).unwrap(),
                    ),
                )
            }
        }
    }
    found
}

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> Errno {
    Errno::from_io_error(&outcome.unwrap_err()).unwrap()
}

const LOCKED: &str =
    "provider \"registry.opentofu.org/acme/hello\" {\n  version = \"0.1.0\"\n  hashes = [\n";
const MIRROR: [&str; 4] = [
    "--oci-mirror",
    "reg.example/${namespace}/providers/${type}",
    "--include",
    "registry.opentofu.org/acme/*",
];

/// A lock file with the hashes of the provider's packages.
fn lock_file(platforms: &[&str]) -> String {
    let hash = |platform: &&str| {
        let at = PLATFORMS.iter().position(|p| p == platform).unwrap();
        format!("    \"zh:{}\",\n", Digest::of(&provider().blobs[1 + at]).hex())
    };
    format!("{LOCKED}{}  ]\n}}\n", platforms.iter().map(hash).collect::<String>())
}

#[test]
fn what_a_root_module_needs_is_carried_and_mounted_as_the_same_tree() {
    let bed = Bed::new();
    let root = format!(
        "terraform {{\n  required_providers {{\n    hello = {{ source = \"acme/hello\" }}\n  }}\n}}\n\
         module \"vpc\" {{\n  source = \"oci://{HOST}/acme/vpc?tag=1.0.0\"\n}}\n"
    );
    bed.write("root/main.tf", &root);
    for output in ["oci:store", "oci-archive:bundle.tar"] {
        let said = bed.bundle(&[&["--root", "root", "-o", output], &MIRROR[..]].concat());
        assert!(
            said.contains("acme/net:1.1.0")
                && said.contains("acme/vpc:1.0.0")
                && said.contains("hello:0.1.0")
        );
        assert!(!said.contains("acme/net:1.0.0") && !said.contains("left out"), "{said}");
        let (Some(online), Some(gap)) = (bed.mount("oci:registry"), bed.mount(output)) else {
            return;
        };
        for path in ["acme/net/1.1.0", "acme/vpc:1.0.0", "acme/providers/hello/0.1.0"] {
            let [online, gap] = [&online, &gap].map(|mount| tree(&mount.join(HOST).join(path)));
            assert!(online == gap && !gap.is_empty(), "{path}");
        }
        let reference = format!("{HOST}/acme/providers/hello/0.1.0");
        let [a, b] = [&online, &gap].map(|mount| {
            mount.xattr(&reference, "user.oci.digest").or_else(|| {
                fs::read_dir(mount.join(&reference)).unwrap();
                mount.xattr(&reference, "user.oci.digest")
            })
        });
        assert!(a == b && a == Some(provider().digest().to_string()), "{a:?} {b:?}");
        assert_eq!(errno(fs::metadata(gap.join(HOST).join("acme/net/1.0.0"))), Errno::NOENT);
        let (code, found) = bed.verify(&[output]);
        assert_eq!(
            (code, &found["bad"], &found["partial"]),
            (Some(0), &Value::Array(vec![]), &Value::Array(vec![]))
        );
    }
}

/// The same from a registry on the network, for chosen platforms.
#[test]
fn a_bundle_of_a_registry_holds_its_releases_under_the_registrys_name() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let module = pack::module(&[("main.tf", b"# here")]);
    registry.push("acme/net").artifact("1.0.0", &module);
    registry.push("acme/providers/hello").artifact("0.1.0", &provider());
    let host = registry.host();
    let bed = Bed { dir: tempfile::tempdir().unwrap() };
    let mut command = Command::new(crate::support::world::program());
    command.current_dir(bed.dir.path()).env("HOME", bed.path("home")).arg("bundle");
    command.args([
        "--plain-http",
        &host,
        "--cache-dir",
        "cache",
        "--platform",
        "linux_amd64",
        "-o",
        "oci-archive:b.tar",
    ]);
    command
        .arg(format!("{host}/acme/net:*"))
        .arg(format!("{host}/acme/providers/hello@{}", provider().digest()));
    finish(&mut command);
    drop(registry);
    let Some(mount) = bed.mount("oci-archive:b.tar") else { return };
    assert_eq!(fs::read(mount.join(&host).join("acme/net/1.0.0/main.tf")).unwrap(), b"# here");
    let release = format!("{host}/acme/providers/hello@{}", provider().digest());
    assert!(fs::read(mount.join(release).join("linux_amd64.zip")).unwrap() == provider().blobs[2]);
}

#[test]
fn the_same_needs_give_the_same_bytes_at_once_or_one_by_one() {
    let bed = Bed::new();
    let [net, vpc, hello] = ["acme/net:1.*", "acme/vpc:1.0.0", "acme/providers/hello:0.1.0"]
        .map(|r| format!("{HOST}/{r}"));
    bed.bundle(&[&net, &vpc, &hello, "-o", "oci-archive:once.tar"]);
    let once = fs::read(bed.path("once.tar")).unwrap();
    for words in [vec![hello.as_str()], vec![&net], vec![&vpc, &hello], vec![&net, &vpc]] {
        bed.bundle(&[&words[..], &["-o", "oci-archive:steps.tar"]].concat());
        fs::remove_dir_all(bed.path("cache")).unwrap();
    }
    assert!(fs::read(bed.path("steps.tar")).unwrap() == once, "another order gave other bytes");
    let before = fs::metadata(bed.path("once.tar")).unwrap().ino();
    bed.bundle(&[&vpc, "-o", "oci-archive:once.tar"]);
    assert!(
        fs::read(bed.path("once.tar")).unwrap() == once,
        "what is there already changed something"
    );
    assert_eq!(
        fs::metadata(bed.path("once.tar")).unwrap().ino(),
        before,
        "nothing is written where nothing is lacking"
    );
    // Nothing of its making stays behind.
    let names: Vec<_> =
        fs::read_dir(bed.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().contains("part")), "{names:?}");
    // A store that is filled step by step holds what the archive holds.
    for words in [[hello.as_str(), &net], [&vpc, &net]] {
        bed.bundle(&[&words[..], &["-o", "oci:store"]].concat());
    }
    let unpacked = bed.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    finish(Command::new("tar").arg("-xf").arg(bed.path("once.tar")).arg("-C").arg(&unpacked));
    let blobs = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        tree(dir)
            .into_iter()
            .filter(|(path, _)| path.to_str().unwrap().contains("blobs/"))
            .collect()
    };
    assert!(blobs(&bed.path("store")) == blobs(&unpacked));
}

#[test]
fn skopeo_and_oras_read_a_bundle() {
    let bed = Bed::new();
    let [net, hello] =
        ["acme/net:1.0.0", "acme/providers/hello:0.1.0"].map(|r| format!("{HOST}/{r}"));
    for output in ["oci:store", "oci-archive:b.tar"] {
        bed.bundle(&[&[net.as_str(), &hello, "-o", output], &MIRROR[..]].concat());
        let says = bed.path(output.split_once(':').unwrap().1).join(SAYS);
        assert_eq!(says.is_file(), output == "oci:store", "what no other tool knows");
    }
    fs::create_dir(bed.path("unpacked")).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(bed.path("b.tar"))
        .arg("-C")
        .arg(bed.path("unpacked"))
        .output();
    let unpacked = unpacked.unwrap();
    assert!(unpacked.status.success() && unpacked.stderr.is_empty(), "{unpacked:?}");
    for store in ["store", "unpacked"] {
        for (repo, tag, digest) in [
            (
                "acme/net",
                "1.0.0",
                pack::module(&[("main.tf", b"# 1.0.0\n"), ("sub/main.tf", b"# sub")]).digest(),
            ),
            ("acme/providers/hello", "0.1.0", provider().digest()),
        ] {
            let dir = bed.path(store).join(HOST).join(repo);
            if let Some(skopeo) = program("skopeo") {
                let reference = format!("oci:{}:{tag}", dir.display());
                let raw =
                    finish(Command::new(&skopeo).args(["inspect", "--raw", &reference])).stdout;
                assert_eq!(Digest::of(&raw), digest, "{store} {repo}");
                let copy = format!("oci:{}:x", bed.path("copy").display());
                finish(Command::new(&skopeo).args([
                    "copy",
                    "-q",
                    "--all",
                    "--insecure-policy",
                    &reference,
                    &copy,
                ]));
            }
            if let Some(found) = oras_reads(&dir, tag) {
                assert!(found.contains(&digest.to_string()), "{store} {repo}: {found:?}");
            }
        }
    }
}

#[test]
fn of_chosen_platforms_the_index_stays_whole_and_the_others_are_refused_with_the_reason() {
    let bed = Bed::new();
    let hello = format!("{HOST}/acme/providers/hello:0.1.0");
    for output in ["oci:store", "oci-archive:b.tar"] {
        let said = bed.bundle(&[&hello, "--platform", "linux_amd64", "-o", output]);
        assert!(said.contains("linux_amd64") && !said.contains("darwin"), "{said}");
        let (code, found) = bed.verify(&[output]);
        let partial = found["partial"][0]["rule"].as_str().unwrap();
        assert!(
            code == Some(0) && partial.contains("darwin_arm64") && !partial.contains("linux"),
            "{found}"
        );
        let Some(mount) = bed.mount(output) else { return };
        let release = mount.join(HOST).join("acme/providers/hello/0.1.0");
        assert!(fs::read(release.join("linux_amd64.zip")).unwrap() == provider().blobs[2]);
        assert_eq!(tree(&release.join("linux_amd64")).len(), 2);
        assert_eq!(mount.xattr(&release, "user.oci.digest"), Some(provider().digest().to_string()));
        let names: Vec<_> =
            fs::read_dir(&release).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["linux_amd64", "linux_amd64.zip"], "what is not carried is not listed");
        assert_eq!(errno(fs::read_dir(release.join("darwin_arm64"))), Errno::IO);
        let said =
            mount.xattr(release.join("darwin_arm64"), "user.tofufs.error").expect("a reason");
        assert!(said.contains("tofufs bundle"), "{said}");
        // What is asked for later is added.
        bed.bundle(&[
            &hello,
            "--platform",
            "darwin_arm64",
            "--platform",
            "windows_amd64",
            "-o",
            output,
        ]);
        let (code, found) = bed.verify(&[output]);
        assert_eq!((code, &found["partial"]), (Some(0), &Value::Array(vec![])));
    }
}

#[test]
fn a_dry_run_writes_nothing_and_says_how_much_it_would_be() {
    let bed = Bed::new();
    let [net, vpc] = ["acme/net:*", "acme/vpc:1.0.0"].map(|r| format!("{HOST}/{r}"));
    for output in ["oci:store", "oci-archive:b.tar"] {
        let path = bed.path(output.split_once(':').unwrap().1);
        let plan = |words: &[&str]| -> Value {
            serde_json::from_str(&bed.bundle(&[words, &["--json", "-o", output]].concat())).unwrap()
        };
        let all = plan(&[&net, "--dry-run"]);
        assert!(!path.exists());
        assert_eq!(
            (&all["releases"].as_array().unwrap().len(), &all["written"]),
            (&3, &Value::Bool(false))
        );
        assert_eq!(all["added_bytes"], all["bytes"]);
        let written = plan(&[&net]);
        assert_eq!(
            (&written["written"], &written["added_bytes"]),
            (&Value::Bool(true), &all["bytes"])
        );
        let before = tree(bed.dir.path())
            .into_iter()
            .filter(|(path, _)| !path.starts_with("cache"))
            .collect::<Vec<_>>();
        let more = plan(&[&net, &vpc, "--dry-run"]);
        // The empty config is there in no other repository.
        assert_eq!(more["added_objects"], 3, "{more}");
        let after = tree(bed.dir.path())
            .into_iter()
            .filter(|(path, _)| !path.starts_with("cache"))
            .collect::<Vec<_>>();
        assert!(before == after);
    }
}

/// Nothing that is half there is taken for a bundle.
#[test]
fn a_full_disk_is_no_success() {
    let bed = Bed::new();
    let Some(disk) = SmallDisk::new(&bed.path("small"), 512 << 10) else { return };
    let files: [(&str, &[u8]); 2] = [("main.tf", b"# big"), ("noise", &pack::noise(1, 1 << 20))];
    bed.release("acme/big", "1.0.0", &pack::module(&files));
    let big = format!("{HOST}/acme/big:1.0.0");
    for output in ["oci:small/store", "oci-archive:small/b.tar"] {
        let run = bed.run(&[&big, "-o", output]);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(1) && said.contains("is full"), "{said}");
        assert!(run.stdout.is_empty(), "{run:?}");
    }
    let left: Vec<_> = tree(disk.path())
        .into_keys()
        .filter(|path| !path.starts_with("store/reg.example"))
        .collect();
    assert_eq!(left, [] as [PathBuf; 0], "a part of an archive is left");
    assert_eq!(
        bed.run(&["verify", "oci:small/store"]).status.code(),
        Some(0),
        "what is there is whole"
    );
    // The other way round: a cache that keeps nothing, and a bundle that has it all.
    bed.bundle(&[&big, "-o", "oci:store", "--cache-size", "64KiB"]);
    assert_eq!(bed.verify(&["oci:store"]).0, Some(0));
}

#[test]
fn what_cannot_be_bundled_is_a_clear_error_and_leaves_what_was_there() {
    let bed = Bed::new();
    let net = format!("{HOST}/acme/net:1.0.0");
    bed.bundle(&[&net, "-o", "oci-archive:b.tar"]);
    let before = fs::read(bed.path("b.tar")).unwrap();
    let missing = format!("{HOST}/acme/net:9.0.0");
    let hello = format!("{HOST}/acme/providers/hello:0.1.0");
    for (words, code, says) in [
        (vec![missing.as_str(), "-o", "oci-archive:b.tar"], 1, "there is no tag 9.0.0; there are "),
        (
            vec![&hello, "--platform", "plan9_arm", "-o", "oci-archive:b.tar"],
            1,
            "no package for plan9_arm",
        ),
        (vec!["-o", "oci-archive:b.tar"], 2, "name a --lock-file, a --root or a REFERENCE"),
        (vec![&net], 2, "--output"),
        (vec![&net, "-o", "ghcr.io/acme"], 2, "write oci:DIR or oci-archive:FILE"),
        (vec![&net, "-o", "oci-archive:no/such/dir/b.tar"], 1, "no/such/dir"),
        (vec!["no-reference", "-o", "oci:x"], 2, "no-reference"),
        (vec!["verify", "oci-archive:none.tar"], 1, "cannot be opened"),
    ] {
        let output = bed.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(says), "{words:?}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("tofufs: ")).count(), 1, "{said}");
    }
    assert!(fs::read(bed.path("b.tar")).unwrap() == before);
    // An archive that is damaged is not carried on.
    let zip = &pack::module(&[("main.tf", b"# 1.0.0\n"), ("sub/main.tf", b"# sub")]).blobs[1];
    let at = before.windows(zip.len()).position(|w| w == zip).unwrap() + 40;
    let mut damaged = before.clone();
    damaged[at] ^= 1;
    fs::write(bed.path("b.tar"), &damaged).unwrap();
    let output = bed.run(&[&hello, "-o", "oci-archive:b.tar"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(fs::read(bed.path("b.tar")).unwrap() == damaged);
}
