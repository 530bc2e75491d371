//! Carrying releases from one place to another: what is needed, and of what it consists.

pub mod bundle;
pub mod carry;
pub mod export;
pub mod fetch;
pub mod graph;
pub mod hashes;
pub mod mirror;
pub mod needs;
pub mod origin;
pub mod select;
pub mod verify;

use std::sync::Arc;

use crate::facts::Facts;
use crate::failure::Refusal;
use crate::name::Host;

/// The facts of each registry, made when they are first asked for.
pub trait RegistryFacts: Sync {
    /// What is known of `host` and can be asked of it.
    ///
    /// # Errors
    /// The registry cannot be reached by what is configured.
    fn facts(&self, host: &Host) -> Result<Arc<Facts>, Refusal>;
}
