//! What variables say: `TOFUFS_CACHE_DIR` for `--cache-dir`, several values one a line.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Arg;

use super::{Kind, Layer, Said, ValueOrigin, key, kind, variable};
use crate::cli::settings_error::SettingsError;

/// What they say of these options. One that is empty counts as one that is not set.
pub fn layer<'a>(
    variables: &BTreeMap<OsString, OsString>,
    options: impl Iterator<Item = &'a Arg>,
) -> Result<Layer, SettingsError> {
    let mut layer = Layer::default();
    for option in options {
        let Some(key) = key(option) else { continue };
        let name = variable(&key);
        let set = variables.get(OsStr::new(&name)).filter(|value| !value.is_empty());
        if let Some(text) = set {
            let values =
                values(text, kind(option)).map_err(|reason| SettingsError::new(&name, reason))?;
            layer.0.insert(key, Said { values, origin: ValueOrigin::Variable(name) });
        }
    }
    layer.with_rules(Vec::new())
}

fn values(text: &OsStr, kind: Kind) -> Result<Vec<OsString>, String> {
    let lines = || text.as_bytes().split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    match kind {
        Kind::Several => Ok(lines().map(|line| OsString::from_vec(line.to_owned())).collect()),
        Kind::Switch => switch(text).map(|on| vec![on.to_string().into()]),
        Kind::One | Kind::Count => Ok(vec![text.to_owned()]),
    }
}

fn switch(text: &OsStr) -> Result<bool, String> {
    match text.to_string_lossy().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other => Err(format!("{:?} is neither true nor false", other.escape_debug().to_string())),
    }
}
