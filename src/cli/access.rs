//! The way to registries that the settings describe: one configuration, read once, and one
//! connection per registry, for all of a process.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::broker::Broker;
use super::network::{Network, TokenRealm};
use super::output::CommandError;
use super::tofurc::{self, Tofurc, TofurcError};
use crate::name::Host;
use crate::provider_registry::ProviderRegistry;
use crate::registry::Asker;
use crate::registry::connections::{ConnectionOptions, Connections};
use crate::registry::credentials::{Credentials, HostTokens};
use crate::registry::origin::Origin;
use crate::registry::transport::{Authorities, Transport, TransportOptions};

/// The CLI configuration of the clients, read when it is first wanted: the file that was named,
/// else the user's own.
pub struct ClientConfiguration {
    file: Option<PathBuf>,
    environment: tofurc::ClientEnvironment,
    read: OnceLock<Result<Tofurc, TofurcError>>,
}

impl ClientConfiguration {
    /// That of `file`, else the user's own. Reads nothing yet.
    pub fn new(file: Option<PathBuf>) -> ClientConfiguration {
        ClientConfiguration {
            file,
            environment: tofurc::ClientEnvironment::of_process(),
            read: OnceLock::new(),
        }
    }

    /// Whether a file was named.
    pub fn is_named(&self) -> bool {
        self.file.is_some()
    }

    /// What it says. What stands where nobody reads it is told on standard error, once.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tofurc(&self) -> Result<&Tofurc, CommandError> {
        let read = || {
            let read = match &self.file {
                Some(file) => Tofurc::load_file(file, &self.environment),
                None => Tofurc::load(&self.environment),
            };
            read.inspect(note_misplaced)
        };
        self.read.get_or_init(read).as_ref().map_err(CommandError::failed)
    }

    /// The tokens for hosts of services.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn host_tokens(&self) -> Result<HostTokens, CommandError> {
        Ok(self.tofurc()?.host_tokens(&self.environment))
    }

    /// What logs in to registries.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn credentials(&self) -> Result<Credentials, CommandError> {
        Ok(Credentials::new(self.tofurc()?.credentials(&self.environment)))
    }
}

/// Says on standard error which blocks of a CLI configuration stand where nobody reads them.
fn note_misplaced(tofurc: &Tofurc) {
    for misplaced in &tofurc.misplaced {
        // Nobody listening is no reason to stop.
        let _ = writeln!(io::stderr(), "tofufs: warning: {misplaced}");
    }
}

/// What all that name a registry share. Each part is read when it is first wanted, and never again.
pub struct RegistryAccess {
    network: Network,
    asker: Asker,
    configuration: ClientConfiguration,
    connections: OnceLock<Connections>,
    broker: Option<Arc<Broker>>,
}

impl RegistryAccess {
    /// The way of a mount, or of a command that a person typed. Reads nothing yet.
    pub fn new(network: &Network, asker: Asker) -> RegistryAccess {
        RegistryAccess {
            network: network.clone(),
            asker,
            configuration: ClientConfiguration::new(network.tofurc.clone()),
            connections: OnceLock::new(),
            broker: None,
        }
    }

    /// The same, where the broker finds credentials and runs programs.
    pub fn through(self, broker: Arc<Broker>) -> RegistryAccess {
        RegistryAccess { broker: Some(broker), ..self }
    }

    /// The broker, where this process has one.
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        self.broker.as_ref()
    }

    /// How registries are reached.
    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn configuration(&self) -> &ClientConfiguration {
        &self.configuration
    }

    /// The registries. Connects to nothing.
    ///
    /// # Errors
    /// Certificate authorities or the CLI configuration cannot be read.
    pub fn connections(&self) -> Result<&Connections, CommandError> {
        if let Some(connections) = self.connections.get() {
            return Ok(connections);
        }
        let opened = self.open()?;
        Ok(self.connections.get_or_init(|| opened))
    }

    /// The provider registry `host`, with the tokens and services that the clients would use.
    /// Connects to nothing.
    ///
    /// # Errors
    /// As of [`RegistryAccess::connections`], or the CLI configuration is wrong about the host.
    pub fn provider_registry(&self, host: &Host) -> Result<ProviderRegistry, CommandError> {
        let tokens = self.configuration.host_tokens()?;
        let tokens = Arc::new(match &self.broker {
            Some(broker) => tokens.asking(Arc::<Broker>::clone(broker)),
            None => tokens,
        });
        let transport = self.connections()?.transport();
        let registry = ProviderRegistry::new(transport, host, tokens, self.asker)
            .map_err(CommandError::failed)?;
        let said = &self.configuration.tofurc()?.services;
        match said.iter().rev().find(|(of, _)| of == host) {
            Some((_, services)) => registry.with_services(services).map_err(CommandError::failed),
            None => Ok(registry),
        }
    }

    /// The registries, if somebody has wanted them.
    pub fn opened(&self) -> Option<&Connections> {
        self.connections.get()
    }

    fn open(&self) -> Result<Connections, CommandError> {
        let Network { plain_http, mirrors, token_realms, .. } = self.network.clone();
        let transport = Transport::new(TransportOptions {
            ca_files: self.network.ca_files.clone(),
            deadline: self.network.deadline,
            ..TransportOptions::default()
        })
        .map_err(CommandError::failed)?;
        let credentials = match &self.broker {
            Some(broker) => broker.credentials(),
            None => Arc::new(self.configuration.credentials()?),
        };
        let realm = |realm: TokenRealm| Some((realm.host, Origin::of(&realm.origin)?));
        let options = ConnectionOptions {
            plain_http,
            token_realms: token_realms.into_iter().filter_map(realm).collect(),
            mirrors,
            credentials,
            asker: self.asker,
        };
        Ok(Connections::new(transport, options))
    }
}

/// Refuses files of certificates that cannot be used, also where no registry is asked: they were
/// named to be used.
pub fn check(network: &Network) -> Result<(), CommandError> {
    Authorities::check(&network.ca_files).map_err(CommandError::failed)
}
