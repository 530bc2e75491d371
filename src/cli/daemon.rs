//! The process that serves a mount: puts the layers together, from the settings up to the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::span::EnteredSpan;

use super::access::RegistryAccess;
use super::broker::Broker;
use super::control::Socket;
use super::controlled::Controlled;
use super::handover::MountStart;
use super::lifecycle::{self, Lifecycle, Signals};
use super::log::LogWriter;
use super::look::Look;
use super::metrics::MetricsSocket;
use super::output::CommandError;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::staging;
use super::takeover::Takeover;
use super::trace::TraceId;
use super::{allocator, background, mapping, origins, privileges, state, trace};
use crate::facts::{self, Facts, FailingSource, RegistryKind};
use crate::fs::plugin_cache::{self, PluginCache};
use crate::fs::{self, Fs};
use crate::fuse::passthrough::Passthrough;
use crate::fuse::session::over::{self, Gap};
use crate::fuse::session::{self, Session, SessionEnd, mountinfo};
use crate::fuse::{self, Adapter};
use crate::name::{Host, Platform};
use crate::provider_registry::ProviderSource;
use crate::registry::connections::Connections;
use crate::registry::decorate::Offline;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};
use crate::registry::{Asker, Registry};
use crate::sandbox::ReachInForce;
use crate::store::{self, Store};

/// How long tasks may take to end when the mount is gone.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// How often the thread that is kept for blocking work is used: sooner than the runtime ends an
/// idle one (10 s).
const THREAD_USED: Duration = Duration::from_secs(5);

/// A process that serves a mount.
pub struct Daemon<'a> {
    /// What was asked for.
    pub settings: &'a MountSettings,
    /// How it was started.
    pub start: MountStart,
    /// The process in whose place it serves.
    pub takeover: Option<Takeover>,
    /// The log. Its thread is started here.
    pub log: &'a LogWriter,
}

impl<'a> Daemon<'a> {
    /// Serves the mount until it is unmounted. `ready` is called once, when the mount can be used
    /// and every source was looked at, with those that fail; its error ends the mount. Where another
    /// process serves until now, it waits for `ready`, and nothing was looked at. No thread runs
    /// before this process has given up its privileges, that of the log included.
    pub fn serve(
        self,
        ready: impl FnOnce(&[FailingSource]) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        keep_memory_private()?;
        allow_many_files();
        allocator::keep_few_arenas();
        let broker = Arc::new(Broker::start(self.settings, &self.start)?);
        let span = TraceId::span(TraceId::of_process());
        let access = RegistryAccess::new(&self.settings.network, Asker::Program);
        let access = Arc::new(access.through(Arc::clone(&broker)));
        // It may lie where this process cannot read later. Who needs it says what is wrong with it.
        let _ = access.configuration().tofurc();
        let alone = || alone_at_the_point(self.settings, self.takeover.as_ref());
        let (turn, reach) = span.in_scope(alone)?;
        let started = self.log.start();
        started.map_err(|e| CommandError::failed(format!("cannot start the log: {e}")))?;
        let runtime = runtime()?;
        let served = self.serve_in(&runtime, (broker, access), (turn, reach), ready);
        runtime.shutdown_timeout(LAST_TASKS);
        served
    }

    fn serve_in(
        self,
        runtime: &Runtime,
        (broker, access): (Arc<Broker>, Arc<RegistryAccess>),
        (turn, reach): (File, ReachInForce),
        ready: impl FnOnce(&[FailingSource]) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let settings = mapping::resolved(self.settings, &access)?;
        let _entered = runtime.enter();
        let starting = TraceId::span(TraceId::of_process()).entered();
        trace::note_invalid();
        let mounted = self.mounted(runtime, settings, (access, broker), reach)?;
        drop(turn);
        mounted.serve(runtime, starting, ready)
    }

