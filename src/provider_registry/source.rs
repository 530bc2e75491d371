//! A provider registry as a source of releases: its repositories are `NAMESPACE/TYPE`, its tags
//! versions, and the document of a release is its `SHA256SUMS`.
//!
//! Nothing is kept here but what saves a request: the lists of versions, since they say for which
//! platforms there is a download document, and such documents for the short time in which a zip is
//! fetched. An address in one may count for minutes only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::download::DownloadDocument;
use super::{OfferedVersion, ProviderRegistry, part, subject};
use crate::artifact::{SignaturePolicy, TITLE_ANNOTATION, ZIP};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Repo, RepoName, Selector, Tag, Version, ZipName};
use crate::oci::Descriptor;
use crate::registry::service_host::ServiceQuestion;
use crate::registry::{
    BlobError, BlobSink, DocumentKind, Greeting, RawManifest, Referrers, Registry,
};

/// How long the download document of a package counts.
const DOCUMENT_COUNTS: Duration = Duration::from_secs(60);
/// How many lists and documents are kept.
const KEPT: (usize, usize) = (128, 256);

type Documents = Bounded<(RepoName, Version, Platform), (Instant, Arc<DownloadDocument>)>;

/// See the module.
pub struct ProviderSource {
    registry: ProviderRegistry,
    policy: SignaturePolicy,
    /// By whose document a release is resolved, where it has one.
    own: Platform,
    lists: Mutex<Bounded<RepoName, Arc<Vec<OfferedVersion>>>>,
    documents: Mutex<Documents>,
}

impl ProviderSource {
    /// The releases of `registry`, resolved by the document of the platform `own` where there is
    /// one. Asks nothing.
    pub fn new(registry: ProviderRegistry, own: Platform, policy: SignaturePolicy) -> Self {
        ProviderSource {
            registry,
            policy,
            own,
            lists: Mutex::new(Bounded::counted(KEPT.0)),
            documents: Mutex::new(Bounded::counted(KEPT.1)),
        }
    }

    fn repo(&self, repo: &RepoName) -> Repo {
        Repo { host: self.registry.host().clone(), name: repo.clone() }
    }

    /// The provider whose releases a repository holds.
    fn provider(&self, repo: &RepoName) -> Result<ProviderAddr, Refusal> {
        let parts: Vec<&str> = repo.components().collect();
        let provider = match parts[..] {
            [namespace, kind] => ProviderAddr::new(self.registry.host().clone(), namespace, kind),
            _ => None,
        };
        provider.ok_or_else(|| {
            let rule = "a provider registry holds providers, which are NAMESPACE/TYPE";
            Refusal::new(Failure::Absent, self.repo(repo), rule)
        })
    }

    async fn listed(&self, repo: &RepoName) -> Result<Arc<Vec<OfferedVersion>>, Refusal> {
        let provider = self.provider(repo)?;
        let list = self.registry.versions(&provider).await.map_err(|e| e.about(self.repo(repo)))?;
        let list = Arc::new(list);
        self.lists.lock().put(repo.clone(), list.clone());
        Ok(list)
    }

    fn known(&self, repo: &RepoName) -> Option<Arc<Vec<OfferedVersion>>> {
        self.lists.lock().get(repo).cloned()
    }

    /// The platform by whose document a version is resolved: this one's, else the first that the
    /// list names.
    fn resolving(&self, list: &[OfferedVersion], version: &Version) -> Option<Platform> {
        let offered = list.iter().find(|offered| offered.version == *version)?;
        if offered.platforms.contains(&self.own) {
            return Some(self.own.clone());
        }
        offered.platforms.first().cloned()
    }

    /// The document of a release, with a signature that holds.
    async fn document(&self, repo: &RepoName, tag: &Tag) -> Result<RawManifest, Refusal> {
        let provider = self.provider(repo)?;
        let absent = || {
            let rule = format!("{} lists no such version", self.registry.host());
            Refusal::new(Failure::Absent, self.repo(repo).at(Selector::Tag(tag.clone())), rule)
        };
        let version = Version::of_tag(tag).ok_or_else(absent)?;
        // Without a list one request may do, too.
        let known = self.known(repo);
        let platform = match &known {
            Some(list) => self.resolving(list, &version).ok_or_else(absent)?,
            None => self.own.clone(),
        };
        let document = match self.downloaded(repo, &provider, &version, &platform).await? {
            Some(document) => (platform, document),
            None => {
                let list = self.listed(repo).await?;
                let platform = self.resolving(&list, &version).ok_or_else(absent)?;
                let document = self.downloaded(repo, &provider, &version, &platform).await?;
                let lacking = || self.registry.lacking(&provider, &version, &platform);
                (platform.clone(), document.ok_or_else(lacking)?)
            }
        };
        let (platform, document) = document;
        let document = document.as_ref().clone();
        let release =
            self.registry.release_by(&provider, &version, &platform, document, self.policy).await?;
        let digest = release.identity();
        Ok(RawManifest {
            bytes: release.sums.raw().into(),
            content_type: None,
            claimed: Some(digest),
            kind: DocumentKind::Sums {
                outcome: release.outcome,
                signature: release.signature.map(Arc::from),
            },
        })
    }

