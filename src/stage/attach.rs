//! What is said about a release that is there already: a document becomes a manifest that names the
//! release as its subject, and comes into the list of its referrers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector};
use crate::oci::referrer::{ReferrerLayer, is_bundle, referrer};
use crate::oci::write::{EMPTY_CONTENT, empty};
use crate::oci::{Descriptor, Manifest};
use crate::registry::turn::Told;
use crate::registry::{Upload, referrers};

/// The largest bundle that its manifest carries itself, so that readers need no request for it.
const INLINE_MAX: usize = 64 << 10;
/// How often it is asked whether a list has what was put.
const LISTED_PAUSE: Duration = Duration::from_millis(250);
/// The title of a layer.
const TITLE: &str = "org.opencontainers.image.title";

/// A document that is to speak about a release.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is: also the media type of its bytes.
    pub kind: String,
    /// What it is called where it lies as a file.
    pub title: Option<String>,
    pub bytes: Bytes,
    pub annotations: BTreeMap<String, String>,
}

impl Attachment {
    fn layer(&self) -> Descriptor {
        let title = self.title.iter().map(|title| (TITLE.to_owned(), title.clone()));
        Descriptor {
            media_type: self.kind.clone(),
            annotations: title.collect(),
            ..Descriptor::bare(Digest::of(&self.bytes), self.bytes.len() as u64)
        }
    }

    /// The manifest by which it speaks about `subject`. The same document has the same manifest.
    ///
    /// # Errors
    /// It would be over a limit.
    pub fn manifest(&self, subject: &Descriptor) -> Result<Manifest, crate::oci::DocumentError> {
        let is_carried = is_bundle(&self.kind) && self.bytes.len() <= INLINE_MAX;
        let layer =
            ReferrerLayer { blob: self.layer(), inline: is_carried.then_some(&self.bytes[..]) };
        referrer(subject, &self.kind, &[layer], &self.annotations)
    }
}

/// What names the manifest for which `selector` stands now.
///
/// # Errors
/// `Absent` where there is none; those of [`Upload`].
pub async fn subject(
    upload: &dyn Upload,
    repo: &Repo,
    selector: &Selector,
) -> Result<Descriptor, Refusal> {
    let raw = upload.read_back(&repo.name, selector).await?;
    let digest = match selector {
        Selector::Digest(digest) => *digest,
        Selector::Tag(_) => Digest::of(&raw.bytes),
    };
    let manifest = Manifest::parse(raw.bytes, digest, None);
    Ok(manifest.map_err(|e| e.about(repo.at(selector.clone())))?.descriptor())
}

/// Has `attachment` speak about `subject`; the digest of the manifest by which it does. What is
/// there already is not sent.
///
/// # Errors
/// `TimedOut` where the list does not have it within `deadline`; those of [`Upload`].
pub async fn attach(
    upload: &dyn Upload,
    repo: &Repo,
    subject: &Descriptor,
    attachment: &Attachment,
    deadline: Duration,
    told: Told<'_>,
) -> Result<Digest, Refusal> {
    let about = |e: crate::oci::DocumentError| e.about(repo.at(Selector::Digest(subject.digest)));
    let manifest = attachment.manifest(subject).map_err(about)?;
    let name = &repo.name;
    let said = upload.referrers(name, &subject.digest).await.whole()?;
    if said.iter().any(|entry| entry.digest == manifest.digest) {
        return Ok(manifest.digest);
    }
    upload.put_blob(name, &empty(), &Bytes::from_static(EMPTY_CONTENT)).await?;
    upload.put_blob(name, &attachment.layer(), &attachment.bytes).await?;
    referrers::attach(upload, repo, &manifest, &subject.digest, told).await?;
    until_listed(upload, repo, subject.digest, manifest.digest, deadline).await?;
    Ok(manifest.digest)
}

/// Waits until the list has it: some registries make their lists a while after the put.
async fn until_listed(
    upload: &dyn Upload,
    repo: &Repo,
    subject: Digest,
    referrer: Digest,
    deadline: Duration,
) -> Result<(), Refusal> {
    let begun = Instant::now();
    loop {
        let said = upload.referrers(&repo.name, &subject).await.whole()?;
        if said.iter().any(|entry| entry.digest == referrer) {
            return Ok(());
        }
        if begun.elapsed() > deadline {
            let rule = format!(
                "the registry took {referrer}, and does not list it as speaking about this after \
                 {deadline:?}"
            );
            let at = repo.at(Selector::Digest(subject));
            return Err(Refusal::new(Failure::TimedOut, at, rule).remedy("try again"));
        }
        sleep(LISTED_PAUSE).await;
    }
}