    /// Puts all layers together, waits for its turn where another process serves, and mounts.
    fn mounted(
        self,
        runtime: &Runtime,
        settings: MountSettings,
        (access, broker): (Arc<RegistryAccess>, Arc<Broker>),
        reach: ReachInForce,
    ) -> Result<Mounted<'a>, CommandError> {
        let Daemon { start, takeover, log, .. } = self;
        let log_file = state::log_of(&settings)?.is_some().then_some(log);
        let signals = Signals::catch().map_err(CommandError::failed)?;
        let replaces = takeover.as_ref().map(Takeover::gap);
        let metrics = match takeover {
            None => None,
            Some(takeover) => takeover.turn(&settings)?,
        };
        let control = Socket::bind(&settings.mountpoint, &control_dirs(&settings)?)
            .map_err(|e| CommandError::Failed(format!("no control socket can be made: {e}")))?;
        let metrics = metrics_socket(&settings, metrics)?;
        let handle = metrics.as_ref().map(MetricsSocket::handle).transpose();
        let handle = handle.map_err(CommandError::failed)?;
        let fs = file_system(&settings, &access, control.path())?;
        let look = Look::new(&settings, &fs, &access);
        if settings.strict {
            look.insist(runtime)?;
        }
        if replaces.is_some()
            && let Some(stage) = fs.publishing().stage()
        {
            stage.inherit();
        }
        let (session, end) = session_of(&settings, runtime, &fs, (&broker, replaces))?;
        let controlled = Controlled {
            fs,
            access,
            session: Arc::new(session),
            stays: replaces.is_none() && !settings.in_background,
            settings,
            start,
            broker,
            reach,
            upgrading: tokio::sync::Mutex::default(),
            metrics: handle,
            successor: watch::Sender::new(None),
        };
        Ok(Mounted {
            controlled: Arc::new(controlled),
            sockets: (control, metrics),
            end,
            signals,
            look,
            log_file,
            takes_over: replaces.is_some(),
        })
    }
}

/// A mount that is there.
struct Mounted<'a> {
    controlled: Arc<Controlled>,
    sockets: (Socket, Option<MetricsSocket>),
    end: SessionEnd,
    signals: Signals,
    look: Look,
    log_file: Option<&'a LogWriter>,
    /// Whether it is in the place of one that another process served.
    takes_over: bool,
}

impl Mounted<'_> {
    /// Serves it until it is unmounted, or another process serves in its place and nothing is open
    /// in it.
    fn serve(
        self,
        runtime: &Runtime,
        starting: EnteredSpan,
        ready: impl FnOnce(&[FailingSource]) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let Mounted { controlled, end, look, log_file, takes_over, .. } = self;
        let (settings, session) = (&controlled.settings, &controlled.session);
        let mut signals = self.signals;
        // After mounting: systemd's automount answers its own process group alone at the mount
        // point, and has all others wait for the mount.
        let detached = if settings.in_background { background::detach() } else { Ok(()) };
        let (kernel, blocking) = (Arc::clone(session), runtime.handle().clone());
        let publishing = controlled.fs.publishing();
        publishing.tell_kernel(Box::new(ForgettingKernel { kernel, blocking }));
        runtime.spawn(keep_a_thread());
        let watching = runtime.spawn(Arc::clone(&controlled.broker).say_when_gone());
        runtime.spawn(allocator::keep_giving_back(Arc::clone(&controlled.fs)));
        let sockets = runtime.spawn(serve_sockets(self.sockets, Arc::clone(&controlled)));
        tracing::info!("{}: mounted {}", settings.mountpoint.display(), settings.session.name);
        let looks = !settings.strict && !takes_over;
        let ailing = if looks { look.at_sources(runtime) } else { Vec::new() };
        let ended = match detached.and_then(|()| ready(&ailing)) {
            Ok(()) => {
                if takes_over && !settings.strict {
                    look.at_sources(runtime);
                }
                drop(starting);
                let unmounted = Lifecycle { session, log_file, stays: controlled.stays };
                runtime.block_on(unmounted.until_unmounted(end, &mut signals))
            }
            Err(e) => {
                session.unmount(session::Manner::Lazily).map_err(CommandError::failed).and(Err(e))
            }
        };
        // A mount that is replaced ends as soon as nothing is open, before all is handed over.
        drop(runtime.block_on(controlled.upgrading.lock()));
        sockets.abort();
        watching.abort();
        after_end(runtime, &controlled, (signals, log_file), ended)
    }
}

