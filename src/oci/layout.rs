//! The two documents of an image layout, `oci-layout` and `index.json`, and the tags that the latter gives.
//!
//! They are as untrusted as what a registry sends and are read as strictly. Unlike an index in a registry,
//! `index.json` need not say its mediaType: skopeo leaves it out. OCI image spec, "Image Layout".

use serde_json::Value;

use super::{Descriptor, DocumentError, INDEX, MANIFEST_MAX, descriptors, strict, structure, text};
use crate::name::Tag;

/// Name of the file that makes a directory an image layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// Name of the file that says what the layout holds.
pub const INDEX_FILE: &str = "index.json";
/// The largest `oci-layout` that is read, in bytes.
pub const LAYOUT_FILE_MAX: u64 = 4 << 10;
/// The largest `index.json` that is read, in bytes: as much as of any other index.
pub const INDEX_FILE_MAX: u64 = MANIFEST_MAX;

const VERSION: &str = "1.0.0";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Checks the content of `oci-layout`: the one version that there is.
///
/// # Errors
/// Not such a document, or of another version.
pub fn check_version(bytes: &[u8]) -> Result<(), DocumentError> {
    let value = strict::parse(bytes).map_err(DocumentError::Structure)?;
    match value.get("imageLayoutVersion") {
        Some(Value::String(version)) if version == VERSION => Ok(()),
        Some(got) => structure(format!("the imageLayoutVersion is {got}; wanted {VERSION:?}")),
        None => structure(format!("no imageLayoutVersion; wanted {VERSION:?}")),
    }
}

/// The entries of `index.json`, in their order.
///
/// # Errors
/// Not an index, or over the limit of entries.
pub fn entries(bytes: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    let value = strict::parse(bytes).map_err(DocumentError::Structure)?;
    let Value::Object(map) = &value else { return structure("not a JSON object") };
    match text(map, "mediaType")? {
        None => {}
        Some(m) if m == INDEX => {}
        Some(m) => return structure(format!("the mediaType is {m:?}; wanted {INDEX:?}")),
    }
    if map.contains_key("layers") || map.contains_key("config") {
        return structure("an index and an image at once (manifests beside layers or config)");
    }
    descriptors(map, "manifests")
}

/// The tag that an entry of `index.json` gives its manifest.
///
/// Its `org.opencontainers.image.ref.name` is the tag alone, or a full reference that ends in `:TAG`. Other names
/// (a digest, a title) give no tag.
pub fn tag_of(entry: &Descriptor) -> Option<Tag> {
    let name = entry.annotations.get(REF_NAME)?;
    if name.contains('@') {
        return None;
    }
    let tag = name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag);
    tag.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn index(names: &[&str]) -> Vec<u8> {
        let entries: Vec<_> = names
            .iter()
            .map(|n| serde_json::json!({"digest": Digest::of(b"x").to_string(), "size": 1, "annotations": {REF_NAME: n}}))
            .collect();
        serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
    }

    #[test]
    fn a_tag_is_the_ref_name_or_its_end() {
        let digest = format!("reg.example/a@{}", Digest::of(b"x"));
        for (name, tag) in [
            ("1.0.0", Some("1.0.0")),
            ("1.0.0_rc1", Some("1.0.0_rc1")),
            ("reg.example/acme/net:1.0.0", Some("1.0.0")),
            ("localhost:5000/net:1.0.0", Some("1.0.0")),
            ("localhost:5000/net", None),
            ("a/b", None),
            ("..", None),
            ("", None),
            (digest.as_str(), None),
        ] {
            let entries = entries(&index(&[name])).unwrap();
            assert_eq!(tag_of(&entries[0]).as_ref().map(Tag::as_str), tag, "{name}");
        }
    }

    /// L26
    #[test]
    fn other_versions_and_documents_are_refused() {
        assert!(check_version(br#"{"imageLayoutVersion": "1.0.0"}"#).is_ok());
        for bad in [r#"{"imageLayoutVersion":"2.0.0"}"#, r#"{"imageLayoutVersion":1}"#, "{}", "[]", "", "1.0.0"] {
            assert!(matches!(check_version(bad.as_bytes()), Err(DocumentError::Structure(_))), "{bad}");
        }
        assert_eq!(entries(format!(r#"{{"mediaType":"{INDEX}"}}"#).as_bytes()), Ok(vec![]));
        for bad in ["[]", "", r#"{"mediaType":"x"}"#, r#"{"manifests":[],"layers":[]}"#, r#"{"manifests":[{}]}"#] {
            assert!(matches!(entries(bad.as_bytes()), Err(DocumentError::Structure(_))), "{bad}");
        }
    }
}
