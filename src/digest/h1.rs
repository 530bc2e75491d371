//! `h1:` hashes: what lock files record of a package's files, however they are packed.
//!
//! `Hash1` of Go's `dirhash`: SHA-256 over one line for each file, in byte order of the names, of
//! the hexadecimal SHA-256 of its content, two spaces, its name and a line end. Modes and times do
//! not count.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Algorithm, Digest, DigestError, Hasher, array};

/// The hash of a package's files. Printed as `h1:BASE64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct H1([u8; 32]);

impl H1 {
    /// The hash of files: names with slashes and the SHA-256 digest of the content, in any order.
    ///
    /// # Errors
    /// The first name that holds a line end: Go refuses to hash it.
    pub fn of<N: AsRef<[u8]>>(files: &[(N, Digest)]) -> Result<H1, &N> {
        if let Some((name, _)) = files.iter().find(|(name, _)| name.as_ref().contains(&b'\n')) {
            return Err(name);
        }
        let mut order: Vec<_> = files.iter().collect();
        order.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (name, content) in order {
            hasher.update(content.hex().as_bytes());
            hasher.update(b"  ");
            hasher.update(name.as_ref());
            hasher.update(b"\n");
        }
        Ok(H1(array(hasher.finish().bytes())))
    }
}

impl fmt::Display for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h1:{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for H1 {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bytes = text.strip_prefix("h1:").and_then(|encoded| STANDARD.decode(encoded).ok());
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(H1(bytes)),
            None => Err(DigestError::Malformed(text.chars().take(200).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as `sha256sum` of the sorted files, and of that text, as the Go documentation
    /// describes it.
    #[test]
    fn the_hash_is_that_of_the_sorted_sums() {
        let files = [("b/x", Digest::of(b"2")), ("a", Digest::of(b"1")), ("b.x", Digest::of(b"3"))];
        let lines = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  a\n\
            4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce  b.x\n\
            d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35  b/x\n";
        let hash = H1::of(&files).unwrap();
        assert_eq!(hash, H1(array(Digest::of(lines.as_bytes()).bytes())));
        assert_eq!(hash.to_string().parse::<H1>().unwrap(), hash);
        assert_eq!(
            H1::of::<&str>(&[]).unwrap().to_string(),
            "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
        assert_eq!(H1::of(&[("a\nb", Digest::of(b""))]), Err(&"a\nb"));
        for bad in ["", "h1:", "h1:AAAA", "zh:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="] {
            assert!(bad.parse::<H1>().is_err(), "{bad}");
        }
    }
}
