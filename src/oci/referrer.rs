//! Manifests that speak about another one, their subject: which it is, how a list of them is read,
//! and how one is written. OCI image spec 1.1, "subject"; distribution spec 1.1, "Listing
//! Referrers".
//!
//! INVARIANT: a list is never believed about more than that something exists. What a referrer is,
//! and of what, its own manifest says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::write::{self, EMPTY};
use super::{
    Descriptor, DocumentError, IMAGE, INDEX, INDEX_ENTRIES_MAX, Manifest, descriptors, strict,
    structure, text,
};
use crate::digest::Digest;
use crate::name::Tag;

/// The most characters that a tag of referrers takes of an algorithm's name and of a digest.
const TAG_PARTS: [usize; 2] = [32, 64];

/// What the artifact types of Sigstore bundles begin and end with, around their version.
const BUNDLE: (&str, &str) = ("application/vnd.dev.sigstore.bundle", "+json");

/// Whether an artifact of this type is a Sigstore bundle: a signature or an attestation.
pub fn is_bundle(artifact_type: &str) -> bool {
    artifact_type.strip_prefix(BUNDLE.0).is_some_and(|rest| rest.ends_with(BUNDLE.1))
}

/// The tag under which the list of referrers of `subject` stands in a registry that does not make
/// such lists itself.
pub fn referrers_tag(subject: &Digest) -> Tag {
    let [algorithm, hex] = TAG_PARTS;
    let (name, digits) = (subject.algorithm().name(), subject.hex());
    let (name, digits) = (&name[..name.len().min(algorithm)], &digits[..digits.len().min(hex)]);
    let tag = format!("{name}-{digits}").parse();
    tag.unwrap_or_else(|_| unreachable!("an algorithm's name and digits make a tag"))
}

/// The tag under which cosign 2 keeps the signatures of `subject`.
pub fn signature_tag(subject: &Digest) -> Tag {
    let tag = format!("{}.sig", referrers_tag(subject)).parse();
    tag.unwrap_or_else(|_| unreachable!("a tag that is 100 characters long at most"))
}

impl Tag {
    /// Whether it is a list of referrers, or a signature, attestation or bill of materials as they
    /// were attached before there were such lists: nothing that anybody published by this name.
    pub fn is_of_referrers(&self) -> bool {
        let name = [".sig", ".att", ".sbom"].iter().find_map(|end| self.as_str().strip_suffix(end));
        let digits = name.unwrap_or(self.as_str());
        let digits = digits.strip_prefix("sha256-").or_else(|| digits.strip_prefix("sha512-"));
        digits.is_some_and(|digits| {
            digits.len() == TAG_PARTS[1]
                && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Whether it is there for machines alone: it is left out of lists, and can be named.
    pub fn is_hidden(&self) -> bool {
        self.is_claim() || self.is_of_referrers()
    }
}

/// The entries of a list of referrers.
///
/// # Errors
/// Not an index, or over the limit of entries.
pub fn listed(bytes: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    let value = strict::parse(bytes).map_err(DocumentError::Structure)?;
    let Value::Object(map) = &value else { return structure("not a JSON object") };
    match text(map, "mediaType")? {
        Some(media_type) if media_type != INDEX => {
            return structure(format!("the mediaType is {media_type:?}; wanted {INDEX:?}"));
        }
        _ => {}
    }
    if !map.get("manifests").is_some_and(Value::is_array) {
        return structure("it has no list of manifests");
    }
    if map.contains_key("layers") || map.contains_key("config") {
        return structure("an index and an image at once (manifests beside layers or config)");
    }
    descriptors(map, "manifests")
}

/// A list of referrers as it is kept.
pub fn list_of(entries: &[Descriptor]) -> Vec<u8> {
    let entries: Vec<Value> = entries.iter().map(write::descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
}

impl Manifest {
    /// The manifest about which this one speaks.
    ///
    /// # Errors
    /// The subject is no descriptor. OpenTofu does not look at it, so that alone makes no release
    /// unreadable.
    pub fn subject(&self) -> Result<Option<Descriptor>, DocumentError> {
        self.subject.as_deref().map_or(Ok(None), |subject| subject.clone().map(Some))
    }

    /// What kind of artifact it is: by its artifactType, else by its config's media type.
    pub fn kind(&self) -> Option<String> {
        if let Some(kind) = self.artifact_type.as_ref().filter(|kind| !kind.is_empty()) {
            return Some(kind.clone());
        }
        let value = strict::parse(&self.raw).ok()?;
        let config = value.get("config")?.get("mediaType")?.as_str()?;
        (config != EMPTY).then(|| config.to_owned())
    }

    /// What a list of referrers says of it.
    pub fn as_referrer(&self) -> Descriptor {
        Descriptor {
            artifact_type: self.kind(),
            annotations: self.annotations.clone(),
            ..self.descriptor()
        }
    }
}

/// A layer of a referrer: what names it, and its content where the manifest carries it itself.
#[derive(Clone, Debug)]
pub struct ReferrerLayer<'a> {
    pub blob: Descriptor,
    /// `data`: the content, for readers who then need not fetch it.
    pub inline: Option<&'a [u8]>,
}

/// A manifest that speaks about `subject`, with the empty config.
///
/// # Errors
/// It would be over a limit.
pub fn referrer(
    subject: &Descriptor,
    artifact_type: &str,
    layers: &[ReferrerLayer<'_>],
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, DocumentError> {
    use base64::Engine as _;
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let layers = layers.iter().map(|layer| {
        let mut value = write::descriptor(&layer.blob);
        value["data"] = layer.inline.map_or(Value::Null, |bytes| encoded(bytes).into());
        value
    });
    let Descriptor { media_type, digest, size, .. } = subject;
    write::document(json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": artifact_type,
        "config": write::descriptor(&write::empty()),
        "layers": layers.collect::<Vec<_>>(),
        "subject": {"mediaType": media_type, "digest": digest.to_string(), "size": size},
        "annotations": annotations,
    }))
}

impl Manifest {
    /// The content of the layer `digest` that the manifest carries itself, if it has the layer's
    /// digest.
    pub fn inline(&self, layer: &Descriptor) -> Option<Vec<u8>> {
        use base64::Engine as _;
        // It was read strictly before: no reader finds another text in it.
        let CarriedLayers { layers } = serde_json::from_slice(&self.raw).ok()?;
        let wanted = layer.digest.to_string();
        let named = layers.into_iter().find(|entry| entry.digest == wanted)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&*named.data?).ok()?;
        let got = Digest::of_with(layer.digest.algorithm(), &bytes);
        (got == layer.digest && bytes.len() as u64 == layer.size).then_some(bytes)
    }
}

/// What a manifest carries itself of its layers.
#[derive(Deserialize)]
struct CarriedLayers<'a> {
    #[serde(borrow)]
    layers: Vec<CarriedLayer<'a>>,
}

#[derive(Deserialize)]
struct CarriedLayer<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<Cow<'a, str>>,
}

