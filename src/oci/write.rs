//! Our own documents, written canonically: keys in byte order, no white space, nothing that is
//! empty. Equal content has equal bytes and so an equal digest.
//!
//! INVARIANT: what is written here is what [`Manifest::parse`] accepts, since every result went
//! through it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Descriptor, DocumentError, IMAGE, INDEX, Manifest, PlatformObject};
use crate::digest::Digest;

/// Media type of the empty descriptor (OCI image spec 1.1, "Guidance for an empty descriptor").
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The content of the empty descriptor. Registries refuse a config of no bytes at all.
pub const EMPTY_CONTENT: &[u8] = b"{}";

/// The config of artifacts that have none.
pub fn empty() -> Descriptor {
    Descriptor {
        media_type: EMPTY.to_owned(),
        digest: Digest::of(EMPTY_CONTENT),
        size: EMPTY_CONTENT.len() as u64,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// An image manifest with the empty config.
///
/// # Errors
/// It would be over a limit.
pub fn image(
    artifact_type: &str,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, DocumentError> {
    document(json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": artifact_type,
        "config": descriptor(&empty()),
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        "annotations": annotations,
    }))
}

/// An index. Its entries stand in the order of their platforms, whatever the order of `entries`.
///
/// # Errors
/// It would be over a limit.
pub fn index(
    artifact_type: &str,
    entries: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, DocumentError> {
    let mut entries: Vec<Value> = entries.iter().map(descriptor).collect();
    entries.sort_by_cached_key(platform_key);
    document(json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "artifactType": artifact_type,
        "manifests": entries,
        "annotations": annotations,
    }))
}

