//! The process that serves a mount: puts the layers together, from the settings up to the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::access::RegistryAccess;
use super::broker::Broker;
use super::control::{ControlRequest, Service, Socket, Steps};
use super::lifecycle::{self, Signals};
use super::log::LogWriter;
use super::look::Look;
use super::metrics::MetricsSocket;
use super::options::like;
use super::output::CommandError;
use super::privileges::SandboxStatus;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::staging;
use super::status;
use super::tofurc::mount_mapping::MountMapping;
use super::trace::TraceId;
use super::{allocator, background, mapping, origins, privileges, state, trace};
use crate::facts::{self, Facts, FailingSource, RegistryKind};
use crate::fs::plugin_cache::{self, PluginCache};
use crate::fs::{self, Fs};
use crate::fuse::passthrough::Passthrough;
use crate::fuse::session::{self, Session};
use crate::fuse::{self, Adapter};
use crate::name::{Host, Platform};
use crate::provider_registry::ProviderSource;
use crate::registry::connections::Connections;
use crate::registry::decorate::Offline;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};
use crate::registry::{Asker, Registry};
use crate::stage;
use crate::store::{self, Store};

/// How long tasks may take to end when the mount is gone.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// How often it is looked whether memory can be given back.
const MEMORY_SEEN: Duration = Duration::from_secs(5);

/// How much a process may grow until what it freed is given back.
const GROWTH: u64 = 4 << 20;

/// How often the thread that is kept for blocking work is used: sooner than the runtime ends an
/// idle one (10 s).
const THREAD_USED: Duration = Duration::from_secs(5);

