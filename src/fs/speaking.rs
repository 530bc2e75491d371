//! `referrers/`: what speaks about releases, as files. The same names as above it, down to the
//! release; in that a directory for each referrer, and one for each platform.
//!
//! What lies there was checked against its digest and nothing more: it can be read whatever the
//! policy says, since it is what policies are made of.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::attr::{FOREVER, Looked};
use super::directory::DirectoryListing;
use super::error::{Errno, FsError};
use super::node::{InodeNode, LastError};
use super::referrer::{NAME, Referrer, ReferrerPlace, Spoken};
use super::spaces::Spaces;
use crate::artifact::Release;
use crate::digest::Digest;
use crate::facts::{Facts, MemberContent};
use crate::failure::Failure;
use crate::name::{Host, Reference, Repo, Selector};
use crate::oci::referrer::is_bundle;
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::tree::registry::{RegistryEntry, RegistrySpace};

/// The file that holds a referrer's own manifest.
const MANIFEST: &str = "manifest.json";
/// How many digits of a digest are in a name.
const DIGITS: usize = 12;
/// The annotation by which a layer has a name.
const TITLE: &str = "org.opencontainers.image.title";
/// The annotation by which a bundle says what kind of statement it holds.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

impl ReferrerPlace {
    pub(super) fn node(self) -> InodeNode {
        InodeNode::Referrers { place: self.into(), error: LastError::default() }
    }

    fn about(reference: Reference) -> ReferrerPlace {
        let digest = OnceLock::new();
        if let Selector::Digest(named) = reference.selector {
            let _ = digest.set(named);
        }
        ReferrerPlace::About(Spoken { reference, digest })
    }

    /// What a sentence about it begins with.
    pub(super) fn in_words(&self) -> String {
        match self {
            ReferrerPlace::Top => NAME.to_owned(),
            ReferrerPlace::Space(space) => match space.repo() {
                Some(repo) => format!("{NAME}/{repo}"),
                None => format!("{NAME}/{}", space.host),
            },
            ReferrerPlace::About(about) => format!("{NAME} of {}", about.reference),
            ReferrerPlace::Referrer(one) => {
                format!("{}@{}", one.reference.repo, one.manifest.digest)
            }
            ReferrerPlace::Layer(one, layer) => format!("{}@{}", one.reference.repo, layer.digest),
        }
    }
}

/// See the module.
pub(super) struct ReferrerView {
    pub(super) facts: Arc<Facts>,
    pub(super) spaces: Arc<Spaces>,
}

type Entries = Vec<(String, Arc<InodeNode>)>;

impl ReferrerView {
    /// Finds `name` in `place`.
    pub(super) async fn find(
        &self,
        place: &ReferrerPlace,
        name: &OsStr,
        since: Instant,
    ) -> Result<Looked<(InodeNode, Duration)>, FsError> {
        let ttl = self.facts.tags().ttl();
        let text = name.to_str().unwrap_or_default();
        match place {
            ReferrerPlace::Top => Ok(match text.parse::<Host>() {
                Ok(host) if self.facts.names().has_host(&host) => {
                    let space = RegistrySpace { host, path: None };
                    Looked::Found((ReferrerPlace::Space(space).node(), ttl))
                }
                _ => Looked::Absent(ttl),
            }),
            ReferrerPlace::Space(space) => match self.spaces.find(space, name, since).await? {
                Looked::Found(RegistryEntry::Space(space)) => {
                    Ok(Looked::Found((ReferrerPlace::Space(space).node(), ttl)))
                }
                Looked::Found(RegistryEntry::Release(reference)) => {
                    Ok(Looked::Found((ReferrerPlace::about(reference).node(), ttl)))
                }
                Looked::Found(RegistryEntry::Link { target, .. }) => {
                    Ok(Looked::Found((InodeNode::Link(target.into()), ttl)))
                }
                Looked::Absent(ttl) => Ok(Looked::Absent(ttl)),
            },
            ReferrerPlace::About(about) => Ok(found(self.about(about).await?, text, ttl)),
            ReferrerPlace::Referrer(one) => Ok(found(files(one)?, text, FOREVER)),
            ReferrerPlace::Layer(..) => Err(FsError::plain(Errno::ENOTDIR)),
        }
    }

