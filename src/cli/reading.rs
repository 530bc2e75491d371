//! Reading registries without a mount: through the same cache, by the same rules, each registry
//! when it is first needed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::access::{self, RegistryAccess};
use super::args::carry::{CommandReadingArgs, ReadingArgs};
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::output::CommandError;
use super::source::SourceSetting;
use super::{carried, daemon, mapping, status};
use crate::archive::Limits;
use crate::artifact::SignaturePolicy;
use crate::copy::RegistryFacts;
use crate::facts::{self, Facts, SourceState};
use crate::failure::{Failure, Refusal};
use crate::mapping::Mapping;
use crate::name::Host;
use crate::registry::Asker;
use crate::registry::connections::Connections;
use crate::store::{self, Store};

/// The registries, as a command asks them. What it asks for is asked anew: tags are believed for no
/// time.
pub struct Registries {
    access: RegistryAccess,
    /// The stores that take the place of the registries which they hold.
    stores: Vec<SourceSetting>,
    store: Arc<Store>,
    /// How large archives may be.
    limits: Limits,
    facts: Mutex<BTreeMap<Host, Arc<Facts>>>,
}

impl Registries {
    /// The same as [`Registries::open`], of a command of its own.
    pub fn for_command(
        args: &CommandReadingArgs,
        environment: &DirectoryEnvironment,
    ) -> Result<Registries, CommandError> {
        Registries::open(&args.reading, args.cache_dir.as_deref(), environment)
    }

    /// Opens the cache and reads the CLI configuration. Connects to nothing.
    pub fn open(
        args: &ReadingArgs,
        cache_dir: Option<&Path>,
        environment: &DirectoryEnvironment,
    ) -> Result<Registries, CommandError> {
        daemon::keep_memory_private()?;
        let network =
            Network::reaching(&args.reach, &environment.base).map_err(CommandError::usage)?;
        let network = Network { offline: args.offline, ..network };
        let stores = args.from.iter().map(|text| SourceSetting::parse(text, &environment.base));
        let stores = stores.collect::<Result<Vec<_>, _>>().map_err(CommandError::usage)?;
        if let Some(registry) = stores.iter().find(|source| {
            matches!(source, SourceSetting::Registry { .. } | SourceSetting::Providers { .. })
        }) {
            return Err(CommandError::Usage(format!(
                "--from {registry}: this is no store; write oci:DIR or oci-archive:FILE"
            )));
        }
        let dir = environment.cache_dir(cache_dir).map_err(CommandError::usage)?;
        let options = store::StoreOptions { dir, limit: args.cache_size.0 };
        let store = Store::open(options).map_err(CommandError::failed)?;
        access::check(&network)?;
        let access = RegistryAccess::new(&network, Asker::Person);
        if !network.offline {
            access.connections()?;
        }
        let limits = args.archives.limits();
        Ok(Registries { access, stores, store, limits, facts: Mutex::default() })
    }

    /// The rules by which providers are found: those that the command was told, and behind them, if
    /// it was given none, those of the user's CLI configuration.
    pub fn mapping(&self, flags: Option<&Mapping>) -> Result<Mapping, CommandError> {
        let configuration = self.access.configuration();
        match mapping::given(flags, configuration)? {
            Some(given) => Ok(given),
            None => Ok(self.told(flags)?.or(&mapping::of_configuration(configuration)?)),
        }
    }

    /// The rules that the command was told: those that it was given, else what the stores say that
    /// it reads.
    pub fn told(&self, flags: Option<&Mapping>) -> Result<Mapping, CommandError> {
        match mapping::given(flags, self.access.configuration())? {
            Some(given) => Ok(given),
            None => Ok(carried::of_sources(&self.stores)?.mapping),
        }
    }

    /// How registries are reached.
    pub fn network(&self) -> &Network {
        self.access.network()
    }

    /// The way to registries, and the configuration.
    pub fn access(&self) -> &RegistryAccess {
        &self.access
    }

    /// The registries themselves.
    ///
    /// # Errors
    /// `--offline` was given.
    pub fn connections(&self) -> Result<&Connections, CommandError> {
        let offline = || CommandError::usage("--offline: no registry can be asked or written to");
        self.access.opened().ok_or_else(offline)
    }

    /// Facts over a source that is not to be found by a registry's name.
    pub fn facts_over(&self, source: facts::MountSource) -> Arc<Facts> {
        Facts::new(facts::FactsOptions {
            sources: vec![source],
            stores_stand_in: false,
            store: Arc::clone(&self.store),
            tag_ttl: self.network().tag_ttl,
            deadline: self.network().deadline,
            limits: self.limits,
            providers: facts::ProviderOptions::default(),
            signatures: SignaturePolicy::default(),
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The HTTP requests that were sent so far.
    pub fn requests(&self) -> status::RequestCounts {
        self.access
            .opened()
            .map(|opened| status::RequestCounts::of(opened.transport()))
            .unwrap_or_default()
    }

    /// Says on standard error which registries could not be reached, so that what was read is their
    /// last answer.
    pub fn note_outages(&self) {
        let all = self.facts.lock();
        for facts in all.values() {
            for (name, health) in facts.sources() {
                if matches!(health.state, SourceState::Unreachable | SourceState::Untrusted) {
                    // Nobody listening is no reason to stop.
                    let _ = writeln!(
                        io::stderr(),
                        "tofufs: {name} cannot be reached; its last answers were used"
                    );
                }
            }
        }
    }

    fn open_facts(&self, host: &Host) -> Result<Arc<Facts>, CommandError> {
        let stores = self
            .stores
            .iter()
            .map(|store| daemon::opened(store, None))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sources: Vec<_> = stores.into_iter().filter(|source| source.holds(host)).collect();
        if sources.is_empty() {
            let registry = SourceSetting::Registry { host: host.clone(), prefix: None };
            sources.push(daemon::opened(&registry, self.access.opened())?);
        }
        Ok(Facts::new(facts::FactsOptions {
            sources,
            stores_stand_in: true,
            store: Arc::clone(&self.store),
            tag_ttl: self.network().tag_ttl,
            deadline: self.network().deadline,
            limits: self.limits,
            providers: facts::ProviderOptions::default(),
            signatures: SignaturePolicy::default(),
        }))
    }
}

impl RegistryFacts for Registries {
    fn facts(&self, host: &Host) -> Result<Arc<Facts>, Refusal> {
        let mut all = self.facts.lock();
        if let Some(facts) = all.get(host) {
            return Ok(Arc::clone(facts));
        }
        let facts = self.open_facts(host).map_err(|e| Refusal::new(Failure::Io, host, e))?;
        all.insert(host.clone(), Arc::clone(&facts));
        Ok(facts)
    }
}
