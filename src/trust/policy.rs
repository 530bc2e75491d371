//! A policy: who has to have signed what is opened, by scopes of names of which the most specific
//! one alone decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::structure::{Attribute, Block, Structure};

use super::conditions::{AllowedVersions, Conditions, MinAge};
use super::key::PublicKey;
use super::keyless::{SubjectPattern, TrustedRoots, WantedIdentity, claim};
use super::statement::SIGNED;
use super::syntax::{PolicyError, PolicyText};
use crate::digest::Digest;
use crate::moment::Moment;
use crate::name::{Host, Repo, RepoName};
use crate::openpgp::Certificate;

/// What is to be read of a file that a policy names, by the name that it has there.
pub type ReadKey<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

/// The policy of one file.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The file, as sentences call it.
    pub name: String,
    /// Whether what no scope covers is admitted unseen.
    pub accepts_others: bool,
    pub(super) signers: BTreeMap<String, Signer>,
    pub(super) scopes: Vec<Scope>,
}

/// Who may sign.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub by: SignedBy,
    /// The kind of statement that counts.
    pub predicate: String,
}

/// By what a signer is known.
#[derive(Clone, Debug)]
pub(super) enum SignedBy {
    /// Any of these keys: an old one and its successor. Where roots are named, with what those
    /// demand.
    Keys(Vec<PublicKey>, Option<Arc<TrustedRoots>>),
    /// A certificate.
    Identity(WantedIdentity, Arc<TrustedRoots>),
    /// Any of these OpenPGP keys, of a vendor that signs the sums of its files.
    Vendor(Vec<Certificate>),
}

impl Signer {
    /// Its keys that sign statements.
    pub fn keys(&self) -> &[PublicKey] {
        match &self.by {
            SignedBy::Keys(keys, _) => keys,
            SignedBy::Identity(..) | SignedBy::Vendor(_) => &[],
        }
    }

    /// Whether it signs single packages instead of releases.
    pub fn is_vendor(&self) -> bool {
        matches!(self.by, SignedBy::Vendor(_))
    }
}

/// What a part of all names has to fulfil.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub place: ScopePlace,
    /// Where it stands in the policy.
    pub line: usize,
    pub rule: ScopeRule,
    /// What counts for all that it admits.
    pub conditions: Conditions,
}

/// A registry, or what lies at and below a name in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ScopePlace {
    pub host: Host,
    pub path: Option<RepoName>,
}

#[derive(Clone, Debug)]
pub(super) enum ScopeRule {
    /// Everything is admitted, unseen.
    Accepts,
    Wants(Wanted),
}

#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// One of them has to have signed.
    pub any: Vec<String>,
    /// Each of them has to have signed.
    pub all: Vec<String>,
    /// What is admitted, signed or not.
    pub digests: BTreeSet<Digest>,
    pub bind: SignedName,
    /// What the names of this scope are called in signatures.
    pub signed_prefix: Option<ScopePlace>,
    /// Another repository in which signatures lie.
    pub evidence: Option<Repo>,
}

/// How much of the name a signature has to name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum SignedName {
    Nothing,
    Repository,
    Tag,
}

impl ScopePlace {
    fn parse(text: &str) -> Option<ScopePlace> {
        let (host, path) = match text.split_once('/') {
            Some((host, path)) => (host, Some(path.parse().ok()?)),
            None => (text, None),
        };
        Some(ScopePlace { host: host.parse().ok()?, path })
    }

    fn holds(&self, repo: &Repo) -> bool {
        self.host == repo.host && repo.name.is_within(self.path.as_ref())
    }

    /// By how much it is narrower than its registry.
    fn depth(&self) -> usize {
        self.path.as_ref().map_or(0, |path| path.components().count())
    }

    /// What `repo`, which lies in this scope, is called where `prefix` stands for the scope.
    pub(super) fn renamed(&self, repo: &Repo, prefix: &ScopePlace) -> String {
        let rest = repo.name.components().skip(self.depth());
        let above = prefix.path.iter().flat_map(RepoName::components);
        let parts = [prefix.host.as_str()].into_iter().chain(above).chain(rest);
        parts.collect::<Vec<_>>().join("/")
    }
}

