//! What the control socket of a mount reaches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use super::access::RegistryAccess;
use super::broker::Broker;
use super::control::{ControlRequest, Service, Steps};
use super::handover::{HandoverTerms, MountStart, SuccessorProcess};
use super::metrics::MetricsHandle;
use super::options::like;
use super::privileges::SandboxStatus;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::tofurc::mount_mapping::MountMapping;
use super::{staging, state, status};
use crate::fs::{self, Fs};
use crate::fuse::session::Session;
use crate::fuse::session::over::Gap;
use crate::sandbox::ReachInForce;
use crate::stage;

/// A mount as it is controlled.
pub struct Controlled {
    /// What is mounted.
    pub fs: Arc<Fs>,
    /// The way to registries.
    pub access: Arc<RegistryAccess>,
    /// The kernel's side.
    pub session: Arc<Session>,
    /// What was asked for.
    pub settings: MountSettings,
    /// How this process was started.
    pub start: MountStart,
    /// What does for it what it may not do.
    pub broker: Arc<Broker>,
    /// Whether this process is kept within the files that it needs.
    pub reach: ReachInForce,
    /// The socket of the metrics.
    pub metrics: Option<MetricsHandle>,
    /// Whether this process is the parent of those that follow, until the last one has ended: who
    /// started it in the foreground waits for it.
    pub stays: bool,
    /// Held while a process is on its way to take over.
    pub upgrading: tokio::sync::Mutex<()>,
    /// The process that took over.
    pub successor: watch::Sender<Option<u32>>,
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
            ControlRequest::Upgrade { program, gap, trace: _ } => {
                self.upgraded(program, gap).await.map(Into::into)
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

    /// Starts a process that serves in the place of this one.
    async fn upgraded(&self, program: PathBuf, gap: Gap) -> Result<u32, String> {
        let _upgrading = self.upgrading.lock().await;
        if self.successor.borrow().is_some() {
            return Err("another process serves it already".to_owned());
        }
        if program != self.start.program {
            return Err(format!(
                "it was mounted by {}, and that is what is started to serve it; put the new \
                 program there, or unmount it and mount it again",
                self.start.program.display()
            ));
        }
        let (broker, start, terms) =
            (Arc::clone(&self.broker), self.start.clone(), self.terms(gap));
        let starting = move || SuccessorProcess::start(&broker, &start, &terms);
        let prepared = tokio::task::spawn_blocking(starting).await.map_err(|e| e.to_string())?;
        let prepared = prepared.map_err(|reason| format!("{reason}; the old process goes on"))?;
        let stage = self.fs.publishing().stage().cloned();
        let at_rest = match &stage {
            Some(stage) => Some(stage.rest().await),
            None => None,
        };
        let metrics = self.metrics.as_ref().map(MetricsHandle::listener).transpose();
        let metrics = metrics.map_err(|e| e.to_string())?;
        let serving = tokio::task::spawn_blocking(move || prepared.serves(metrics));
        let pid = match serving.await.map_err(|e| e.to_string())? {
            Ok(pid) => pid.as_raw_nonzero().get().unsigned_abs(),
            Err(reason) => return Err(self.goes_on(reason).await),
        };
        self.fs.retire();
        if let Some(at_rest) = at_rest {
            at_rest.give();
        }
        self.session.replace();
        self.metrics.as_ref().inspect(|metrics| metrics.handed_over());
        tracing::info!("the process {pid} serves the mount now");
        self.adopt();
        self.successor.send_replace(Some(pid));
        Ok(pid)
    }

    /// Stays the parent of the successor, and of those that come after it.
    fn adopt(&self) {
        if self.stays
            && let Err(e) = rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        {
            tracing::warn!("the processes that take over are not waited for: {e}");
        }
    }

    fn terms(&self, gap: Gap) -> HandoverTerms {
        HandoverTerms {
            mountpoint: self.settings.mountpoint.clone(),
            state_dir: self.settings.state_dir.clone(),
            metrics: self.settings.metrics.as_ref().map(ToString::to_string),
            gap,
        }
    }

    /// A successor did not come up: what it left over the mount is taken away.
    async fn goes_on(&self, reason: String) -> String {
        let session = Arc::clone(&self.session);
        let uncovered = tokio::task::spawn_blocking(move || session.uncover()).await;
        match uncovered.map_err(std::io::Error::other).and_then(|seen| seen) {
            Ok(true) => format!("{reason}; the old process goes on"),
            Ok(false) => {
                format!("{reason}; it ended while it mounted, `tofufs mount` mounts again")
            }
            Err(e) => format!("{reason}; and the mount cannot be looked at: {e}"),
        }
    }

    /// How the mount is.
    pub async fn status(&self) -> Result<status::Mount, String> {
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
            sandbox: SandboxStatus::of_process(self.reach, &self.broker),
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
