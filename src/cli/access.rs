//! The way to registries that the settings describe: one transport and one set of credentials for all of them.

use std::sync::Arc;

use super::output::CommandError;
use super::settings::Network;
use super::tofurc::{self, Tofurc, TofurcError};
use crate::name::Host;
use crate::registry::Registry;
use crate::registry::credentials::Credentials;
use crate::registry::decorate::Mirrored;
use crate::registry::mirror::MirrorAddress;
use crate::registry::origin::Origin;
use crate::registry::remote::{Remote, RemoteOptions};
use crate::registry::transport::{Authorities, Transport, TransportOptions};

/// What all registries share.
pub struct RegistryAccess {
    network: Network,
    credentials: Arc<Credentials>,
    /// Connections, limits and counts.
    pub transport: Arc<Transport>,
    /// The CLI configuration that the credentials come from.
    pub tofurc: Tofurc,
}

impl RegistryAccess {
    /// Reads certificate authorities and the CLI configuration. Connects to nothing.
    pub fn new(network: &Network) -> Result<RegistryAccess, CommandError> {
        let transport = Transport::new(TransportOptions {
            ca_files: network.ca_files.clone(),
            deadline: network.deadline,
            ..TransportOptions::default()
        })
        .map_err(CommandError::failed)?;
        let environment = tofurc::Environment::of_process();
        let tofurc = configuration(network, &environment).map_err(CommandError::failed)?;
        let credentials = Arc::new(Credentials::new(tofurc.credentials(&environment)));
        Ok(RegistryAccess { network: network.clone(), credentials, transport, tofurc })
    }

    /// The registry `host` for who reads: with its mirrors. Sends nothing.
    pub fn registry(&self, host: &Host) -> Result<Arc<dyn Registry>, CommandError> {
        let origin: Arc<dyn Registry> = Arc::new(self.remote(host)?);
        let mut mirrors: Vec<(MirrorAddress, Arc<dyn Registry>)> = Vec::new();
        for (address, mirror) in self.mirrors(host)? {
            mirrors.push((address, Arc::new(mirror)));
        }
        Ok(if mirrors.is_empty() { origin } else { Arc::new(Mirrored::new(origin, mirrors)) })
    }

    /// The mirrors of `host`, in their order. Sends nothing.
    pub fn mirrors(&self, host: &Host) -> Result<Vec<(MirrorAddress, Remote)>, CommandError> {
        let of_host = self.network.mirrors.iter().filter(|mirror| mirror.of == *host);
        let opened = of_host.map(|address| {
            let realm = self.realm(&address.host);
            let remote = Remote::mirror(Arc::clone(&self.transport), address, realm, self.credentials.clone());
            Ok((address.clone(), remote.map_err(CommandError::failed)?))
        });
        opened.collect()
    }

    fn realm(&self, host: &Host) -> Option<Origin> {
        let realm = self.network.token_realms.iter().find(|realm| realm.host == *host);
        realm.and_then(|realm| Origin::of(&realm.origin))
    }

    /// The registry `host` itself. Sends nothing.
    pub fn remote(&self, host: &Host) -> Result<Remote, CommandError> {
        let options = RemoteOptions {
            host: host.clone(),
            plain_http: self.network.plain_http.contains(host),
            token_realm: self.realm(host),
            credentials: self.credentials.clone(),
        };
        Remote::new(Arc::clone(&self.transport), options).map_err(CommandError::failed)
    }
}

/// Refuses files of certificates that cannot be used, also where no registry is asked: they were named to be used.
pub fn check(network: &Network) -> Result<(), CommandError> {
    Authorities::check(&network.ca_files).map_err(CommandError::failed)
}

/// The CLI configuration: the file that was named, else the user's own.
pub fn configuration(network: &Network, environment: &tofurc::Environment) -> Result<Tofurc, TofurcError> {
    match &network.tofurc {
        Some(file) => Tofurc::load_file(file, environment),
        None => Tofurc::load(environment),
    }
}