/// What is left to do when a mount has ended: to take away what it covered, or to wait for the
/// processes that took over.
fn after_end(
    runtime: &Runtime,
    controlled: &Controlled,
    (mut signals, log_file): (Signals, Option<&LogWriter>),
    ended: Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (mountpoint, broker) = (&controlled.settings.mountpoint, &controlled.broker);
    tracing::info!("{}: the mount has ended", mountpoint.display());
    let is_replaced = controlled.successor.borrow().is_some();
    if !is_replaced {
        let cleared = over::clear_left(mountpoint, broker.as_ref()).map_err(CommandError::failed);
        return cleared.and(ended);
    }
    // Nothing was open any more, perhaps: who asked for it is answered meanwhile.
    runtime.block_on(tokio::time::sleep(LAST_TASKS));
    if !controlled.stays {
        return ended;
    }
    broker.end();
    runtime.block_on(lifecycle::until_children_ended(&mut signals, log_file.is_some()))
}

/// Checks the mount point, or that what is handed over fits; keeps other processes from mounting
/// there as long as what is returned lives, and gives up what is not needed from now on.
fn alone_at_the_point(
    settings: &MountSettings,
    takeover: Option<&Takeover>,
) -> Result<(File, ReachInForce), CommandError> {
    let turn = state::turn(settings)?;
    match takeover {
        None => session::prepare(&settings.mountpoint, &settings.apart())
            .map_err(CommandError::failed)?,
        Some(takeover) => takeover.check(settings)?,
    }
    let reach = privileges::give_up(settings)?;
    Ok((turn, reach))
}

/// Mounts, and serves the kernel.
fn session_of(
    settings: &MountSettings,
    runtime: &Runtime,
    fs: &Arc<Fs>,
    (broker, replaces): (&Arc<Broker>, Option<Gap>),
) -> Result<(Session, SessionEnd), CommandError> {
    let mounting = session_options(settings);
    let options = fuse::AdapterOptions { without_open: settings.read_only && mounting.read_only };
    let adapter = Adapter::new(Arc::clone(fs), runtime.handle().clone(), options);
    let passthrough = adapter.passthrough();
    let connected = |device: BorrowedFd<'_>| say_how_files_are_read(settings, &passthrough, device);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let (broker, point) = (Arc::clone(broker), &settings.mountpoint);
    let started = if let Some(gap) = replaces {
        let table = mountinfo::read().map_err(CommandError::failed)?;
        let old =
            mountinfo::top_at(&table, point).filter(|old| old.is_ours()).ok_or_else(|| {
                CommandError::Failed(format!("{} is not a mount point any more", point.display()))
            })?;
        over::start_over(broker, (old, gap), &mounting, threads, adapter, connected)
    } else {
        session::start(broker, point, &mounting, threads, adapter, connected)
    };
    started.map_err(CommandError::failed)
}

/// Answers on the sockets until another process does.
async fn serve_sockets(
    (control, metrics): (Socket, Option<MetricsSocket>),
    controlled: Arc<Controlled>,
) {
    let mut successor = controlled.successor.subscribe();
    let measured = Arc::clone(&controlled);
    let measuring = async move {
        let Some(metrics) = metrics else { return std::future::pending().await };
        let look = move || {
            let measured = Arc::clone(&measured);
            async move { measured.status().await }
        };
        if let Err(e) = metrics.serve(look).await {
            tracing::warn!("metrics are not told: {e}");
        }
        std::future::pending().await
    };
    tokio::select! {
        _ = successor.wait_for(Option::is_some) => {}
        ended = control.serve(controlled) => drop(ended),
        () = measuring => {}
    }
}

/// Keeps one thread for blocking work alive. Where no other may be started (a limit of processes),
/// such work waits for it; without any the runtime would give up the operation.
async fn keep_a_thread() {
    let mut often = tokio::time::interval(THREAD_USED);
    loop {
        often.tick().await;
        // Ends early only where the runtime does.
        let _ = tokio::task::spawn_blocking(|| ()).await;
    }
}

/// Where nothing at all can be written, the kernel itself refuses to: it could be let write to a
/// file only in its memory, where files are read without being opened. With a mapping, locks are
/// taken in `plugin-cache/`.
fn session_options(settings: &MountSettings) -> session::SessionOptions {
    let has_views = settings.mapping.as_ref().is_some_and(|mapping| !mapping.rules().is_empty());
    let read_only = settings.session.read_only || settings.read_only && !has_views;
    session::SessionOptions { read_only, ..settings.session.clone() }
}

