//! Reading registries without a mount: through the same cache, by the same rules, each registry
//! when it is first needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::access::{self, RegistryAccess};
use super::args::carry::{CommandReadingArgs, ReadingArgs};
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::origins::{self, Origins};
use super::output::CommandError;
use super::policy::PolicyFiles;
use super::source::SourceSetting;
use super::{carried, daemon, mapping, status};
use crate::archive::Limits;
use crate::artifact::SignaturePolicy;
use crate::copy::RegistryFacts;
use crate::copy::origin::OriginStore;
use crate::facts::{self, Facts, SourceState};
use crate::failure::{Failure, Refusal};
use crate::mapping::Mapping;
use crate::name::{Host, Platform};
use crate::registry::Asker;
use crate::registry::connections::Connections;
use crate::store::{self, Store};
use crate::trust::Policies;

/// The registries, as a command asks them. What it asks for is asked anew: tags are believed for no
/// time.
pub struct Registries {
    access: RegistryAccess,
    /// The stores that take the place of the registries which they hold.
    stores: Vec<SourceSetting>,
    /// The provider registries that releases are taken from.
    origins: Origins,
    /// Where packages of theirs lie meanwhile.
    state: PathBuf,
    store: Arc<Store>,
    /// How large archives may be.
    limits: Limits,
    /// Which releases may be opened.
    policies: Arc<Policies>,
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
        let (stores, origins) = sources(args, environment)?;
        let dir = environment.cache_dir(cache_dir).map_err(CommandError::usage)?;
        let options = store::StoreOptions { dir, limit: args.cache_size.0 };
        let store = Store::open(options).map_err(CommandError::failed)?;
        access::check(&network)?;
        let access = RegistryAccess::new(&network, Asker::Person);
        if !network.offline {
            access.connections()?;
        }
        let limits = args.archives.limits();
        let policies = PolicyFiles::new(&args.policy, &environment.base).load()?;
        let state = environment.state_dir(None).map_err(CommandError::usage)?;
        let facts = Mutex::default();
        Ok(Registries { access, stores, origins, state, store, limits, policies, facts })
    }

    /// The same, taking releases of these platforms alone from provider registries; of all that
    /// they have if there is none.
    pub fn of_platforms(self, platforms: &[Platform]) -> Registries {
        Registries { origins: self.origins.of_platforms(platforms), ..self }
    }

    /// The rules by which providers are found: those that the command was told, and behind them, if
    /// it was given none, those of the user's CLI configuration.
    pub fn mapping(&self, flags: Option<&Mapping>) -> Result<Mapping, CommandError> {
        let configuration = self.access.configuration();
        let told = self.told(flags)?;
        match mapping::given(flags, configuration)? {
            Some(_) => Ok(told),
            None => Ok(told.or(&mapping::of_configuration(configuration)?)),
        }
    }

    /// The rules that the command was told: those of the provider registries that it was named,
    /// then those that it was given, else what the stores say that it reads.
    pub fn told(&self, flags: Option<&Mapping>) -> Result<Mapping, CommandError> {
        let named = self.origins.mapping()?;
        match mapping::given(flags, self.access.configuration())? {
            Some(given) => Ok(named.or(&given)),
            None => Ok(named.or(&carried::of_sources(&self.stores)?.mapping)),
        }
    }

    /// Which releases may be opened.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The same by other policies.
    pub fn with_policies(self, policies: Arc<Policies>) -> Registries {
        Registries { policies, ..self }
    }

    /// The releases of the provider registry `host`; `None` where it was not named.
    pub fn origin(&self, host: &Host) -> Result<Option<Arc<OriginStore>>, CommandError> {
        self.origins.store(host, &self.access, &self.store, (&self.state, self.limits))
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
            policies: Arc::clone(&self.policies),
            list_signed: false,
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
        let origin = self.origin(host)?;
        // Manifests that are made of a provider registry are none that `host` itself would name.
        let stores_stand_in = origin.is_none();
        if let Some(store) = origin {
            let name = format!("providers:{host}");
            sources = vec![facts::MountSource::Store { store, name }];
        }
        if sources.is_empty() {
            let registry = SourceSetting::Registry { host: host.clone(), prefix: None };
            sources.push(daemon::opened(&registry, self.access.opened())?);
        }
        Ok(Facts::new(facts::FactsOptions {
            sources,
            stores_stand_in,
            store: Arc::clone(&self.store),
            tag_ttl: self.network().tag_ttl,
            deadline: self.network().deadline,
            limits: self.limits,
            policies: Arc::clone(&self.policies),
            list_signed: false,
            providers: facts::ProviderOptions::default(),
            signatures: SignaturePolicy::default(),
        }))
    }
}

/// The stores, and the provider registries, that a command was told to read.
fn sources(
    args: &ReadingArgs,
    environment: &DirectoryEnvironment,
) -> Result<(Vec<SourceSetting>, Origins), CommandError> {
    let (mut stores, mut hosts) = (Vec::new(), BTreeSet::new());
    for text in &args.from {
        if let Some(host) = origins::host(text) {
            hosts.insert(host?);
            continue;
        }
        let source = SourceSetting::parse(text, &environment.base).map_err(CommandError::usage)?;
        if let SourceSetting::Registry { .. } = &source {
            return Err(CommandError::Usage(format!(
                "--from {source}: this is no store; write oci:DIR, oci-archive:FILE or \
                 providers:HOST"
            )));
        }
        stores.push(source);
    }
    if let (Some(host), true) = (hosts.first(), args.offline) {
        return Err(CommandError::usage(format_args!("--offline: {host} cannot be asked")));
    }
    Ok((stores, Origins::new(hosts, args.require_signature)))
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