impl std::fmt::Display for ScopePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}/{path}", self.host),
            None => self.host.fmt(f),
        }
    }
}

const DEFAULTS: [(&str, bool); 2] = [("refuse", false), ("insecure_accept_anything", true)];

impl Policy {
    /// Reads the policy in `text` as it counts at `now`; `read` reads the files of keys.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(
        name: &str,
        text: &str,
        now: Moment,
        read: ReadKey<'_>,
    ) -> Result<Policy, PolicyError> {
        let text = PolicyText(text);
        let body = text.parse()?;
        let top = text.attributes(&body, &["default"], "a policy")?;
        let Some(default) = top.get("default") else {
            return text.error(1, "default is missing: \"refuse\" or \"insecure_accept_anything\"");
        };
        let said = text.string(*default)?;
        let Some((_, accepts_others)) = DEFAULTS.iter().find(|(word, _)| *word == said) else {
            let rule = "default is \"refuse\" or \"insecure_accept_anything\"";
            return text.error(default.1, rule);
        };
        let mut policy = Policy {
            name: name.to_owned(),
            accepts_others: *accepts_others,
            signers: BTreeMap::new(),
            scopes: Vec::new(),
        };
        let mut lines = BTreeMap::new();
        for structure in body.iter() {
            let Structure::Block(block) = structure else { continue };
            let line = text.line(block.span());
            let labels: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
            match (block.ident.as_str(), labels.as_slice()) {
                ("signer", [signer]) => {
                    let read = read_signer(&text, block, signer, now, read)?;
                    if policy.signers.insert((*signer).to_owned(), read).is_some() {
                        return text.error(line, format!("the signer {signer:?} stands twice"));
                    }
                    lines.insert((*signer).to_owned(), line);
                }
                ("scope", [place]) => {
                    policy.enter(&text, read_scope(&text, block, place, line)?)?
                }
                (kind, _) => {
                    let wanted =
                        "a policy has blocks signer \"NAME\" and scope \"HOST/NAME\" alone";
                    return text.error(line, format!("{wanted}, and no {kind} like this"));
                }
            }
        }
        policy.check(&text, &lines)?;
        Ok(policy)
    }

    fn enter(&mut self, text: &PolicyText<'_>, scope: Scope) -> Result<(), PolicyError> {
        if self.scopes.iter().any(|other| other.place == scope.place) {
            return text.error(scope.line, format!("the scope {} stands twice", scope.place));
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// Each signer is there, and is used.
    fn check(
        &self,
        text: &PolicyText<'_>,
        lines: &BTreeMap<String, usize>,
    ) -> Result<(), PolicyError> {
        let mut used = BTreeSet::new();
        for scope in &self.scopes {
            let ScopeRule::Wants(wanted) = &scope.rule else { continue };
            for signer in wanted.any.iter().chain(&wanted.all) {
                if !self.signers.contains_key(signer) {
                    return text.error(scope.line, format!("there is no signer {signer:?}"));
                }
                used.insert(signer.as_str());
            }
        }
        match self.signers.keys().find(|signer| !used.contains(signer.as_str())) {
            None => Ok(()),
            Some(unused) => {
                let line = lines.get(unused).copied().unwrap_or(1);
                text.error(line, format!("no scope names the signer {unused:?}"))
            }
        }
    }

    /// The scope that decides about a repository.
    pub(super) fn scope(&self, repo: &Repo) -> Option<&Scope> {
        let holding = self.scopes.iter().filter(|scope| scope.place.holds(repo));
        holding.max_by_key(|scope| scope.place.depth())
    }

    /// What decides about a repository, in a sentence.
    pub fn says_of(&self, repo: &Repo) -> String {
        let name = &self.name;
        match self.scope(repo) {
            None if self.accepts_others => format!("{name}: no scope; accepted by default"),
            None => format!("{name}: no scope; refused by default"),
            Some(scope) => {
                let at = format!("{name}:{} (scope {})", scope.line, scope.place);
                let rule = match &scope.rule {
                    ScopeRule::Accepts => "accepts anything".to_owned(),
                    ScopeRule::Wants(wanted) => format!("wants {}", wanted.in_words()),
                };
                format!("{at}: {rule}{}", scope.conditions)
            }
        }
    }

    /// Whether vendors' signatures of single packages may count for what lies in a repository.
    pub(super) fn asks_vendors(&self, repo: &Repo) -> bool {
        let Some(ScopeRule::Wants(wanted)) = self.scope(repo).map(|scope| &scope.rule) else {
            return false;
        };
        let mut signers = wanted.any.iter().chain(&wanted.all);
        signers.any(|name| self.signers.get(name).is_some_and(Signer::is_vendor))
    }

    /// The trusted roots that its signers name.
    pub fn roots(&self) -> impl Iterator<Item = &TrustedRoots> {
        self.signers.values().filter_map(|signer| match &signer.by {
            SignedBy::Keys(_, roots) => roots.as_deref(),
            SignedBy::Identity(_, roots) => Some(&**roots),
            SignedBy::Vendor(_) => None,
        })
    }

    /// Whether it asks how long something in a repository has been out.
    pub(super) fn asks_age(&self, repo: &Repo) -> bool {
        self.scope(repo).is_some_and(|scope| scope.conditions.min_age.is_some())
    }

    /// The same, whatever has been out how long.
    pub(super) fn without_ages(&self) -> Policy {
        let mut policy = self.clone();
        policy.scopes.iter_mut().for_each(|scope| scope.conditions.min_age = None);
        policy
    }

    /// How many scopes and signers it has.
    pub fn counts(&self) -> (usize, usize) {
        (self.scopes.len(), self.signers.len())
    }
}

impl Wanted {
    pub(super) fn in_words(&self) -> String {
        let mut all = Vec::new();
        if !self.any.is_empty() {
            all.push(format!("signer {}", self.any.join(" or ")));
        }
        if !self.all.is_empty() {
            all.push(format!("signer {}", self.all.join(" and ")));
        }
        if all.is_empty() { "one of its digests".to_owned() } else { all.join(", and ") }
    }
}

const SIGNER: &[&str] =
    &["keys", "openpgp", "trusted_root", "issuer", "identity", "claims", "predicate"];
const IDENTITY: [&str; 3] = ["issuer", "identity", "claims"];

fn read_signer(
    text: &PolicyText<'_>,
    block: &Block,
    name: &str,
    now: Moment,
    read: ReadKey<'_>,
) -> Result<Signer, PolicyError> {
    no_blocks(text, block)?;
    let of = format!("the signer {name:?}");
    let found = text.attributes(&block.body, SIGNER, &of)?;
    let line = text.line(block.span());
    let wrong = |rule: &str| text.error(line, format!("{of} {rule}"));
    let has_identity = IDENTITY.iter().any(|attribute| found.contains_key(attribute));
    let roots = found.get("trusted_root").map(|file| read_roots(text, *file, read)).transpose()?;
    let by = match (found.get("keys"), found.get("openpgp"), roots) {
        (Some(_), Some(_), _) => return wrong("has keys or openpgp, not both"),
        (Some(_), ..) if has_identity => return wrong("has keys or an identity, not both"),
        (Some(files), None, roots) => SignedBy::Keys(read_keys(text, *files, read)?, roots),
        (None, Some(_), _) if found.len() > 1 => {
            let rule = "has a predicate or a trusted_root beside openpgp, whose keys know neither";
            return wrong(rule);
        }
        (None, Some(files), _) => SignedBy::Vendor(read_certificates(text, *files, now, read)?),
        (None, None, Some(roots)) if !roots.name_authorities() => {
            return wrong("has a trusted_root that names no certificate authority");
        }
        (None, None, Some(roots)) => match read_identity(text, &found)? {
            Some(identity) => SignedBy::Identity(identity, roots),
            None => return wrong("has a trusted_root; it needs keys, or issuer and identity"),
        },
        (None, None, None) if has_identity => return wrong("has an identity and no trusted_root"),
        (None, None, None) => return wrong("has no keys, and no trusted_root with an identity"),
    };
    let predicate = found.get("predicate").map(|p| text.string(*p)).transpose()?;
    Ok(Signer { by, predicate: predicate.unwrap_or_else(|| SIGNED.to_owned()) })
}

fn read_keys(
    text: &PolicyText<'_>,
    files: (&Attribute, usize),
    read: ReadKey<'_>,
) -> Result<Vec<PublicKey>, PolicyError> {
    let mut keys = Vec::new();
    for file in text.strings(files)? {
        let key = read(&file).and_then(|pem| PublicKey::from_pem(&pem).map_err(|e| e.to_string()));
        match key {
            Ok(key) => keys.push(key),
            Err(rule) => return text.error(files.1, format!("the key {file}: {rule}")),
        }
    }
    Ok(keys)
}

fn read_certificates(
    text: &PolicyText<'_>,
    files: (&Attribute, usize),
    now: Moment,
    read: ReadKey<'_>,
) -> Result<Vec<Certificate>, PolicyError> {
    let mut all = Vec::new();
    for file in text.strings(files)? {
        match read(&file).and_then(|armored| certificates(&armored, now)) {
            Ok(certificates) => all.extend(certificates),
            Err(rule) => return text.error(files.1, format!("the key {file}: {rule}")),
        }
    }
    Ok(all)
}

fn certificates(armored: &str, now: Moment) -> Result<Vec<Certificate>, String> {
    if armored.contains("-----BEGIN PUBLIC KEY-----") {
        return Err("it is no OpenPGP key; name it in keys".to_owned());
    }
    if armored.contains("-----BEGIN PGP PRIVATE KEY BLOCK-----") {
        return Err("it is a private key; name the public one (gpg --armor --export)".to_owned());
    }
    Certificate::read(armored, now.seconds()).map_err(|e| e.to_string())
}

fn read_roots(
    text: &PolicyText<'_>,
    file: (&Attribute, usize),
    read: ReadKey<'_>,
) -> Result<Arc<TrustedRoots>, PolicyError> {
    let name = text.string(file)?;
    match read(&name).and_then(|roots| TrustedRoots::read(&name, &roots)) {
        Ok(roots) => Ok(Arc::new(roots)),
        Err(rule) => text.error(file.1, format!("the trusted root {name}: {rule}")),
    }
}

/// Whom a certificate has to name, where a signer says all that it takes.
fn read_identity(
    text: &PolicyText<'_>,
    found: &BTreeMap<&str, (&Attribute, usize)>,
) -> Result<Option<WantedIdentity>, PolicyError> {
    let (Some(issuer), Some(subject)) = (found.get("issuer"), found.get("identity")) else {
        return Ok(None);
    };
    let mut claims = BTreeMap::new();
    if let Some(attribute) = found.get("claims") {
        for (name, value) in text.named_strings(*attribute)? {
            let name = claim(&name).or_else(|rule| text.error(attribute.1, rule))?;
            claims.insert(name, value);
        }
    }
    let subject = SubjectPattern(text.string(*subject)?);
    Ok(Some(WantedIdentity { issuer: text.string(*issuer)?, subject, claims }))
}

const SCOPE: &[&str] = &[
    "signed_by",
    "all_of",
    "digests",
    "insecure_accept_anything",
    "bind",
    "signed_prefix",
    "evidence",
    "min_age",
    "versions",
];
/// What may stand in any scope.
const CONDITIONS: [&str; 2] = ["min_age", "versions"];

fn read_scope(
    text: &PolicyText<'_>,
    block: &Block,
    place: &str,
    line: usize,
) -> Result<Scope, PolicyError> {
    no_blocks(text, block)?;
    let of = format!("the scope {place:?}");
    let Some(place) = ScopePlace::parse(place) else {
        return text.error(line, format!("{of} is no HOST[:PORT] or HOST[:PORT]/NAME"));
    };
    let found = text.attributes(&block.body, SCOPE, &of)?;
    let conditions = read_conditions(text, &found)?;
    if let Some(accepts) = found.get("insecure_accept_anything") {
        let others = found.keys().filter(|name| !CONDITIONS.contains(name)).count();
        if others > 1 || !text.boolean(*accepts)? {
            let rule = "insecure_accept_anything = true stands alone in its scope, or beside \
                        min_age and versions";
            return text.error(accepts.1, rule);
        }
        return Ok(Scope { place, line, rule: ScopeRule::Accepts, conditions });
    }
    let strings = |name: &str| match found.get(name) {
        Some(attribute) => text.strings(*attribute),
        None => Ok(Vec::new()),
    };
    let (any, all, digests) = (strings("signed_by")?, strings("all_of")?, strings("digests")?);
    if any.is_empty() && all.is_empty() && digests.is_empty() {
        let rule = "wants nothing: it has signed_by, all_of, digests or insecure_accept_anything";
        return text.error(line, format!("{of} {rule}"));
    }
    let digests = digests.iter().map(|digest| digest.parse::<Digest>()).collect::<Result<_, _>>();
    let digests = digests.or_else(|e| text.error(line, format!("{of}: {e}")))?;
    let bind = match found.get("bind").map(|b| text.string(*b)).transpose()?.as_deref() {
        None | Some("digest") => SignedName::Nothing,
        Some("repository") => SignedName::Repository,
        Some("tag") => SignedName::Tag,
        Some(_) => return text.error(line, "bind is \"digest\", \"repository\" or \"tag\""),
    };
    let signed_prefix = found.get("signed_prefix").map(|p| text.string(*p)).transpose()?;
    let signed_prefix = match signed_prefix.map(|prefix| ScopePlace::parse(&prefix)) {
        Some(None) => return text.error(line, "signed_prefix is no HOST or HOST/NAME"),
        other => other.flatten(),
    };
    let evidence = found.get("evidence").map(|e| text.string(*e)).transpose()?;
    let evidence = match evidence.map(|repo| ScopePlace::parse(&repo)) {
        Some(Some(ScopePlace { host, path: Some(name) })) => Some(Repo { host, name }),
        Some(_) => return text.error(line, "evidence is no HOST/NAME"),
        None => None,
    };
    let wanted = Wanted { any, all, digests, bind, signed_prefix, evidence };
    Ok(Scope { place, line, rule: ScopeRule::Wants(wanted), conditions })
}

fn read_conditions(
    text: &PolicyText<'_>,
    found: &BTreeMap<&str, (&Attribute, usize)>,
) -> Result<Conditions, PolicyError> {
    let mut conditions = Conditions::default();
    if let Some(attribute) = found.get("min_age") {
        match MinAge::parse(&text.string(*attribute)?) {
            Some(age) => conditions.min_age = Some(age),
            None => {
                let rule = "min_age is a whole number with s, m, h or d, as in \"7d\"";
                return text.error(attribute.1, rule);
            }
        }
    }
    if let Some(attribute) = found.get("versions") {
        let versions = AllowedVersions::parse(&text.string(*attribute)?);
        conditions.versions = Some(versions.or_else(|rule| text.error(attribute.1, rule))?);
    }
    Ok(conditions)
}

fn no_blocks(text: &PolicyText<'_>, block: &Block) -> Result<(), PolicyError> {
    match block.body.blocks().next() {
        None => Ok(()),
        Some(inner) => {
            let rule = format!("there is no {} block in a {}", inner.ident, block.ident);
            text.error(text.line(inner.span()), rule)
        }
    }
}

#[cfg(test)]
mod tests;
