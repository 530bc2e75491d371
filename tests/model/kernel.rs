//! Stands in for the kernel: holds references and handles, and compares every answer with what may
//! be true.
//!
//! Answers may be as old as [`Kernel::since`] says: with a time to live of zero and a registry that
//! always answered, only the present is right.

mod checks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use tofufs::archive::Limits;
use tofufs::digest::Digest;
use tofufs::facts::{self, Facts};
use tofufs::failure::Failure;
use tofufs::fs::{self, Errno, Fs, Lookup, ROOT, ReadTarget, Thread};
use tofufs::registry::Registry;
use tofufs::registry::decorate::Offline;
use tofufs::store::{self, Store};
use tokio::runtime::Runtime;

use crate::memory::MemoryRegistry;
use crate::registry::registry_of;
use crate::truth::{HOST, History, Known, Moment, REPOS, Shape, TAGS, artifacts};

/// A package: the release's manifest, and the platform in a provider.
type Package = (Digest, Option<String>);

/// What an inode has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Thing {
    Root,
    Space(Option<String>),
    Release { repo: String, tag: Option<String>, digest: Option<Digest> },
    Platform(Package),
    Zip(Package),
    Dir(Package, String),
    File(Package, String),
}

struct Held {
    thing: Thing,
    path: String,
    references: u64,
    /// The earliest moment from which the answer can be that made it.
    window: Moment,
    /// The manifest to which a release's directory was seen bound.
    bound: Option<Digest>,
}

struct Open {
    handle: u64,
    content: Vec<u8>,
}

pub struct Kernel {
    runtime: Runtime,
    fake: Arc<MemoryRegistry>,
    cache: tempfile::TempDir,
    tag_ttl: Duration,
    store: Arc<Store>,
    fs: Arc<Fs>,
    known: Vec<Known>,
    history: History,
    now: Moment,
    oldest: Moment,
    /// Whether the registry was refusing or away lately, so that failures can be remembered.
    trouble: bool,
    denied: bool,
    offline: bool,
    /// When cached bytes were last removed or damaged, and how often.
    disturbed: Moment,
    disturbances: usize,
    held: BTreeMap<u64, Held>,
    open: Vec<Open>,
    /// Paths of spaces and releases that the registry confirmed.
    seen: HashMap<String, Moment>,
    /// Releases that were entered: path → manifest and moment.
    entered: HashMap<String, (Digest, Moment)>,
    /// Packages whose archive was in the cache.
    fetched: HashMap<Package, Moment>,
}

pub fn mount(
    fake: &Arc<MemoryRegistry>,
    store: &Arc<Store>,
    tag_ttl: Duration,
    offline: bool,
) -> Arc<Fs> {
    let host: tofufs::name::Host = HOST.parse().unwrap();
    let registry: Arc<dyn Registry> =
        if offline { Arc::new(Offline::new(host.clone())) } else { fake.clone() };
    let facts = Facts::new(facts::FactsOptions {
        policies: Default::default(),
        list_signed: false,
        sources: vec![facts::MountSource::Registry {
            kind: facts::RegistryKind::Oci,
            host,
            prefix: None,
            registry,
            name: HOST.into(),
        }],
        stores_stand_in: false,
        store: store.clone(),
        tag_ttl,
        deadline: Duration::from_secs(20),
        limits: Limits::default(),
        signatures: Default::default(),
        providers: facts::ProviderOptions::default(),
    });
    Fs::new(
        facts,
        fs::FsOptions {
            uid: 0,
            gid: 0,
            read_only: true,
            daemon: 0,
            staging: None,
            plugin_cache: None,
            mountpoint: "/mnt".into(),
            control: "/control".into(),
        },
    )
}

pub fn open_store(cache: &tempfile::TempDir) -> Arc<Store> {
    Store::open(store::StoreOptions { dir: cache.path().join("cache"), limit: 1 << 30 }).unwrap()
}

