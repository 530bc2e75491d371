//! The gate: nothing of a package is given out without an [`Admitted`], and only this file makes
//! one.
//!
//! A verdict counts for as long as the policies do by which it was given: an admission for good, a
//! refusal for as long as the list of referrers by which it came about. Of what lies in the cache
//! nothing is believed that was not checked by this process: after a remount the evidence that is
//! cached is checked again, without a request.
//!
//! INVARIANT: what could not be found out admits nothing, and is no refusal either.

pub mod admitted;
mod dates;
mod listed;
mod published;
mod vendors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::admitted::Admitted;
pub use self::listed::HiddenTags;
use self::listed::{LISTED_MAX, ListedKey};
use self::vendors::VendorEvidence;
pub use self::vendors::{WantedTargets, signed_sums};
use super::error::lost;
use super::manifests::Manifests;
use super::referrers::ReferrerFacts;
use super::tags::Tags;
use crate::artifact::{Release, Target};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Platform, Reference, Repo, Selector};
use crate::oci::referrer::{is_bundle, signature_tag};
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::store::Store;
use crate::trust::bundle::{
    BUNDLE_MAX, HINT, SIMPLE_SIGNATURE, SIMPLE_SIGNING, SignedStatement, TAG_HINT,
};
use crate::trust::{Admission, Asked, Evidence, Judgement, NotAdmitted, Policies, Verdict};

/// How many verdicts are kept.
const VERDICTS_MAX: usize = 10_000;
/// How many signatures of one release are looked at.
const CANDIDATES_MAX: usize = 64;

/// A verdict that was given.
#[derive(Clone, Debug)]
pub struct GivenVerdict {
    /// What the policies say.
    pub verdict: Verdict,
    at: Instant,
}

type Key = (Asked, u64);

/// See the module.
pub struct Gate {
    policies: RwLock<(Arc<Policies>, u64)>,
    manifests: Arc<Manifests>,
    referrers: Arc<ReferrerFacts>,
    tags: Arc<Tags>,
    store: Arc<Store>,
    verdicts: Mutex<Bounded<Key, GivenVerdict>>,
    /// Whether what policies refuse is not listed, and what of it is known.
    lists_signed: bool,
    listed: Mutex<Bounded<ListedKey, bool>>,
    flights: Flights<Key, Verdict, Refusal>,
    ttl: Duration,
}

impl Gate {
    pub(super) fn new(
        (policies, lists_signed): (Arc<Policies>, bool),
        manifests: Arc<Manifests>,
        referrers: Arc<ReferrerFacts>,
        tags: Arc<Tags>,
        store: Arc<Store>,
        (ttl, linger): (Duration, Duration),
    ) -> Gate {
        Gate {
            policies: RwLock::new((policies, 0)),
            manifests,
            referrers,
            tags,
            store,
            verdicts: Mutex::new(Bounded::counted(VERDICTS_MAX)),
            lists_signed,
            listed: Mutex::new(Bounded::counted(LISTED_MAX)),
            flights: Flights::new(linger, |_| lost()),
            ttl,
        }
    }

    /// From now on these policies count. What they refuse is refused at the next open.
    pub fn replace(&self, policies: Arc<Policies>) {
        let mut held = self.policies.write();
        *held = (policies, held.1 + 1);
        drop(held);
        self.verdicts.lock().clear();
    }

    /// How often policies were replaced.
    pub fn generation(&self) -> u64 {
        self.policies.read().1
    }

    /// Forgets refusals.
    pub(super) fn forget(&self) {
        self.verdicts.lock().clear();
        self.listed.lock().clear();
    }

    /// Whether zips of a repository may be admitted by what their vendor signed. It signed nothing of
    /// what manifests say of a package besides, as its `h1:` hash.
    pub fn admits_zips_alone(&self, repo: &Repo) -> bool {
        self.policies.read().0.ask_vendors(repo)
    }

    /// Whether anything is asked of releases.
    pub fn has_policies(&self) -> bool {
        !self.policies.read().0.is_empty()
    }

