//! From a directory to a plan: of a provider release if it holds one, else of a module.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use super::blob::Workshop;
use super::plan::{self, Destined, ReleasePlan};
use super::provider;
use super::tree::{ANNOTATIONS_FILE, read_small};
use crate::failure::{Failure, Refusal};

/// The most bytes of a file with annotations.
const ANNOTATIONS_MAX: u64 = 64 << 10;

/// The plan of a directory. `name` is what messages call it.
///
/// # Errors
/// `Invalid` for what makes no release, `Busy` for what changed meanwhile, and those of reading and
/// packing.
pub fn plan(
    dir: OwnedFd,
    name: &str,
    mut destined: Destined,
    workshop: &Workshop,
) -> Result<ReleasePlan, Refusal> {
    for (key, value) in annotations_of(&dir, name)? {
        destined.annotations.entry(key).or_insert(value);
    }
    match provider::contents(dir.as_fd(), name)? {
        Some(contents) => contents.plan(destined, workshop),
        None => plan::module_directory(dir, name, destined, workshop),
    }
}

/// The annotations that a tree brings along: a JSON object of texts in `.oci-annotations.json` at
/// its top.
fn annotations_of(dir: &OwnedFd, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(text) = read_small(dir.as_fd(), name, ANNOTATIONS_FILE, ANNOTATIONS_MAX)? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&text).map_err(|e| {
        let rule = format!("it is no JSON object of texts: {e}");
        Refusal::new(Failure::Invalid, format!("{name}/{ANNOTATIONS_FILE}"), rule)
    })
}
