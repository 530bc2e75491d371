//! Whether a release is admitted: what policies want, held against what was signed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bundle::SignedStatement;
use super::conditions::{Conditions, OutSince, ReleaseDates};
use super::key::PublicKey;
use super::policy::{Policy, Scope, ScopeRule, SignedBy, SignedName, Signer, Wanted};
use super::statement::{REPOSITORY, StatementSubject, TAG};
use super::vendor::{VendorPackage, VendorSums};
use crate::digest::Digest;
use crate::moment::Moment;
use crate::name::{Platform, Reference, Repo, Selector, Tag};

/// A release that somebody wants to open, as it was named.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asked {
    pub repo: Repo,
    /// The tag, where it was named by one.
    pub tag: Option<Tag>,
    pub digest: Digest,
    /// The platform whose package it is, where that of one platform is wanted.
    pub platform: Option<Platform>,
}

impl Asked {
    /// What was named, and the manifest that it is.
    pub fn new(reference: &Reference, digest: Digest) -> Asked {
        let tag = match &reference.selector {
            Selector::Tag(tag) => Some(tag.clone()),
            Selector::Digest(_) => None,
        };
        Asked { repo: reference.repo.clone(), tag, digest, platform: None }
    }

    /// As it was named.
    pub fn reference(&self) -> Reference {
        let selector = self.tag.clone().map_or(Selector::Digest(self.digest), Selector::Tag);
        self.repo.at(selector)
    }
}

/// Why a release is admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Nothing is asked of it.
    Accepted,
    /// A policy names its digest.
    Pinned,
    /// These have signed it.
    Signed(BTreeSet<String>),
}

impl Admission {
    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Admission::Accepted => "accepted",
            Admission::Pinned => "pinned",
            Admission::Signed(_) => "signed",
        }
    }

    /// Why both of two things are admitted.
    pub fn and(self, other: Admission) -> Admission {
        match (self, other) {
            (Admission::Signed(mut one), Admission::Signed(other)) => {
                one.extend(other);
                Admission::Signed(one)
            }
            (Admission::Signed(by), _) | (_, Admission::Signed(by)) => Admission::Signed(by),
            (Admission::Pinned, _) | (_, Admission::Pinned) => Admission::Pinned,
            (Admission::Accepted, Admission::Accepted) => Admission::Accepted,
        }
    }
}

/// Why it is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAdmitted {
    /// What is wanted, by which policy, and what there is.
    pub rule: String,
    pub remedy: String,
}

/// What all policies say.
pub type Verdict = Result<Admission, NotAdmitted>;

/// Something that may be a signature: what it says, or why it is not understood.
pub type Evidence = Result<SignedStatement, String>;

/// All policies that count: each of them has to admit.
#[derive(Clone, Default, Debug)]
pub struct Policies(pub Vec<Arc<Policy>>);

impl Policies {
    /// Whether nothing is asked of any release.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether vendors' signatures of single packages may count for what lies in a repository.
    pub fn ask_vendors(&self, repo: &Repo) -> bool {
        self.0.iter().any(|policy| policy.asks_vendors(repo))
    }

    /// Whether it counts how long what lies in a repository has been out.
    pub fn ask_age(&self, repo: &Repo) -> bool {
        self.0.iter().any(|policy| policy.asks_age(repo))
    }

    /// The same, whatever has been out how long: of what is only being published.
    pub fn without_ages(&self) -> Policies {
        Policies(self.0.iter().map(|policy| Arc::new(policy.without_ages())).collect())
    }

    /// Begins to judge a release.
    pub fn judge<'a>(&'a self, asked: &'a Asked, dates: ReleaseDates) -> Judgement<'a> {
        let demands = self.0.iter().map(|policy| Demand::of(policy, asked, dates)).collect();
        Judgement { asked, demands, candidates: 0, faults: Vec::new() }
    }

    /// Who is named by whom a piece of evidence was signed, or why it does not count.
    pub fn counts(&self, asked: &Asked, evidence: Evidence) -> Result<String, String> {
        let mut judgement = self.judge(asked, ReleaseDates::UNKNOWN);
        judgement.add(evidence);
        let mut by: BTreeSet<String> = BTreeSet::new();
        judgement.demands.iter().for_each(|demand| by.extend(demand.met.keys().cloned()));
        if by.is_empty() {
            Err(judgement.faults.pop().unwrap_or_else(|| "nothing is asked".to_owned()))
        } else {
            Ok(by.into_iter().collect::<Vec<_>>().join(" "))
        }
    }
}

