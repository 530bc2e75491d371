//! `--like MOUNTPOINT`: what a running mount was told of registries, of the mapping and of its
//! directories.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::{Layer, RULE, Said, ValueOrigin};
use crate::cli::args::mapping;
use crate::cli::control::ControlRequest;
use crate::cli::mounts;
use crate::cli::output::CommandError;
use crate::cli::settings::MountSettings;

/// The options of a mount that other commands can take, with their values as they would be typed.
/// Paths are from the root, since the mount was begun elsewhere.
pub fn told(settings: &MountSettings) -> BTreeMap<String, Vec<String>> {
    let network = &settings.network;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let bytes = |bytes: u64| vec![format!("{}KiB", bytes.div_ceil(1024))];
    let rules = settings.mapping.as_ref().map(mapping::rules).unwrap_or_default();
    let told = [
        ("deadline", vec![format!("{}ms", network.deadline.as_millis())]),
        ("plain_http", network.plain_http.iter().map(ToString::to_string).collect()),
        ("ca_file", network.ca_files.iter().map(|file| path(file)).collect()),
        ("token_realm", network.token_realms.iter().map(ToString::to_string).collect()),
        (
            "mirror",
            network.mirrors.iter().map(|mirror| format!("{}={mirror}", mirror.of)).collect(),
        ),
        ("tofurc", network.tofurc.iter().map(|file| path(file)).collect()),
        ("policy", settings.policies.named().map(path).into_iter().collect()),
        ("cache_dir", vec![path(&settings.cache_dir)]),
        ("cache_size", bytes(settings.cache_size)),
        ("state_dir", vec![path(&settings.state_dir)]),
        ("archive_max_size", bytes(settings.limits.archive)),
        ("entry_max_size", bytes(settings.limits.entry)),
        ("allow_overwrite", vec![settings.allow_overwrite.to_string()]),
        (RULE, rules.iter().map(ToString::to_string).collect()),
    ];
    let said = told.into_iter().filter(|(_, values): &(_, Vec<String>)| !values.is_empty());
    said.map(|(key, values)| (key.to_owned(), values)).collect()
}

/// What the mount at `point` says of options.
///
/// # Errors
/// It is no mount of this user, or its process does not answer.
pub fn layer(point: &Path) -> Result<Layer, CommandError> {
    let failed =
        |reason: String| CommandError::Failed(format!("--like {}: {reason}", point.display()));
    let entry = mounts::at(point).map_err(|e| failed(e.to_string()))?;
    let answer = mounts::connect(&entry)
        .and_then(|connection| connection.ask(&ControlRequest::Settings(())))
        .map_err(failed)?;
    let told: BTreeMap<String, Vec<String>> = serde_json::from_value(answer).map_err(|e| {
        failed(format!("its answer is none that this version of tofufs knows: {e}"))
    })?;
    let said = |values: Vec<String>| Said {
        values: values.into_iter().map(OsString::from).collect(),
        origin: ValueOrigin::Like(point.to_owned()),
    };
    Ok(Layer(told.into_iter().map(|(key, values)| (key, said(values))).collect()))
}
