//! Provider releases: zips by their names, unpacked platforms, and the sums beside them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::FileType;
use serde::Deserialize;

use super::blob::{BlobContent, PushBlob, Workshop};
use super::plan::{
    Destined, PlannedArtifact, PlannedPackage, PlannedPlatform, ReleasePlan, layer, pack,
};
use super::tree::{
    ANNOTATIONS_FILE, DIRECTORY, FILE, StagedTree, list, open_beneath, read_file, read_small,
};
use crate::artifact::{
    H1_ANNOTATION, PACKAGE_DIGEST_ANNOTATION, PACKAGE_SIZE_ANNOTATION, PROVIDER_TARGET,
    target_package,
};
use crate::digest::{Digest, H1};
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Repo, Tag, Version, ZipName};
use crate::oci::write::image;
use crate::oci::{Descriptor, PlatformObject};

/// Media type of the layers that keep a release's `SHA256SUMS` and its `_manifest.json`. OpenTofu
/// looks at one layer, that of the package.
const TEXT: &str = "text/plain";
/// Media type of the layer that keeps a signature of the sums.
const SIGNATURE: &str = "application/octet-stream";
/// Annotation of a platform: the versions of the plugin protocol that the provider speaks, as in
/// `5.0,6.0`.
const PROTOCOLS: &str = "org.opentofu.provider.protocol-versions";
/// The most bytes of a file beside the zips.
const BESIDE_MAX: u64 = 1 << 20;
/// How many of the files are named that are left alone.
const NAMED_MAX: usize = 12;

const PROGRAM: &[u8] = b"terraform-provider-";
const MANIFEST: &str = "_manifest.json";
const SIGNING_KEY: &str = "_signing-key.asc";

/// A provider's zip by its name.
pub struct Zip {
    /// What messages call it.
    pub path: String,
    /// The base name.
    pub name: String,
    /// What the name says.
    pub says: ZipName,
    /// The open file.
    pub file: OwnedFd,
}

/// What makes a provider release.
#[derive(Default)]
pub struct ProviderContents {
    /// What messages call all of it.
    name: String,
    /// Zips, pushed byte for byte.
    pub zips: Vec<Zip>,
    /// Unpacked platforms.
    directories: Vec<(Platform, OwnedFd)>,
    /// `*_SHA256SUMS`, signatures of them, and the key that made those: base name and content.
    sums: Vec<(String, Vec<u8>)>,
    /// `terraform-provider-TYPE_VERSION_manifest.json`: base name and content.
    manifests: Vec<(String, Vec<u8>)>,
    /// What lies beside a release and is no part of it, by name.
    left: Vec<String>,
}

/// What a directory holds, if it is a provider release by its names; none where it is a module.
/// What else lies beside zips, as build programs leave it there, is left alone.
///
/// # Errors
/// `Invalid` for a mixture of both.
pub(super) fn contents(dir: BorrowedFd, name: &str) -> Result<Option<ProviderContents>, Refusal> {
    let mut contents = ProviderContents::new(name);
    for (entry, kind) in list(dir, name)? {
        let Ok(base) = String::from_utf8(entry) else {
            contents.leave("a name that is no UTF-8");
            continue;
        };
        if base != ANNOTATIONS_FILE && !contents.take(dir, &base, kind)? {
            contents.leave(&base);
        }
    }
    let stranger = match (contents.zips.is_empty(), contents.directories.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => contents.left.first(),
        (false, _) => contents.left.iter().find(|name| is_configuration(name)),
    };
    match stranger {
        None => Ok(Some(contents)),
        Some(stranger) => {
            let rule = format!(
                "{} belongs to a provider release and {stranger} does not: a release is one or \
                 the other",
                contents.first()
            );
            Err(Refusal::new(Failure::Invalid, name, rule))
        }
    }
}