/// What one policy wants of a release.
struct Demand<'a> {
    policy: &'a Policy,
    scope: Option<&'a Scope>,
    dates: ReleaseDates,
    /// The signers that have signed, and by when each had, where a log or a timestamp authority
    /// vouches for it.
    met: BTreeMap<String, Option<Moment>>,
}

impl<'a> Demand<'a> {
    fn of(policy: &'a Policy, asked: &Asked, dates: ReleaseDates) -> Demand<'a> {
        Demand { policy, scope: policy.scope(&asked.repo), dates, met: BTreeMap::new() }
    }

    fn wanted(&self) -> Option<(&'a Scope, &'a Wanted)> {
        match &self.scope?.rule {
            ScopeRule::Wants(wanted) => Some((self.scope?, wanted)),
            ScopeRule::Accepts => None,
        }
    }

    /// Why it admits, as far as is known.
    fn admits(&self, asked: &Asked) -> Option<Admission> {
        let admission = self.approves(asked)?;
        self.fault(asked, &admission).is_none().then_some(admission)
    }

    /// What its scope asks for besides is not so.
    fn fault(&self, asked: &Asked, admission: &Admission) -> Option<String> {
        let Conditions { min_age, versions } = &self.scope?.conditions;
        let of_version = versions.as_ref().and_then(|versions| versions.fault(asked));
        let since = || self.out_since(admission);
        of_version.or_else(|| min_age.as_ref()?.fault(since(), self.dates.now))
    }

    /// Whether no signature helps, since another version is wanted.
    fn rules_out(&self, asked: &Asked) -> bool {
        let versions = self.scope.and_then(|scope| scope.conditions.versions.as_ref());
        versions.is_some_and(|versions| versions.fault(asked).is_some())
    }

    /// Since when the release has been out: what its manifest says counts if that was signed.
    fn out_since(&self, admission: &Admission) -> OutSince {
        let has_signed = |name: &String| self.signer(name).is_some_and(|s| !s.is_vendor());
        let is_signed = matches!(admission, Admission::Signed(by) if by.iter().any(has_signed));
        if let Some(witnessed) = self.met.values().flatten().min() {
            return OutSince::Witnessed(*witnessed);
        }
        match (self.dates.created.filter(|_| is_signed), self.dates.first_seen) {
            (Some(created), _) => OutSince::Created(created),
            (None, Some(seen)) => OutSince::Seen(seen),
            (None, None) => OutSince::Unknown,
        }
    }

    /// Why it approves, whatever its conditions say.
    fn approves(&self, asked: &Asked) -> Option<Admission> {
        let Some((_, wanted)) = self.wanted() else {
            let accepts = self.scope.is_some() || self.policy.accepts_others;
            return accepts.then_some(Admission::Accepted);
        };
        if wanted.digests.contains(&asked.digest) {
            return Some(Admission::Pinned);
        }
        let is_met = |signer: &String| self.met.contains_key(signer);
        let any = wanted.any.is_empty() || wanted.any.iter().any(is_met);
        let signed = any && wanted.all.iter().all(is_met) && !self.met.is_empty();
        signed.then(|| Admission::Signed(self.met.keys().cloned().collect()))
    }

    fn signer(&self, name: &str) -> Option<&'a Signer> {
        self.policy.signers.get(name)
    }

    fn add_sums(
        &mut self,
        asked: &Asked,
        sums: &VendorSums,
        package: &VendorPackage,
    ) -> Result<(), String> {
        let Some((_, wanted)) = self.wanted() else { return Ok(()) };
        let mut fault = Ok(());
        for name in wanted.any.iter().chain(&wanted.all) {
            let Some(Signer { by: SignedBy::Vendor(keys), .. }) = self.signer(name) else {
                continue;
            };
            match sums.vouch(package, asked, keys, self.dates.now) {
                Ok(()) => drop(self.met.entry(name.clone()).or_insert(None)),
                Err(why) => fault = Err(why),
            }
        }
        if self.met.is_empty() { fault } else { Ok(()) }
    }

    fn add(&mut self, asked: &Asked, signed: &SignedStatement) -> Result<(), String> {
        let Some((scope, wanted)) = self.wanted() else { return Ok(()) };
        let mut fault = Ok(());
        for name in wanted.any.iter().chain(&wanted.all) {
            let Some(signer) = self.signer(name).filter(|s| !s.is_vendor()) else { continue };
            match counts(scope, wanted, signer, asked, signed) {
                Ok(at) => {
                    let known = self.met.entry(name.clone()).or_insert(at);
                    *known = known.iter().copied().chain(at).min();
                }
                Err(why) => fault = Err(why),
            }
        }
        if self.met.is_empty() { fault } else { Ok(()) }
    }
}