    /// Leave to read the packages of a release, or of what lies under any digest.
    ///
    /// # Errors
    /// `Unsigned` where evidence was looked for with authority and does not suffice; else why it
    /// could not be had.
    pub async fn admit(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Admitted, Refusal> {
        self.leave(|| Asked::new(reference, digest)).await.map(|(admitted, _)| admitted)
    }

    /// The same for the package of one platform, for which its vendor may have signed.
    ///
    /// # Errors
    /// As of [`Gate::admit`].
    pub async fn admit_platform(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        platform: &Platform,
    ) -> Result<Admitted, Refusal> {
        let asked = || Asked { platform: Some(platform.clone()), ..Asked::new(reference, digest) };
        self.leave(asked).await.map(|(admitted, _)| admitted)
    }

    /// The same for all of a release, or for those of its platforms that are wanted; and why.
    ///
    /// # Errors
    /// As of [`Gate::admit`], of the first that is not admitted.
    pub async fn admit_all(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        wanted: WantedTargets<'_>,
    ) -> Result<(Admitted, Admission), Refusal> {
        let mut all: Option<(Admitted, Admission)> = None;
        for asked in self.asked_of(reference, digest, wanted).await? {
            let (admitted, why) = self.leave(|| asked).await?;
            all = Some((admitted, all.map_or(why.clone(), |(_, before)| before.and(why))));
        }
        all.ok_or_else(lost)
    }

    /// What is asked for: the release, or each of its platforms that is wanted, where vendors may
    /// have signed them one by one.
    async fn asked_of(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        wanted: WantedTargets<'_>,
    ) -> Result<Vec<Asked>, Refusal> {
        let whole = Asked::new(reference, digest);
        if !self.policies.read().0.ask_vendors(&reference.repo) {
            return Ok(vec![whole]);
        }
        let targets = match self.manifests.release_of(reference, digest).await {
            Ok((_, Release::Provider(targets))) => targets,
            Ok((_, Release::Module(_))) => Vec::new(),
            Err(e) if e.failure == Failure::Structure => Vec::new(),
            Err(e) => return Err(e),
        };
        let wanted = targets.into_iter().filter(|target| wanted(target));
        let of = |target: Target| Asked { platform: Some(target.platform), ..whole.clone() };
        let all: Vec<Asked> = wanted.map(of).collect();
        Ok(if all.is_empty() { vec![whole] } else { all })
    }

    async fn leave(
        self: &Arc<Self>,
        asked: impl FnOnce() -> Asked,
    ) -> Result<(Admitted, Admission), Refusal> {
        let (policies, generation) = self.policies.read().clone();
        if policies.is_empty() {
            return Ok((Admitted::new(None), Admission::Accepted));
        }
        let asked = Arc::new(asked());
        match self.verdict(asked.clone(), policies, generation).await? {
            Ok(admission) => Ok((Admitted::new(Some((asked, generation))), admission)),
            Err(why) => Err(refused(&asked, why)),
        }
    }

    /// Whether what was admitted still is.
    ///
    /// # Errors
    /// As of [`Gate::admit`]; `Busy` where it was entered before there was a policy.
    pub async fn again(self: &Arc<Self>, admitted: &Admitted) -> Result<(), Refusal> {
        let (is_asked, generation) = {
            let held = self.policies.read();
            (!held.0.is_empty(), held.1)
        };
        match admitted.by() {
            _ if !is_asked => Ok(()),
            Some((_, of)) if *of == generation => Ok(()),
            Some((asked, _)) => self.leave(|| (**asked).clone()).await.map(drop),
            None => Err(Refusal::new(
                Failure::Unsigned,
                "a file that was entered before",
                "a policy has come into force since its directory was entered",
            )
            .remedy("look its path up again")),
        }
    }

    /// What was said of a release last, or of one of its platforms, if it is known.
    pub fn known(
        &self,
        reference: &Reference,
        digest: Digest,
        platform: Option<&Platform>,
    ) -> Option<GivenVerdict> {
        let (asks_vendors, generation) = {
            let held = self.policies.read();
            (held.0.ask_vendors(&reference.repo), held.1)
        };
        let platform = platform.filter(|_| asks_vendors).cloned();
        let key = (Asked { platform, ..Asked::new(reference, digest) }, generation);
        self.verdicts.lock().get(&key).cloned()
    }

    async fn verdict(
        self: &Arc<Self>,
        asked: Arc<Asked>,
        policies: Arc<Policies>,
        generation: u64,
    ) -> Result<Verdict, Refusal> {
        // Who signs a release as a whole signs all of its platforms.
        let asked = match &asked.platform {
            Some(_) if !policies.ask_vendors(&asked.repo) => {
                Arc::new(Asked { platform: None, ..(*asked).clone() })
            }
            _ => asked,
        };
        let key = ((*asked).clone(), generation);
        if let Some(given) = self.verdicts.lock().get(&key)
            && (given.verdict.is_ok() || given.at.elapsed() < self.ttl)
        {
            return Ok(given.verdict.clone());
        }
        let (gate, at) = (self.clone(), key.clone());
        let load = move || async move {
            let verdict = gate.look(&asked, &policies, false).await?;
            let given = GivenVerdict { verdict: verdict.clone(), at: Instant::now() };
            gate.verdicts.lock().put(at, given);
            Ok(verdict)
        };
        self.flights.join(key, load).await
    }

    /// Looks for evidence: in the cache first, which costs nothing, then where it is; `once`, only
    /// where the cache does not know that it was looked for before.
    async fn look(
        &self,
        asked: &Asked,
        policies: &Policies,
        once: bool,
    ) -> Result<Verdict, Refusal> {
        let dates = self.dates(asked, policies).await?;
        let begun = policies.judge(asked, dates);
        if let Some(verdict) = begun.settled() {
            return Ok(verdict);
        }
        let places: Vec<Repo> = [asked.repo.clone()].into_iter().chain(begun.places()).collect();
        let vendors = self.vendor_evidence(asked).await;
        let mut search = Search::new(self, asked, begun, &vendors);
        let mut was_listed = true;
        for place in &places {
            if let Some(admission) = search.judgement.admission() {
                return Ok(Ok(admission));
            }
            let kept = self.referrers.kept(place, asked.digest).await;
            was_listed &= kept.is_some();
            let found = match kept.unwrap_or_default() {
                none if none.is_empty() => search.kept_legacy(place).await,
                kept => search.through(place, kept).await,
            };
            if let Some(admission) = found {
                return Ok(Ok(admission));
            }
        }
        if once && was_listed && search.lacking.is_none() {
            return Ok(Err(search.judgement.refusal()));
        }
        let begun = policies.judge(asked, dates);
        let wants_statements = begun.wants_statements();
        let mut search = Search::new(self, asked, begun, &vendors);
        for place in places.iter().filter(|_| wants_statements) {
            let said = self.referrers.of(place, asked.digest).await;
            let is_empty = said.entries.is_empty();
            search.lacks(said.unheard.clone());
            let found = if is_empty && said.unheard.is_none() {
                search.legacy(place).await
            } else {
                search.through(place, said.entries.clone()).await
            };
            if let Some(admission) = found {
                return Ok(Ok(admission));
            }
        }
        match search.lacking {
            Some(e) => Err(e),
            None => Ok(Err(search.judgement.refusal())),
        }
    }

    /// Whether a referrer of a release counts as a signature: by whom, or why not.
    pub async fn counts(
        &self,
        reference: &Reference,
        digest: Digest,
        referrer: &Manifest,
    ) -> Result<String, String> {
        let policies = self.policies.read().0.clone();
        let asked = Asked::new(reference, digest);
        if policies.is_empty() {
            return Err("there is no policy".to_owned());
        }
        let evidence = self.evidence(&asked.repo, referrer).await.map_err(|e| e.rule.clone())?;
        match evidence.into_iter().next() {
            Some(evidence) => policies.counts(&asked, evidence),
            None => Err("it is no signature".to_owned()),
        }
    }

    /// The signatures in a referrer.
    async fn evidence(&self, repo: &Repo, referrer: &Manifest) -> Result<Vec<Evidence>, Refusal> {
        let ManifestBody::Image(layers) = &referrer.body else { return Ok(Vec::new()) };
        let is_one = referrer.kind().is_some_and(|kind| is_bundle(&kind));
        let mut found = Vec::new();
        for layer in layers {
            let simple = layer.media_type == SIMPLE_SIGNING;
            if !(is_one || simple || is_bundle(&layer.media_type)) || found.len() > CANDIDATES_MAX {
                continue;
            }
            let bytes = self.referrers.layer(repo, referrer, layer, BUNDLE_MAX).await?;
            found.push(if simple {
                let signature = layer.annotations.get(SIMPLE_SIGNATURE);
                let signature = signature.map_or("", String::as_str);
                SignedStatement::read_simple(bytes, signature)
            } else {
                SignedStatement::read_bundle(&bytes)
            });
        }
        Ok(found)
    }
}

/// The refusal of what was asked for.
fn refused(asked: &Asked, why: NotAdmitted) -> Refusal {
    let subject = format!("{} ({})", asked.reference(), asked.digest);
    let refusal = Refusal::new(Failure::Unsigned, subject, why.rule);
    if why.remedy.is_empty() { refusal } else { refusal.remedy(why.remedy) }
}

/// One search for evidence.
struct Search<'a> {
    gate: &'a Gate,
    asked: &'a Asked,
    judgement: Judgement<'a>,
    tried: usize,
    /// Why there may be more evidence.
    lacking: Option<Refusal>,
}

