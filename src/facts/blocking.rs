//! Work that waits for a disk, away from the threads that serve the network.

use super::FactError;

/// Runs `work` where blocking is allowed.
///
/// # Errors
/// The work ended without a result.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FactError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FactError::lost())
}