/// Whether a signature is what a scope wants of a signer.
fn counts(
    scope: &Scope,
    wanted: &Wanted,
    signer: &Signer,
    asked: &Asked,
    signed: &SignedStatement,
) -> Result<Option<Moment>, String> {
    let statement = &signed.statement;
    if statement.predicate_type != signer.predicate {
        return Err(format!("a statement of another kind ({})", shown(&statement.predicate_type)));
    }
    let ours: Vec<_> =
        statement.subjects.iter().filter(|subject| subject.digest == asked.digest).collect();
    if ours.is_empty() {
        return Err("for another digest".to_owned());
    }
    let name = match &wanted.signed_prefix {
        Some(prefix) => scope.place.renamed(&asked.repo, prefix),
        None => asked.repo.to_string(),
    };
    if !ours.iter().any(|subject| names(subject, wanted.bind, &name, asked.tag.as_ref())) {
        return Err("for another name".to_owned());
    }
    signer.has_signed(signed)
}

impl Signer {
    /// Whether it made a signature, and by when, as far as others vouch for the time.
    fn has_signed(&self, signed: &SignedStatement) -> Result<Option<Moment>, String> {
        match &self.by {
            SignedBy::Vendor(_) => Err(by_another(signed)),
            SignedBy::Identity(wanted, roots) => roots.check(signed, wanted),
            SignedBy::Keys(keys, roots) => {
                let Some(key) = keys.iter().find(|key| signed.is_by(key)) else {
                    return Err(by_another(signed));
                };
                roots.as_ref().map_or(Ok(None), |roots| roots.check_key(signed, key))
            }
        }
    }
}

fn by_another(signed: &SignedStatement) -> String {
    match signed.hint.as_deref() {
        Some(hint) => format!("by another key ({})", shown(hint)),
        None if signed.has_certificate => "by a certificate instead of a key".to_owned(),
        None => "by another key".to_owned(),
    }
}

fn names(subject: &StatementSubject, bind: SignedName, repo: &str, tag: Option<&Tag>) -> bool {
    let says = |key: &str, wanted: &str| subject.annotations.get(key).is_some_and(|v| v == wanted);
    let of_tag = || tag.is_none_or(|tag| says(TAG, tag.as_str()));
    match bind {
        SignedName::Nothing => true,
        SignedName::Repository => says(REPOSITORY, repo),
        SignedName::Tag => says(REPOSITORY, repo) && of_tag(),
    }
}

/// What others wrote, short and on one line.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// A release on trial: evidence is added until it is admitted, or there is no more.
pub struct Judgement<'a> {
    asked: &'a Asked,
    demands: Vec<Demand<'a>>,
    candidates: usize,
    faults: Vec<String>,
}