/// Serves a mount until it is unmounted. `ready` is called once, when the mount can be used and
/// every source was looked at, with those that fail; its error ends the mount. No thread runs before
/// this process has given up its privileges, that of the log included.
pub fn serve(
    settings: &MountSettings,
    log: &LogWriter,
    ready: impl FnOnce(&[FailingSource]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    keep_memory_private()?;
    allow_many_files();
    allocator::keep_few_arenas();
    let broker = Broker::start(settings)?;
    let turn = TraceId::span(TraceId::of_process()).in_scope(|| alone_at_the_point(settings))?;
    log.start().map_err(|e| CommandError::failed(format!("cannot start the log: {e}")))?;
    let log_file = state::log_of(settings)?.is_some().then_some(log);
    let runtime = runtime()?;
    let served = serve_in(&runtime, settings, (Arc::new(broker), turn), log_file, ready);
    runtime.shutdown_timeout(LAST_TASKS);
    served
}

/// Checks the mount point, keeps other processes from mounting there as long as what is returned
/// lives, and gives up what is not needed from now on.
fn alone_at_the_point(settings: &MountSettings) -> Result<File, CommandError> {
    let turn = state::turn(settings)?;
    session::prepare(&settings.mountpoint, &settings.apart()).map_err(CommandError::failed)?;
    privileges::give_up(settings)?;
    Ok(turn)
}

fn serve_in(
    runtime: &Runtime,
    settings: &MountSettings,
    (broker, turn): (Arc<Broker>, File),
    log_file: Option<&LogWriter>,
    ready: impl FnOnce(&[FailingSource]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let access = Arc::new(
        RegistryAccess::new(&settings.network, Asker::Program).through(Arc::clone(&broker)),
    );
    let settings = &mapping::resolved(settings, &access)?;
    let _entered = runtime.enter();
    let starting = TraceId::span(TraceId::of_process()).entered();
    trace::note_invalid();
    let mut signals = Signals::catch().map_err(CommandError::failed)?;
    let socket = Socket::bind(&settings.mountpoint, &control_dirs(settings)?)
        .map_err(|e| CommandError::Failed(format!("no control socket can be made: {e}")))?;
    let metrics = metrics_socket(settings)?;
    let fs = file_system(settings, &access, socket.path())?;
    let look = Look::new(settings, &fs, &access);
    if settings.strict {
        look.insist(runtime)?;
    }

    let mounting = session_options(settings);
    let options = fuse::AdapterOptions { without_open: settings.read_only && mounting.read_only };
    let adapter = Adapter::new(Arc::clone(&fs), runtime.handle().clone(), options);
    let passthrough = adapter.passthrough();
    let connected = |device: BorrowedFd<'_>| say_how_files_are_read(settings, &passthrough, device);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let (session, end) =
        session::start(broker, &settings.mountpoint, &mounting, threads, adapter, connected)
            .map_err(CommandError::failed)?;
    drop(turn);
    // After mounting: systemd's automount answers its own process group alone at the mount point,
    // and has all others wait for the mount.
    let detached = if settings.in_background { background::detach() } else { Ok(()) };
    let session = Arc::new(session);
    let (kernel, blocking) = (Arc::clone(&session), runtime.handle().clone());
    fs.publishing().tell_kernel(Box::new(ForgettingKernel { kernel, blocking }));
    runtime.spawn(keep_a_thread());
    runtime.spawn(give_memory_back(Arc::clone(&fs)));
    let session_of = Arc::clone(&session);
    let controlled =
        Arc::new(Controlled { fs, access, session: session_of, settings: settings.clone() });
    let measured = Arc::clone(&controlled);
    let controlling = runtime.spawn(async move { socket.serve(controlled).await });
    let measuring = metrics.map(|socket| {
        let look = move || {
            let measured = Arc::clone(&measured);
            async move { measured.status().await }
        };
        runtime.spawn(socket.serve(look))
    });
    tracing::info!("{}: mounted {}", settings.mountpoint.display(), settings.session.name);
    let ailing = if settings.strict { Vec::new() } else { look.at_sources(runtime) };
    drop(starting);
    let ended = match detached.and_then(|()| ready(&ailing)) {
        Ok(()) => {
            runtime.block_on(lifecycle::until_unmounted(&session, end, &mut signals, log_file))
        }
        Err(e) => {
            session.unmount(session::Manner::Lazily).map_err(CommandError::failed).and(Err(e))
        }
    };
    controlling.abort();
    measuring.inspect(|measuring| measuring.abort());
    tracing::info!("{}: the mount has ended", settings.mountpoint.display());
    ended
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

/// Gives memory back that was freed: after the process grew, and after the kernel forgot most of
/// what it knew.
async fn give_memory_back(fs: Arc<Fs>) {
    let mut often = tokio::time::interval(MEMORY_SEEN);
    let (mut known, mut grown) = (0, 0);
    loop {
        often.tick().await;
        let inodes = fs.inodes();
        known = known.max(inodes);
        if 2 * inodes + 1000 < known || resident() > grown + GROWTH {
            let _ = tokio::task::spawn_blocking(allocator::give_back).await;
            (known, grown) = (inodes, resident());
        }
    }
}

/// How many bytes of this process are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
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

fn metrics_socket(settings: &MountSettings) -> Result<Option<MetricsSocket>, CommandError> {
    let bound = |address| {
        MetricsSocket::bind(address)
            .map_err(|e| CommandError::Failed(format!("metrics cannot be told at {address}: {e}")))
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
    let (mut staging, mut plugin_cache) = (None, None);
    if !settings.read_only {
        staging = Some(staging::of_mount(settings, access, &sources, network)?);
        let tree = staging::writable_tree(settings, plugin_cache::NAME)?;
        plugin_cache = Some(PluginCache::new(tree, staging::shown(settings)));
    }
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

/// What the control socket reaches.
struct Controlled {
    fs: Arc<Fs>,
    access: Arc<RegistryAccess>,
    session: Arc<Session>,
    settings: MountSettings,
}

#[async_trait]
impl Service for Controlled {
    async fn answer(&self, request: ControlRequest, steps: &Arc<Steps>) -> Result<Value, String> {
        match request {
            ControlRequest::Status(()) => {
                let status = self.status().await?;
                serde_json::to_value(status).map_err(|e| e.to_string())
            }
            ControlRequest::Commit { path, annotations, allow_overwrite, trace: _ } => {
                let path = stage::staged_path(Path::new(&path)).map_err(|e| e.to_string())?;
                let request = stage::CommitRequest {
                    annotations,
                    allow_overwrite,
                    progress: Some(Arc::clone(steps) as Arc<dyn stage::UploadProgress>),
                    files: None,
                };
                let committed = self.fs.publishing().commit(&path, request).await;
                // What was published is gone from the staging directory for whoever looks after
                // this.
                self.fs.publishing().names_dropped().await;
                let committed = committed.map_err(|e| e.to_string())?;
                serde_json::to_value(committed).map_err(|e| e.to_string())
            }
            ControlRequest::Mapping(()) => {
                serde_json::to_value(MountMapping::of(self.fs.facts().providers().mapping()))
                    .map_err(|e| e.to_string())
            }
            ControlRequest::Settings(()) => {
                serde_json::to_value(like::told(&self.settings)).map_err(|e| e.to_string())
            }
            ControlRequest::Refresh { path, accept, trace: _ } => {
                let path = self.path_to_refresh(path).await?;
                let (fs, session) = (Arc::clone(&self.fs), Arc::clone(&self.session));
                if let Some(connections) = self.access.opened() {
                    connections.renew();
                }
                let refresh = move || {
                    let path = Path::new(&path);
                    session.forget(&if accept { fs.accept(path) } else { fs.refresh(path) })
                };
                tokio::task::spawn_blocking(refresh).await.map_err(|e| e.to_string())?;
                Ok(Value::Null)
            }
        }
    }
}

impl Controlled {
    /// Reads the policies again. Where they count, whatever was opened by others is looked up anew.
    async fn path_to_refresh(&self, path: String) -> Result<String, String> {
        let files = self.settings.policies.clone();
        let read = tokio::task::spawn_blocking(move || files.load());
        let policies = read
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("{e}; the policies that were read before stay in force"))?;
        let gate = self.fs.facts().gate();
        if policies.is_empty() && !gate.has_policies() {
            return Ok(path);
        }
        gate.replace(policies);
        Ok(String::new())
    }

    async fn status(&self) -> Result<status::Mount, String> {
        let fs = Arc::clone(&self.fs);
        let look = move || (fs.report(), staging::status(&fs));
        let (report, staged) =
            tokio::task::spawn_blocking(look).await.map_err(|e| e.to_string())?;
        Ok(self.status_of(report, staged))
    }

    fn status_of(
        &self,
        report: fs::MountReport,
        staged: Vec<status::StagedStatus>,
    ) -> status::Mount {
        let requests = self
            .access
            .opened()
            .map(|connections| status::RequestCounts::of(connections.transport()));
        status::Mount {
            mountpoint: self.settings.mountpoint.to_string_lossy().into_owned(),
            pid: Some(std::process::id()),
            read_only: self.settings.read_only,
            offline: self.settings.network.offline,
            sources: self
                .settings
                .sources
                .iter()
                .map(|source| self.source_status(source, &report))
                .collect(),
            cache: Some(status::Cache {
                dir: self.settings.cache_dir.to_string_lossy().into_owned(),
                bytes: report.cache_bytes,
                limit: report.cache_limit,
            }),
            staged,
            requests: requests.unwrap_or_default(),
            errors: report.errors.iter().map(|failed| failed.sentence.to_string()).collect(),
            failures: report.errors.iter().map(status::ReportedError::of).collect(),
            downloads: report.downloads.iter().map(status::DownloadStatus::of).collect(),
            sandbox: SandboxStatus::of_process(),
            log: state::log_of(&self.settings)
                .ok()
                .flatten()
                .map(|log| log.to_string_lossy().into_owned()),
            owner: None,
        }
    }

    /// A store stands for several registries; the worst of their states is its own.
    fn source_status(
        &self,
        source: &SourceSetting,
        report: &fs::MountReport,
    ) -> status::SourceStatus {
        let name = source.to_string();
        let of_source =
            report.sources.iter().filter(|(of, _)| *of == name).map(|(_, health)| health);
        let mirrors = self.settings.network.mirrors.iter().filter(|mirror| match source {
            SourceSetting::Registry { host, .. } => mirror.of == *host,
            SourceSetting::Providers { .. }
            | SourceSetting::Layouts(_)
            | SourceSetting::Archive(_) => false,
        });
        let mirrors = mirrors.map(ToString::to_string).collect();
        status::SourceStatus {
            mirrors,
            ..status::SourceStatus::new(name.clone(), of_source.max_by_key(|health| health.state))
        }
    }
}
