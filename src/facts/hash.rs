//! What is read as a whole: a member, and a package for the hash that lock files record of it.

use std::sync::Arc;

use super::content::{Bytes, MemberContent, blocking};
use super::prefetch::BesideFetch;
use super::{Facts, VerifiedPackage};
use crate::archive;
use crate::failure::{Failure, Refusal};
use crate::members::FileNo;
use crate::store::Object;

impl Facts {
    /// The `h1:` hashes of a package: of the tree that a client would unpack, and of the archive.
    /// Fetches the package if it is not cached, and reads all of it.
    pub async fn hashes(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
    ) -> Result<archive::Hashes, Refusal> {
        let (limits, of) = (self.limits, package.clone());
        let hash = move |zip: &Object| archive::hashes(&Bytes(zip), &of.members, &limits);
        self.with_archive(&package.repo, &package.archive, &BesideFetch::Nothing, hash).await
    }

    /// All bytes of a member, which has to fit into memory.
    pub async fn contents(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<Vec<u8>, Refusal> {
        let mut content = self.content(package, number).await?;
        let mut healed = false;
        loop {
            let (facts, read, size) =
                (self.clone(), content.clone(), package.members.file(number).size);
            match blocking(move || facts.read_all(&read, size)).await? {
                Err(e) if e.failure == Failure::Damaged && !healed => {
                    healed = true;
                    content = self.heal(package, number).await?;
                }
                outcome => return outcome,
            }
        }
    }

    fn read_all(&self, content: &MemberContent, size: u64) -> Result<Vec<u8>, Refusal> {
        let mut all = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut at = 0;
        while at < all.len() {
            match self.read(content, &mut all[at..], at as u64)? {
                0 => break,
                n => at += n,
            }
        }
        all.truncate(at);
        Ok(all)
    }
}