impl Judgement<'_> {
    /// The verdict where evidence changes nothing; `None` where there is some to be looked for.
    pub fn settled(&self) -> Option<Verdict> {
        if let Some(admission) = self.admission() {
            return Some(Ok(admission));
        }
        let hopeless = self.demands.iter().any(|demand| {
            let signers = demand.wanted().map(|(_, wanted)| wanted.any.len() + wanted.all.len());
            demand.admits(self.asked).is_none()
                && (signers.is_none_or(|count| count == 0) || demand.rules_out(self.asked))
        });
        hopeless.then(|| Err(self.refusal()))
    }

    /// Other repositories in which evidence lies.
    pub fn places(&self) -> Vec<Repo> {
        let wanted = self.demands.iter().filter_map(|demand| demand.wanted());
        wanted.filter_map(|(_, wanted)| wanted.evidence.clone()).collect()
    }

    /// Whether there is something that only statements about a release can show.
    pub fn wants_statements(&self) -> bool {
        self.demands.iter().any(|demand| {
            let wanted = demand.wanted().map(|(_, wanted)| wanted.any.iter().chain(&wanted.all));
            let mut signers = wanted.into_iter().flatten().filter_map(|name| demand.signer(name));
            demand.admits(self.asked).is_none() && signers.any(|signer| !signer.is_vendor())
        })
    }

    /// By what bundles hint at the keys that are wanted.
    pub fn hints(&self) -> BTreeSet<String> {
        let wanted = self.demands.iter().filter_map(|demand| Some((demand, demand.wanted()?.1)));
        let signers = wanted.flat_map(|(demand, wanted)| {
            wanted.any.iter().chain(&wanted.all).filter_map(|name| demand.signer(name))
        });
        signers.flat_map(Signer::keys).map(PublicKey::hint).collect()
    }

    /// The tag that has to have been signed, where a policy wants that.
    pub fn wanted_tag(&self) -> Option<&Tag> {
        let mut wanted = self.demands.iter().filter_map(Demand::wanted);
        let binds = wanted.any(|(_, wanted)| wanted.bind == SignedName::Tag);
        self.asked.tag.as_ref().filter(|_| binds)
    }

    /// Adds what a vendor says of a package.
    pub fn add_sums(&mut self, sums: &VendorSums, package: &VendorPackage) {
        self.candidates += 1;
        for demand in &mut self.demands {
            if let Err(why) = demand.add_sums(self.asked, sums, package) {
                self.faults.push(why);
            }
        }
    }

    /// Adds a piece of evidence.
    pub fn add(&mut self, evidence: Evidence) {
        self.candidates += 1;
        let signed = match evidence {
            Ok(signed) => signed,
            Err(why) => return self.faults.push(format!("not understood ({})", shown(&why))),
        };
        for demand in &mut self.demands {
            if let Err(why) = demand.add(self.asked, &signed) {
                self.faults.push(why);
            }
        }
    }

    /// Why it is admitted by what was added so far; `None` if it is not.
    pub fn admission(&self) -> Option<Admission> {
        let mut all = Admission::Accepted;
        for demand in &self.demands {
            all = all.and(demand.admits(self.asked)?);
        }
        Some(all)
    }

    /// Why it is not admitted by what was added.
    pub fn refusal(&self) -> NotAdmitted {
        let refusing = self.demands.iter().find(|demand| demand.admits(self.asked).is_none());
        let Some(demand) = refusing else {
            return NotAdmitted { rule: "it is refused".to_owned(), remedy: String::new() };
        };
        let file = &demand.policy.name;
        let approved = demand.approves(self.asked);
        if let Some(scope) = demand.scope
            && let Some(admission) =
                approved.or_else(|| demand.rules_out(self.asked).then_some(Admission::Accepted))
            && let Some(fault) = demand.fault(self.asked, &admission)
        {
            return NotAdmitted {
                rule: format!("{file}:{} (scope {}) {fault}", scope.line, scope.place),
                remedy: "choose another version, or change that scope".to_owned(),
            };
        }
        let Some((scope, wanted)) = demand.wanted() else {
            return NotAdmitted {
                rule: format!("no scope of {file} covers it, and the default is to refuse"),
                remedy: format!("add a scope for {} there", self.asked.repo),
            };
        };
        let (line, place) = (scope.line, &scope.place);
        let rule = format!(
            "{file}:{line} (scope {place}) wants {}; {}",
            wanted.in_words(),
            self.found_in_words()
        );
        let signers = wanted.any.iter().chain(&wanted.all).filter_map(|s| demand.signer(s));
        let has_keys = |signer: &Signer| matches!(signer.by, SignedBy::Keys(..));
        let remedy = if wanted.any.is_empty() && wanted.all.is_empty() {
            "add its digest to that scope"
        } else if signers.clone().all(Signer::is_vendor) {
            "publish it with its vendor's SHA256SUMS and signature, as `tofufs mirror` does, or \
             add its digest to that scope"
        } else if signers.clone().any(has_keys) {
            "sign it with `tofufs sign --key KEY`, or add its digest to that scope"
        } else {
            "sign it with cosign 3 as whom the policy names, or add its digest to that scope"
        }
        .to_owned();
        NotAdmitted { rule, remedy }
    }

    fn found_in_words(&self) -> String {
        if self.candidates == 0 {
            return "found no signature".to_owned();
        }
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for fault in &self.faults {
            match kinds.iter_mut().find(|(kind, _)| kind == fault) {
                Some((_, count)) => *count += 1,
                None => kinds.push((fault, 1)),
            }
        }
        let told: Vec<_> =
            kinds.iter().take(5).map(|(kind, count)| format!("{count} {kind}")).collect();
        let signatures = if self.candidates == 1 { "signature" } else { "signatures" };
        if told.is_empty() {
            format!("found {} {signatures}, which do not suffice", self.candidates)
        } else {
            format!("found {} {signatures}: {}", self.candidates, told.join(", "))
        }
    }
}