    /// What there is in `place`.
    pub(super) async fn list(&self, place: &ReferrerPlace) -> Result<DirectoryListing, FsError> {
        let ttl = self.facts.tags().ttl();
        let entries: Entries = match place {
            ReferrerPlace::Top => {
                let hosts = self.facts.names().hosts().into_iter();
                let space = |host: Host| {
                    let space = RegistrySpace { host: host.clone(), path: None };
                    (host.to_string(), Arc::new(ReferrerPlace::Space(space).node()))
                };
                hosts.map(space).collect()
            }
            ReferrerPlace::Space(space) => self.in_space(space).await?,
            ReferrerPlace::About(about) => {
                let entries = self.about(about).await?;
                entries.into_iter().map(|(name, node)| (name, Arc::new(node))).collect()
            }
            ReferrerPlace::Referrer(one) => {
                files(one)?.into_iter().map(|(name, node)| (name, Arc::new(node))).collect()
            }
            ReferrerPlace::Layer(..) => return Err(FsError::plain(Errno::ENOTDIR)),
        };
        Ok(DirectoryListing::Made { entries, ttl, error: None })
    }

    async fn in_space(&self, space: &RegistrySpace) -> Result<Entries, FsError> {
        let DirectoryListing::Names(names) = self.spaces.list(space).await? else {
            return Ok(Vec::new());
        };
        let node = |entry: RegistryEntry| match entry {
            RegistryEntry::Space(space) => ReferrerPlace::Space(space).node(),
            RegistryEntry::Release(reference) => ReferrerPlace::about(reference).node(),
            RegistryEntry::Link { target, .. } => InodeNode::Link(target.into()),
        };
        Ok(names.into_iter().map(|(name, entry)| (name, Arc::new(node(entry)))).collect())
    }

    /// What speaks about a manifest, and its platforms, by their names.
    async fn about(&self, about: &Spoken) -> Result<BTreeMap<String, InodeNode>, FsError> {
        let (reference, repo) = (&about.reference, &about.reference.repo);
        let digest = match (about.digest.get(), &reference.selector) {
            (Some(digest), _) | (None, Selector::Digest(digest)) => *digest,
            (None, Selector::Tag(tag)) => {
                let bound = self.facts.tags().bind(repo, tag, Instant::now()).await?;
                *about.digest.get_or_init(|| bound)
            }
        };
        let mut entries = self.platforms(repo, digest).await;
        for manifest in self.facts.referrers().all(repo, digest).await? {
            let kind = kind_of(&manifest);
            let counts = self.counts(reference, digest, &manifest).await;
            let name = format!("{kind}-{}", &manifest.digest.hex()[..DIGITS]);
            let reference = reference.clone();
            let one = Referrer { reference, manifest, counts };
            entries.insert(name, ReferrerPlace::Referrer(one.into()).node());
        }
        Ok(entries)
    }

    /// The directories of a provider's platforms.
    async fn platforms(&self, repo: &Repo, digest: Digest) -> BTreeMap<String, InodeNode> {
        let release = self.facts.manifests().release(repo, digest).await;
        let Ok((_, Release::Provider(targets))) = release else { return BTreeMap::new() };
        let named = |target: crate::artifact::Target| {
            let by_digest = repo.at(Selector::Digest(target.manifest()?.digest));
            Some((target.platform.to_string(), ReferrerPlace::about(by_digest).node()))
        };
        targets.into_iter().filter_map(named).collect()
    }

    async fn counts(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: &Manifest,
    ) -> Option<String> {
        let gate = self.facts.gate();
        if !gate.has_policies() {
            return None;
        }
        Some(match gate.counts(reference, digest, manifest).await {
            Ok(signer) => format!("yes {signer}"),
            Err(why) => format!("no: {why}"),
        })
    }

