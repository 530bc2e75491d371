//! Fetching what is needed into the cache, so that it is there when it is wanted.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::Origins;
use super::needs::Needs;
use crate::facts::{FactError, Facts, Failure, Unpacking, blocking};
use crate::name::Repo;
use crate::oci::Descriptor;
use crate::store::Key;

/// How many packages are fetched at a time.
const AT_ONCE: usize = 4;
/// How often it is told how far the fetching is.
const TICK: Duration = Duration::from_millis(250);

/// What became of the packages of one release.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fetched {
    /// Their size, in bytes.
    pub bytes: u64,
    /// How much of it was not in the cache before.
    pub fetched: u64,
}

/// How a fetch ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everything is in the cache: for each of [`Needs::artifacts`] what that took.
    Complete(Vec<Fetched>),
    /// The caller broke it off. What was fetched stays, also in part.
    Stopped,
}

/// One package to fetch.
#[derive(Clone)]
struct Wanted {
    artifact: usize,
    facts: Arc<Facts>,
    repo: Repo,
    zip: Descriptor,
    /// Bytes that were there before.
    held: u64,
}

/// Fetches every package that is needed, reads its index, and asks for the tag lists of the repositories, by which an
/// offline mount lists them. `progress` is told how many of all bytes are in the cache, and may break off.
///
/// # Errors
/// The first package that cannot be had or is refused. What was fetched stays.
pub async fn fetch(
    needs: &Needs,
    origins: &dyn Origins,
    progress: &mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send),
) -> Result<Ending, FactError> {
    let mut fetched = vec![Fetched::default(); needs.artifacts.len()];
    let wanted = wanted(needs, origins).await?;
    let total = wanted.iter().map(|wanted| wanted.zip.size).sum();
    let mut packages = stream::iter(wanted.clone()).map(package).buffer_unordered(AT_ONCE);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            next = packages.next() => match next {
                None => break,
                Some(outcome) => {
                    let Wanted { artifact, zip, held, .. } = outcome?;
                    fetched[artifact].bytes += zip.size;
                    fetched[artifact].fetched += zip.size.saturating_sub(held);
                }
            },
            _ = tick.tick() => {
                let all = wanted.clone();
                let held = blocking(move || all.iter().map(Wanted::held_now).sum()).await?;
                if progress(held, total).is_break() {
                    return Ok(Ending::Stopped);
                }
            }
        }
    }
    let _ = progress(total, total);
    Ok(Ending::Complete(fetched))
}

async fn wanted(needs: &Needs, origins: &dyn Origins) -> Result<Vec<Wanted>, FactError> {
    let mut all = Vec::new();
    for (artifact, needed) in needs.artifacts.iter().enumerate() {
        let facts = origins.facts(&needed.repo.host)?;
        // A registry that does not list its tags has releases all the same.
        match facts.tags(&needed.repo).await {
            Err(e) if !matches!(e.failure, Failure::Absent | Failure::Denied) && !e.failure.is_outage() => {
                return Err(e);
            }
            _ => {}
        }
        for zip in needed.zips() {
            let (facts, repo, zip) = (Arc::clone(&facts), needed.repo.clone(), zip.clone());
            all.push(Wanted { artifact, facts, repo, zip, held: 0 });
        }
    }
    blocking(move || {
        all.iter_mut().for_each(|wanted| wanted.held = wanted.held_now());
        all
    })
    .await
}

impl Wanted {
    /// Blocks on the disk.
    fn held_now(&self) -> u64 {
        self.facts.store().held(&Key::Blob(self.zip.digest)).min(self.zip.size)
    }
}

async fn package(wanted: Wanted) -> Result<Wanted, FactError> {
    wanted.facts.package(&wanted.repo, &wanted.zip, Unpacking::WhenOpened).await?;
    Ok(wanted)
}