/// The index `before` with more entries and annotations. An entry takes the place of those of the
/// same artifact type and platform; everything else stays, what this program does not know
/// included.
///
/// # Errors
/// `before` is no index, or the result would be over a limit.
pub fn extended(
    before: &Manifest,
    entries: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, DocumentError> {
    let no_index = || DocumentError::Structure("only an index can be extended".to_owned());
    let mut value: Value = serde_json::from_slice(&before.raw).map_err(|_| no_index())?;
    let list = value.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(no_index)?;
    let kind = |entry: &Value| (platform_key(entry), entry.get("artifactType").cloned());
    for entry in entries.iter().map(descriptor) {
        let replaced = kind(&entry);
        list.retain(|other| kind(other) != replaced);
        list.push(entry);
    }
    list.sort_by_cached_key(platform_key);
    if !annotations.is_empty() {
        let map = value.as_object_mut().ok_or_else(no_index)?;
        let known = map.entry("annotations").or_insert_with(|| json!({}));
        if !known.is_object() {
            *known = json!({});
        }
        known
            .as_object_mut()
            .ok_or_else(no_index)?
            .extend(annotations.iter().map(|(k, v)| (k.clone(), json!(v))));
    }
    document(value)
}

/// By what entries are ordered and replaced: those without a platform come last.
fn platform_key(entry: &Value) -> (bool, [String; 4]) {
    let platform = entry.get("platform").filter(|platform| platform.is_object());
    let text = |key: &str| {
        platform.and_then(|p| p.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    (platform.is_none(), ["os", "architecture", "os.version", "variant"].map(text))
}

pub(super) fn descriptor(descriptor: &Descriptor) -> Value {
    let Descriptor { media_type, digest, size, artifact_type, platform, annotations } = descriptor;
    json!({
        "mediaType": media_type,
        "digest": digest.to_string(),
        "size": size,
        "artifactType": artifact_type,
        "platform": platform.as_ref().map(platform_object),
        "annotations": annotations,
    })
}

fn platform_object(platform: &PlatformObject) -> Value {
    let PlatformObject { os, architecture, os_version } = platform;
    let os_version = (!os_version.is_empty()).then_some(os_version);
    json!({"os": os, "architecture": architecture, "os.version": os_version})
}

/// The manifest of which `value` is the content.
pub(super) fn document(value: Value) -> Result<Manifest, DocumentError> {
    let raw = canonical(value).to_string().into_bytes();
    let digest = Digest::of(&raw);
    Manifest::parse(raw.into(), digest, None)
}

/// The value with its keys in byte order; `null` and empty annotations are left out.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().collect();
            let empty = |key: &str, value: &Value| {
                value.is_null()
                    || key == "annotations" && value.as_object().is_some_and(Map::is_empty)
            };
            let kept = sorted.into_iter().filter(|(key, value)| !empty(key, value));
            Value::Object(kept.map(|(key, value)| (key, canonical(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{MODULE, PROVIDER, PROVIDER_TARGET, ZIP};

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn layer() -> Descriptor {
        Descriptor { media_type: ZIP.into(), digest: Digest::of(b"zip"), size: 3, ..empty() }
    }

    fn entry(os: &str, artifact_type: &str, content: &[u8]) -> Descriptor {
        Descriptor {
            media_type: IMAGE.into(),
            digest: Digest::of(content),
            size: content.len() as u64,
            artifact_type: Some(artifact_type.into()),
            platform: Some(PlatformObject {
                os: os.into(),
                architecture: "amd64".into(),
                os_version: String::new(),
            }),
            annotations: annotations(&[("z", "1"), ("a", "ü\"")]),
        }
    }

    /// A change of these bytes gives every artifact that was ever published another digest.
    #[test]
    fn documents_have_the_bytes_that_they_always_had() {
        let image =
            image(MODULE, &[layer()], &annotations(&[("org.opencontainers.image.title", "x")]))
                .unwrap();
        assert_eq!(
            std::str::from_utf8(&image.raw).unwrap(),
            "{\"annotations\":{\"org.opencontainers.image.title\":\"x\"},\
             \"artifactType\":\"application/vnd.opentofu.modulepkg\",\
             \"config\":{\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\
             \"mediaType\":\"application/vnd.oci.empty.v1+json\",\"size\":2},\
             \"layers\":[{\"digest\":\"sha256:4a70fe9aa6436e02c2dea340fbd1e352e4ef2d8ce6ca52ad25d4b95471fc8bf2\",\
             \"mediaType\":\"archive/zip\",\"size\":3}],\
             \"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"schemaVersion\":2}"
        );
        let entries =
            [entry("linux", PROVIDER_TARGET, b"l"), entry("darwin", PROVIDER_TARGET, b"d")];
        let index = index(PROVIDER, &entries, &BTreeMap::new()).unwrap();
        assert_eq!(
            index.digest.to_string(),
            "sha256:4cc1fc1a0a4c9897dafbfc25080a0c11a5698143d147d63bd648d14eef4a24dc"
        );
        assert_eq!(index.descriptor().size, index.raw.len() as u64);
    }

    #[test]
    fn an_index_is_the_same_in_whatever_order_its_platforms_came() {
        let (linux, darwin) =
            (entry("linux", PROVIDER_TARGET, b"l"), entry("darwin", PROVIDER_TARGET, b"d"));
        let none = BTreeMap::new();
        let both = index(PROVIDER, &[linux.clone(), darwin.clone()], &none).unwrap();
        assert_eq!(
            both.digest,
            index(PROVIDER, &[darwin.clone(), linux.clone()], &none).unwrap().digest
        );
        for (first, second) in [(&linux, &darwin), (&darwin, &linux)] {
            let one = index(PROVIDER, std::slice::from_ref(first), &none).unwrap();
            assert_eq!(
                both.digest,
                extended(&one, std::slice::from_ref(second), &none).unwrap().digest
            );
        }
    }

    #[test]
    fn extending_keeps_what_is_unknown() {
        let raw = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","x":[null,{"b":1,"a":2}],
            "artifactType":"application/vnd.opentofu.provider","annotations":{"k":"v"},"manifests":[
            {"mediaType":"m","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,
             "platform":{"os":"linux","architecture":"amd64"},"artifactType":"other","urls":["u"]}]}"#;
        let before = Manifest::parse((*raw).into(), Digest::of(raw), None).unwrap();
        let new = entry("linux", PROVIDER_TARGET, b"l");
        let after = extended(&before, &[new.clone(), new], &annotations(&[("n", "w")])).unwrap();
        let value: Value = serde_json::from_slice(&after.raw).unwrap();
        assert_eq!(value["x"], json!([null, {"a": 2, "b": 1}]));
        assert_eq!(value["annotations"], json!({"k": "v", "n": "w"}));
        assert_eq!(value["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(value["manifests"][0]["urls"], json!(["u"]));
    }

    #[test]
    fn an_entry_takes_the_place_of_its_platform() {
        let before =
            index(PROVIDER, &[entry("linux", PROVIDER_TARGET, b"l")], &BTreeMap::new()).unwrap();
        let after = extended(&before, &[entry("linux", PROVIDER_TARGET, b"new")], &BTreeMap::new())
            .unwrap();
        let super::super::ManifestBody::Index(entries) = &after.body else { panic!("an index") };
        assert_eq!(entries.iter().map(|e| e.digest).collect::<Vec<_>>(), [Digest::of(b"new")]);
        assert!(
            extended(&image(MODULE, &[layer()], &BTreeMap::new()).unwrap(), &[], &BTreeMap::new())
                .is_err()
        );
    }
}
