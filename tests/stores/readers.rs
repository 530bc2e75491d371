//! Who reads a store that the program writes: mounts, skopeo, the Python SDK of ORAS.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tofufs::digest::Digest;

use crate::support::mount::{Mount, Options};
use crate::support::{oras_python, pack, program, wait_until};
use crate::{HOST, layout, put, run};

/// Runs a command that must succeed.
pub fn finish(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What `oras` finds under a tag, in the order in which it would push it.
pub fn oras_reads(dir: &Path, tag: &str) -> Option<Vec<String>> {
    const READ: &str = "import sys\nfrom oras.layout import Layout\n\
        print(*Layout(sys.argv[1]).get_ordered_blobs(sys.argv[2]), sep='\\n')";
    let output = finish(Command::new(oras_python()?).args(["-c", READ]).arg(dir).arg(tag));
    Some(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

#[test]
fn what_is_written_is_read_by_skopeo_and_oras() {
    let store = tempfile::tempdir().unwrap();
    let module = pack::module(&[("main.tf", b"")]);
    let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
    for (repo, tag, artifact) in [("acme/net", "1.0.0", &module), ("acme/net", "1.1.0", &provider)]
    {
        run(put(&layout(store.path()), repo, tag, artifact)).unwrap();
    }
    let dir = store.path().join(HOST).join("acme/net");
    for (tag, artifact) in [("1.0.0", &module), ("1.1.0", &provider)] {
        if let Some(skopeo) = program("skopeo") {
            let reference = format!("oci:{}:{tag}", dir.display());
            let raw = finish(Command::new(&skopeo).args(["inspect", "--raw", &reference])).stdout;
            assert_eq!(Digest::of(&raw), artifact.digest());
            // All that the manifest names is there, too.
            let to = tempfile::tempdir().unwrap();
            let copy = format!("oci:{}:{tag}", to.path().join("copy").display());
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
            let documents = artifact.manifests.iter().map(|m| &m.bytes);
            let mut wanted: Vec<_> =
                artifact.blobs.iter().chain(documents).map(|b| Digest::of(b).to_string()).collect();
            let mut found = found;
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted);
        }
    }
}

/// What skopeo adds beside ours, and ours beside what skopeo wrote, stays.
#[test]
fn skopeo_and_the_program_write_into_one_layout() {
    let Some(skopeo) = program("skopeo") else { return };
    let store = tempfile::tempdir().unwrap();
    let (a, b) = (pack::module(&[("main.tf", b"# a")]), pack::module(&[("main.tf", b"# b")]));
    run(put(&layout(store.path()), "from", "1.0.0", &a)).unwrap();
    let host = store.path().join(HOST);
    fs::create_dir_all(host.join("net")).unwrap();
    let copy = |tag: &str| {
        let from = format!("oci:{}:1.0.0", host.join("from").display());
        let to = format!("oci:{}:{tag}", host.join("net").display());
        finish(Command::new(&skopeo).args(["copy", "-q", "--insecure-policy", &from, &to]));
    };
    copy("1.0.0");
    run(put(&layout(store.path()), "net", "1.1.0", &b)).unwrap();
    copy("1.2.0");
    run(put(&layout(store.path()), "net", "1.2.0", &b)).unwrap();
    for (tag, artifact) in [("1.0.0", &a), ("1.1.0", &b), ("1.2.0", &b)] {
        let reference = format!("oci:{}:{tag}", host.join("net").display());
        let raw = finish(Command::new(&skopeo).args(["inspect", "--raw", &reference])).stdout;
        assert_eq!(Digest::of(&raw), artifact.digest(), "{tag}");
    }
}

#[test]
fn a_registry_that_a_store_comes_to_hold_is_found_while_it_is_mounted() {
    let store = tempfile::tempdir().unwrap();
    let source = format!("oci:{}", store.path().display());
    let options = Options::new().args(["--tag-ttl", "1ms"]);
    let Some(mount) =
        Mount::start(&[&source, "declared.example/acme"], options.args(["--offline"]))
    else {
        return;
    };
    let listed = || -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(mount.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name.contains('.'));
        names.sort();
        names
    };
    assert_eq!(listed(), ["declared.example"]);
    assert!(fs::metadata(mount.join(HOST)).is_err());
    let module = pack::module(&[("main.tf", b"# here")]);
    run(put(&layout(store.path()), "acme/net", "1.0.0", &module)).unwrap();
    // The kernel believes an absence for a moment.
    assert!(
        wait_until(std::time::Duration::from_secs(20), || fs::metadata(mount.join(HOST)).is_ok())
    );
    assert_eq!(listed(), ["declared.example", HOST]);
    assert_eq!(fs::read(mount.join(format!("{HOST}/acme/net/1.0.0/main.tf"))).unwrap(), b"# here");
    // A registry that was declared gets what the store comes to hold of it.
    let of = tofufs::registry::layout::RegistryLayout::open(
        store.path(),
        &"declared.example".parse().unwrap(),
    )
    .unwrap();
    run(put(&of, "acme/net", "1.0.0", &module)).unwrap();
    let file = mount.join("declared.example/acme/net:1.0.0/main.tf");
    assert!(wait_until(std::time::Duration::from_secs(20), || fs::read(&file)
        .is_ok_and(|text| text == b"# here")));
    assert_eq!(mount.status()["sources"].as_array().unwrap().len(), 2);
}

/// Two stores may hold different releases of one name: what a mount of the one was told just now
/// does not count for a mount of the other, though both use one cache.
#[test]
fn what_one_store_says_is_not_taken_for_what_another_says() {
    let stores = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for (store, tags) in stores.iter().zip([["1.0.0", "1.1.0"], ["1.0.0", "2.0.0"]]) {
        for tag in tags {
            let text = format!("# {tag} of {}\n", store.path().display());
            run(put(
                &layout(store.path()),
                "acme/net",
                tag,
                &pack::module(&[("main.tf", text.as_bytes())]),
            ))
            .unwrap();
        }
    }
    let sources = stores.each_ref().map(|store| format!("oci:{}", store.path().display()));
    let Some(mut mount) = Mount::start(&sources[..1], Options::new().args(["--tag-ttl", "1h"]))
    else {
        return;
    };
    for (round, at) in [0, 1, 0, 1].into_iter().enumerate() {
        if round > 0 {
            assert!(mount.umount().status.success());
            let output =
                mount.again_with(&sources[at..=at], Options::new().args(["--tag-ttl", "1h"]));
            assert!(output.status.success(), "{output:?}");
        }
        let repo = mount.join(HOST).join("acme/net");
        let mut names: Vec<_> =
            fs::read_dir(&repo).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["1.0.0", ["1.1.0", "2.0.0"][at]], "round {round}");
        for (tag, is_there) in [("1.0.0", true), ("1.1.0", at == 0), ("2.0.0", at == 1)] {
            let text = format!("# {tag} of {}\n", stores[at].path().display());
            let read = fs::read_to_string(repo.join(tag).join("main.tf")).ok();
            assert_eq!(read, is_there.then_some(text), "round {round}: {tag}");
        }
    }
}