/// The version of which a directory holds zips, by their names.
///
/// # Errors
/// It cannot be listed.
pub fn version_in(dir: BorrowedFd, name: &str) -> Result<Option<Version>, Refusal> {
    let zip = |entry: &[u8]| {
        std::str::from_utf8(entry).ok().and_then(|name| name.parse::<ZipName>().ok())
    };
    Ok(list(dir, name)?.iter().find_map(|(entry, _)| zip(entry)).map(|zip| zip.version))
}

/// Whether a file is one of a module, by its name.
fn is_configuration(name: &str) -> bool {
    [".tf", ".tf.json", ".tofu", ".tofu.json"].iter().any(|ending| name.ends_with(ending))
}

/// The plans of what `providers mirror` writes for one provider: a release for each version, of all
/// its platforms.
///
/// The JSON beside the zips is ignored: clients write it wrongly, and a mount renders its own.
pub(super) fn mirrored(
    dir: BorrowedFd,
    name: &str,
    address: &ProviderAddr,
    repo: &Repo,
    annotations: &BTreeMap<String, String>,
    workshop: &Workshop,
) -> Result<Vec<ReleasePlan>, Refusal> {
    let invalid = |subject: &str, rule: &str| Refusal::new(Failure::Invalid, subject, rule);
    let mut all = ProviderContents::new(name);
    for (entry, kind) in list(dir, name)? {
        let base = String::from_utf8_lossy(&entry).into_owned();
        let known = base.ends_with(".json")
            || kind != FileType::Directory
                && (base.ends_with(".zip") || is_sums(&base))
                && all.take(dir, &base, kind)?;
        if !known {
            let rule = "it is no zip of a provider (terraform-provider-TYPE_VERSION_OS_ARCH.zip)";
            return Err(invalid(&format!("{name}/{base}"), rule));
        }
    }
    let mut releases: BTreeMap<Version, ProviderContents> = BTreeMap::new();
    for zip in all.zips {
        if zip.says.kind != address.kind() {
            return Err(invalid(&zip.path, &format!("it is no zip of the provider {address}")));
        }
        let release = releases.entry(zip.says.version.clone()).or_default();
        release.name = name.to_owned();
        release.zips.push(zip);
    }
    if releases.is_empty() {
        return Err(invalid(name, "it holds no zip of a provider"));
    }
    let mut plans = Vec::new();
    for (version, mut release) in releases {
        let tag = version.tag().ok_or_else(|| {
            invalid(name, &format!("the version {version} is too long for a tag"))
        })?;
        release.sums = all
            .sums
            .iter()
            .filter(|(file, _)| file.contains(&format!("_{version}_")))
            .cloned()
            .collect();
        let destined =
            Destined { repo: repo.clone(), tags: vec![tag], annotations: annotations.clone() };
        plans.push(release.plan(destined, workshop)?);
    }
    Ok(plans)
}

/// Whether the name is one of the files that belong to a release beside its zips: `*_SHA256SUMS`,
/// `*_SHA256SUMS.sig` …, `terraform-provider-*_signing-key.asc` and
/// `terraform-provider-*_manifest.json`.
pub fn is_beside(name: &str) -> bool {
    is_sums(name) || is_signing_key(name) || is_manifest(name)
}

fn is_signing_key(name: &str) -> bool {
    name.as_bytes().starts_with(PROGRAM) && name.ends_with(SIGNING_KEY)
}

fn is_manifest(name: &str) -> bool {
    name.as_bytes().starts_with(PROGRAM) && name.ends_with(MANIFEST)
}

fn is_sums(name: &str) -> bool {
    name.rfind("_SHA256SUMS")
        .is_some_and(|at| matches!(name.as_bytes().get(at + 11), None | Some(b'.')))
}

impl ProviderContents {
    /// Nothing yet, of what messages call `name`.
    pub fn new(name: &str) -> ProviderContents {
        ProviderContents { name: name.to_owned(), ..ProviderContents::default() }
    }

