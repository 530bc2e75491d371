//! The writable part of a mount: where it lies on disk, and where its releases go.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::output::CommandError;
use super::settings::{MountSettings, Source};
use super::{mount, status};
use crate::facts;
use crate::fs::staging::{self, Staging};
use crate::fs::{Fs, Shown};
use crate::local::Tree;
use crate::mapping::Mapping;
use crate::name::Host;
use crate::registry::Upload;
use crate::registry::connections::Connections;
use crate::registry::decorate::Offline;
use crate::registry::layout::{Directory, Layout};
use crate::stage::{self, Destination, Mapped, OpenUpload, Stage, State};

/// What is staged in a mount, and where it goes. Without a network nothing is published but into stores.
pub fn of_mount(
    settings: &MountSettings,
    sources: &[facts::Source],
    network: Option<&Connections>,
) -> Result<Staging, CommandError> {
    let tree = writable_tree(settings, staging::NAME)?;
    let stage = Stage::open(stage::Options {
        dir: mount::own_state(settings)?,
        destinations: destinations(settings, network)?,
        mapping: mapped(settings.mapping.clone().unwrap_or_default()),
        allow_overwrite: settings.allow_overwrite,
        limits: settings.limits,
    })
    .map_err(CommandError::failed)?;
    let options = staging::Options {
        declared: sources.iter().flat_map(facts::Source::declared).collect(),
        any_host: settings.sources.iter().any(|source| matches!(source, Source::Layouts(_))),
        shown: shown(settings),
    };
    Staging::new(tree, stage, options).map_err(|e| CommandError::Failed(format!("{}/: {e}", staging::NAME)))
}

/// As what the writable parts of a mount are shown.
pub fn shown(settings: &MountSettings) -> Shown {
    Shown { uid: settings.uid, gid: settings.gid, writable: settings.session.allow_other }
}

/// The tree on local disk behind a part of the mount that is written to. It survives the mount: it lies in the state
/// directory, by mount point.
pub fn writable_tree(settings: &MountSettings, name: &str) -> Result<Arc<Tree>, CommandError> {
    let dir = mount::own_state(settings)?.join(name);
    let failed = |e: io::Error| CommandError::Failed(format!("{} cannot be used: {e}", dir.display()));
    share(&dir).map_err(failed)?;
    Tree::open(&dir).map_err(|e| failed(e.into()))
}

/// Makes a directory that everybody may read who is let into the private one above it, that is through the mount.
fn share(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o755))),
    }
}

fn mapped(mapping: Mapping) -> Mapped {
    Arc::new(move |provider| mapping.repo(provider).ok().flatten())
}

/// The sources that can be written to, in their order.
fn destinations(settings: &MountSettings, network: Option<&Connections>) -> Result<Vec<Destination>, CommandError> {
    let mut destinations = Vec::new();
    for source in &settings.sources {
        match source {
            Source::Registry { host, prefix } => {
                let upload: Arc<dyn Upload> = match network {
                    Some(network) => Arc::new(network.writer(host).map_err(CommandError::failed)?),
                    None => Arc::new(Offline::new(host.clone())),
                };
                let open: OpenUpload = Arc::new(move |_| Ok(upload.clone()));
                destinations.push(Destination { host: Some(host.clone()), prefix: prefix.clone(), open });
            }
            Source::Layouts(dir) => {
                let store = Arc::new(Directory::open(dir).map_err(CommandError::failed)?);
                let deadline = settings.network.deadline;
                let open: OpenUpload = Arc::new(move |host: &Host| {
                    Ok(Arc::new(Layout::of(store.clone(), host).with_deadline(deadline)) as Arc<dyn Upload>)
                });
                destinations.push(Destination { host: None, prefix: None, open });
            }
            Source::Archive(_) => {}
        }
    }
    Ok(destinations)
}

/// What is staged, as `status` shows it. Blocks on the disk.
pub fn status(fs: &Fs) -> Vec<status::Staged> {
    let Some(stage) = fs.stage() else { return Vec::new() };
    let staged = stage.staged().unwrap_or_else(|e| {
        tracing::warn!("{e}");
        Vec::new()
    });
    let shown = |staged: stage::Staged| status::Staged {
        path: PathBuf::from(staging::NAME).join(staged.path).to_string_lossy().into_owned(),
        state: match staged.state {
            State::Open => "open",
            State::Sealed => "sealed",
            State::Uploading => "uploading",
            State::Failed => "failed",
        }
        .to_owned(),
        error: staged.error,
    };
    staged.into_iter().map(shown).collect()
}