/// Tries passthrough and says in the log what came of it.
fn say_how_files_are_read(
    settings: &MountSettings,
    passthrough: &Passthrough,
    device: BorrowedFd<'_>,
) {
    if !settings.passthrough {
        return tracing::info!("files are read through tofufs, as --no-passthrough asks");
    }
    let sample = std::fs::File::open(settings.cache_dir.join(store::CACHE_TAG));
    if sample.as_ref().is_ok_and(|sample| !store::has_no_writer(sample)) {
        return tracing::info!(
            "files are read through tofufs, without passthrough: the cache's file system does not \
             tell who can write to a file (overlayfs, or one without leases)"
        );
    }
    match sample.and_then(|sample| passthrough.probe(device, sample)) {
        Ok(()) => tracing::info!("large files are read by the kernel (passthrough)"),
        Err(e) => tracing::info!(
            "files are read through tofufs, without passthrough (needs root and Linux 6.9): {e}"
        ),
    }
}

/// Credentials are in this process's memory: neither a core dump nor another process of the user
/// may show them.
pub(super) fn keep_memory_private() -> Result<(), CommandError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|e| CommandError::Failed(format!("core dumps cannot be turned off: {e}")))
}

/// Every file that is open in the mount may take a descriptor of this process: the soft limit is
/// for programs that use select(2).
fn allow_many_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = rustix::process::setrlimit(Resource::Nofile, all) {
        tracing::debug!("the limit of open files stays as it is: {e}");
    }
}

/// A runtime, in a process that survives its limit of file sizes.
pub(super) fn runtime() -> Result<Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .thread_name("tofufs")
        .on_thread_start(trace::enter)
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("no threads can be started: {e}")))?;
    let _entered = runtime.enter();
    // Without a handler the kernel ends a process that writes past its limit of file sizes (`ulimit
    // -f`); with one the write fails, and that is like a full disk. The handler stays when this is
    // dropped.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(CommandError::failed)?);
    // The kernel sends this signal to who holds a lease on a file that somebody opens for writing,
    // and it ends a process too. Leases are held for moments (`store::has_no_writer`), and nothing
    // has to be done about them.
    drop(signal(SignalKind::io()).map_err(CommandError::failed)?);
    Ok(runtime)
}

/// The socket for metrics, which is `inherited` where another process had it.
fn metrics_socket(
    settings: &MountSettings,
    inherited: Option<OwnedFd>,
) -> Result<Option<MetricsSocket>, CommandError> {
    let bound = |address| match inherited {
        Some(inherited) => Ok(MetricsSocket::inherited(address, inherited)),
        None => MetricsSocket::bind(address)
            .map_err(|e| CommandError::Failed(format!("metrics cannot be told at {address}: {e}"))),
    };
    settings.metrics.as_ref().map(bound).transpose()
}

fn control_dirs(settings: &MountSettings) -> Result<Vec<PathBuf>, CommandError> {
    let runtime = settings.runtime_dir.iter().map(|dir| dir.join("tofufs"));
    Ok(runtime.chain([state::directory(settings, "control")?]).collect())
}

fn file_system(
    settings: &MountSettings,
    access: &RegistryAccess,
    control: &Path,
) -> Result<Arc<Fs>, CommandError> {
    let options =
        store::StoreOptions { dir: settings.cache_dir.clone(), limit: settings.cache_size };
    let store = Store::open(options).map_err(CommandError::failed)?;
    let (sources, network) = sources(settings, access)?;
    let declared = sources.iter().flat_map(facts::MountSource::declared).collect();
    let mapping = settings.mapping.clone().unwrap_or_default();
    let facts = Facts::new(facts::FactsOptions {
        sources,
        stores_stand_in: false,
        store,
        tag_ttl: settings.network.tag_ttl,
        deadline: settings.network.deadline,
        limits: settings.limits,
        policies: settings.policies.load()?,
        list_signed: settings.list_signed,
        providers: settings.providers.options(&mapping, settings.network.offline),
        signatures: origins::signature_policy(settings.require_signature),
    });
    let (mut staging, mut plugin_cache) = (None, None);
    if !settings.read_only {
        staging = Some(staging::of_mount(settings, access, network, (declared, &facts))?);
        let tree = staging::writable_tree(settings, plugin_cache::NAME)?;
        plugin_cache = Some(PluginCache::new(tree, staging::shown(settings)));
    }
    let options = fs::FsOptions {
        uid: settings.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        gid: settings.gid.unwrap_or_else(|| rustix::process::getegid().as_raw()),
        read_only: settings.read_only,
        mountpoint: settings.mountpoint.clone(),
        daemon: rustix::process::geteuid().as_raw(),
        staging,
        plugin_cache,
        control: control.to_owned(),
    };
    Ok(Fs::new(facts, options))
}