    /// Takes an entry of a directory, if it is part of a provider release.
    fn take(&mut self, dir: BorrowedFd, base: &str, kind: FileType) -> Result<bool, Refusal> {
        let path = format!("{}/{base}", self.name);
        if base.as_bytes().starts_with(PROGRAM) && base.ends_with(".zip") {
            let says = base.parse().map_err(|e| Refusal::new(Failure::Invalid, &path, e))?;
            let file =
                open_beneath(dir, base.as_bytes(), FILE).map_err(|e| Refusal::io(&path, e))?;
            self.zips.push(Zip { path, name: base.to_owned(), says, file });
            return Ok(true);
        }
        if is_beside(base) {
            if let Some(content) = read_small(dir, &self.name, base, BESIDE_MAX)? {
                self.keep(base, content);
            }
            return Ok(true);
        }
        let Ok(platform) = base.parse::<Platform>() else { return Ok(false) };
        if !matches!(kind, FileType::Directory | FileType::Symlink) {
            return Ok(false);
        }
        let below =
            open_beneath(dir, base.as_bytes(), DIRECTORY).map_err(|e| Refusal::io(&path, e))?;
        let program = list(below.as_fd(), &path)?
            .iter()
            .any(|(name, kind)| name.starts_with(PROGRAM) && *kind != FileType::Directory);
        if program {
            self.directories.push((platform, below));
        }
        Ok(program)
    }

    /// Adds a file of which [`is_beside`] is true.
    ///
    /// # Errors
    /// It cannot be read, or is too large for one.
    pub fn add_beside(&mut self, name: &str, file: OwnedFd, path: &str) -> Result<(), Refusal> {
        self.keep(name, read_file(&file, path, BESIDE_MAX)?);
        Ok(())
    }

    /// Keeps the content of such a file.
    pub fn keep(&mut self, name: &str, content: Vec<u8>) {
        let kept = if is_manifest(name) { &mut self.manifests } else { &mut self.sums };
        kept.push((name.to_owned(), content));
    }

    /// Notes something that is no part of the release.
    pub fn leave(&mut self, name: &str) {
        self.left.push(name.to_owned());
    }

