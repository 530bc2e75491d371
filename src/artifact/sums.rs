//! `SHA256SUMS`: which zip has which digest. Its own digest is a release's identity.

use std::collections::{BTreeMap, BTreeSet};

use super::{ArtifactRefusal, PackageEntry, Target, refuse};
use crate::digest::Digest;
use crate::name::{Platform, Version, ZipName};

/// The document, read strictly: every line is a sum, two spaces (or a space and `*`) and a name,
/// and no name has two sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseSums {
    raw: Vec<u8>,
    identity: Digest,
    lines: BTreeMap<String, Digest>,
    /// The names that stand twice, with the same sum.
    twice: BTreeSet<String>,
}

impl ReleaseSums {
    /// Reads it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(raw: Vec<u8>) -> Result<ReleaseSums, String> {
        let text = std::str::from_utf8(&raw).map_err(|_| "SHA256SUMS is no text in UTF-8")?;
        let (mut lines, mut twice) = (BTreeMap::new(), BTreeSet::new());
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
                Some(_) => drop(twice.insert(name.to_owned())),
                None => {}
            }
        }
        Ok(ReleaseSums { identity: Digest::of(&raw), lines, twice, raw })
    }

    /// As it came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The digest of the document.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// The digests of all its files, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = Digest> + '_ {
        self.lines.values().copied()
    }

    /// The digest of the file that has exactly this name.
    pub fn of(&self, name: &str) -> Option<Digest> {
        self.lines.get(name).copied()
    }

    /// The name of the file that has this digest, if exactly one line says so.
    pub fn only_name(&self, digest: Digest) -> Option<&str> {
        let mut named = self.lines.iter().filter(|(_, of)| **of == digest).map(|(name, _)| name);
        let name = named.next().filter(|name| !self.twice.contains(*name))?;
        named.next().is_none().then_some(name)
    }

    /// The version of which it names zips.
    pub fn version(&self) -> Option<Version> {
        let zips = self.lines.keys().filter_map(|name| name.parse::<ZipName>().ok());
        zips.map(|zip| zip.version).next()
    }

    /// How many bytes of memory it takes, about.
    pub fn weight(&self) -> u64 {
        const LINE_BYTES: usize = 128;
        let names: usize = self.lines.keys().map(|name| LINE_BYTES + name.len()).sum();
        (self.raw.len() + names) as u64
    }

    /// The zips that it names, in the order of their platforms.
    ///
    /// # Errors
    /// They are not those of one release.
    pub fn targets(&self) -> Result<Vec<Target>, ArtifactRefusal> {
        let mut by_platform: BTreeMap<Platform, (ZipName, &str, Digest)> = BTreeMap::new();
        for (name, digest) in &self.lines {
            let Ok(zip) = name.parse::<ZipName>() else { continue };
            let first = by_platform.first_key_value().map(|(_, (first, ..))| first);
            if let Some(first) = first
                && (&first.kind, &first.version) != (&zip.kind, &zip.version)
            {
                return refuse(format!(
                    "SHA256SUMS names zips of two releases, {} {} and {} {}",
                    first.kind, first.version, zip.kind, zip.version
                ));
            }
            by_platform.insert(zip.platform.clone(), (zip, name, *digest));
        }
        let target = |(platform, (_, name, digest)): (Platform, (ZipName, &str, Digest))| Target {
            platform,
            package: PackageEntry::Zip { name: name.to_owned(), digest },
        };
        Ok(by_platform.into_iter().map(target).collect())
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
        assert_eq!(sums.only_name(sums.of("y.zip").unwrap()), Some("y.zip"));
        assert_eq!(sums.only_name(sums.of("x.zip").unwrap()), None, "it stands twice");
        let shared = read(format!("{a}  x.zip\n{a}  z.zip\n")).unwrap();
        assert_eq!(shared.only_name(shared.of("z.zip").unwrap()), None, "of two names");
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

    #[test]
    fn its_zips_are_those_of_one_release() {
        let sum = "a".repeat(64);
        let targets = |names: &[&str]| {
            let text: String = names.iter().map(|name| format!("{sum}  {name}\n")).collect();
            let sums = ReleaseSums::parse(text.into_bytes()).unwrap();
            let platforms = |all: Vec<Target>| {
                all.iter().map(|target| target.platform.to_string()).collect::<Vec<_>>()
            };
            sums.targets().map(platforms).map_err(|e| e.to_string())
        };
        let (arm, amd) = (
            "terraform-provider-a_1.0.0_linux_arm64.zip",
            "terraform-provider-a_1.0.0_linux_amd64.zip",
        );
        let beside = ["terraform-provider-a_1.0.0_manifest.json", "notes.txt"];
        assert_eq!(
            targets(&[arm, beside[0], amd, beside[1]]).unwrap(),
            ["linux_amd64", "linux_arm64"]
        );
        assert_eq!(targets(&beside).unwrap(), Vec::<String>::new());
        for other in [
            "terraform-provider-a_1.0.1_linux_arm64.zip",
            "terraform-provider-b_1.0.0_linux_arm64.zip",
        ] {
            assert!(targets(&[amd, other]).unwrap_err().contains("two releases"), "{other}");
        }
    }
}
