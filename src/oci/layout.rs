//! The two documents of an image layout, `oci-layout` and `index.json`: what they say, and how the
//! latter is changed.
//!
//! They are as untrusted as what a registry sends and are read as strictly. Unlike an index in a
//! registry, `index.json` need not say its mediaType: skopeo leaves it out. OCI image spec, "Image
//! Layout".

use std::fmt;

use serde_json::{Value, json};

use super::{
    Descriptor, DocumentError, INDEX, INDEX_ENTRIES_MAX, MANIFEST_MAX, Manifest, ManifestBody,
    descriptors, strict, structure, text,
};
use crate::digest::Digest;
use crate::name::Tag;

/// Name of the file that makes a directory an image layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// Name of the file that says what the layout holds.
pub const INDEX_FILE: &str = "index.json";
/// Name of the directory that holds all content, as `blobs/ALGORITHM/HEX`.
pub const BLOBS: &str = "blobs";
/// The content of [`LAYOUT_FILE`] in a layout of ours.
pub const LAYOUT_DOCUMENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
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

/// A file of an image layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutPart {
    /// [`LAYOUT_FILE`]
    Version,
    /// [`INDEX_FILE`]
    Index,
    /// A blob, by its digest.
    Blob(Digest),
}

impl fmt::Display for LayoutPart {
    /// Its path in the layout.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutPart::Version => f.write_str(LAYOUT_FILE),
            LayoutPart::Index => f.write_str(INDEX_FILE),
            LayoutPart::Blob(digest) => {
                write!(f, "{BLOBS}/{}/{}", digest.algorithm().name(), digest.hex())
            }
        }
    }
}

impl LayoutPart {
    /// The layout's own path and the part of it that `path` names; `None` where that is no file of
    /// a layout.
    pub fn split(path: &str) -> Option<(&str, LayoutPart)> {
        let split = |path| str::rsplit_once(path, '/').unwrap_or(("", path));
        let (dir, name) = split(path);
        match name {
            LAYOUT_FILE => Some((dir, LayoutPart::Version)),
            INDEX_FILE => Some((dir, LayoutPart::Index)),
            hex => {
                let (dir, algorithm) = dir.rsplit_once('/')?;
                let (layout, blobs) = split(dir);
                let digest = format!("{algorithm}:{hex}").parse().ok()?;
                (blobs == BLOBS).then_some((layout, LayoutPart::Blob(digest)))
            }
        }
    }
}

/// The tag that an entry of `index.json` gives its manifest.
///
/// Its `org.opencontainers.image.ref.name` is the tag alone, or a full reference that ends in
/// `:TAG`. Other names (a digest, a title) give no tag.
pub fn tag_of(entry: &Descriptor) -> Option<Tag> {
    tag_in(entry.annotations.get(REF_NAME)?)
}

fn tag_in(name: &str) -> Option<Tag> {
    if name.contains('@') {
        return None;
    }
    let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
    tag.parse().ok()
}

/// `index.json` in which `manifest` has an entry and, where `tag` is given, stands under it and
/// nothing else does; `None` if that is so already. Without `index` there is none yet. `digest` is
/// the one under which the manifest lies.
///
/// What other programs wrote is kept: a manifest that loses its tag keeps its entry without it, as
/// skopeo does it. Left out are only entries that say nothing more than that there is a manifest,
/// of manifests that `manifest` (an index) names itself.
///
/// # Errors
/// `index` is no such document, or would grow over a limit.
pub fn with_manifest(
    index: Option<&[u8]>,
    manifest: &Manifest,
    digest: Digest,
    tag: Option<&Tag>,
) -> Result<Option<Vec<u8>>, DocumentError> {
    let mut value = match index {
        None => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
        Some(bytes) => {
            entries(bytes)?;
            strict::parse(bytes).map_err(DocumentError::Structure)?
        }
    };
    let Value::Object(map) = &mut value else { return structure("not a JSON object") };
    let list = map.entry("manifests").or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    let Value::Array(list) = list else { return structure("manifests is not a list") };
    let untagged = tag.is_some_and(|tag| untag(list, tag, &digest.to_string()));
    let entered = enter(list, manifest, &digest.to_string(), tag);
    let entries = list.len();
    if let ManifestBody::Index(children) = &manifest.body {
        let children: Vec<String> = children.iter().map(|child| child.digest.to_string()).collect();
        list.retain(|entry| {
            !(is_bare(entry) && children.iter().any(|child| digest_in(entry) == Some(child)))
        });
    }
    if !untagged && !entered && list.len() == entries && index.is_some() {
        return Ok(None);
    }
    if list.len() > INDEX_ENTRIES_MAX {
        let rule =
            format!("it would have {} entries; the limit is {INDEX_ENTRIES_MAX}", list.len());
        return Err(DocumentError::TooLarge(rule));
    }
    let bytes = value.to_string().into_bytes();
    if bytes.len() as u64 > INDEX_FILE_MAX {
        let rule = format!("it would have {} bytes; the limit is {INDEX_FILE_MAX}", bytes.len());
        return Err(DocumentError::TooLarge(rule));
    }
    Ok(Some(bytes))
}

