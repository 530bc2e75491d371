//! Provider registries that commands read releases from, by `--from providers:HOST`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::access::RegistryAccess;
use super::output::{self, CommandError};
use super::workshop::workshop_in;
use crate::archive::Limits;
use crate::copy::origin::{OriginOptions, OriginStore};
use crate::mapping::Mapping;
use crate::name::{Host, Platform};
use crate::provider_registry::{
    ProviderRegistry, SignatureOutcome, SignaturePolicy, VerifiedRelease,
};
use crate::store::Store;

/// How such a source begins.
const SCHEME: &str = "providers:";

/// A registry whose terms of service restrict what may be done with what it serves.
const RESTRICTED: &str = "registry.terraform.io";
const TERMS: &str = "the terms of registry.terraform.io allow its content solely for use with, or \
                     in support of, HashiCorp Terraform (https://registry.terraform.io/terms)";

/// Shows the terms of the hosts that have such.
pub fn note_terms<'a>(hosts: impl IntoIterator<Item = &'a Host>) {
    if hosts.into_iter().any(|host| host.as_str() == RESTRICTED) {
        output::note(TERMS);
    }
}

/// The provider registry that a source names; `None` of every other source.
///
/// # Errors
/// What follows is no host.
pub fn host(source: &OsStr) -> Option<Result<Host, CommandError>> {
    let rest = source.to_str()?.strip_prefix(SCHEME)?;
    Some(rest.parse().map_err(|e| {
        CommandError::usage(format_args!("--from {SCHEME}{rest}: {e}; write {SCHEME}HOST[:PORT]"))
    }))
}

/// What is asked of signatures: as OpenTofu reads its own variables.
pub fn signature_policy(require: bool) -> SignaturePolicy {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "true");
    SignaturePolicy {
        require: require || is_set("OPENTOFU_ENFORCE_GPG_VALIDATION"),
        enforce_expiration: is_set("OPENTOFU_ENFORCE_GPG_EXPIRATION"),
    }
}

/// The provider registry `host`, as a person asks it.
pub fn registry(access: &RegistryAccess, host: &Host) -> Result<ProviderRegistry, CommandError> {
    access.provider_registry(host)
}

/// Says that a release was signed by a key that has expired by now.
pub fn note_expired(release: &VerifiedRelease) {
    if let SignatureOutcome::SignedByExpiredKey(_) = release.outcome {
        let VerifiedRelease { provider, version, outcome, .. } = release;
        output::note(&format!("warning: {provider} {version}: {outcome}"));
    }
}

/// The provider registries of a command.
pub struct Origins {
    hosts: BTreeSet<Host>,
    policy: SignaturePolicy,
    platforms: BTreeSet<Platform>,
    opened: Mutex<BTreeMap<Host, Arc<OriginStore>>>,
}

impl Origins {
    /// Those of `hosts`.
    pub fn new(hosts: BTreeSet<Host>, require_signature: bool) -> Origins {
        let policy = signature_policy(require_signature);
        note_terms(&hosts);
        Origins { hosts, policy, platforms: BTreeSet::new(), opened: Mutex::default() }
    }

    /// The same, with releases of these platforms alone.
    pub fn of_platforms(mut self, platforms: &[Platform]) -> Origins {
        self.platforms = platforms.iter().cloned().collect();
        self
    }

    /// The rules by which their providers stand for themselves.
    pub fn mapping(&self) -> Result<Mapping, CommandError> {
        let rules = self.hosts.iter().map(OriginStore::rule).collect::<Result<_, _>>();
        rules.map(Mapping::new).map_err(CommandError::failed)
    }

    /// The releases of `host`; `None` where it is none of them.
    pub fn store(
        &self,
        host: &Host,
        access: &RegistryAccess,
        cache: &Arc<Store>,
        place: (&Path, Limits),
    ) -> Result<Option<Arc<OriginStore>>, CommandError> {
        if !self.hosts.contains(host) {
            return Ok(None);
        }
        let mut opened = self.opened.lock();
        if let Some(store) = opened.get(host) {
            return Ok(Some(Arc::clone(store)));
        }
        let (state, limits) = place;
        let options = OriginOptions {
            policy: self.policy,
            platforms: self.platforms.clone(),
            workshop: Arc::new(workshop_in(state, limits)?),
            cache: Arc::clone(cache),
            told: Box::new(told),
        };
        let store = Arc::new(OriginStore::new(registry(access, host)?, options));
        opened.insert(host.clone(), Arc::clone(&store));
        Ok(Some(store))
    }
}

/// Packages may take minutes.
fn told(release: &VerifiedRelease) {
    note_expired(release);
    if std::io::stderr().is_terminal() {
        output::note(&format!("fetching {} {}", release.provider, release.version));
    }
}
