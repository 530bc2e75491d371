//! Edges: small named values that change (what a tag stands for, what a repository lists).
//!
//! ```text
//! edge file   magic (8) │ length of the name (4) │ the name │ the value │ seal (32) over everything before it
//! ```
//!
//! INVARIANT: a value that is read is one that this cache was given under that name. A file that is
//! damaged, forged or moved reads as absent. Edges are not counted, and but for [`put_durably`] not
//! synced: a power loss may cost one, and costs a request.

use rustix::fs::fstat;

use super::disk::{is_sound, length, read_sound};
use super::error::{refused, system};
use super::layout::CacheLayout;
use super::seal::SEAL_LEN;
use crate::failure::{Failure, Refusal};

const MAGIC: &[u8; 8] = b"tofuedg1";
/// Nothing that a registry may answer with is longer; a longer file was not written here.
const EDGE_MAX: u64 = 64 * 1024 * 1024;

pub(super) fn get(layout: &CacheLayout, name: &str) -> Option<Vec<u8>> {
    let (found, value) = read(layout, &layout.seals.edge_file(name))?;
    (found == name).then_some(value)
}

pub(super) fn put(layout: &CacheLayout, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let file = layout.seals.edge_file(name);
    let written = layout.write(&layout.edges, &file, &sealed(layout, name, value)?);
    written.map_err(|errno| system(subject(name), "keep it", errno))
}

/// As [`put`], for what a power loss must not cost.
pub(super) fn put_durably(layout: &CacheLayout, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let file = layout.seals.edge_file(name);
    let written = layout.write_durably(&layout.edges, &file, &sealed(layout, name, value)?);
    written.map_err(|errno| system(subject(name), "keep it", errno))
}

fn subject(name: &str) -> String {
    format!("the cached answer {name:?}")
}

fn sealed(layout: &CacheLayout, name: &str, value: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (Ok(name_len), true) = (u32::try_from(name.len()), value.len() as u64 <= EDGE_MAX / 2)
    else {
        let rule = format!("it has {} bytes, the cache's limit is {}", value.len(), EDGE_MAX / 2);
        return Err(refused(Failure::Io, subject(name), rule));
    };
    let mut out = Vec::with_capacity(MAGIC.len() + 4 + name.len() + value.len() + SEAL_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&name_len.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
    let seal = layout.seals.edge(&out);
    out.extend_from_slice(seal.as_bytes());
    Ok(out)
}

pub(super) fn remove(layout: &CacheLayout, name: &str) {
    let file = layout.seals.edge_file(name);
    if let Err(errno) = layout.edges.clear(&file, &layout.tmp) {
        tracing::warn!(edge = name, %errno, "cannot remove a cached answer");
    }
}

pub(super) fn each(layout: &CacheLayout, visit: &mut dyn FnMut(&str, &[u8])) {
    for file in layout.edges.names() {
        if let Some((name, value)) = read(layout, &file)
            && layout.seals.edge_file(&name) == file
        {
            visit(&name, &value);
        }
    }
}

/// Name and value of the edge in `file`; one that is not sealed by this cache is removed.
fn read(layout: &CacheLayout, file: &str) -> Option<(String, Vec<u8>)> {
    let open = match layout.edges.open(file) {
        Ok(open) => open,
        Err(rustix::io::Errno::NOENT) => return None,
        Err(errno) if super::layout::is_misplaced(errno) => return damaged(layout, file),
        Err(_) => return None,
    };
    let stat = fstat(&open).ok()?;
    if !is_sound(&stat) || length(&stat) > EDGE_MAX {
        return damaged(layout, file);
    }
    let bytes = read_sound(&open, length(&stat));
    match bytes.as_deref().and_then(|bytes| parse(layout, bytes)) {
        Some(edge) => Some(edge),
        // It may have been replaced by a good one since it was opened.
        None if layout.edges.holds(file, &open) => damaged(layout, file),
        None => None,
    }
}

fn parse(layout: &CacheLayout, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let (body, seal) = bytes.split_last_chunk::<SEAL_LEN>()?;
    if layout.seals.edge(body) != blake3::Hash::from_bytes(*seal) {
        return None;
    }
    let (name_len, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let (name, value) =
        rest.split_at_checked(usize::try_from(u32::from_le_bytes(*name_len)).ok()?)?;
    Some((std::str::from_utf8(name).ok()?.to_owned(), value.to_owned()))
}

fn damaged(layout: &CacheLayout, file: &str) -> Option<(String, Vec<u8>)> {
    tracing::warn!(
        edge_file = file,
        "a cached answer was changed outside tofufs: it is removed and asked for again"
    );
    let _ = layout.edges.clear(file, &layout.tmp);
    None
}
