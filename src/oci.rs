//! OCI documents: descriptors, image manifests and indexes, read strictly.
//!
//! A [`Manifest`] is its raw bytes plus a parsed view. The raw bytes are the manifest: its digest
//! is theirs, and one that we did not write is never written again. Reading refuses whatever two
//! readers could understand differently (duplicate keys, keys that differ by case only, an index
//! that is an image as well). OCI image spec 1.1.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::digest::{Digest, DigestError};
use crate::failure::{Failure, Refusal, Subject};

pub mod layout;
pub mod referrer;
pub(crate) mod strict;
pub mod write;

/// The largest manifest that is read, in bytes (hostile input R29; stricter than OpenTofu's 5 MiB −
/// 1).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The most entries of one index.
pub const INDEX_ENTRIES_MAX: usize = 10_000;

/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not a document of the form that the image spec gives it.
    #[error("{0}")]
    Structure(String),
    /// Over a limit.
    #[error("{0}")]
    TooLarge(String),
    /// A digest of an algorithm that is not implemented.
    #[error("{0}")]
    Unsupported(String),
}

impl DocumentError {
    /// The refusal of `subject`, whose document it is.
    pub fn about(&self, subject: impl Into<Subject>) -> Refusal {
        let failure = match self {
            DocumentError::Structure(_) => Failure::Structure,
            DocumentError::TooLarge(_) => Failure::TooLarge,
            DocumentError::Unsupported(_) => Failure::Unsupported,
        };
        Refusal::new(failure, subject, self)
    }
}

fn structure<T>(message: impl Into<String>) -> Result<T, DocumentError> {
    Err(DocumentError::Structure(message.into()))
}

/// The `platform` object of an index entry, as far as OpenTofu looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformObject {
    pub os: String,
    pub architecture: String,
    /// `os.version`, empty if absent.
    pub os_version: String,
}

/// What names a blob or manifest: digest, size, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// `size`, in bytes.
    pub size: u64,
    pub artifact_type: Option<String>,
    pub platform: Option<PlatformObject>,
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// One that says nothing but which bytes are meant.
    pub fn bare(digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The two kinds of manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestBody {
    /// An image index: its `manifests`.
    Index(Vec<Descriptor>),
    /// An image manifest: its `layers`.
    Image(Vec<Descriptor>),
}

/// A manifest: raw bytes and parsed view.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The bytes as the registry holds them.
    pub raw: Arc<[u8]>,
    /// The digest by which the bytes were verified.
    pub digest: Digest,
    /// `mediaType` of the body, equal to that of [`Manifest::body`]'s kind.
    pub media_type: &'static str,
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
    /// The parsed view.
    pub body: ManifestBody,
    subject: Option<Box<Result<Descriptor, DocumentError>>>,
}

impl Manifest {
    /// Reads a manifest whose bytes have already been verified against `digest`.
    ///
    /// `content_type` is the transport's claim (without parameters), where there was a transport;
    /// it must agree with the body.
    pub fn parse(
        raw: Arc<[u8]>,
        digest: Digest,
        content_type: Option<&str>,
    ) -> Result<Manifest, DocumentError> {
        if raw.len() as u64 > MANIFEST_MAX {
            return Err(DocumentError::TooLarge(format!(
                "the manifest has {} bytes; the limit is {MANIFEST_MAX}",
                raw.len()
            )));
        }
        let value = strict::parse(&raw).map_err(DocumentError::Structure)?;
        let Value::Object(map) = &value else {
            return structure("the manifest is not a JSON object");
        };
        let is_index = map.contains_key("manifests");
        let is_image = map.contains_key("layers") || map.contains_key("config");
        if is_index && is_image {
            return structure(
                "the manifest is an index and an image at once (manifests beside layers or config)",
            );
        }
        let looks_like = if is_index { INDEX } else { IMAGE };
        let media_type = media_type(text(map, "mediaType")?, looks_like)?;
        if let Some(claimed) = content_type
            && claimed != media_type
        {
            return structure(format!(
                "the manifest's mediaType is {media_type:?}, but it was served as {claimed:?}"
            ));
        }
        let body = if media_type == INDEX {
            if is_image {
                return structure("an index that has layers or config");
            }
            ManifestBody::Index(descriptors(map, "manifests")?)
        } else {
            if is_index {
                return structure("an image manifest that has manifests");
            }
            ManifestBody::Image(descriptors(map, "layers")?)
        };
        let subject = map.get("subject").filter(|subject| !subject.is_null());
        Ok(Manifest {
            subject: subject.map(|subject| Box::new(descriptor(subject))),
            digest,
            media_type,
            artifact_type: text(map, "artifactType")?,
            annotations: annotations(map)?,
            body,
            raw,
        })
    }
}