fn join(space: Option<&str>, name: &str) -> String {
    space.map_or(name.to_owned(), |s| format!("{s}/{name}"))
}

fn is_repo(name: &str) -> bool {
    REPOS.contains(&name)
}

impl Kernel {
    pub fn new(tag_ttl: Duration, has_catalog: bool) -> Kernel {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let known = artifacts();
        let all: Vec<_> = known.iter().map(|k| k.artifact.clone()).collect();
        let fake = Arc::new(registry_of(&REPOS, &all, has_catalog));
        let cache = tempfile::tempdir().unwrap();
        let store = open_store(&cache);
        let fs = mount(&fake, &store, tag_ttl, false);
        let root =
            Held { thing: Thing::Root, path: String::new(), references: 1, window: 0, bound: None };
        Kernel {
            runtime,
            fake,
            cache,
            tag_ttl,
            store,
            fs,
            known,
            history: History::default(),
            now: 1,
            oldest: 0,
            trouble: false,
            denied: false,
            offline: false,
            disturbed: 0,
            disturbances: 0,
            held: BTreeMap::from([(ROOT, root)]),
            open: Vec::new(),
            seen: HashMap::new(),
            entered: HashMap::new(),
            fetched: HashMap::new(),
        }
    }

    fn is_away(&self) -> bool {
        self.offline || self.fake.state().failing == Some(Failure::Unreachable)
    }

    // What happens to the world.

    pub fn tick(&mut self) {
        self.now += 1;
    }

    pub fn move_tag(&mut self, repo: usize, tag: usize, artifact: Option<usize>) {
        let (repo, tag) = (REPOS[repo % REPOS.len()], TAGS[tag % TAGS.len()]);
        let digest = artifact.map(|at| self.known[at % self.known.len()].artifact.digest());
        self.fake.set_tag(repo, tag, digest);
        self.history.set(repo, tag, self.now, digest);
    }

    pub fn set_mode(&mut self, mode: Option<Failure>) {
        self.fake.state().failing = mode;
        if mode.is_some() {
            (self.trouble, self.oldest) = (true, 0);
        }
        self.denied |= mode == Some(Failure::Denied);
    }

    pub fn refresh(&mut self) {
        self.fs.refresh(std::path::Path::new(""));
        let mode = self.fake.state().failing;
        if mode.is_none() && !self.offline {
            (self.trouble, self.oldest) = (false, self.now);
        }
        self.denied = mode == Some(Failure::Denied);
    }

    pub fn prune(&mut self) {
        self.store.prune(0);
        (self.disturbed, self.disturbances) = (self.now, self.disturbances + 1);
    }

