//! Content digests: the only names by which bytes are known.
//!
//! A [`Digest`] is a value: parsed once, compared by its bytes, printed one way. It is `Copy`, has
//! no heap part and never comes from unchecked text, so it may be used as a key and (in
//! hexadecimal) as a file name. OCI image spec, "Descriptor", section "Digests".

mod h1;

use std::fmt;
use std::str::FromStr;

pub use h1::H1;
use ring::digest::{Context, SHA256, SHA512};

/// The digest algorithms that are implemented: the two that the OCI image spec registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Algorithm {
    /// `sha256`, the algorithm of nearly every reference and of OpenTofu's `zh:` hashes.
    Sha256,
    /// `sha512`, accepted where a publisher chose it.
    Sha512,
}

impl Algorithm {
    /// The name used before the colon of a digest.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// A verified-by name for bytes: algorithm and value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// 32 bytes of SHA-256.
    Sha256([u8; 32]),
    /// 64 bytes of SHA-512.
    Sha512([u8; 64]),
}

/// Why a text is no digest that tofufs can check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Well-formed, but of an algorithm that is not implemented.
    #[error("the digest algorithm {0:?} is not supported (supported: sha256, sha512)")]
    UnknownAlgorithm(String),
    /// Not `ALGORITHM:HEX` with lower-case hexadecimal digits of the algorithm's length.
    #[error("{0:?} is not a digest (wanted: ALGORITHM:HEX, lower case, of full length)")]
    Malformed(String),
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    /// The SHA-256 digest whose value is `hex`, in digits of either case, as in `SHA256SUMS`.
    pub fn sha256_of_hex(hex: &str) -> Option<Self> {
        unhex(&hex.to_ascii_lowercase()).map(Digest::Sha256)
    }

    /// The digest of `bytes` by `algorithm`.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm of this digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The value's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(b) => b,
            Digest::Sha512(b) => b,
        }
    }

    /// The value in lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        self.bytes().iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(200).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        match algorithm {
            "sha256" => unhex(hex).map(Digest::Sha256).ok_or_else(malformed),
            "sha512" => unhex(hex).map(Digest::Sha512).ok_or_else(malformed),
            other if is_algorithm(other) && is_encoded(hex) => {
                Err(DigestError::UnknownAlgorithm(other.chars().take(64).collect()))
            }
            _ => Err(malformed()),
        }
    }
}

/// `algorithm` of the image spec's digest grammar.
fn is_algorithm(text: &str) -> bool {
    !text.is_empty()
        && text.split(['+', '.', '_', '-']).all(|c| {
            !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// `encoded` of the image spec's digest grammar.
fn is_encoded(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

fn unhex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let hex = hex.as_bytes();
    if hex.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// A digest in the making.
///
/// By ring, which TLS brings along: on processors without instructions for SHA it takes half the
/// time of the `sha2` crate.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    so_far: Context,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        let so_far = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Hasher { algorithm, so_far }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.so_far.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let value = self.so_far.finish();
        match self.algorithm {
            Algorithm::Sha256 => Digest::Sha256(array(value.as_ref())),
            Algorithm::Sha512 => Digest::Sha512(array(value.as_ref())),
        }
    }
}

/// A digest's value, of the length that its algorithm has.
fn array<const LENGTH: usize>(value: &[u8]) -> [u8; LENGTH] {
    let mut out = [0; LENGTH];
    out.copy_from_slice(value);
    out
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_prints_as_it_was_read() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let long = Digest::of_with(Algorithm::Sha512, b"x");
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
    }

    /// hostile input R34
    #[test]
    fn what_is_no_digest_is_told_from_an_unknown_algorithm() {
        let hex = &EMPTY[7..];
        for text in [
            "".to_owned(),
            "sha256".into(),
            "sha256:".into(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:{}", hex.to_uppercase()),
            "sha256:../../x".into(),
            format!("SHA256:{hex}"),
            format!(":{hex}"),
            "md5:../x".into(),
        ] {
            assert!(matches!(text.parse::<Digest>(), Err(DigestError::Malformed(_))), "{text}");
        }
        for text in
            ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha1:da39", "blake3:af13", "sha384:00"]
        {
            assert!(
                matches!(text.parse::<Digest>(), Err(DigestError::UnknownAlgorithm(_))),
                "{text}"
            );
        }
    }
}