/// The media type that a manifest says it has, which has to be one of the two.
fn media_type(said: Option<String>, looks_like: &str) -> Result<&'static str, DocumentError> {
    match said.as_deref() {
        Some(INDEX) => Ok(INDEX),
        Some(IMAGE) => Ok(IMAGE),
        Some(m) => {
            structure(format!("the manifest's mediaType is {m:?}; wanted {IMAGE:?} or {INDEX:?}"))
        }
        None => structure(format!(
            "the manifest has no mediaType (OpenTofu requires it; it looks like {looks_like:?})"
        )),
    }
}

impl Manifest {
    /// What names this manifest in an index.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.to_owned(),
            digest: self.digest,
            size: self.raw.len() as u64,
            artifact_type: self.artifact_type.clone(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The blobs that an image manifest names: its config, where it has one, and its layers. None
    /// of an index.
    ///
    /// # Errors
    /// The config is no descriptor. OpenTofu does not look at it, so that alone makes no release
    /// unreadable.
    pub fn blobs(&self) -> Result<Vec<Descriptor>, DocumentError> {
        let ManifestBody::Image(layers) = &self.body else { return Ok(Vec::new()) };
        let value = strict::parse(&self.raw).map_err(DocumentError::Structure)?;
        let config =
            value.get("config").filter(|config| !config.is_null()).map(descriptor).transpose()?;
        Ok(config.into_iter().chain(layers.iter().cloned()).collect())
    }
}

type Map = serde_json::Map<String, Value>;

fn text(map: &Map, key: &str) -> Result<Option<String>, DocumentError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(_) => structure(format!("{key} is not a string")),
    }
}

fn annotations(map: &Map) -> Result<BTreeMap<String, String>, DocumentError> {
    match map.get("annotations") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries
            .iter()
            .map(|(k, v)| match v {
                Value::String(s) => Ok((k.clone(), s.clone())),
                _ => structure(format!("the annotation {k:?} is not a string")),
            })
            .collect(),
        Some(_) => structure("annotations is not an object"),
    }
}

fn descriptors(map: &Map, key: &str) -> Result<Vec<Descriptor>, DocumentError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > INDEX_ENTRIES_MAX => {
            Err(DocumentError::TooLarge(format!(
                "{key} has {} entries; the limit is {INDEX_ENTRIES_MAX}",
                items.len()
            )))
        }
        Some(Value::Array(items)) => items.iter().map(descriptor).collect(),
        Some(_) => structure(format!("{key} is not a list")),
    }
}

fn descriptor(value: &Value) -> Result<Descriptor, DocumentError> {
    let Value::Object(map) = value else { return structure("a descriptor is not an object") };
    let digest = match text(map, "digest")? {
        None => return structure("a descriptor has no digest"),
        Some(d) => d.parse::<Digest>().map_err(|e| match e {
            DigestError::UnknownAlgorithm(_) => DocumentError::Unsupported(e.to_string()),
            DigestError::Malformed(_) => DocumentError::Structure(e.to_string()),
        })?,
    };
    let size = match map.get("size") {
        Some(Value::Number(n)) if n.is_u64() && n.as_u64() <= Some(i64::MAX as u64) => {
            n.as_u64().unwrap_or_default()
        }
        Some(other) => {
            return structure(format!(
                "the size {other} of {digest} is not a whole number of bytes"
            ));
        }
        None => return structure(format!("the descriptor of {digest} has no size")),
    };
    if size == 0 && digest != Digest::of_with(digest.algorithm(), b"") {
        return structure(format!(
            "the size of {digest} is given as 0, but that is not the digest of nothing"
        ));
    }
    let platform = match map.get("platform") {
        None | Some(Value::Null) => None,
        Some(Value::Object(p)) => Some(PlatformObject {
            os: text(p, "os")?.unwrap_or_default(),
            architecture: text(p, "architecture")?.unwrap_or_default(),
            os_version: text(p, "os.version")?.unwrap_or_default(),
        }),
        Some(_) => return structure(format!("the platform of {digest} is not an object")),
    };
    Ok(Descriptor {
        media_type: text(map, "mediaType")?.unwrap_or_default(),
        digest,
        size,
        artifact_type: text(map, "artifactType")?,
        platform,
        annotations: annotations(map)?,
    })
}

#[cfg(test)]
mod tests;
