//! O14, O15: who commits is killed at points between the first write and the last, at each request
//! and at each call that writes. What was staged is there entirely, the tag is as it was or stands
//! for the whole release, and the second run ends with the same digest and sends only what is
//! missing.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tofufs::archive::Limits;
use tofufs::digest::Digest;
use tofufs::failure::Refusal;
use tofufs::mapping::Mapping;
use tofufs::name::Host;
use tofufs::registry::Upload;
use tofufs::registry::credentials::{Credentials, CredentialsConfig};
use tofufs::registry::remote::{Remote, RemoteOptions};
use tofufs::registry::transport::{Transport, TransportOptions};
use tofufs::stage::{
    CommitRequest, OpenUpload, PublishDestination, Stage, StageOptions, staged_path,
};

use super::*;
use crate::support::hostile::{Behaviour, Hostile, Seen};

const DIR: &str = "TOFUFS_TEST_STAGE";
const HOST: &str = "TOFUFS_TEST_HOST";
/// The calls by which a commit writes to its own disk.
const CALLS: [&str; 5] = ["pwrite64", "fsync", "renameat", "renameat2", "unlinkat"];

/// What the process does that is killed; a test only where the others of this file start it.
#[test]
fn child() {
    let (Some(dir), Ok(host)) = (std::env::var_os(DIR), std::env::var(HOST)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // strace counts the calls of each thread for itself.
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async {
        let host: Host = host.parse().unwrap();
        let transport = Transport::new(TransportOptions::default()).unwrap();
        let credentials = Arc::new(Credentials::new(CredentialsConfig::default()));
        let options =
            RemoteOptions { host: host.clone(), plain_http: true, token_realm: None, credentials };
        let remote: Arc<Remote> = Arc::new(Remote::new(transport, options).unwrap());
        let destination = PublishDestination {
            host: Some(host.clone()),
            prefix: None,
            open: Arc::new(ToRemote(remote)),
        };
        let path = format!("{host}/acme/network/1.3.0");
        let path = staged_path(Path::new(&path)).unwrap();
        let stage = Stage::open(StageOptions {
            dir: dir.into(),
            destinations: vec![destination],
            mapping: Mapping::default(),
            allow_overwrite: false,
            limits: Limits::default(),
            signer: None,
            check: None,
        });
        stage.unwrap().commit(&path, CommitRequest::default()).await
    });
    let done = done.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(done.len(), 1);
}

struct ToRemote(Arc<Remote>);

impl OpenUpload for ToRemote {
    fn open(&self, _: &Host) -> Result<Arc<dyn Upload>, Refusal> {
        Ok(self.0.clone())
    }
}

/// A stage with a module in it, and the registry to which it goes.
struct Scene {
    bed: Bed,
    registry: Hostile,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Scene {
    fn new() -> Scene {
        let (bed, registry) = (Bed::new(), Hostile::start());
        bed.module(&format!("stage/staging/{}/acme/network/1.3.0", registry.host()));
        // More than one piece of a request.
        let noise: Vec<u8> = std::iter::repeat_with({
            let mut random = fastrand::Rng::with_seed(3);
            move || random.u8(..)
        })
        .take(600_000)
        .collect();
        bed.write(
            &format!("stage/staging/{}/acme/network/1.3.0/noise.bin", registry.host()),
            noise,
        );
        let mut scene = Scene { bed, registry, before: BTreeMap::new() };
        scene.before = scene.staged();
        scene
    }

    fn staged(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.bed.path("stage/staging")];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path())
                } else {
                    drop(found.insert(entry.path(), fs::read(entry.path()).unwrap()))
                }
            }
        }
        found
    }

    fn start(&self, mut command: Command) -> Child {
        command.args(["--exact", "killed::child", "--test-threads=1"]);
        command.env(DIR, self.bed.path("stage")).env(HOST, self.registry.host());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs")
    }

    fn run(&self) -> bool {
        self.start(Command::new(std::env::current_exe().unwrap())).wait().unwrap().success()
    }

    /// The digest that the tag stands for, all of which is there.
    fn tag(&self) -> Option<Digest> {
        let manifest = self.registry.manifest("acme/network", "1.3.0")?;
        let value: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        for blob in value["layers"].as_array().unwrap().iter().chain([&value["config"]]) {
            let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            assert_eq!(
                Digest::of(&self.registry.blob(&digest).expect("a blob of a tagged release")),
                digest
            );
        }
        Some(Digest::of(&manifest))
    }

    /// What has to hold after a kill, and that the second run ends as if there had been none.
    fn check(&self, point: &str, wanted: &Wanted) {
        let (tag, staged) = (self.tag(), self.staged());
        assert!(tag.is_none() || tag == Some(wanted.digest), "{point}: {tag:?}");
        assert!(
            staged == self.before || staged.is_empty() && tag.is_some(),
            "{point}: {:?}",
            staged.keys()
        );
        self.registry.behave();
        let there = self.registry.requests().len();
        let held = wanted.blobs.iter().filter(|digest| self.registry.blob(digest).is_some());
        let held: Vec<String> = held.map(Digest::to_string).collect();
        assert!(self.run(), "{point}: the second run");
        assert_eq!(self.tag(), Some(wanted.digest), "{point}");
        assert!(self.staged().is_empty(), "{point}");
        let requests = self.registry.requests().split_off(there);
        let again = |seen: &Seen| {
            seen.method == "PUT" && held.iter().any(|digest| seen.path.ends_with(digest))
        };
        assert!(!requests.iter().any(again), "{point}: what is there is not sent again");
        if tag.is_some() {
            assert!(requests.iter().all(|seen| seen.method == "HEAD"), "{point}: {requests:?}");
        }
        for dir in ["work", "removed"] {
            assert_eq!(
                fs::read_dir(self.bed.path("stage").join(dir)).unwrap().count(),
                0,
                "{point}: {dir}"
            );
        }
    }
}

