//! A writer that is killed at any system call leaves the store as it was, or as it was to be; two
//! writers lose nothing.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tofufs::digest::Digest;
use tofufs::failure::Failure;
use tofufs::name::Selector;
use tofufs::registry::Registry;

use crate::support::{self, pack};
use crate::{HOST, layout, put, run};

const STORE: &str = "TOFUFS_TEST_STORE";
const TAG: &str = "TOFUFS_TEST_TAG";
/// The calls that change a store, or order what is changed.
const CALLS: [&str; 7] =
    ["mkdirat", "pwrite64", "fsync", "fdatasync", "renameat", "flock", "unlinkat"];

fn provider() -> pack::Artifact {
    pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"])
}

/// What was in the store before.
const BEFORE: &str = "0.0.9";

fn module() -> pack::Artifact {
    pack::module(&[("main.tf", b"")])
}

/// What the writing process does; a test only where the others of this file start it.
#[test]
fn child() {
    if let (Some(store), Ok(tag)) = (std::env::var_os(STORE), std::env::var(TAG)) {
        run(put(&layout(Path::new(&store)), "hello", &tag, &provider()))
            .expect("a store to write in");
    }
}

fn writing(command: &mut Command, store: &Path, tag: &str) -> Child {
    let child = command
        .args(["--exact", "deaths::child", "--test-threads=1"])
        .env(STORE, store)
        .env(TAG, tag);
    child
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs")
}

/// Every blob is what its name says, all that the index names is there, every tag can be read
/// whole. Which tags there are.
fn sound(store: &Path) -> Vec<String> {
    let dir = store.join(HOST).join("hello");
    for entry in fs::read_dir(dir.join("blobs/sha256")).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let digest = Digest::of(&fs::read(&path).expect("a file"));
        assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(digest.hex().as_str()));
    }
    if let Ok(index) = fs::read(dir.join("index.json")) {
        let index: serde_json::Value = serde_json::from_slice(&index).expect("a whole document");
        for entry in index["manifests"].as_array().unwrap() {
            let digest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
            assert!(support::layouts::blob_path(&dir, &digest).exists(), "{digest}");
        }
    }
    let layout = layout(store);
    let repo = "hello".parse().unwrap();
    let tags = match run(layout.tags(&repo)) {
        Ok(tags) => tags,
        Err(e) if e.failure == Failure::Absent => return Vec::new(),
        Err(e) => panic!("{e}"),
    };
    for tag in &tags {
        let wanted = if tag.as_str() == BEFORE { module() } else { provider() };
        let raw = run(layout.manifest(&repo, &Selector::Tag(tag.clone()))).unwrap();
        assert_eq!(Digest::of(&raw.bytes), wanted.digest());
        for document in wanted.manifests {
            run(layout.manifest(&repo, &Selector::Digest(document.digest()))).unwrap();
        }
    }
    tags.iter().map(ToString::to_string).collect()
}

/// O14, O15: the kill comes at each call in turn, in a store that is new and in one that holds a
/// tag.
#[test]
fn a_writer_killed_at_any_call_leaves_the_tag_as_it_was_or_whole() {
    let Some(strace) = support::program("strace") else { return };
    let program = std::env::current_exe().unwrap();
    let mut kills = 0;
    for call in CALLS {
        for at in 1.. {
            let store = tempfile::tempdir().unwrap();
            let before = if at % 2 == 0 { vec![BEFORE.to_owned()] } else { vec![] };
            if let Some(tag) = before.first() {
                run(put(&layout(store.path()), "hello", tag, &module())).unwrap();
            }
            let mut tracer = Command::new(&strace);
            tracer.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
            tracer.arg("-e").arg(format!("inject={call}:signal=KILL:when={at}")).arg(&program);
            let ended = writing(&mut tracer, store.path(), "0.1.0").wait().unwrap();
            if ended.code().is_some_and(|code| code != 0) {
                return support::skip("strace may not trace a child");
            }
            let tags = sound(store.path());
            let with = [&before[..], &["0.1.0".to_owned()]].concat();
            assert!(tags == before || tags == with, "killed at {call} number {at}: {tags:?}");
            run(put(&layout(store.path()), "hello", "0.1.0", &provider())).unwrap();
            assert_eq!(sound(store.path()), with, "after {call} number {at}");
            let own: Vec<_> =
                fs::read_dir(store.path().join(HOST).join("hello/.tofufs")).unwrap().collect();
            assert_eq!(own.len(), 1, "{call} number {at}: {own:?}");
            if ended.success() {
                assert_eq!(tags, with);
                break;
            }
            kills += 1;
        }
    }
    println!("{kills} kills");
    assert!(kills > 30, "{kills} kills");
}

#[test]
fn processes_that_write_at_the_same_time_lose_nothing() {
    let store = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let tags: Vec<String> = (0..6).map(|n| format!("0.1.{n}")).collect();
    let writers: Vec<Child> =
        tags.iter().map(|tag| writing(&mut Command::new(&program), store.path(), tag)).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(sound(store.path()), tags);
}

/// O06
#[test]
fn a_full_disk_is_an_error_that_says_so_and_leaves_what_was_there() {
    let disk = tempfile::tempdir().unwrap();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(e) = mount("tofufs-test", disk.path(), "tmpfs", flags, Some(c"size=1m,mode=0700")) {
        return support::skip(&format!("a tmpfs cannot be mounted here: {e}"));
    }
    let outcome = std::panic::catch_unwind(|| {
        let layout = layout(disk.path());
        run(put(&layout, "hello", "0.1.0", &provider())).unwrap();
        let mut noise = vec![0; 2 << 20];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let e = run(put(&layout, "hello", "0.2.0", &pack::module_of(noise.clone()))).unwrap_err();
        assert!(e.failure == Failure::NoSpace && e.to_string().contains("is full"), "{e}");
        assert_eq!(sound(disk.path()), ["0.1.0"]);
        let small = pack::module(&[("main.tf", b"")]);
        run(put(&layout, "other", "0.2.0", &small)).expect("what was begun takes no space");
    });
    unmount(disk.path(), UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}
