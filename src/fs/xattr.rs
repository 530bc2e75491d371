//! Extended attributes: what is known of a node without a request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::area::is_shown;
use super::error::{Errno, FsError};
use super::failures::Failures;
use super::node::{InodeNode, ReleaseNode, TargetNode};
use super::referrer::ReferrerPlace;
use super::retired::Retired;
use crate::artifact::{Release, ReleaseDocument, annotated_h1};
use crate::digest::Digest;
use crate::facts::{Facts, TargetPackage};
use crate::name::{Platform, Reference, Selector};
use crate::oci::{Descriptor, Manifest};
use crate::tree::Need;
use crate::trust::Admission;

type Attributes = Vec<(String, Vec<u8>)>;

fn add(to: &mut Attributes, name: &str, value: impl AsRef<[u8]>) {
    to.push((name.to_owned(), value.as_ref().to_vec()));
}

/// How the names of a publisher's annotations begin.
const ANNOTATION: &str = "user.oci.annotation.";

/// The longest name that listxattr can return (XATTR_NAME_MAX).
const NAME_MAX: usize = 255;

/// How much of names and values is listed, about: ext4 keeps one block of 4 KiB for those of a
/// file, and a copy with attributes fails where they do not fit. The kernel itself takes 64 KiB of
/// names, and of one value.
const LISTED_MAX: usize = 3800;
/// What a disk takes for an attribute beside its name and value.
const ENTRY_BYTES: usize = 24;

/// See the module.
pub(super) struct ExtendedAttributes {
    pub(super) facts: Arc<Facts>,
    pub(super) failures: Arc<Failures>,
    /// The control socket, which the root shows.
    pub(super) control: PathBuf,
    /// A mount that was replaced shows none.
    pub(super) retired: Retired,
}

impl ExtendedAttributes {
    /// The value of the attribute `name` of `node`.
    pub(super) fn get(&self, node: &InodeNode, name: &OsStr) -> Result<Vec<u8>, FsError> {
        // `ls` asks for labels and access lists of every file until one answer says that there are
        // none here.
        if !is_shown(name.as_bytes()) {
            return Err(FsError::plain(Errno::EOPNOTSUPP));
        }
        if let InodeNode::Local(at) = node {
            return at.xattr(name);
        }
        let found = self.all(node).into_iter().find(|(n, _)| n.as_bytes() == name.as_bytes());
        found.map(|(_, value)| value).ok_or(FsError::plain(Errno::ENODATA))
    }