/// The list `before` of referrers with `entry` in it; `None` if it is in already. What this program
/// does not know stays.
///
/// # Errors
/// `before` is no index, or the list would be over a limit.
pub fn with_referrer(
    before: Option<&Manifest>,
    entry: &Descriptor,
) -> Result<Option<Manifest>, DocumentError> {
    let mut list = match before {
        None => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
        Some(before) => {
            let held = listed(&before.raw)?;
            if held.iter().any(|held| held.digest == entry.digest) {
                return Ok(None);
            }
            if held.len() >= INDEX_ENTRIES_MAX {
                let rule = format!("it has {INDEX_ENTRIES_MAX} entries, which is the limit");
                return Err(DocumentError::TooLarge(rule));
            }
            strict::parse(&before.raw).map_err(DocumentError::Structure)?
        }
    };
    if let Some(entries) = list.get_mut("manifests").and_then(Value::as_array_mut) {
        entries.push(write::descriptor(entry));
    }
    write::document(list).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(content: &[u8]) -> Descriptor {
        Descriptor { media_type: IMAGE.into(), ..Descriptor::bare(Digest::of(content), 7) }
    }

    #[test]
    fn tags_that_are_there_for_machines_are_told_from_versions() {
        let of = |digest: Digest| referrers_tag(&digest).as_str().to_owned();
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(of(Digest::of(b"test")), format!("sha256-{hex}"));
        let long = of(Digest::of_with(crate::digest::Algorithm::Sha512, b"test"));
        assert!(long.len() == 71 && long.starts_with("sha512-ee26b0dd"), "{long}");
        for hidden in ["", ".sig", ".att", ".sbom"] {
            assert!(format!("sha256-{hex}{hidden}").parse::<Tag>().unwrap().is_of_referrers());
        }
        let short = &hex[1..];
        for shown in [format!("sha256-{short}"), format!("sha256-{hex}.x"), "1.0.0".to_owned()] {
            assert!(!shown.parse::<Tag>().unwrap().is_of_referrers(), "{shown}");
        }
    }

    #[test]
    fn a_referrer_names_its_subject_and_may_carry_its_content() {
        let blob = Descriptor { media_type: "text/plain".into(), ..named(b"hello") };
        let blob = Descriptor { size: 5, ..blob };
        let layer = ReferrerLayer { blob: blob.clone(), inline: Some(b"hello") };
        let made = referrer(&named(b"x"), "a/b", &[layer], &BTreeMap::new()).unwrap();
        assert_eq!(made.subject().unwrap().unwrap().digest, Digest::of(b"x"));
        assert_eq!(made.inline(&blob).as_deref(), Some(&b"hello"[..]));
        assert_eq!(made.kind().as_deref(), Some("a/b"));
        let lying = ReferrerLayer { blob: blob.clone(), inline: Some(b"other") };
        let made = referrer(&named(b"x"), "a/b", &[lying], &BTreeMap::new()).unwrap();
        assert_eq!(made.inline(&blob), None);
    }

    #[test]
    fn a_list_grows_by_what_it_lacks() {
        let first = with_referrer(None, &named(b"1")).unwrap().unwrap();
        assert!(with_referrer(Some(&first), &named(b"1")).unwrap().is_none());
        let second = with_referrer(Some(&first), &named(b"2")).unwrap().unwrap();
        let entries = listed(&second.raw).unwrap();
        assert_eq!(
            entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(),
            [Digest::of(b"1"), Digest::of(b"2")]
        );
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        for none in [
            "{}",
            "[]",
            "",
            "<html>",
            r#"{"manifests":null}"#,
            r#"{"layers":[]}"#,
            r#"{"manifests":[],"layers":[]}"#,
            r#"{"mediaType":"x","manifests":[]}"#,
        ] {
            assert!(listed(none.as_bytes()).is_err(), "{none}");
        }
        assert_eq!(listed(br#"{"schemaVersion":2,"manifests":[]}"#).unwrap(), []);
    }
}
