//! `SHA256SUMS`: which zip has which digest. Its own digest is a release's identity.

use std::collections::BTreeMap;

use crate::digest::Digest;

/// The document, read strictly: every line is a sum, two spaces (or a space and `*`) and a name,
/// and no name has two sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseSums {
    raw: Vec<u8>,
    lines: BTreeMap<String, Digest>,
}

impl ReleaseSums {
    /// Reads it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(raw: Vec<u8>) -> Result<ReleaseSums, String> {
        let text = std::str::from_utf8(&raw).map_err(|_| "SHA256SUMS is no text in UTF-8")?;
        let mut lines = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let split = line.split_at_checked(64).and_then(|(sum, rest)| {
                let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
                Some((Digest::sha256_of_hex(sum)?, name))
            });
            let Some((sum, name)) = split.filter(|(_, name)| is_file_name(name)) else {
                return Err(format!(
                    "line {} of SHA256SUMS is not a SHA-256 sum, two spaces and a file's name",
                    at + 1
                ));
            };
            match lines.insert(name.to_owned(), sum) {
                Some(other) if other != sum => {
                    return Err(format!("SHA256SUMS has two different sums for {name}"));
                }
                _ => {}
            }
        }
        Ok(ReleaseSums { lines, raw })
    }

    /// As it came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The digest of the document.
    pub fn identity(&self) -> Digest {
        Digest::of(&self.raw)
    }

    /// The digests of all its files, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = Digest> + '_ {
        self.lines.values().copied()
    }

    /// The digest of the file that has exactly this name.
    pub fn of(&self, name: &str) -> Option<Digest> {
        self.lines.get(name).copied()
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_sum_and_a_name_and_no_name_has_two() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let read = |text: String| ReleaseSums::parse(text.into_bytes());
        let sums = read(format!("{a}  x.zip\n{b} *y.zip\r\n\n{a}  x.zip\n")).unwrap();
        assert_eq!(sums.of("x.zip").unwrap().hex().to_string(), a);
        assert_eq!(sums.of("y.zip").unwrap().hex().to_string(), b.to_lowercase());
        assert_eq!(sums.of("X.zip"), None);
        assert_eq!(sums.identity(), Digest::of(sums.raw()));
        for bad in [
            format!("{a}  x.zip\n{b}  x.zip\n"),
            format!("{a} x.zip\n"),
            format!("{}  x.zip\n", &a[1..]),
            format!("{a}  \n"),
            format!("{a}  d/x.zip\n"),
            format!("{a}  x .zip\n"),
            "<html>\n".to_owned(),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
