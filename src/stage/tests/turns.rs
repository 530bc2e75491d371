//! Writers of one tag in every order of their requests: a scheduler holds each request about the
//! tag back, and lets one pass at a time.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::providers::package;
use super::*;
use crate::artifact::Release;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::memory::Call;
use crate::name::Selector;
use crate::stage::push::{Pushed, push};

const NAME: &str = "acme/hello";
const TAG: &str = "0.1.0";

/// What a request about a tag does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterAct {
    ReadTag,
    WriteTag,
    ReadClaims,
    /// Of one writer, which no other changes.
    WriteClaim,
}

impl WriterAct {
    fn writes(self) -> bool {
        matches!(self, WriterAct::WriteTag | WriterAct::WriteClaim)
    }

    /// Whether nobody can tell which of two such requests came first.
    fn commutes_with(self, other: WriterAct) -> bool {
        let of_tag = |act| matches!(act, WriterAct::ReadTag | WriterAct::WriteTag);
        of_tag(self) != of_tag(other)
            || self.writes() == other.writes() && self != WriterAct::WriteTag
    }
}

/// A request that waits for its turn in the schedule.
struct Held {
    act: WriterAct,
    pass: oneshot::Sender<()>,
}

/// Where the writers stand.
#[derive(Default)]
struct Gate {
    held: Mutex<Vec<Option<Held>>>,
}

impl Gate {
    async fn pass(&self, writer: usize, act: WriterAct) {
        let (pass, passed) = oneshot::channel();
        self.held.lock()[writer] = Some(Held { act, pass });
        drop(passed.await);
    }

    fn act(&self, writer: usize) -> Option<WriterAct> {
        self.held.lock()[writer].as_ref().map(|held| held.act)
    }

    fn open(&self, writer: usize) {
        let held = self.held.lock()[writer].take();
        let _ = held.unwrap().pass.send(());
    }
}

/// The registry as one writer reaches it.
fn gated(registry: &MemoryRegistry, gate: &Arc<Gate>, writer: usize) -> MemoryRegistry {
    let (gated, gate) = (registry.again(), gate.clone());
    gated.wait(move |call| {
        let act = match call {
            Call::Present => Some(WriterAct::ReadTag),
            Call::TagsNow | Call::Manifest(Selector::Tag(_)) => Some(WriterAct::ReadClaims),
            Call::PutManifest(Selector::Tag(tag)) if !tag.is_claim() => Some(WriterAct::WriteTag),
            Call::PutManifest(Selector::Tag(_)) | Call::Remove => Some(WriterAct::WriteClaim),
            _ => None,
        };
        let gate = gate.clone();
        Box::pin(async move {
            if let Some(act) = act {
                gate.pass(writer, act).await;
            }
            Ok(())
        })
    });
    gated
}

struct Silent;

#[async_trait]
impl Observer for Silent {
    async fn reached(&self, _: PushStep) -> Result<(), Refusal> {
        Ok(())
    }

    fn progress(&self, _: u64, _: u64) {}

    fn waits(&self, _: &str) {}
}

/// What one writer does.
#[derive(Clone)]
struct Writer {
    plan: ReleasePlan,
    overwrites: bool,
}

type End = Result<Vec<Pushed>, Refusal>;

/// What became of the writers (`None`: killed), and of the registry.
struct Ended {
    writers: Vec<Option<End>>,
    registry: MemoryRegistry,
}

/// Decides between several ways on: their number, and the one to go.
type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// A writer, and the number of its requests that pass before it is killed.
type Kill = Option<(usize, usize)>;

/// One schedule in the making.
struct Schedule {
    gate: Arc<Gate>,
    tasks: Vec<JoinHandle<End>>,
    /// How many requests of each writer have passed.
    passed: Vec<usize>,
    /// How often something was written.
    changes: u64,
    /// The count of changes when a writer that waits was last woken.
    woken_at: Vec<u64>,
    /// What passed last, of whom, and who was held back beside it.
    before: Option<(usize, WriterAct, Vec<usize>)>,
}

