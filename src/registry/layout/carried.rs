//! `.tofufs/providers.json`: what a store says of the providers of which it holds releases. Other
//! tools pass it over.

use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::directory::{INDEX_LOCK, LayoutDirectory, OWN};
use super::medium::{CARRIED, Medium, NotOpened};
use super::repository::up_to;
use super::write::not_written;
use crate::disk::draft::{Draft, clean};
use crate::disk::{lock, make_directory, open_below};
use crate::failure::{Failure, Refusal};
use crate::mapping::Carried;

/// Its name in the directory that holds it.
const NAME: &str = "providers.json";
/// The most bytes of it that are read and written.
pub(super) const FILE_MAX: u64 = 16 << 20;

/// What the store `medium` says.
pub(super) fn read<M: Medium>(medium: &M) -> Result<Carried, Refusal> {
    let refused = |failure, rule: String| {
        Refusal::new(failure, format!("{CARRIED} in the store {}", medium.name()), rule)
            .remedy("have the bundle made again, or say with --oci-mirror where providers are")
    };
    let bytes = match medium.open_carried() {
        Ok((file, _)) => up_to(medium, &file, FILE_MAX + 1).map_err(|e| e.about(medium.name()))?,
        Err(NotOpened::Missing) => return Ok(Carried::default()),
        Err(NotOpened::NotRegular) => {
            return Err(refused(
                Failure::Structure,
                "it is, or lies behind, a symbolic link, or is no file".into(),
            ));
        }
        Err(NotOpened::Failed(e)) => return Err(e.about(medium.name())),
    };
    if bytes.len() as u64 > FILE_MAX {
        return Err(refused(
            Failure::TooLarge,
            format!("it has more than {FILE_MAX} bytes, which is the limit"),
        ));
    }
    Carried::parse(&bytes, NAME).map_err(|e| refused(Failure::Structure, e.to_string()))
}

/// The document, if it can be read again.
///
/// # Errors
/// It would be over a limit.
pub(super) fn document(carried: &Carried, store: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = carried.document();
    Carried::parse(&bytes, NAME).map_err(|e| Refusal::new(Failure::TooLarge, store, e))?;
    if bytes.len() as u64 > FILE_MAX {
        let rule = format!("{CARRIED} would have {} bytes; the limit is {FILE_MAX}", bytes.len());
        return Err(Refusal::new(Failure::TooLarge, store, rule));
    }
    Ok(bytes)
}

impl LayoutDirectory {
    /// Adds to what the store says. Waits at most `deadline` for other writers.
    ///
    /// # Errors
    /// What is there is refused, or the disk takes no writes.
    pub fn carry(&self, carried: &Carried, deadline: Duration) -> Result<(), Refusal> {
        if carried.is_empty() {
            return Ok(());
        }
        let failed = |e| not_written(self, CARRIED, e);
        let own = make_directory(&self.root, OWN).map_err(failed)?;
        let _lock = lock::take(&own, INDEX_LOCK, deadline).map_err(|e| match e {
            lock::NotLocked::Failed(e) => failed(e),
            lock::NotLocked::TimedOut => {
                let rule = format!("another process holds its lock for more than {deadline:?}");
                Refusal::new(Failure::TimedOut, self.name(), rule)
                    .remedy("wait until it has ended, or end it")
            }
        })?;
        clean(&own, "");
        let before = read(self)?;
        let now = before.clone().and(carried);
        if now == before {
            return Ok(());
        }
        let bytes = document(&now, self.name())?;
        self.replace_in(&bytes).map_err(failed)
    }

    fn replace_in(&self, bytes: &[u8]) -> Result<(), Errno> {
        let own = || open_below(&self.root, OWN, OFlags::DIRECTORY);
        let mut draft = Draft::new(own()?, "")?;
        draft.write(bytes)?;
        draft.publish(own()?, NAME)
    }
}