/// `index.json` with its entries in the order of their names and digests, so that what was entered
/// in another order gives the same bytes. Nothing else is changed.
///
/// # Errors
/// Not such a document.
pub fn in_order(index: &[u8]) -> Result<Vec<u8>, DocumentError> {
    entries(index)?;
    let mut value = strict::parse(index).map_err(DocumentError::Structure)?;
    if let Some(Value::Array(list)) = value.get_mut("manifests") {
        list.sort_by(|a, b| (ref_name(a), digest_in(a)).cmp(&(ref_name(b), digest_in(b))));
    }
    Ok(value.to_string().into_bytes())
}

/// Takes `tag` from every manifest but `digest`; whether one had it.
fn untag(list: &mut Vec<Value>, tag: &Tag, digest: &str) -> bool {
    let mut changed = false;
    let mut at = 0;
    while at < list.len() {
        let has_it = ref_name(&list[at]).and_then(tag_in).as_ref() == Some(tag);
        if has_it && digest_in(&list[at]) != Some(digest) {
            changed = true;
            set_ref_name(&mut list[at], None);
            let named_elsewhere =
                (0..list.len()).any(|i| i != at && digest_in(&list[i]) == digest_in(&list[at]));
            if is_bare(&list[at]) && named_elsewhere {
                list.remove(at);
                continue;
            }
        }
        at += 1;
    }
    changed
}

/// Makes sure that `manifest` has an entry, with `tag` as its name where there is one; whether
/// something was changed.
fn enter(list: &mut Vec<Value>, manifest: &Manifest, digest: &str, tag: Option<&Tag>) -> bool {
    let mut own = list.iter_mut().filter(|entry| digest_in(entry) == Some(digest));
    let Some(tag) = tag else {
        if own.next().is_some() {
            return false;
        }
        list.push(entry_of(manifest, digest));
        return true;
    };
    let mut unnamed = None;
    for entry in own {
        match ref_name(entry) {
            Some(name) if name == tag.as_str() => return false,
            None => unnamed = Some(entry),
            Some(_) => {}
        }
    }
    match unnamed {
        Some(entry) => set_ref_name(entry, Some(tag)),
        None => {
            let mut entry = entry_of(manifest, digest);
            set_ref_name(&mut entry, Some(tag));
            list.push(entry);
        }
    }
    true
}

fn entry_of(manifest: &Manifest, digest: &str) -> Value {
    let mut entry =
        json!({"mediaType": manifest.media_type, "digest": digest, "size": manifest.raw.len()});
    if let Some(artifact_type) = &manifest.artifact_type {
        entry["artifactType"] = json!(artifact_type);
    }
    entry
}

fn digest_in(entry: &Value) -> Option<&str> {
    entry.get("digest")?.as_str()
}