impl Schedule {
    /// Who may go on: those whose requests are held, and those who wait for others, once for each
    /// change.
    fn ways(&self) -> Vec<usize> {
        let all = 0..self.tasks.len();
        let nobody = all.clone().all(|at| self.gate.act(at).is_none());
        let waits = |at: usize| {
            !self.tasks[at].is_finished() && (nobody || self.woken_at[at] < self.changes)
        };
        all.filter(|at| if self.gate.act(*at).is_some() { true } else { waits(*at) }).collect()
    }

    /// Whether letting this writer go on now differs from an earlier schedule by nothing that
    /// anybody can tell.
    fn is_known(&self, at: usize) -> bool {
        match (&self.before, self.gate.act(at)) {
            (Some((last, act, beside)), Some(own)) => {
                at < *last && beside.contains(&at) && act.commutes_with(own)
            }
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// Lets a writer that waits look again.
    async fn wake(&mut self, at: usize) {
        self.woken_at[at] = self.changes;
        self.before = None;
        let mut nap = Duration::from_millis(1);
        while self.gate.act(at).is_none() && !self.tasks[at].is_finished() {
            sleep(nap).await;
            nap *= 2;
        }
    }

    fn kill(&mut self, at: usize) {
        self.tasks[at].abort();
        self.gate.held.lock()[at] = None;
        self.changes += 1;
        self.before = None;
    }

    fn pass(&mut self, at: usize, act: WriterAct) {
        let beside =
            (0..self.tasks.len()).filter(|other| *other != at && self.gate.act(*other).is_some());
        self.before = Some((at, act, beside.collect()));
        self.passed[at] += 1;
        self.changes += u64::from(act.writes());
        self.gate.open(at);
    }
}

/// One schedule. `None` where it would be like an earlier one, if `prunes`.
async fn run(
    writers: &[Writer],
    keeps: bool,
    kill: Kill,
    prunes: bool,
    choose: Choose<'_>,
) -> Option<Ended> {
    let registry = MemoryRegistry::default();
    registry.state().removes = !keeps;
    let gate = Arc::new(Gate::default());
    gate.held.lock().resize_with(writers.len(), || None);
    let tasks = writers.iter().cloned().enumerate().map(|(at, writer)| {
        let gated = gated(&registry, &gate, at);
        let options =
            push::PushOptions { allow_overwrite: writer.overwrites, ..Default::default() };
        tokio::spawn(async move { push(&writer.plan, &gated, options, &Silent).await })
    });
    let tasks: Vec<_> = tasks.collect();
    let (passed, woken_at) = (vec![0; tasks.len()], vec![0; tasks.len()]);
    let mut schedule = Schedule { gate, tasks, passed, changes: 1, woken_at, before: None };
    loop {
        sleep(Duration::from_millis(1)).await;
        if schedule.is_over() {
            break;
        }
        let mut ways = schedule.ways();
        ways.retain(|at| !prunes || !schedule.is_known(*at));
        let Some(way) =
            (!ways.is_empty()).then(|| if ways.len() == 1 { 0 } else { choose(ways.len()) })
        else {
            schedule.tasks.iter().for_each(JoinHandle::abort);
            return None;
        };
        let at = ways[way];
        match schedule.gate.act(at) {
            None => schedule.wake(at).await,
            Some(_) if kill == Some((at, schedule.passed[at])) => schedule.kill(at),
            Some(act) => schedule.pass(at, act),
        }
    }
    let mut ended = Vec::new();
    for task in schedule.tasks {
        match task.await {
            Ok(end) => ended.push(Some(end)),
            Err(e) if e.is_cancelled() => ended.push(None),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
    Some(Ended { writers: ended, registry })
}

/// A runtime whose clock moves when everybody waits.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Runs all schedules; how many there are.
fn every(writers: &[Writer], keeps: bool, kill: Kill, seed: u64) -> usize {
    let runtime = runtime();
    let (mut path, mut count): (Vec<(usize, usize)>, usize) = (Vec::new(), 0);
    loop {
        // The same names for claims each time.
        fastrand::seed(seed);
        let mut depth = 0;
        let mut choose = |ways: usize| {
            if depth == path.len() {
                path.push((0, ways));
            }
            assert_eq!(path[depth].1, ways, "a schedule can be repeated");
            depth += 1;
            path[depth - 1].0
        };
        if let Some(ended) = runtime.block_on(run(writers, keeps, kill, true, &mut choose)) {
            count += 1;
            ended.check(writers, &format!("{path:?}, killed {kill:?}"));
        }
        while path.last().is_some_and(|(way, ways)| way + 1 == *ways) {
            path.pop();
        }
        match path.last_mut() {
            Some((way, _)) => *way += 1,
            None => return count,
        }
    }
}

impl Ended {
    fn tag(&self) -> Option<Digest> {
        self.registry.tag(NAME, TAG)
    }

    /// The packages that the tag stands for.
    fn packages(&self) -> Vec<Digest> {
        let Some(tag) = self.tag() else { return Vec::new() };
        let manifest = self.registry.document(NAME, tag);
        match Release::read(&manifest).unwrap() {
            Release::Module(layer) => vec![layer.digest],
            Release::Provider(targets) => targets.iter().map(|target| target.digest()).collect(),
        }
    }

    fn claims(&self) -> usize {
        self.registry.state().repo(NAME).tags.keys().filter(|tag| tag.is_claim()).count()
    }

    /// What holds after every schedule.
    fn check(&self, writers: &[Writer], way: &str) {
        let there = self.packages();
        let overwrites = writers.iter().any(|writer| writer.overwrites);
        let nobody_killed = self.writers.iter().all(Option::is_some);
        let mut won = 0;
        for (writer, end) in writers.iter().zip(&self.writers) {
            let all_there = writer.packages().iter().all(|package| there.contains(package));
            match end {
                Some(Ok(_)) => {
                    won += 1;
                    assert!(
                        all_there || overwrites && !writer.overwrites,
                        "lost after success: {way}"
                    );
                }
                Some(Err(e)) => {
                    assert_eq!(e.failure, Failure::Exists, "{e}: {way}");
                    assert!(!all_there && !writer.overwrites, "{e}: {way}");
                    assert_eq!(e.to_string().matches("sha256:").count(), 2, "{e}: {way}");
                }
                None => {}
            }
        }
        assert!(won > 0 || !nobody_killed, "somebody wins: {way}");
        if nobody_killed && self.registry.state().removes {
            assert_eq!(self.claims(), 0, "{way}");
        }
    }
}

impl Writer {
    fn packages(&self) -> Vec<Digest> {
        match &self.plan.artifact {
            plan::PlannedArtifact::Module(manifest) => match Release::read(manifest).unwrap() {
                Release::Module(layer) => vec![layer.digest],
                Release::Provider(_) => unreachable!(),
            },
            plan::PlannedArtifact::Provider { targets, .. } => {
                targets.iter().map(|target| target.entry.digest).collect()
            }
        }
    }
}

/// Makes writers of files on disk.
struct Workbench {
    dir: tempfile::TempDir,
    workshop: Workshop,
}

impl Workbench {
    fn new() -> Workbench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let work = fs::File::open(dir.path().join("work")).unwrap();
        Workbench {
            workshop: Workshop::new(work.into(), "work", crate::archive::Limits::default()),
            dir,
        }
    }

    fn writer(&self, name: &str, files: &[(&str, &[u8])]) -> Writer {
        let dir = self.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        for (file, content) in files {
            fs::write(dir.join(file), content).unwrap();
        }
        let repo = Repo { host: HOST.parse().unwrap(), name: NAME.parse().unwrap() };
        let destined =
            Destined { repo, tags: vec![TAG.parse().unwrap()], annotations: BTreeMap::new() };
        let file = fs::File::open(&dir).unwrap();
        let plan = directory::plan(file.into(), name, destined, &self.workshop)
            .unwrap_or_else(|e| panic!("{e}"));
        Writer { plan, overwrites: false }
    }

    fn module(&self, name: &str) -> Writer {
        self.writer(name, &[("main.tf", name.as_bytes())])
    }

    fn platform(&self, name: &str, platform: &str) -> Writer {
        let zip = format!("terraform-provider-hello_{TAG}_{platform}.zip");
        self.writer(name, &[(&zip, &package(name))])
    }
}

fn overwriting(writer: Writer) -> Writer {
    Writer { overwrites: true, ..writer }
}

/// Pairs that meet: modules, platforms, the same platform, one of each kind, and with leave to
/// overwrite.
fn pairs(bench: &Workbench) -> Vec<[Writer; 2]> {
    let [a, b] = ["a", "b"].map(|name| bench.module(name));
    let [linux, other] = ["linux", "other"].map(|name| bench.platform(name, "linux_amd64"));
    let darwin = bench.platform("darwin", "darwin_arm64");
    vec![
        [a.clone(), b.clone()],
        [linux.clone(), darwin],
        [linux.clone(), other.clone()],
        [a.clone(), linux.clone()],
        [a, overwriting(b)],
        [linux, overwriting(other)],
    ]
}

/// Two seeds: each writer's claim comes first with one of them.
const SEEDS: [u64; 2] = [1, 2];

#[test]
fn two_writers_in_every_order_of_their_requests_lose_nothing() {
    let bench = Workbench::new();
    for (at, pair) in pairs(&bench).iter().enumerate() {
        // Whose claim comes first matters where they differ in what they may do.
        let seeds = if at < 3 { &SEEDS[..1] } else { &SEEDS };
        for seed in seeds {
            let count = every(pair, false, None, *seed);
            assert!(count > 100, "{count}");
        }
    }
}

#[test]
fn a_registry_that_removes_nothing_keeps_writers_apart_too() {
    let bench = Workbench::new();
    assert!(every(&pairs(&bench)[0], true, None, SEEDS[0]) > 100);
}

/// Kills each of two writers before each of its requests, in every order.
fn killed(pair: &[Writer; 2]) {
    for (victim, seed) in SEEDS.into_iter().enumerate() {
        for at in 0..12 {
            every(pair, false, Some((victim, at)), seed);
        }
    }
}

#[test]
fn a_module_s_writer_that_is_killed_at_any_request_takes_nobody_s_work_along() {
    killed(&pairs(&Workbench::new())[0]);
}

#[test]
fn a_platform_s_writer_that_is_killed_at_any_request_takes_nobody_s_work_along() {
    killed(&pairs(&Workbench::new())[1]);
}

/// Three writers of a kind, in random orders; in every other one a writer is killed somewhere.
fn at_random(three: &[Writer; 3], orders: u64) {
    let runtime = runtime();
    for seed in 0..orders {
        fastrand::seed(seed);
        let mut random = fastrand::Rng::with_seed(!seed);
        let kill = (seed % 2 == 1).then(|| (random.usize(..3), random.usize(..10)));
        let mut choose = |ways: usize| random.usize(..ways);
        let ended = runtime.block_on(run(three, seed % 8 == 0, kill, false, &mut choose)).unwrap();
        ended.check(three, &format!("order {seed}"));
    }
}

#[test]
fn three_platforms_in_random_orders_are_all_in_the_release() {
    let bench = Workbench::new();
    let three = ["linux_amd64", "darwin_arm64", "windows_amd64"]
        .map(|platform| bench.platform(platform, platform));
    at_random(&three, 5_000);
}

#[test]
fn of_three_releases_that_exclude_each_other_one_is_published_in_random_orders() {
    let bench = Workbench::new();
    let three = [bench.module("a"), bench.module("b"), bench.platform("c", "linux_amd64")];
    at_random(&three, 2_500);
    let three = [
        bench.platform("d", "linux_amd64"),
        bench.platform("e", "linux_amd64"),
        overwriting(bench.module("f")),
    ];
    at_random(&three, 2_500);
}