    /// The content of a layer.
    pub(super) async fn content(&self, place: &ReferrerPlace) -> Result<MemberContent, FsError> {
        let ReferrerPlace::Layer(one, layer) = place else {
            return Err(FsError::plain(Errno::EISDIR));
        };
        if let Some(bytes) = one.manifest.inline(layer) {
            return Ok(MemberContent::Bytes(bytes.into()));
        }
        let object = self.facts.referrers().blob(&one.reference.repo, layer).await;
        match object {
            Ok(object) => Ok(MemberContent::Object(object)),
            Err(e) if e.failure == Failure::Absent => Err(FsError::plain(Errno::EIO)),
            Err(e) => Err(e.into()),
        }
    }
}

fn found(
    mut entries: BTreeMap<String, InodeNode>,
    name: &str,
    ttl: Duration,
) -> Looked<(InodeNode, Duration)> {
    entries.remove(name).map_or(Looked::Absent(ttl), |node| Looked::Found((node, ttl)))
}

/// The files of a referrer: its manifest and its layers.
fn files(one: &Arc<Referrer>) -> Result<BTreeMap<String, InodeNode>, FsError> {
    let ManifestBody::Image(layers) = &one.manifest.body else {
        return Err(FsError::plain(Errno::EIO));
    };
    let raw = InodeNode::Document(one.manifest.raw.clone());
    let mut files = BTreeMap::from([(MANIFEST.to_owned(), raw)]);
    let mut titles: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in layers {
        *titles.entry(title(layer).unwrap_or_default()).or_default() += 1;
    }
    for layer in layers {
        let name = match title(layer) {
            Some(title) if titles.get(title) == Some(&1) && title != MANIFEST => title.to_owned(),
            _ => format!("{}{}", &layer.digest.hex()[..DIGITS], ending(&layer.media_type)),
        };
        files.insert(name, ReferrerPlace::Layer(one.clone(), layer.clone()).node());
    }
    Ok(files)
}

/// A layer's title, if a file can be called that.
fn title(layer: &Descriptor) -> Option<&str> {
    let title = layer.annotations.get(TITLE)?.as_str();
    let is_plain = !title.is_empty()
        && title.len() <= crate::name::COMPONENT_MAX
        && title != "."
        && title != ".."
        && !title.contains(|c: char| c == '/' || c.is_control());
    is_plain.then_some(title)
}

/// How the name of a file ends whose layer has no title.
fn ending(media_type: &str) -> &'static str {
    match media_type {
        kind if is_bundle(kind) => ".sigstore.json",
        kind if kind.contains("spdx") => ".spdx.json",
        kind if kind.contains("cyclonedx") => ".cdx.json",
        kind if kind.contains("sarif") => ".sarif",
        kind if kind.contains("in-toto") => ".intoto.json",
        kind if kind.ends_with("+json") || kind.ends_with("/json") => ".json",
        _ => ".bin",
    }
}

/// What a referrer is, by what it says of itself: a hint for people.
fn kind_of(manifest: &Manifest) -> &'static str {
    let kind = manifest.kind().unwrap_or_default();
    let of_bundle = is_bundle(&kind);
    let said = match manifest.annotations.get(PREDICATE) {
        Some(predicate) if of_bundle => predicate.to_ascii_lowercase(),
        _ => kind.to_ascii_lowercase(),
    };
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match () {
        () if says(&["spdx", "cyclonedx"]) => "sbom",
        () if says(&["sarif", "vuln"]) => "scan",
        () if says(&["slsa", "in-toto", "provenance"]) => "provenance",
        () if of_bundle || says(&["signature", "cosign", "notary"]) => "signature",
        () => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_a_name_only_if_it_is_one_plain_component() {
        let titled = |title: &str| {
            let mut layer = Descriptor::bare(Digest::of(b"x"), 1);
            layer.annotations.insert(TITLE.to_owned(), title.to_owned());
            super::title(&layer).is_some()
        };
        assert!(titled("a.spdx.json") && titled("…"));
        for bad in ["", ".", "..", "../x", "a/b", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(!titled(bad), "{bad:?}");
        }
    }
}