    /// Flips a bit in the middle of some cached object.
    pub fn damage(&mut self, which: usize) {
        let mut pending = vec![
            self.cache.path().join("cache/v1/blobs"),
            self.cache.path().join("cache/v1/members"),
        ];
        let mut files = Vec::new();
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => pending.push(path),
                    path if path.extension().is_some_and(|e| e == "sum") => {}
                    path => files.push(path),
                }
            }
        }
        files.sort();
        let Some(path) = files.get(which % files.len().max(1)) else { return };
        let published = std::fs::metadata(path).unwrap().permissions();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        std::fs::set_permissions(path, published).unwrap();
        (self.disturbed, self.disturbances) = (self.now, self.disturbances + 1);
    }

    /// A new process over the same cache.
    pub fn remount(&mut self, offline: bool) {
        self.settle();
        self.held.retain(|ino, _| *ino == ROOT);
        self.open.clear();
        self.store = open_store(&self.cache);
        self.fs = mount(&self.fake, &self.store, self.tag_ttl, offline);
        self.offline = offline;
        let mode = self.fake.state().failing;
        self.trouble = offline || mode.is_some();
        self.denied = !offline && mode == Some(Failure::Denied);
        self.oldest = 0;
    }

    /// Waits until the names of used repositories are written, which happens behind the answers.
    fn settle(&self) {
        let edges = || {
            let mut edges = BTreeMap::new();
            self.store
                .each_edge(&mut |name, value| drop(edges.insert(name.to_owned(), value.to_vec())));
            edges
        };
        let is_written = || {
            let edges = edges();
            let used = edges.get(&format!("repositories {HOST}"));
            let used: Vec<String> =
                used.map(|bytes| serde_json::from_slice(bytes).unwrap()).unwrap_or_default();
            edges.keys().filter_map(|name| name.split_once(' ')).all(|(kind, reference)| {
                let repo = reference.strip_prefix(&format!("{HOST}/")).unwrap_or_default();
                let repo = repo.split(':').next().unwrap();
                !matches!(kind, "tags" | "tag") || used.iter().any(|name| name == repo)
            })
        };
        for _ in 0..200 {
            if is_written() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("a repository that was used is not remembered");
    }

    // What the kernel asks.

    fn pick(&self, which: usize) -> u64 {
        *self.held.keys().nth(which % self.held.len()).unwrap()
    }

    /// Looks one of a few names up in something that is held.
    pub fn lookup_any(&mut self, which: usize, name: usize) {
        let parent = self.pick(which);
        let mut names: Vec<String> = match &self.held[&parent].thing {
            Thing::Root => vec![HOST.into()],
            Thing::Space(_) => {
                let spelled =
                    REPOS.iter().flat_map(|r| TAGS.iter().map(move |t| format!("{r}:{t}")));
                let digests = self.known.iter().map(|k| format!("b@{}", k.artifact.digest()));
                let plain = TAGS.iter().chain(&["a", "p"]).map(|t| (*t).to_owned());
                plain
                    .chain(spelled.filter(|s| !s.contains('/')))
                    .chain(digests)
                    .chain(["b:1".to_owned()])
                    .collect()
            }
            _ => {
                ["f", "d", "e", "g", "h", "m", "big", "linux_amd64", "linux_amd64.zip", "README.md"]
                    .map(str::to_owned)
                    .into()
            }
        };
        names.push("zz".to_owned());
        self.lookup(parent, &names[name % names.len()].clone());
    }

    pub fn lookup(&mut self, parent: u64, name: &str) -> Option<u64> {
        let outcome = self.runtime.block_on(self.fs.clone().lookup(
            Thread(0),
            parent,
            OsStr::new(name).into(),
        ));
        let found = match outcome {
            Ok(Lookup::Found(entry)) => Ok(Some(entry)),
            Ok(Lookup::Absent(_)) => Ok(None),
            Err(e) if e.errno == Errno::ENOENT => Ok(None),
            Err(e) => Err(e),
        };
        let held = &self.held[&parent];
        let (thing, path) = (held.thing.clone(), format!("{}/{name}", held.path));
        match (&thing, found) {
            (Thing::Space(space), found) => {
                let ino = found.as_ref().map(|e| e.map(|e| e.attr.ino));
                self.check_named(space.as_deref(), name, &path, ino);
                let entry = found.ok()??;
                assert!(
                    entry.ttl <= self.tag_ttl || name.contains('@'),
                    "{path}: kept for {:?}",
                    entry.ttl
                );
                let is_release = self.reference(entry.attr.ino).is_some();
                let thing = self.named(space.as_deref(), name, is_release);
                self.hold(entry.attr.ino, thing, path);
                self.bound(entry.attr.ino);
                Some(entry.attr.ino)
            }
            (thing, Ok(found)) => {
                let expected = match (self.child(parent, name), thing) {
                    (_, Thing::File(..) | Thing::Zip(_)) => panic!("{path}: a file has no names"),
                    (child, _) => child,
                };
                match found {
                    Some(entry) => {
                        let child = expected
                            .unwrap_or_else(|| panic!("{path}: found, but it is in no release"));
                        self.hold(entry.attr.ino, child, path);
                        Some(entry.attr.ino)
                    }
                    None => {
                        let absent = expected.is_none() || self.may_be_unbound(parent);
                        assert!(absent, "{path}: absent, but it is in the release");
                        None
                    }
                }
            }
            (thing, Err(e)) => {
                self.check_entering(parent, thing, &path, &e);
                None
            }
        }
    }

    fn hold(&mut self, ino: u64, thing: Thing, path: String) {
        let window = self.since();
        let held = self.held.entry(ino).or_insert_with(|| Held {
            thing: thing.clone(),
            path: path.clone(),
            references: 0,
            window,
            bound: None,
        });
        assert_eq!((&held.thing, &held.path), (&thing, &path), "inode {ino}");
        held.references += 1;
    }

    pub fn list_any(&mut self, which: usize) {
        self.list(self.pick(which));
    }

    /// Lists a directory in small pieces; what it holds.
    pub fn list(&mut self, ino: u64) -> Option<Vec<u64>> {
        let (thing, path) = (self.held[&ino].thing.clone(), self.held[&ino].path.clone());
        let handle = match self.runtime.block_on(self.fs.clone().opendir(Thread(0), ino)) {
            Ok(handle) => handle,
            Err(e) => {
                match thing {
                    Thing::Space(_) => self.excuse(&path, &e),
                    _ => self.check_entering(ino, &thing, &path, &e),
                }
                return None;
            }
        };
        if let Some(digest) = self.bound(ino) {
            self.entered.insert(path.clone(), (digest, self.now));
        }
        let (mut names, mut inos, mut next) = (BTreeSet::new(), Vec::new(), 0);
        loop {
            let mut piece = Vec::new();
            let delivered = self.fs.readdir(handle, next, |listed| {
                let takes = piece.len() < 3;
                if takes {
                    piece.push((
                        listed.name.to_str().unwrap().to_owned(),
                        listed.entry.attr.ino,
                        listed.next,
                    ));
                }
                takes
            });
            delivered.unwrap();
            let Some((_, _, last)) = piece.last() else { break };
            next = *last;
            for (name, child, _) in piece.into_iter().filter(|(name, ..)| !name.starts_with('.')) {
                assert!(names.insert(name.clone()), "{path}: lists {name} twice");
                let thing = match &thing {
                    Thing::Space(space) => {
                        self.named(space.as_deref(), &name, self.reference(child).is_some())
                    }
                    _ => self.child(ino, &name).unwrap_or_else(|| panic!("{path}: lists {name}")),
                };
                self.hold(child, thing, format!("{path}/{name}"));
                inos.push(child);
            }
        }
        self.fs.releasedir(handle);
        self.check_names(ino, &thing, &path, &names);
        if let (Thing::Space(_), false) = (&thing, self.trouble || !self.tag_ttl.is_zero()) {
            for (name, listed) in names.iter().zip(inos.clone()) {
                let found = self.lookup(ino, name).expect("what is listed is found");
                assert_eq!(
                    self.held[&found].thing, self.held[&listed].thing,
                    "{path}/{name}: listed and found"
                );
            }
        }
        Some(inos)
    }

    pub fn open_any(&mut self, which: usize) {
        let ino = self.pick(which);
        self.open(ino);
    }

    /// Opens a file; its place among the open ones.
    pub fn open(&mut self, ino: u64) -> Option<usize> {
        let (thing, path) = (self.held[&ino].thing.clone(), self.held[&ino].path.clone());
        let (package, content) = match thing {
            Thing::File(package, name) => {
                let content = self.files(&package)[&name].clone();
                (package, content)
            }
            Thing::Zip((digest, Some(platform))) => match self.shape(digest) {
                Shape::Provider(platforms) => {
                    let zip = platforms[&platform].0.clone();
                    ((digest, Some(platform)), zip)
                }
                _ => unreachable!("only providers have zips"),
            },
            _ => return None,
        };
        let inflates = content.len() > 256 << 10;
        match self.runtime.block_on(self.fs.clone().open(ino, false)) {
            Ok(opened) => {
                if !inflates {
                    self.fetched.insert(package, self.now);
                }
                self.open.push(Open { handle: opened.handle, content });
                Some(self.open.len() - 1)
            }
            Err(e) => {
                self.excuse(&path, &e);
                let is_zip = path.ends_with(".zip");
                assert!(
                    inflates || is_zip || !self.is_fetched(&package),
                    "{path}: {e:?}, though it is in the cache"
                );
                None
            }
        }
    }

    pub fn read_any(&mut self, which: usize, offset: usize, size: usize) {
        if !self.open.is_empty() {
            let which = which % self.open.len();
            let length = self.open[which].content.len();
            self.read(which, offset % (length + 2), size);
        }
    }

    /// Reads from an open file: its bytes, whatever happened to tag, registry and cache since it
    /// was opened.
    pub fn read(&mut self, which: usize, offset: usize, size: usize) {
        let Open { handle, content } = &self.open[which];
        let expected = &content[offset.min(content.len())..content.len().min(offset + size)];
        let mut buf = vec![0; size];
        match self.fs.read(ReadTarget::Handle(*handle), offset as u64, &mut buf).unwrap() {
            Some(read) => assert!(buf[..read] == *expected, "other bytes"),
            None => {
                assert!(self.disturbances > 0, "bytes are damaged that nobody touched");
                match self.runtime.block_on(self.fs.clone().read_again(
                    ReadTarget::Handle(*handle),
                    offset as u64,
                    size,
                )) {
                    Ok(bytes) => assert!(bytes == expected, "other bytes after fetching anew"),
                    Err(e) => self.excuse("reading anew", &e),
                }
            }
        }
    }

    pub fn close_any(&mut self, which: usize) {
        if !self.open.is_empty() {
            let closed = self.open.swap_remove(which % self.open.len());
            self.fs.release(closed.handle);
        }
    }

    pub fn stat_any(&mut self, which: usize) {
        let ino = self.pick(which);
        let (thing, path) = (self.held[&ino].thing.clone(), &self.held[&ino].path);
        let size = match &thing {
            Thing::File(package, name) => Some(self.files(package)[name].len()),
            Thing::Zip((digest, Some(platform))) => match self.shape(*digest) {
                Shape::Provider(platforms) => Some(platforms[platform].0.len()),
                _ => None,
            },
            _ => None,
        };
        match self.runtime.block_on(self.fs.clone().getattr(ino)) {
            Ok(entry) => assert_eq!(entry.attr.size as usize, size.unwrap_or(0), "{path}"),
            Err(e) => self.excuse(path, &e),
        }
        self.bound(ino);
    }

    pub fn forget_any(&mut self, which: usize, count: u64) {
        let ino = self.pick(which);
        let held = self.held.get_mut(&ino).unwrap();
        if ino == ROOT {
            return;
        }
        let count = 1 + count % held.references;
        held.references -= count;
        if held.references == 0 {
            self.held.remove(&ino);
        }
        self.fs.forget(ino, count);
    }

    /// Goes down a path and reads everything below it.
    pub fn walk(&mut self, components: &[String]) {
        let mut at = ROOT;
        for component in components {
            match self.lookup(at, component) {
                Some(ino) => at = ino,
                None => return,
            }
        }
        let mut pending = vec![at];
        while let Some(ino) = pending.pop() {
            if let Some(which) = self.open(ino) {
                let length = self.open[which].content.len();
                self.read(which, 0, length + 1);
                self.close_any(which);
            } else if matches!(
                self.held[&ino].thing,
                Thing::Release { .. } | Thing::Platform(_) | Thing::Dir(..)
            ) {
                pending.extend(self.list(ino).unwrap_or_default());
            }
        }
    }

    /// The kernel lets go of everything.
    pub fn finish(mut self) {
        while !self.open.is_empty() {
            self.close_any(0);
        }
        for (ino, held) in &self.held {
            self.fs.forget(*ino, held.references);
        }
        assert_eq!(self.fs.report().inodes, 1);
    }
}