fn ref_name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn set_ref_name(entry: &mut Value, tag: Option<&Tag>) {
    let Value::Object(entry) = entry else { return };
    let annotations = entry.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Value::Object(annotations) = annotations {
        match tag {
            Some(tag) => annotations.insert(REF_NAME.to_owned(), json!(tag.as_str())),
            None => annotations.shift_remove(REF_NAME),
        };
        if annotations.is_empty() {
            entry.shift_remove("annotations");
        }
    }
}

/// Whether an entry says nothing but that there is a manifest.
fn is_bare(entry: &Value) -> bool {
    const PLAIN: [&str; 4] = ["mediaType", "digest", "size", "artifactType"];
    entry.as_object().is_some_and(|entry| entry.keys().all(|key| PLAIN.contains(&key.as_str())))
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

    #[test]
    fn a_part_is_found_by_its_path_and_prints_as_it() {
        let digest = Digest::of(b"x");
        for part in [LayoutPart::Version, LayoutPart::Index, LayoutPart::Blob(digest)] {
            assert_eq!(LayoutPart::split(&part.to_string()), Some(("", part)));
            assert_eq!(LayoutPart::split(&format!("a.b/c/{part}")), Some(("a.b/c", part)));
        }
        let hex = digest.hex();
        for other in
            ["", "blobs", "a/blobs/sha256", &format!("sha256/{hex}"), &format!("a/x/sha256/{hex}")]
        {
            assert_eq!(LayoutPart::split(other), None, "{other}");
        }
        assert_eq!(LayoutPart::split(&format!("blobs/sha512/{hex}")), None);
    }

    /// L26
    #[test]
    fn other_versions_and_documents_are_refused() {
        assert!(check_version(br#"{"imageLayoutVersion": "1.0.0"}"#).is_ok());
        for bad in [
            r#"{"imageLayoutVersion":"2.0.0"}"#,
            r#"{"imageLayoutVersion":1}"#,
            "{}",
            "[]",
            "",
            "1.0.0",
        ] {
            assert!(
                matches!(check_version(bad.as_bytes()), Err(DocumentError::Structure(_))),
                "{bad}"
            );
        }
        assert_eq!(entries(format!(r#"{{"mediaType":"{INDEX}"}}"#).as_bytes()), Ok(vec![]));
        for bad in [
            "[]",
            "",
            r#"{"mediaType":"x"}"#,
            r#"{"manifests":[],"layers":[]}"#,
            r#"{"manifests":[{}]}"#,
        ] {
            assert!(matches!(entries(bad.as_bytes()), Err(DocumentError::Structure(_))), "{bad}");
        }
    }

    fn manifest(value: Value) -> Manifest {
        let raw = value.to_string().into_bytes();
        let digest = Digest::of(&raw);
        Manifest::parse(raw.into(), digest, None).unwrap()
    }

    fn image(name: &str) -> Manifest {
        manifest(
            json!({"mediaType": super::super::IMAGE, "artifactType": "x", "layers": [], "name": name}),
        )
    }

    /// What is written is what other programs can go on with: see [`with_manifest`].
    fn put(index: &Value, manifest: &Manifest, tag: Option<&str>) -> Option<Value> {
        let tag = tag.map(|tag| tag.parse().unwrap());
        let text = index.to_string();
        let index = (!index.is_null()).then_some(text.as_bytes());
        let changed = with_manifest(index, manifest, manifest.digest, tag.as_ref()).unwrap();
        changed.map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    fn entry(manifest: &Manifest, name: Option<&str>) -> Value {
        let mut entry = json!({"mediaType": manifest.media_type, "digest": manifest.digest.to_string(),
            "size": manifest.raw.len(), "artifactType": "x"});
        if let Some(name) = name {
            entry["annotations"] = json!({REF_NAME: name});
        }
        entry
    }

    #[test]
    fn a_tag_is_entered_once_and_the_second_time_changes_nothing() {
        let (a, b) = (image("a"), image("b"));
        let index = put(&Value::Null, &a, Some("1.0.0")).unwrap();
        assert_eq!(
            index,
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&a, Some("1.0.0"))]})
        );
        assert_eq!(put(&index, &a, Some("1.0.0")), None);
        assert_eq!(put(&index, &a, None), None);
        let index = put(&index, &b, Some("1.1.0")).unwrap();
        let index = put(&index, &a, Some("latest")).unwrap();
        let names =
            [(&a, "1.0.0"), (&b, "1.1.0"), (&a, "latest")].map(|(m, name)| entry(m, Some(name)));
        assert_eq!(index["manifests"], json!(names));
    }

    #[test]
    fn what_others_wrote_stays_and_a_tag_that_moves_leaves_its_manifest() {
        let (a, b) = (image("a"), image("b"));
        let foreign = json!({
            "x-tool": {"n": 1.5}, "schemaVersion": 2, "annotations": {"k": "v"},
            "manifests": [
                {"digest": a.digest.to_string(), "size": 3, "x": [1],
                 "annotations": {REF_NAME: "reg.example/net:1.0.0", "other": "kept"}},
                {"digest": Digest::of(b"z").to_string(), "size": 1, "annotations": {REF_NAME: "2.0.0"}},
            ],
        });
        let index = put(&foreign, &b, Some("1.0.0")).unwrap();
        let mut wanted = foreign.clone();
        wanted["manifests"][0]["annotations"] = json!({"other": "kept"});
        wanted["manifests"].as_array_mut().unwrap().push(entry(&b, Some("1.0.0")));
        assert_eq!(index, wanted);
        assert_eq!(index.to_string().find("x-tool"), Some(2), "the order of keys is kept");
        // Back again: the entry that lost its name gets it back.
        let index = put(&index, &a, Some("1.0.0")).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"],
            json!({"other": "kept", REF_NAME: "1.0.0"})
        );
        assert_eq!(index["manifests"][2], entry(&b, None));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_manifest_that_an_index_names_needs_no_entry_of_its_own() {
        let (a, b) = (image("a"), image("b"));
        let index = manifest(json!({"mediaType": INDEX, "artifactType": "x",
            "manifests": [entry(&a, None), entry(&b, None)]}));
        let mut document = put(&Value::Null, &a, None).unwrap();
        document = put(&document, &b, Some("only-b")).unwrap();
        assert_eq!(document["manifests"].as_array().unwrap().len(), 2);
        document = put(&document, &index, None).unwrap();
        assert_eq!(document["manifests"], json!([entry(&b, Some("only-b")), entry(&index, None)]));
        document = put(&document, &index, Some("1.0.0")).unwrap();
        assert_eq!(document["manifests"][1], entry(&index, Some("1.0.0")));
        assert_eq!(put(&document, &index, Some("1.0.0")), None);
    }

    #[test]
    fn the_order_in_which_manifests_were_entered_does_not_show() {
        let (a, b) = (image("a"), image("b"));
        let entered = |order: [(&Manifest, Option<&str>); 3]| {
            let mut index = Value::Null;
            for (manifest, tag) in order {
                index = put(&index, manifest, tag).unwrap();
            }
            in_order(index.to_string().as_bytes()).unwrap()
        };
        let (x, y, z) = ((&a, Some("2")), (&b, None), (&b, Some("1")));
        assert_eq!(entered([x, y, z]), entered([y, z, x]));
        assert!(in_order(b"[]").is_err());
    }

    #[test]
    fn an_index_that_is_full_or_refused_is_not_changed() {
        let a = image("a");
        let entries: Vec<_> = (0..INDEX_ENTRIES_MAX)
            .map(|n| json!({"digest": Digest::of(&n.to_le_bytes()).to_string(), "size": 8}))
            .collect();
        let full = json!({"manifests": entries}).to_string();
        let refused = with_manifest(Some(full.as_bytes()), &a, a.digest, None);
        assert!(matches!(refused, Err(DocumentError::TooLarge(_))), "{refused:?}");
        for bad in ["[]", "", r#"{"manifests":[],"Manifests":[]}"#, r#"{"manifests":{}}"#] {
            let refused = with_manifest(Some(bad.as_bytes()), &a, a.digest, None);
            assert!(matches!(refused, Err(DocumentError::Structure(_))), "{bad}");
        }
        assert!(put(&json!({"manifests": null}), &a, None).is_some());
    }
}