    /// The names of all attributes of `node`, each followed by NUL.
    pub(super) fn names(&self, node: &InodeNode) -> Result<Vec<u8>, FsError> {
        if let InodeNode::Local(at) = node {
            return at.xattrs();
        }
        let mut names = Vec::new();
        for name in listed(&self.all(node)) {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }

    fn all(&self, node: &InodeNode) -> Attributes {
        let mut out = Attributes::new();
        match node {
            InodeNode::Root if self.retired.is_retired() => {}
            InodeNode::Root => {
                add(&mut out, "user.tofufs.control", self.control.as_os_str().as_bytes())
            }
            InodeNode::Release(release) => self.of_release(release, &mut out),
            InodeNode::Platform(target, _) | InodeNode::Zip(target) => {
                self.of_target(target, &mut out)
            }
            InodeNode::Referrers { place, .. } => of_referrer(place, &mut out),
            InodeNode::Space { .. }
            | InodeNode::Providers { .. }
            | InodeNode::Link(_)
            | InodeNode::Document(_)
            | InodeNode::Lock
            | InodeNode::Dir { .. }
            | InodeNode::File { .. }
            | InodeNode::Local(_) => {}
        }
        if let Some(error) = self.failures.reason(node) {
            add(&mut out, "user.tofufs.error", error.as_bytes());
        }
        out
    }

    fn of_release(&self, node: &ReleaseNode, out: &mut Attributes) {
        add(out, "user.oci.reference", node.reference.to_string());
        if let Some(digest) = node.digest() {
            add(out, "user.oci.digest", digest.to_string());
        }
        // Of what is refused, too; and the kernel may have forgotten the inode that was entered.
        let entered = node.bound().map(|bound| bound.document.clone());
        match entered.or_else(|| self.facts.manifests().known(node.digest()?)) {
            Some(ReleaseDocument::Manifest(manifest)) => {
                of_manifest(&manifest, out);
                if let Ok(Release::Module(archive)) = Release::read(&manifest) {
                    of_package(Some(&manifest), None, &archive, out);
                }
            }
            Some(ReleaseDocument::Sums { signature, .. }) => {
                add(out, "user.tofu.signature", signature.to_string());
            }
            None => {}
        }
        if let Some(digest) = node.digest() {
            self.of_gate(&node.reference, digest, None, out);
        }
        if let Selector::Tag(tag) = &node.reference.selector {
            let need = Need::Binding(node.reference.repo.clone(), tag.clone());
            if node.digest().is_some()
                && let Some(age) = self.facts.view(Instant::now()).stale(&need)
            {
                add(out, "user.tofufs.stale", format!("{}s", age.as_secs()));
            }
        }
    }

    /// What the policies said of a release when it was opened.
    fn of_gate(
        &self,
        reference: &Reference,
        digest: Digest,
        platform: Option<&Platform>,
        out: &mut Attributes,
    ) {
        let Some(given) = self.facts.gate().known(reference, digest, platform) else { return };
        match given.verdict {
            Ok(admission) => {
                add(out, "user.tofufs.policy", admission.word());
                if let Admission::Signed(by) = admission {
                    let by: Vec<String> = by.into_iter().collect();
                    add(out, "user.tofufs.signed_by", by.join(" "));
                }
            }
            Err(_) => add(out, "user.tofufs.policy", "refused"),
        }
    }

    fn of_target(&self, node: &TargetNode, out: &mut Attributes) {
        let Some(target) = node.target() else { return };
        let digest = target.digest();
        if let Some(release) = node.release() {
            let of = release.document.digest();
            self.of_gate(&release.reference, of, Some(&target.platform), out);
        }
        let Some(entry) = target.manifest() else {
            add(out, "user.oci.digest", digest.to_string());
            add(out, "user.tofu.zh", format!("zh:{}", digest.hex()));
            return;
        };
        add(out, "user.oci.reference", node.repo().at(Selector::Digest(digest)).to_string());
        add(out, "user.oci.digest", digest.to_string());
        if let Some(TargetPackage { manifest, archive }) = node.known(&self.facts) {
            manifest.iter().for_each(|manifest| of_manifest(manifest, out));
            of_package(manifest.as_deref(), Some(entry), archive, out);
        }
    }
}

/// Of a referrer and its files, whether it counts for the policy.
fn of_referrer(place: &ReferrerPlace, out: &mut Attributes) {
    let (ReferrerPlace::Referrer(one) | ReferrerPlace::Layer(one, _)) = place else { return };
    if let Some(counts) = &one.counts {
        add(out, "user.tofufs.counts", counts);
    }
}

/// The names that are listed: all of this program's own, and of the publisher's annotations as many
/// as there is room for, from the first on. The others are read by their names.
fn listed(attributes: &Attributes) -> impl Iterator<Item = &str> {
    let is_own = |name: &str| !name.starts_with(ANNOTATION);
    let bytes = |(name, value): &(String, Vec<u8>)| name.len() + value.len() + ENTRY_BYTES;
    let own: usize = attributes.iter().filter(|(name, _)| is_own(name)).map(bytes).sum();
    let mut room = LISTED_MAX.saturating_sub(own);
    attributes.iter().filter_map(move |attribute| {
        let (name, _) = attribute;
        if !is_own(name) {
            room = room.checked_sub(bytes(attribute))?;
        }
        Some(name.as_str())
    })
}

fn of_manifest(manifest: &Manifest, out: &mut Attributes) {
    add(out, "user.oci.media_type", manifest.media_type);
    if let Some(artifact_type) = &manifest.artifact_type {
        add(out, "user.oci.artifact_type", artifact_type);
    }
    for (key, value) in &manifest.annotations {
        let name = format!("{ANNOTATION}{key}");
        if name.len() <= NAME_MAX && !name.contains('\0') {
            add(out, &name, value);
        }
    }
}

/// What OpenTofu's lock files would record: `zh:` is the zip's digest, `h1:` stands where the
/// publisher annotated it.
fn of_package(
    manifest: Option<&Manifest>,
    entry: Option<&Descriptor>,
    archive: &Descriptor,
    out: &mut Attributes,
) {
    if let Digest::Sha256(_) = archive.digest {
        add(out, "user.tofu.zh", format!("zh:{}", archive.digest.hex()));
    }
    if let Some(h1) = manifest.and_then(|manifest| annotated_h1(entry, manifest, archive)) {
        add(out, "user.tofu.h1", h1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_listed_as_far_as_a_disk_takes_them() {
        let mut attributes = Attributes::new();
        add(&mut attributes, "user.oci.digest", "x");
        for n in 0..1000 {
            add(&mut attributes, &format!("{ANNOTATION}{n}"), "value");
        }
        add(&mut attributes, &format!("{ANNOTATION}long"), [b'x'; 70_000]);
        add(&mut attributes, "user.tofu.zh", "y");
        let names: Vec<_> = listed(&attributes).collect();
        assert_eq!((names[0], names[1]), ("user.oci.digest", "user.oci.annotation.0"));
        assert_eq!(
            names.last(),
            Some(&"user.tofu.zh"),
            "what is not a publisher's is always listed"
        );
        assert!(
            names.len() > 50 && names.iter().map(|name| name.len() + 5).sum::<usize>() < 4096,
            "{}",
            names.len()
        );
    }
}