impl<'a> Search<'a> {
    fn new(
        gate: &'a Gate,
        asked: &'a Asked,
        mut judgement: Judgement<'a>,
        vendors: &VendorEvidence,
    ) -> Search<'a> {
        for (package, sums) in &vendors.found {
            judgement.add_sums(sums, package);
        }
        Search { gate, asked, judgement, tried: 0, lacking: vendors.lacking.clone() }
    }

    fn lacks(&mut self, why: Option<Refusal>) {
        self.lacking = self.lacking.take().or(why);
    }

    /// Looks at what a list names: last at what it says to be for other tags than the one that is
    /// wanted, first at what it says to be by a key that is wanted, then for the tag, then what it
    /// calls a signature, else in its order.
    async fn through(&mut self, repo: &Repo, mut list: Vec<Descriptor>) -> Option<Admission> {
        let hints = self.judgement.hints();
        let tag = self.judgement.wanted_tag();
        list.sort_by_cached_key(|entry| {
            let says = |key: &str| entry.annotations.get(key);
            let is_hinted = says(HINT).is_some_and(|hint| hints.contains(hint));
            let of_tag = tag.zip(says(TAG_HINT)).map(|(tag, hint)| hint == tag.as_str());
            let claims = entry.artifact_type.as_deref().is_some_and(is_bundle);
            (of_tag == Some(false), !is_hinted, of_tag.is_none(), !claims)
        });
        for entry in &list {
            let referrers = &self.gate.referrers;
            let manifest = match referrers.manifest(repo, self.asked.digest, entry).await {
                Ok(manifest) => manifest,
                Err(e) if e.failure == Failure::Structure => {
                    tracing::warn!("{e}; it is passed over");
                    continue;
                }
                Err(e) => {
                    self.lacks(Some(e));
                    continue;
                }
            };
            if let Some(admission) = self.hear(repo, &manifest).await {
                return Some(admission);
            }
            if self.tried > CANDIDATES_MAX {
                break;
            }
        }
        None
    }

    async fn hear(&mut self, repo: &Repo, manifest: &Manifest) -> Option<Admission> {
        let evidence = match self.gate.evidence(repo, manifest).await {
            Ok(evidence) => evidence,
            Err(e) => {
                self.lacks(Some(e));
                return None;
            }
        };
        for one in evidence {
            self.tried += 1;
            if self.tried > CANDIDATES_MAX {
                let rule = format!(
                    "none of the first {CANDIDATES_MAX} signatures is one that the policy wants, \
                     and no more are looked at"
                );
                let at = repo.at(Selector::Digest(self.asked.digest));
                let remedy = "remove signatures that nobody needs";
                self.lacks(Some(Refusal::new(Failure::TooLarge, at, rule).remedy(remedy)));
                return None;
            }
            self.judgement.add(one);
            if let Some(admission) = self.judgement.admission() {
                return Some(admission);
            }
        }
        None
    }

    /// The same as they were when they were looked for last.
    async fn kept_legacy(&mut self, repo: &Repo) -> Option<Admission> {
        let tag = signature_tag(&self.asked.digest);
        let digest = self.gate.tags.remembered_binding(repo, &tag).await?;
        let manifest = self.gate.manifests.get(repo, digest).await.ok()?;
        self.hear(repo, &manifest).await
    }

    /// Signatures as cosign 2 stores them, under a tag. Looked for only where a registry has said
    /// that nothing speaks about the release.
    async fn legacy(&mut self, repo: &Repo) -> Option<Admission> {
        let reference = repo.at(Selector::Tag(signature_tag(&self.asked.digest)));
        let manifest = match self.gate.tags.resolve(&reference).await {
            Ok(digest) => self.gate.manifests.get(repo, digest).await,
            Err(e) if e.failure == Failure::Absent => return None,
            Err(e) => Err(e),
        };
        match manifest {
            Ok(manifest) => self.hear(repo, &manifest).await,
            Err(e) => {
                self.lacks(Some(e));
                None
            }
        }
    }
}
