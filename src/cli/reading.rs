//! Reading registries without a mount: through the same cache, by the same rules, each registry when it is first needed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::access::RegistryAccess;
use super::args::carry::ReadingArgs;
use super::daemon;
use super::output::CommandError;
use super::settings::{Environment, Network, Source};
use super::status;
use crate::archive::Limits;
use crate::copy::Origins;
use crate::facts::{self, FactError, Facts, Failure, SourceState};
use crate::name::Host;
use crate::store::{self, Store};

/// The registries, as a command asks them. What it asks for is asked anew: tags are believed for no time.
pub struct Registries {
    network: Network,
    access: Option<RegistryAccess>,
    /// The stores that take the place of the registries which they hold.
    stores: Vec<Source>,
    store: Arc<Store>,
    facts: Mutex<BTreeMap<Host, Arc<Facts>>>,
}

impl Registries {
    /// Opens the cache and reads the CLI configuration. Connects to nothing.
    pub fn open(
        args: &ReadingArgs,
        cache_dir: Option<&Path>,
        environment: &Environment,
    ) -> Result<Registries, CommandError> {
        daemon::keep_memory_private()?;
        let network = Network::reaching(&args.reach, &environment.base).map_err(CommandError::usage)?;
        let network = Network { offline: args.offline, ..network };
        let stores = args.from.iter().map(|text| Source::parse(text, &environment.base));
        let stores = stores.collect::<Result<Vec<_>, _>>().map_err(CommandError::usage)?;
        if let Some(registry) = stores.iter().find(|source| matches!(source, Source::Registry { .. })) {
            return Err(CommandError::Usage(format!(
                "--from {registry}: this is no store; write oci:DIR or oci-archive:FILE"
            )));
        }
        let dir = environment.cache_dir(cache_dir).map_err(CommandError::usage)?;
        let options = store::Options { dir, limit: args.cache_size.0 };
        let store = Store::open(options).map_err(CommandError::failed)?;
        let access = if network.offline { None } else { Some(RegistryAccess::new(&network)?) };
        Ok(Registries { network, access, stores, store, facts: Mutex::default() })
    }

    /// How registries are reached.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The way to registries.
    ///
    /// # Errors
    /// `--offline` was given.
    pub fn access(&self) -> Result<&RegistryAccess, CommandError> {
        self.access.as_ref().ok_or_else(|| CommandError::usage("--offline: no registry can be asked or written to"))
    }

    /// Facts over a source that is not to be found by a registry's name.
    pub fn facts_over(&self, source: facts::Source) -> Arc<Facts> {
        Facts::new(facts::Options {
            sources: vec![source],
            stores_stand_in: false,
            store: Arc::clone(&self.store),
            tag_ttl: self.network.tag_ttl,
            deadline: self.network.deadline,
            limits: Limits::default(),
            providers: facts::ProviderOptions::default(),
        })
    }

    /// The cache.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The HTTP requests that were sent so far.
    pub fn requests(&self) -> status::Requests {
        self.access.as_ref().map(|access| status::Requests::of(&access.transport)).unwrap_or_default()
    }

    /// Says on standard error which registries could not be reached, so that what was read is their last answer.
    pub fn note_outages(&self) {
        let all = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for facts in all.values() {
            for (name, health) in facts.sources() {
                if matches!(health.state, SourceState::Unreachable | SourceState::Untrusted) {
                    // Nobody listening is no reason to stop.
                    let _ = writeln!(io::stderr(), "tofufs: {name} cannot be reached; its last answers were used");
                }
            }
        }
    }

    fn open_facts(&self, host: &Host) -> Result<Arc<Facts>, CommandError> {
        let stores = self.stores.iter().map(|store| daemon::opened(store, None)).collect::<Result<Vec<_>, _>>()?;
        let mut sources: Vec<_> = stores.into_iter().filter(|source| source.holds(host)).collect();
        if sources.is_empty() {
            let registry = Source::Registry { host: host.clone(), prefix: None };
            sources.push(daemon::opened(&registry, self.access.as_ref())?);
        }
        Ok(Facts::new(facts::Options {
            sources,
            stores_stand_in: true,
            store: Arc::clone(&self.store),
            tag_ttl: self.network.tag_ttl,
            deadline: self.network.deadline,
            limits: Limits::default(),
            providers: facts::ProviderOptions::default(),
        }))
    }
}

impl Origins for Registries {
    fn facts(&self, host: &Host) -> Result<Arc<Facts>, FactError> {
        let mut all = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = all.get(host) {
            return Ok(Arc::clone(facts));
        }
        let facts = self.open_facts(host).map_err(|e| FactError::new(Failure::Io, host, e))?;
        all.insert(host.clone(), Arc::clone(&facts));
        Ok(facts)
    }
}
