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
mod vendors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::admitted::Admitted;
use self::vendors::VendorEvidence;
pub use self::vendors::{WantedTargets, signed_sums};
use super::error::lost;
use super::manifests::Manifests;
use super::referrers::ReferrerFacts;
use super::tags::Tags;
use crate::artifact::Release;
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::moment::Moment;
use crate::name::{Platform, Reference, Repo, Selector, Tag};
use crate::oci::referrer::is_bundle;
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::trust::bundle::{BUNDLE_MAX, SIMPLE_SIGNATURE, SIMPLE_SIGNING, SignedStatement};
use crate::trust::{Admission, Asked, Evidence, Judgement, Policies, Verdict};

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
    verdicts: Mutex<Bounded<Key, GivenVerdict>>,
    flights: Flights<Key, Verdict, Refusal>,
    ttl: Duration,
}

impl Gate {
    pub(super) fn new(
        policies: Arc<Policies>,
        manifests: Arc<Manifests>,
        referrers: Arc<ReferrerFacts>,
        tags: Arc<Tags>,
        ttl: Duration,
        linger: Duration,
    ) -> Gate {
        Gate {
            policies: RwLock::new((policies, 0)),
            manifests,
            referrers,
            tags,
            verdicts: Mutex::new(Bounded::counted(VERDICTS_MAX)),
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

    /// Forgets refusals.
    pub(super) fn forget(&self) {
        self.verdicts.lock().clear();
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
        let asks_vendors = self.policies.read().0.ask_vendors(&reference.repo);
        let mut targets = Vec::new();
        if asks_vendors {
            match self.manifests.release_of(reference, digest).await {
                Ok((_, Release::Provider(named))) => targets = named,
                Ok((_, Release::Module(_))) => {}
                Err(e) if e.failure == Failure::Structure => {}
                Err(e) => return Err(e),
            }
        }
        let mut all: Option<(Admitted, Admission)> = None;
        for target in targets.into_iter().filter(|target| wanted(target)) {
            let platform = Some(target.platform);
            let asked = || Asked { platform, ..Asked::new(reference, digest) };
            let (admitted, why) = self.leave(asked).await?;
            all = Some((admitted, all.map_or(why.clone(), |(_, before)| before.and(why))));
        }
        match all {
            Some(all) => Ok(all),
            None => self.leave(|| Asked::new(reference, digest)).await,
        }
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
            Err(why) => {
                let subject = format!("{} ({})", asked.reference(), asked.digest);
                let refusal = Refusal::new(Failure::Unsigned, subject, why.rule);
                Err(if why.remedy.is_empty() { refusal } else { refusal.remedy(why.remedy) })
            }
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
            let verdict = gate.look(&asked, &policies).await?;
            let given = GivenVerdict { verdict: verdict.clone(), at: Instant::now() };
            gate.verdicts.lock().put(at, given);
            Ok(verdict)
        };
        self.flights.join(key, load).await
    }

    /// Looks for evidence: in the cache first, which costs nothing, then where it is.
    async fn look(&self, asked: &Asked, policies: &Policies) -> Result<Verdict, Refusal> {
        if let Some(verdict) = policies.judge(asked).settled() {
            return Ok(verdict);
        }
        let places: Vec<Repo> =
            [asked.repo.clone()].into_iter().chain(policies.judge(asked).places()).collect();
        let vendors = self.vendor_evidence(asked).await;
        let mut search = Search::new(self, asked, policies, &vendors);
        for place in &places {
            if let Some(admission) = search.judgement.admission() {
                return Ok(Ok(admission));
            }
            let kept = self.referrers.kept(place, asked.digest).await.unwrap_or_default();
            if let Some(admission) = search.through(place, kept).await {
                return Ok(Ok(admission));
            }
        }
        let mut search = Search::new(self, asked, policies, &vendors);
        for place in places.iter().filter(|_| policies.judge(asked).wants_statements()) {
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
        policies: &'a Policies,
        vendors: &VendorEvidence,
    ) -> Search<'a> {
        let (mut judgement, now) = (policies.judge(asked), Moment::now());
        for (package, sums) in &vendors.found {
            judgement.add_sums(sums, package, now);
        }
        Search { gate, asked, judgement, tried: 0, lacking: vendors.lacking.clone() }
    }

    fn lacks(&mut self, why: Option<Refusal>) {
        self.lacking = self.lacking.take().or(why);
    }

    /// Looks at what a list names, what it calls a signature first.
    async fn through(&mut self, repo: &Repo, mut list: Vec<Descriptor>) -> Option<Admission> {
        let claims = |entry: &Descriptor| entry.artifact_type.as_deref().is_some_and(is_bundle);
        list.sort_by_key(|entry| !claims(entry));
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

    /// Signatures as cosign 2 stores them, under a tag. Looked for only where a registry has said
    /// that nothing speaks about the release.
    async fn legacy(&mut self, repo: &Repo) -> Option<Admission> {
        let tag = format!("{}.sig", crate::oci::referrer::referrers_tag(&self.asked.digest));
        let tag: Tag = tag.parse().ok()?;
        let reference = repo.at(Selector::Tag(tag));
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