    /// What was left alone, in a sentence.
    fn told_left(&self) -> Option<String> {
        let all: Vec<String> =
            self.left.iter().map(|name| name.escape_debug().to_string()).collect();
        let named = all[..all.len().min(NAMED_MAX)].join(", ");
        let more = match all.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!all.is_empty()).then(|| {
            format!("left alone, since it is no part of a provider release: {named}{more}")
        })
    }

    /// A part of it, for messages.
    fn first(&self) -> String {
        let zip = self.zips.first().map(|zip| zip.name.clone());
        zip.or_else(|| self.directories.first().map(|(platform, _)| platform.to_string()))
            .unwrap_or_default()
    }

    /// The plan of these packages.
    ///
    /// # Errors
    /// `Invalid` where names, versions or platforms do not go together; `Integrity` where a sum
    /// does not hold.
    pub fn plan(self, destined: Destined, workshop: &Workshop) -> Result<ReleasePlan, Refusal> {
        self.check_names(&destined.tags)?;
        let mut warnings: Vec<String> = self.told_left().into_iter().collect();
        let sums = read_sums(&self.sums)?;
        let about = self.read_manifest(&sums, &mut warnings)?;
        let mut beside = Vec::new();
        for (name, content) in self.sums.iter().chain(&self.manifests) {
            let is_signature = is_sums(name) && !name.ends_with("_SHA256SUMS");
            let media_type = if is_signature { SIGNATURE } else { TEXT };
            let descriptor = layer(media_type, Digest::of(content), content.len() as u64, name);
            beside.push(PushBlob {
                descriptor,
                content: BlobContent::Memory(Bytes::copy_from_slice(content)),
            });
        }
        let mut targets = Vec::new();
        let mut blobs = beside.clone();
        for zip in self.zips {
            let package = PlannedPackage::read(zip.file, &zip.path, workshop.limits())?;
            check_sum(&zip.path, &zip.name, package.digest, &sums, &mut warnings)?;
            check_program(&zip.path, &package.top, &mut warnings);
            let h1 = package.hashes_agree.then_some(package.h1);
            if h1.is_none() {
                warnings.push(format!(
                    "{} has entries for directories: its h1 hash as an archive is not that of the \
                     unpacked package, so none is annotated",
                    zip.path
                ));
            }
            let blob = package.blob(&zip.name);
            targets.push(target(zip.says.platform, &blob, &beside, &about, h1, false)?);
            blobs.push(blob);
        }
        for (platform, dir) in self.directories {
            let name = format!("{}/{platform}", self.name);
            let tree = StagedTree::read(dir, &name, workshop.limits())?;
            let (mut blob, h1) = pack(&tree, &name, workshop)?;
            blob.descriptor = layer(
                &blob.descriptor.media_type,
                blob.descriptor.digest,
                blob.descriptor.size,
                &format!("{platform}.zip"),
            );
            warnings.push(format!(
                "{name} is packed here, so its zh hash differs from that of the origin's zip"
            ));
            targets.push(target(platform, &blob, &beside, &about, Some(h1), true)?);
            blobs.push(blob);
        }
        targets.sort_by(|a, b| a.platform.cmp(&b.platform));
        let annotations = destined.annotations.clone();
        Ok(ReleasePlan::new(
            destined,
            PlannedArtifact::Provider { targets, annotations },
            blobs,
            warnings,
        ))
    }

    /// What `_manifest.json` says of the release, as annotations of each platform.
    fn read_manifest(
        &self,
        sums: &ProviderSums,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let mut about = BTreeMap::new();
        for (name, content) in &self.manifests {
            let path = format!("{}/{name}", self.name);
            let invalid = |rule: &str| Refusal::new(Failure::Invalid, &path, rule);
            let is_own = |zip: &Zip| *name == zip.says.manifest_name();
            if !self.zips.iter().all(is_own) {
                return Err(invalid(
                    "it is of another provider or version than the zips beside it",
                ));
            }
            if sums.contains_key(name) {
                check_sum(&path, name, Digest::of(content), sums, warnings)?;
            }
            let read: About = serde_json::from_slice(content)
                .map_err(|e| invalid(&format!("it is no manifest of a provider's release: {e}")))?;
            let versions = read.metadata.protocol_versions;
            if versions.iter().any(|version| !is_protocol(version)) {
                return Err(invalid(
                    "its metadata.protocol_versions are no versions of a protocol, as in \"6.0\"",
                ));
            }
            if !versions.is_empty() {
                about.insert(PROTOCOLS.to_owned(), versions.join(","));
            }
        }
        Ok(about)
    }

    /// One provider, one version, which is that of the tags, and each platform once.
    fn check_names(&self, tags: &[Tag]) -> Result<(), Refusal> {
        let refuse =
            |subject: &str, rule: String| Err(Refusal::new(Failure::Invalid, subject, rule));
        let mut versions = Vec::new();
        for tag in tags {
            match Version::of_tag(tag) {
                Some(version) => versions.push(version),
                None => {
                    let rule = format!(
                        "the tag {tag} is no version (MAJOR.MINOR.PATCH, with _ for +), and \
                         OpenTofu finds provider releases by their version alone"
                    );
                    return refuse(&self.name, rule);
                }
            }
        }
        let mut platforms: BTreeMap<&Platform, &str> = BTreeMap::new();
        for zip in &self.zips {
            if let Some(other) = versions.iter().find(|version| **version != zip.says.version) {
                return refuse(
                    &zip.path,
                    format!("it is of version {}, and the tag says {other}", zip.says.version),
                );
            }
            if let Some(other) = self.zips.iter().find(|other| other.says.kind != zip.says.kind) {
                return refuse(&zip.path, format!("{} is of another provider", other.name));
            }
            if let Some(other) = platforms.insert(&zip.says.platform, &zip.name) {
                return refuse(&zip.path, format!("{other} is for the same platform"));
            }
        }
        for (platform, _) in &self.directories {
            if let Some(zip) = platforms.get(platform) {
                return refuse(
                    &self.name,
                    format!("{platform} and {zip} are for the same platform"),
                );
            }
        }
        Ok(())
    }
}