    /// Asks for a download document; `None` where there is none.
    async fn downloaded(
        &self,
        repo: &RepoName,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
    ) -> Result<Option<Arc<DownloadDocument>>, Refusal> {
        let asked = self.registry.asked_document(provider, version, platform).await?;
        let Some(document) = asked.map(Arc::new) else { return Ok(None) };
        let key = (repo.clone(), version.clone(), platform.clone());
        self.documents.lock().put(key, (Instant::now(), document.clone()));
        Ok(Some(document))
    }

    /// The download document of a package, as it was told a moment ago or is told now.
    async fn current(
        &self,
        repo: &RepoName,
        provider: &ProviderAddr,
        zip: &ZipName,
    ) -> Result<Arc<DownloadDocument>, Refusal> {
        let key = (repo.clone(), zip.version.clone(), zip.platform.clone());
        if let Some((at, document)) = self.documents.lock().get(&key)
            && at.elapsed() < DOCUMENT_COUNTS
        {
            return Ok(document.clone());
        }
        self.downloaded(repo, provider, &zip.version, &zip.platform)
            .await?
            .ok_or_else(|| self.registry.lacking(provider, &zip.version, &zip.platform))
    }

    /// The question for a zip.
    async fn zip_of(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
    ) -> Result<(String, Arc<DownloadDocument>), Refusal> {
        let provider = self.provider(repo)?;
        let name = blob.annotations.get(TITLE_ANNOTATION);
        let Some(zip) = name.and_then(|name| name.parse::<ZipName>().ok()) else {
            let rule = "a provider registry has no file that is named by its digest alone";
            return Err(Refusal::new(
                Failure::Absent,
                self.repo(repo).at(Selector::Digest(blob.digest)),
                rule,
            ));
        };
        let document = self.current(repo, &provider, &zip).await?;
        let subject = subject(&provider, &zip.version);
        if document.shasum != blob.digest {
            let rule = format!(
                "its SHA256SUMS says {} of the zip for {}, and the download document {}",
                blob.digest, zip.platform, document.shasum
            );
            return Err(Refusal::new(Failure::Structure, subject, rule));
        }
        Ok((subject, document))
    }
}

#[async_trait]
impl Registry for ProviderSource {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let list = self.listed(repo).await?;
        let mut tags: Vec<Tag> = list.iter().filter_map(|offered| offered.version.tag()).collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        let rule = "the protocol of provider registries has no list of providers";
        Err(Refusal::new(Failure::Absent, self.registry.host(), rule))
    }

    /// What a version stands for is told by its documents alone.
    async fn resolve(&self, _: &RepoName, _: &Tag) -> Result<Option<Digest>, Refusal> {
        Ok(None)
    }

    /// A provider registry has no place for what speaks about its releases.
    async fn referrers(&self, _: &RepoName, _: &Digest) -> Referrers {
        Referrers::default()
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        match selector {
            Selector::Tag(tag) => self.document(repo, tag).await,
            Selector::Digest(_) => {
                let rule = "a provider registry has releases by their versions alone";
                Err(Refusal::new(Failure::Absent, self.repo(repo).at(selector.clone()), rule))
            }
        }
    }

    async fn offered(&self, repo: &RepoName, zip: &ZipName) -> Result<Descriptor, Refusal> {
        let provider = self.provider(repo)?;
        let document = self.current(repo, &provider, zip).await?;
        let (subject, part) = (subject(&provider, &zip.version), part(&provider));
        let question = ServiceQuestion {
            url: &document.zip,
            subject: &subject,
            what: &format!("the zip for {}", zip.platform),
            part: part.as_ref(),
            token: None,
            limit: u64::MAX,
        };
        let size = self.registry.services.length(question).await?;
        let mut offered = Descriptor::bare(document.shasum, size);
        ZIP.clone_into(&mut offered.media_type);
        offered.annotations.insert(TITLE_ANNOTATION.to_owned(), zip.to_string());
        Ok(offered)
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let (subject, document) = self.zip_of(repo, blob).await?;
        let question = ServiceQuestion {
            url: &document.zip,
            subject: &subject,
            what: "the zip",
            part: Some(repo),
            token: None,
            limit: blob.size,
        };
        let other_length = |rule: String| Refusal::new(Failure::Integrity, &*subject, rule);
        match self.registry.services.download(question, sink).await {
            Ok(()) if sink.position() == blob.size => Ok(()),
            Ok(()) => {
                let rule = format!(
                    "the zip has {} bytes, and was said to have {}",
                    sink.position(),
                    blob.size
                );
                Err(other_length(rule).into())
            }
            Err(BlobError::Registry(e)) if e.failure == Failure::TooLarge => {
                let rule = format!(
                    "the zip has more than the {} bytes that it was said to have",
                    blob.size
                );
                Err(other_length(rule).into())
            }
            Err(e) => Err(e),
        }
    }

    async fn greet(&self, _: Greeting) -> Result<(), Refusal> {
        self.registry.service().await.map(drop)
    }
}