/// The sources, and the registries where there are any to be reached.
type MountSources<'a> = (Vec<facts::MountSource>, Option<&'a Connections>);

fn sources<'a>(
    settings: &MountSettings,
    access: &'a RegistryAccess,
) -> Result<MountSources<'a>, CommandError> {
    let remote = settings.sources.iter().any(|source| {
        matches!(source, SourceSetting::Registry { .. } | SourceSetting::Providers { .. })
    });
    let network = if remote && !settings.network.offline {
        for warning in &access.configuration().tofurc()?.warnings {
            tracing::warn!("{warning}");
        }
        Some(access.connections()?)
    } else {
        None
    };
    let mut origins: BTreeMap<&Host, Arc<dyn Registry>> = BTreeMap::new();
    let mut sources = Vec::new();
    for source in &settings.sources {
        let SourceSetting::Providers { host, part } = source else {
            sources.push(opened(source, network)?);
            continue;
        };
        let registry = match origins.get(host) {
            Some(origin) => origin.clone(),
            None => origin(settings, access, network, host)?,
        };
        origins.insert(host, registry.clone());
        sources.push(facts::MountSource::Registry {
            host: host.clone(),
            kind: RegistryKind::Providers,
            prefix: part.clone(),
            registry,
            name: source.to_string(),
        });
    }
    Ok((sources, network))
}

/// A provider registry.
fn origin(
    settings: &MountSettings,
    access: &RegistryAccess,
    network: Option<&Connections>,
    host: &Host,
) -> Result<Arc<dyn Registry>, CommandError> {
    if network.is_none() {
        return Ok(Arc::new(Offline::new(host.clone())));
    }
    let registry = access.provider_registry(host)?;
    let shown = &settings.providers.platforms;
    let this = Platform::host();
    let own = shown.get(&this).or(shown.first()).cloned().unwrap_or(this);
    Ok(Arc::new(ProviderSource::new(
        registry,
        own,
        origins::signature_policy(settings.require_signature),
    )))
}

/// One source. Without a network a registry of it answers nothing.
pub(super) fn opened(
    source: &SourceSetting,
    network: Option<&Connections>,
) -> Result<facts::MountSource, CommandError> {
    let name = source.to_string();
    match source {
        SourceSetting::Registry { host, prefix } => {
            let registry: Arc<dyn Registry> = match network {
                Some(network) => network.reader(host).map_err(CommandError::failed)?,
                None => Arc::new(Offline::new(host.clone())),
            };
            Ok(facts::MountSource::Registry {
                host: host.clone(),
                kind: RegistryKind::Oci,
                prefix: prefix.clone(),
                registry,
                name,
            })
        }
        SourceSetting::Providers { .. } => Err(CommandError::Usage(format!(
            "{source}: a provider registry is mounted, or copied by tofufs mirror"
        ))),
        SourceSetting::Layouts(dir) => {
            let store = Arc::new(LayoutDirectory::open(dir).map_err(CommandError::failed)?);
            Ok(facts::MountSource::Store { store, name })
        }
        SourceSetting::Archive(file) => {
            let store = Arc::new(LayoutArchive::open(file).map_err(CommandError::failed)?);
            Ok(facts::MountSource::Store { store, name })
        }
    }
}

/// Has the kernel forget names on a thread of its own: the kernel may hold a lock for the operation
/// that is under way.
struct ForgettingKernel {
    kernel: Arc<Session>,
    blocking: tokio::runtime::Handle,
}

impl fs::KernelNames for ForgettingKernel {
    fn forget(&self, names: fs::NamesInDirectories) -> BoxFuture<'static, ()> {
        let kernel = Arc::clone(&self.kernel);
        let forgetting = self.blocking.spawn_blocking(move || kernel.forget(&names));
        Box::pin(async move { drop(forgetting.await) })
    }
}
