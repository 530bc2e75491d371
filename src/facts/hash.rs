//! Members read as a whole, and the hash that lock files record of an unpacked package.

use std::sync::Arc;

use super::nodes::{Content, blocking};
use super::{FactError, Facts, Failure, Package};
use crate::digest::{Algorithm, Digest, H1, Hasher};
use crate::members::FileNo;

/// How many bytes are read at once.
const PIECE: usize = 256 << 10;

impl Facts {
    /// The `h1:` hash of the tree that a client would unpack. Fetches the package if it is not cached, and reads all of
    /// it.
    pub async fn h1(self: &Arc<Self>, package: &Arc<Package>) -> Result<H1, FactError> {
        let mut files = Vec::new();
        for (path, number) in package.members.files() {
            files.push((path, self.hashed(package, number).await?));
        }
        H1::of(&files).map_err(|_| {
            FactError::new(
                Failure::Structure,
                package.reference(),
                "a file's name holds a line break, so it has no h1 hash",
            )
        })
    }

    /// All bytes of a member, which has to fit into memory.
    pub async fn contents(self: &Arc<Self>, package: &Arc<Package>, number: FileNo) -> Result<Vec<u8>, FactError> {
        self.gathered(package, number, Vec::new, |all: &mut Vec<u8>, piece| all.extend_from_slice(piece)).await
    }

    async fn hashed(self: &Arc<Self>, package: &Arc<Package>, number: FileNo) -> Result<Digest, FactError> {
        let hasher = || Hasher::new(Algorithm::Sha256);
        self.gathered(package, number, hasher, |hasher, piece| hasher.update(piece)).await.map(Hasher::finish)
    }

    /// Reads a member from its start to its end; once more from the start if cached bytes turn out to be damaged.
    async fn gathered<T: Send + 'static>(
        self: &Arc<Self>,
        package: &Arc<Package>,
        number: FileNo,
        start: impl Fn() -> T,
        add: impl Fn(&mut T, &[u8]) + Copy + Send + 'static,
    ) -> Result<T, FactError> {
        let size = package.members.file(number).size;
        let mut content = self.content(package, number).await?;
        let mut healed = false;
        loop {
            let (facts, read, mut gathered) = (self.clone(), content.clone(), start());
            let pieces = move || facts.each_piece(&read, size, |piece| add(&mut gathered, piece)).map(|()| gathered);
            match blocking(pieces).await? {
                Err(e) if e.failure == Failure::Damaged && !healed => {
                    healed = true;
                    content = self.heal(package, number).await?;
                }
                outcome => return outcome,
            }
        }
    }

    fn each_piece(&self, content: &Content, size: u64, mut visit: impl FnMut(&[u8])) -> Result<(), FactError> {
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        while offset < size {
            match self.read(content, &mut piece, offset)? {
                0 => break,
                n => {
                    visit(&piece[..n]);
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}
