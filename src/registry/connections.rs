//! One connection per registry, whatever names it: sources and parts of it, mappings, stages,
//! copies, mirrors. So a registry is asked by one login per scope, with one limit, and remembered
//! as one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Registry;
use super::auth::CredentialSource;
use super::connection::Connection;
use super::decorate::Mirrored;
use super::mirror::MirrorAddress;
use super::origin::Origin;
use super::outage::Asker;
use super::remote::{Remote, invalid};
use super::transport::Transport;
use crate::failure::Refusal;
use crate::name::{Host, RepoName};

/// How registries are reached.
pub struct ConnectionOptions {
    /// Those without TLS, because the user asked for that. Basic credentials then go over plain
    /// HTTP as well.
    pub plain_http: Vec<Host>,
    /// Token services that the user trusts with a registry's credential, beside the registry's own.
    pub token_realms: Vec<(Host, Origin)>,
    /// Mirrors, in the user's order.
    pub mirrors: Vec<MirrorAddress>,
    /// Where credentials are looked up.
    pub credentials: Arc<dyn CredentialSource>,
    /// Who asks for what is read. What is written a person has asked for.
    pub asker: Asker,
}

/// The registries of a process.
pub struct Connections {
    transport: Arc<Transport>,
    options: ConnectionOptions,
    /// A name may be reached in two ways (a registry with TLS that is a mirror without), and
    /// credentials go by names.
    open: Mutex<HashMap<(Host, Origin), Arc<Connection>>>,
    readers: Mutex<HashMap<Host, Arc<dyn Registry>>>,
}

impl Connections {
    /// Registries that are reached by `transport`. Connects to nothing.
    pub fn new(transport: Arc<Transport>, options: ConnectionOptions) -> Connections {
        Connections { transport, options, open: Mutex::default(), readers: Mutex::default() }
    }

    /// What all connections share: what was sent, who is in trouble, what is known of origins.
    pub fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    /// The registry `host` for who reads: with its mirrors. It is the same one for all who ask for
    /// it. Sends nothing.
    ///
    /// # Errors
    /// The name is no host's.
    pub fn reader(&self, host: &Host) -> Result<Arc<dyn Registry>, Refusal> {
        let mut readers = self.readers.lock();
        if let Some(reader) = readers.get(host) {
            return Ok(reader.clone());
        }
        let origin: Arc<dyn Registry> = Arc::new(self.registry(host)?);
        let mut mirrors: Vec<(MirrorAddress, Arc<dyn Registry>)> = Vec::new();
        for (address, mirror) in self.mirrors(host)? {
            mirrors.push((address, Arc::new(mirror)));
        }
        let reader =
            if mirrors.is_empty() { origin } else { Arc::new(Mirrored::new(origin, mirrors)) };
        readers.insert(host.clone(), reader.clone());
        Ok(reader)
    }

    /// The registry `host` itself. Sends nothing.
    ///
    /// # Errors
    /// The name is no host's.
    pub fn registry(&self, host: &Host) -> Result<Remote, Refusal> {
        self.asked_by(host, self.options.asker)
    }

    /// The registry `host` for who publishes, which is always what a person has asked for. Sends
    /// nothing.
    ///
    /// # Errors
    /// The name is no host's.
    pub fn writer(&self, host: &Host) -> Result<Remote, Refusal> {
        self.asked_by(host, Asker::Person)
    }

    /// The mirrors of `host`, in their order. Sends nothing.
    ///
    /// # Errors
    /// An address is none of http or https.
    pub fn mirrors(&self, host: &Host) -> Result<Vec<(MirrorAddress, Remote)>, Refusal> {
        let of_host = self.options.mirrors.iter().filter(|mirror| mirror.of == *host);
        let opened = of_host.map(|address| {
            let origin = address.origin().ok_or_else(|| invalid(address.to_string()))?;
            let connection = self.connection(&address.host, origin);
            Ok((address.clone(), Remote::mirror_over(&connection, address, self.options.asker)))
        });
        opened.collect()
    }

    /// Why credentials that seem to be for `host` are not what logs in to it, where `used` is the
    /// source of what does.
    pub fn unused_credentials(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        used: Option<&str>,
    ) -> Vec<String> {
        self.options.credentials.unused(host, repo, used)
    }

    /// Begins anew, as the user asks: logs in again where a login is wanted, and leaves nobody
    /// alone.
    pub fn renew(&self) {
        self.transport.trust_again();
        self.transport.ask_for_lists_again();
        self.options.credentials.forget();
        self.open.lock().values().for_each(|connection| connection.auth.forget());
    }

    fn asked_by(&self, host: &Host, asker: Asker) -> Result<Remote, Refusal> {
        let plain_http = self.options.plain_http.contains(host);
        let origin = Origin::registry(host, plain_http).ok_or_else(|| invalid(host))?;
        Remote::over(&self.connection(host, origin), host.clone(), asker)
    }

    fn connection(&self, host: &Host, origin: Origin) -> Arc<Connection> {
        let mut open = self.open.lock();
        let make = || {
            let realm = self
                .options
                .token_realms
                .iter()
                .find(|(of, _)| of == host)
                .map(|(_, realm)| realm.clone());
            let (transport, credentials) =
                (self.transport.clone(), self.options.credentials.clone());
            Arc::new(Connection::new(transport, host.clone(), origin.clone(), realm, credentials))
        };
        open.entry((host.clone(), origin.clone())).or_insert_with(make).clone()
    }
}
