//! The writable part of a mount: where it lies on disk, and where its releases go.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::access::RegistryAccess;
use super::output::CommandError;
use super::policy::check::PolicyCheck;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::{state, status};
use crate::facts::Facts;
use crate::failure::Refusal;
use crate::fs::staging::{self, StagingArea};
use crate::fs::{Fs, ShownAs};
use crate::local::LocalTree;
use crate::name::{Host, RepoName};
use crate::registry::Upload;
use crate::registry::connections::Connections;
use crate::registry::decorate::Offline;
use crate::registry::layout::{LayoutDirectory, RegistryLayout};
use crate::stage::{self, OpenUpload, PublishDestination, Stage, StageState};

/// What is staged in a mount, and where it goes. Without a network nothing is published but into
/// stores.
pub fn of_mount(
    settings: &MountSettings,
    access: &RegistryAccess,
    network: Option<&Connections>,
    (declared, facts): (Vec<(Host, Option<RepoName>)>, &Facts),
) -> Result<StagingArea, CommandError> {
    let tree = writable_tree(settings, staging::NAME)?;
    let stage = Stage::open(stage::StageOptions {
        dir: state::of_mounts(settings)?,
        destinations: destinations(settings, network)?,
        mapping: settings.mapping.clone().unwrap_or_default(),
        allow_overwrite: settings.allow_overwrite,
        limits: settings.limits,
        signer: settings.signing.signer(settings.network.deadline, access.broker())?,
        check: Some(Arc::new(PolicyCheck::of_mount(facts))),
    })
    .map_err(CommandError::failed)?;
    let options = staging::StagingOptions {
        declared,
        any_host: settings.sources.iter().any(|source| matches!(source, SourceSetting::Layouts(_))),
        shown: shown(settings),
    };
    StagingArea::new(tree, stage, options)
        .map_err(|e| CommandError::Failed(format!("{}/: {e}", staging::NAME)))
}

/// As what the writable parts of a mount are shown.
pub fn shown(settings: &MountSettings) -> ShownAs {
    ShownAs { uid: settings.uid, gid: settings.gid, writable: settings.session.allow_other }
}

/// The tree on local disk behind a part of the mount that is written to. It survives the mount: it
/// lies in the state directory, by mount point.
pub fn writable_tree(settings: &MountSettings, name: &str) -> Result<Arc<LocalTree>, CommandError> {
    let dir = state::of_mounts(settings)?.join(name);
    let failed =
        |e: io::Error| CommandError::Failed(format!("{} cannot be used: {e}", dir.display()));
    share(&dir).map_err(failed)?;
    LocalTree::open(&dir).map_err(|e| failed(e.into()))
}

/// Makes a directory that everybody may read who is let into the private one above it, that is
/// through the mount.
fn share(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o755))),
    }
}

/// The one way to a registry.
struct RegistryUpload(Arc<dyn Upload>);

impl OpenUpload for RegistryUpload {
    fn open(&self, _: &Host) -> Result<Arc<dyn Upload>, Refusal> {
        Ok(Arc::clone(&self.0))
    }
}

/// The way to a directory of stores, which takes every registry.
struct LayoutUpload {
    store: Arc<LayoutDirectory>,
    deadline: Duration,
}

impl OpenUpload for LayoutUpload {
    fn open(&self, host: &Host) -> Result<Arc<dyn Upload>, Refusal> {
        let layout = RegistryLayout::of(Arc::clone(&self.store), host);
        Ok(Arc::new(layout.with_deadline(self.deadline)))
    }
}

/// The sources that can be written to, in their order.
fn destinations(
    settings: &MountSettings,
    network: Option<&Connections>,
) -> Result<Vec<PublishDestination>, CommandError> {
    let mut destinations = Vec::new();
    for source in &settings.sources {
        match source {
            SourceSetting::Registry { host, prefix } => {
                let upload: Arc<dyn Upload> = match network {
                    Some(network) => Arc::new(network.writer(host).map_err(CommandError::failed)?),
                    None => Arc::new(Offline::new(host.clone())),
                };
                destinations.push(PublishDestination {
                    host: Some(host.clone()),
                    prefix: prefix.clone(),
                    open: Arc::new(RegistryUpload(upload)),
                });
            }
            SourceSetting::Layouts(dir) => {
                let store = Arc::new(LayoutDirectory::open(dir).map_err(CommandError::failed)?);
                let deadline = settings.network.deadline;
                let open = Arc::new(LayoutUpload { store, deadline });
                destinations.push(PublishDestination { host: None, prefix: None, open });
            }
            SourceSetting::Archive(_) | SourceSetting::Providers { .. } => {}
        }
    }
    Ok(destinations)
}

/// What is staged, as `status` shows it. Blocks on the disk.
pub fn status(fs: &Fs) -> Vec<status::StagedStatus> {
    let Some(stage) = fs.publishing().stage() else { return Vec::new() };
    let staged = stage.staged().unwrap_or_else(|e| {
        tracing::warn!("{e}");
        Vec::new()
    });
    let shown = |staged: stage::StagedRelease| status::StagedStatus {
        path: format!("{}/{}", staging::NAME, staged.path.to_os_string().to_string_lossy()),
        state: match staged.state {
            StageState::Open => "open",
            StageState::Sealed => "sealed",
            StageState::Uploading => "uploading",
            StageState::Failed => "failed",
        }
        .to_owned(),
        error: staged.error,
    };
    staged.into_iter().map(shown).collect()
}
