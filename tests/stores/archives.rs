//! Mounts of a store in one tar.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use tofufs::digest::Digest;

use crate::HOST;
use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack, wait_until};

/// A directory with a store, and the tar of it.
struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    /// Two modules and a provider.
    fn new() -> Bundle {
        let bundle = Bundle { dir: tempfile::tempdir().unwrap() };
        let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
        layouts::add(&bundle.store(), HOST, "acme/providers/hello", "0.1.0", &provider);
        for name in ["one", "two"] {
            layouts::add(&bundle.store(), HOST, &format!("acme/{name}"), "1.0.0", &module(name));
        }
        bundle.pack();
        bundle
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn tar(&self) -> PathBuf {
        self.dir.path().join("bundle.tar")
    }

    fn source(&self) -> String {
        format!("oci-archive:{}", self.tar().display())
    }

    fn pack(&self) {
        let status = Command::new("tar")
            .arg("-cf")
            .arg(self.tar())
            .arg("-C")
            .arg(self.store())
            .arg(HOST)
            .status();
        assert!(status.unwrap().success());
    }

    /// Where `bytes` lie in the tar.
    fn place_of(&self, bytes: &[u8]) -> usize {
        let tar = fs::read(self.tar()).unwrap();
        tar.windows(bytes.len()).position(|window| window == bytes).expect("a part of the tar")
    }

    fn mount(&self, also: &[String]) -> Option<Mount> {
        let sources = [&[self.source()], also].concat();
        Mount::start(
            &sources,
            Options::new().args(["--read-only", "--offline", "--tag-ttl", "1ms"]),
        )
    }
}

fn module(name: &str) -> pack::Artifact {
    pack::module(&[
        ("main.tf", format!("# {name}").as_bytes()),
        ("modules/inner/main.tf", b"# inner"),
    ])
}

fn read(mount: &Mount, path: &str) -> io::Result<Vec<u8>> {
    fs::read(mount.join(HOST).join(path))
}

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> Errno {
    Errno::from_io_error(&outcome.unwrap_err()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_archive_is_mounted_alone_and_beside_other_sources() {
    let bundle = Bundle::new();
    let also = format!("oci:{}", bundle.dir.path().join("other").display());
    layouts::add(
        &bundle.dir.path().join("other"),
        HOST,
        "acme/one",
        "2.0.0",
        &module("of the other"),
    );
    for also in [vec![], vec![also, "ghcr.io/acme".to_owned()]] {
        let Some(mount) = bundle.mount(&also) else { return };
        assert_eq!(read(&mount, "acme/one/1.0.0/main.tf").unwrap(), b"# one");
        assert_eq!(read(&mount, "acme/two:1.0.0/modules/inner/main.tf").unwrap(), b"# inner");
        assert_eq!(names(&mount.join(HOST).join("acme")), ["one", "providers", "two"]);
        let release = mount.join(HOST).join("acme/providers/hello/0.1.0");
        assert_eq!(
            names(&release),
            ["darwin_arm64", "darwin_arm64.zip", "linux_amd64", "linux_amd64.zip"]
        );
        assert!(fs::read(release.join("linux_amd64/terraform-provider-hello_v0.1.0")).is_ok());
        assert_eq!(errno(read(&mount, "acme/three/1.0.0/main.tf")), Errno::NOENT);
        assert_eq!(mount.requests(), (0, 0));
        let status = mount.status();
        assert_eq!(status["sources"][0]["name"], bundle.source());
        assert_eq!(status["sources"][0]["state"], "ok");
        assert_eq!(read(&mount, "acme/one/2.0.0/main.tf").is_ok(), !also.is_empty());
    }
}

/// L26: one flipped bit, a blob that is missing, a manifest that is missing.
#[test]
fn what_is_damaged_or_missing_is_eio_and_everything_else_works() {
    let bundle = Bundle::new();
    let zip = &module("one").blobs[1];
    let at = bundle.place_of(zip) + zip.len() / 2;
    let file = fs::File::options().read(true).write(true).open(bundle.tar()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
    let Some(mount) = bundle.mount(&[]) else { return };
    for _ in 0..2 {
        assert_eq!(errno(read(&mount, "acme/one/1.0.0/main.tf")), Errno::IO);
    }
    assert_eq!(read(&mount, "acme/two/1.0.0/main.tf").unwrap(), b"# two");
    drop(mount);

    let dir = bundle.store().join(HOST);
    fs::remove_file(layouts::blob_path(&dir.join("acme/one"), &Digest::of(zip))).unwrap();
    fs::remove_file(layouts::blob_path(&dir.join("acme/two"), &module("two").digest())).unwrap();
    bundle.pack();
    let Some(mount) = bundle.mount(&[]) else { return };
    for name in ["one", "two"] {
        assert_eq!(errno(read(&mount, &format!("acme/{name}/1.0.0/main.tf"))), Errno::IO, "{name}");
    }
    assert_eq!(names(&mount.join(HOST).join("acme/one")), ["1.0.0"]);
    let said =
        mount.xattr(format!("{HOST}/acme/one/1.0.0"), "user.tofufs.error").expect("a reason");
    assert!(said.contains(&Digest::of(zip).to_string()) && said.contains("lacks"), "{said}");
    assert!(fs::read_dir(mount.join(HOST).join("acme/providers/hello/0.1.0/linux_amd64")).is_ok());
}

/// L26: what was read stays, what was not is refused with the member's name, and a new mount has
/// the new archive.
#[test]
fn an_archive_that_is_replaced_under_a_mount_gives_no_new_byte() {
    let bundle = Bundle::new();
    let Some(mut mount) = bundle.mount(&[]) else { return };
    assert_eq!(read(&mount, "acme/one/1.0.0/main.tf").unwrap(), b"# one");
    layouts::add(&bundle.store(), HOST, "acme/two", "1.0.0", &module("two, changed"));
    let new = bundle.dir.path().join("new.tar");
    fs::rename(bundle.tar(), &new).unwrap();
    bundle.pack();
    assert_eq!(read(&mount, "acme/one:1.0.0/main.tf").unwrap(), b"# one");
    assert_eq!(errno(read(&mount, "acme/two:1.0.0/main.tf")), Errno::IO);
    let says_why =
        |log: &str| log.contains("acme/two/oci-layout") && log.contains("replaced by another file");
    assert!(wait_until(Duration::from_secs(20), || says_why(&mount.log())), "{}", mount.log());
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    assert_eq!(read(&mount, "acme/two/1.0.0/main.tf").unwrap(), b"# two, changed");
}

#[test]
fn an_archive_that_is_refused_is_not_mounted_and_the_sentence_says_why() {
    let bundle = Bundle::new();
    let whole = fs::read(bundle.tar()).unwrap();
    fs::write(bundle.tar(), &whole[..whole.len() / 2]).unwrap();
    let point = bundle.dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let output = Command::new(crate::support::world::program())
        .args(["mount", "--offline", "--cache-dir"])
        .arg(bundle.dir.path().join("cache"))
        .arg("--state-dir")
        .arg(bundle.dir.path().join("state"))
        .arg(bundle.source())
        .arg(&point)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("tofufs: oci-archive:") && said.contains("it was cut off"), "{said}");
    assert_eq!(said.lines().count(), 1);
}
