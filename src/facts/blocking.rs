//! Work that waits for a disk, away from the threads that serve the network.

use super::error::lost;
use crate::failure::Refusal;

/// Runs `work` where blocking is allowed.
///
/// # Errors
/// The work ended without a result.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| lost())
}