fn target(
    platform: Platform,
    package: &PushBlob,
    beside: &[PushBlob],
    about: &BTreeMap<String, String>,
    h1: Option<H1>,
    packed_here: bool,
) -> Result<PlannedPlatform, Refusal> {
    let layers: Vec<Descriptor> =
        [package].into_iter().chain(beside).map(|blob| blob.descriptor.clone()).collect();
    let refused =
        |e: &dyn std::fmt::Display| Refusal::new(Failure::Structure, platform.to_string(), e);
    let manifest = image(PROVIDER_TARGET, &layers, about).map_err(|e| refused(&e))?;
    target_package(&manifest, &platform).map_err(|e| refused(&e))?;
    let mut entry = manifest.descriptor();
    entry.platform = Some(PlatformObject {
        os: platform.os().to_owned(),
        architecture: platform.arch().to_owned(),
        os_version: String::new(),
    });
    let Descriptor { digest, size, .. } = package.descriptor;
    entry.annotations = BTreeMap::from([
        (PACKAGE_DIGEST_ANNOTATION.to_owned(), digest.to_string()),
        (PACKAGE_SIZE_ANNOTATION.to_owned(), size.to_string()),
    ]);
    entry.annotations.extend(about.clone());
    entry.annotations.extend(h1.map(|h1| (H1_ANNOTATION.to_owned(), h1.to_string())));
    Ok(PlannedPlatform { platform, manifest, entry, package: digest, packed_here })
}

/// A `_manifest.json`, as public provider registries read it.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    protocol_versions: Vec<String>,
}

fn is_protocol(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= 16
        && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// What the files with sums say: base name of a zip, and the sum with the file that says it.
type ProviderSums = BTreeMap<String, (String, String)>;

fn read_sums(files: &[(String, Vec<u8>)]) -> Result<ProviderSums, Refusal> {
    let mut sums = ProviderSums::new();
    for (file, content) in files.iter().filter(|(name, _)| name.ends_with("_SHA256SUMS")) {
        for line in String::from_utf8_lossy(content).lines().filter(|line| !line.trim().is_empty())
        {
            let Some((sum, name)) = line.split_once([' ', '\t']).filter(|(sum, _)| is_sum(sum))
            else {
                let rule = format!("the line {line:?} is not a SHA-256 sum and a name");
                return Err(Refusal::new(Failure::Invalid, file, rule));
            };
            let name = name.trim_start_matches([' ', '\t', '*']).trim_end();
            sums.insert(name.to_owned(), (sum.to_ascii_lowercase(), file.clone()));
        }
    }
    Ok(sums)
}

fn is_sum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn check_sum(
    path: &str,
    name: &str,
    digest: Digest,
    sums: &ProviderSums,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    match sums.get(name) {
        Some((sum, _)) if *sum == digest.hex() => Ok(()),
        Some((sum, file)) => {
            let rule = format!("its SHA-256 sum is {}, and {file} says {sum}", digest.hex());
            Err(Refusal::new(Failure::Integrity, path, rule).remedy("copy the zip again"))
        }
        None => {
            if !sums.is_empty() {
                warnings.push(format!("{path} has no sum in the SHA256SUMS beside it"));
            }
            Ok(())
        }
    }
}

fn check_program(path: &str, top: &[Vec<u8>], warnings: &mut Vec<String>) {
    if !top.iter().any(|name| name.starts_with(PROGRAM)) {
        warnings.push(format!(
            "{path} holds no terraform-provider-* at its top, so no client can run it"
        ));
    }
}