/// What a commit that is not killed makes.
struct Wanted {
    /// What the tag stands for.
    digest: Digest,
    blobs: Vec<Digest>,
}

/// What a whole run asks for, by names; and what it makes.
fn whole() -> (Vec<String>, Wanted) {
    let scene = Scene::new();
    assert!(scene.run());
    assert!(scene.staged().is_empty());
    let name = |seen: Seen| {
        let path = seen.path.split('?').next().unwrap_or_default().replace("/v2/acme/network/", "");
        format!("{} {}", seen.method, path.chars().take(40).collect::<String>())
    };
    let names = scene.registry.requests().into_iter().map(name).collect();
    let blobs = scene
        .registry
        .requests()
        .into_iter()
        .filter(|seen| seen.method == "PUT" && !seen.body.is_empty());
    let blobs = blobs.map(|seen| Digest::of(&seen.body)).collect();
    (names, Wanted { digest: scene.tag().unwrap(), blobs })
}

#[test]
fn killed_at_any_request_the_second_run_ends_with_the_same_digest() {
    let (names, wanted) = whole();
    assert!(names.len() >= 10, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        for handled in [false, true] {
            let scene = Scene::new();
            let (pid, count) = (Arc::new(AtomicI32::new(0)), AtomicUsize::new(0));
            let victim = Arc::clone(&pid);
            let kill = move || {
                let found = || (victim.load(Ordering::SeqCst) != 0).then_some(());
                while found().is_none() {
                    std::thread::yield_now();
                }
                let pid = Pid::from_raw(victim.load(Ordering::SeqCst)).unwrap();
                let _ = kill_process(pid, Signal::KILL);
            };
            let before = kill.clone();
            let matcher = move |_: &Seen| {
                let now = count.fetch_add(1, Ordering::SeqCst) == number;
                if now && !handled {
                    before();
                }
                now
            };
            let after = move |_: &_, reply| {
                kill();
                reply
            };
            let behaviour = if handled { Behaviour::edit(after) } else { Behaviour::Reset };
            scene.registry.rule(matcher, behaviour);
            let mut running = scene.start(Command::new(std::env::current_exe().unwrap()));
            pid.store(running.id() as i32, Ordering::SeqCst);
            assert_eq!(running.wait().unwrap().code(), None, "{name} ends it");
            let point = format!("{name}, {}", if handled { "handled" } else { "not handled" });
            scene.check(&point, &wanted);
        }
    }
    println!("{} points: {names:?}", 2 * names.len());
}

#[test]
fn killed_at_any_write_the_second_run_ends_with_the_same_digest() {
    let Some(strace) = support::program("strace") else { return };
    let (_, wanted) = whole();
    let mut points = Vec::new();
    for call in CALLS {
        for at in 1.. {
            let scene = Scene::new();
            let mut tracer = Command::new(&strace);
            tracer.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
            tracer
                .arg("-e")
                .arg(format!("inject={call}:signal=KILL:when={at}"))
                .arg(std::env::current_exe().unwrap());
            let ended = scene.start(tracer).wait().unwrap();
            if ended.code().is_some_and(|code| code != 0) {
                return support::skip("strace may not trace a child");
            }
            if ended.success() {
                break;
            }
            let point = format!("{call} number {at}");
            scene.check(&point, &wanted);
            points.push(point);
        }
    }
    println!("{} points: {points:?}", points.len());
    assert!(points.len() >= 12, "{points:?}");
}
