//! The hashes of an archive that is there already.

use super::{ArchiveError, HashingSink, Limits, ReadAt, headers::Central, index, names, read};
use crate::digest::{Algorithm, Digest, H1, Hasher};
use crate::members::{Child, FileNo, Members, TOP};

/// The `h1:` hashes that clients compute for one package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hashes {
    /// Of the directory that it unpacks to.
    pub directory: H1,
    /// Of the archive itself. It differs from the other where the archive has entries for
    /// directories, or names that extracting cleans.
    pub archive: H1,
}

/// Reads all of `zip`, whose tree is `members`, and hashes its files.
///
/// # Errors
/// As [`super::index`] and [`super::extract`]; a name with a line end cannot be hashed
/// ([`super::Class::Structure`]).
pub fn hashes(
    zip: &dyn ReadAt,
    members: &Members,
    limits: &Limits,
) -> Result<Hashes, ArchiveError> {
    let mut sums: Vec<Option<Digest>> = vec![None; members.file_count()];
    let mut unpacked: Vec<(Vec<u8>, Digest)> = Vec::with_capacity(sums.len());
    let mut packed: Vec<(Box<[u8]>, Digest)> = Vec::with_capacity(sums.len());
    index::for_each(zip, limits, &mut |entry: &Central| {
        let name = entry.common.name;
        if entry.is_directory() {
            packed.push((name.into(), Digest::of(b"")));
            return Ok(());
        }
        let path = names::components(name, limits)?;
        let no = find(members, &path)
            .ok_or_else(|| ArchiveError::structure("the archive has changed"))?;
        let sum = match sums[no.0 as usize] {
            Some(sum) => sum,
            None => {
                let mut sink = HashingSink(Hasher::new(Algorithm::Sha256));
                read::extract(zip, members.file(no), &mut sink)?;
                let sum = sink.0.finish();
                sums[no.0 as usize] = Some(sum);
                unpacked.push((path.join(&b'/'), sum));
                sum
            }
        };
        packed.push((name.into(), sum));
        Ok(())
    })?;
    let unhashed = |name: &[u8]| {
        ArchiveError::structure("its name holds a line end, so no lock file can hash the package")
            .of(name)
    };
    Ok(Hashes {
        directory: H1::of(&unpacked).map_err(|name| unhashed(name))?,
        archive: H1::of(&packed).map_err(|name| unhashed(name))?,
    })
}

fn find(members: &Members, path: &[&[u8]]) -> Option<FileNo> {
    use std::os::unix::ffi::OsStrExt;

    let mut at = Child::Dir(TOP);
    for name in path {
        let Child::Dir(dir) = at else { return None };
        at = members.lookup(dir, std::ffi::OsStr::from_bytes(name))?;
    }
    match at {
        Child::File(no) => Some(no),
        Child::Dir(_) => None,
    }
}
