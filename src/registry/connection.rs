//! What is about a registry as a whole: the logins and the places at its gates.
//!
//! What the requests of the process have shown of origins (who is in trouble, what they can do) is
//! the [`Transport`]'s, which all connections share.

use std::sync::Arc;

use super::auth::{CredentialSource, RegistryAuth};
use super::gate::Gate;
use super::origin::Origin;
use super::transport::Transport;
use crate::name::Host;

/// Blobs that are fetched from one registry at a time.
const TRANSFERS: usize = 8;
/// Other requests to one registry at a time.
const QUESTIONS: usize = 16;

/// What all requests to one registry share.
pub(super) struct Connection {
    pub transport: Arc<Transport>,
    pub registry: Origin,
    pub auth: Arc<RegistryAuth>,
    pub transfers: Arc<Gate>,
    pub questions: Arc<Gate>,
}

impl Connection {
    pub fn new(
        transport: Arc<Transport>,
        host: Host,
        registry: Origin,
        token_realm: Option<Origin>,
        credentials: Arc<dyn CredentialSource>,
    ) -> Connection {
        let auth = Arc::new(RegistryAuth::new(
            transport.clone(),
            host,
            registry.clone(),
            token_realm,
            credentials,
        ));
        let (transfers, questions) =
            (Arc::new(Gate::new(TRANSFERS)), Arc::new(Gate::new(QUESTIONS)));
        Connection { transport, registry, auth, transfers, questions }
    }
}
