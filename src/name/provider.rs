//! Provider addresses, versions, and the file names that are made of them, as OpenTofu spells them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::{COMPONENT_MAX, Host, NameError, Platform, Tag, refuse};

/// A provider: `HOST/NAMESPACE/TYPE`, the address by which configurations name it.
///
/// INVARIANT: each part can be a directory's name and is lower-case, and the host has no default
/// port (addresses are compared that way).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderAddr {
    /// The provider registry, which is no OCI registry: `registry.opentofu.org`.
    pub host: Host,
    namespace: String,
    kind: String,
}

impl ProviderAddr {
    /// The address of these three parts; `None` where one of them cannot be part of an address.
    pub fn new(host: Host, namespace: &str, kind: &str) -> Option<ProviderAddr> {
        let (namespace, kind) = (namespace.to_ascii_lowercase(), kind.to_ascii_lowercase());
        let host = host.as_str().to_ascii_lowercase();
        let host =
            host.strip_suffix(":443").and_then(|host| host.parse().ok()).unwrap_or(Host(host));
        (is_part(&namespace) && is_part(&kind)).then_some(ProviderAddr { host, namespace, kind })
    }

    /// Reads `[HOST/]NAMESPACE/TYPE`; without a host it is one of `default`.
    ///
    /// # Errors
    /// The text is no such address.
    pub fn parse(text: &str, default: &Host) -> Result<ProviderAddr, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let address = match parts[..] {
            [namespace, kind] => ProviderAddr::new(default.clone(), namespace, kind),
            [host, namespace, kind] => {
                host.parse().ok().and_then(|host| ProviderAddr::new(host, namespace, kind))
            }
            _ => None,
        };
        match address {
            Some(address) => Ok(address),
            None => refuse(text, "a provider ([HOST/]NAMESPACE/TYPE)"),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `TYPE`
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The name of a package in a packed mirror: `terraform-provider-TYPE_VERSION_OS_ARCH.zip`.
    pub fn zip_name(&self, version: &Version, platform: &Platform) -> String {
        release_file(&self.kind, version, &format!("{platform}.zip"))
    }

    /// The name of another file of a release: `terraform-provider-TYPE_VERSION_WHAT`.
    pub fn file_name(&self, version: &Version, what: &str) -> String {
        release_file(&self.kind, version, what)
    }
}

impl FromStr for ProviderAddr {
    type Err = NameError;

    /// Reads `HOST/NAMESPACE/TYPE`, as an address is printed.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/').map(|(host, rest)| (host.parse(), rest)) {
            Some((Ok(host), rest)) if !rest.is_empty() => ProviderAddr::parse(rest, &host),
            _ => refuse(text, "a provider (HOST/NAMESPACE/TYPE)"),
        }
    }
}

fn is_part(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=COMPONENT_MAX - 64).contains(&bytes.len())
        && bytes.iter().all(|&b| alnum(b) || b == b'-' || b == b'_')
        && alnum(bytes[0])
        && alnum(bytes[bytes.len() - 1])
}

impl fmt::Display for ProviderAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.host, self.namespace, self.kind)
    }
}

impl fmt::Debug for ProviderAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const ZIP_PREFIX: &str = "terraform-provider-";

fn release_file(kind: &str, version: &Version, what: &str) -> String {
    format!("{ZIP_PREFIX}{kind}_{version}_{what}")
}

/// What the name of a provider's zip says: `terraform-provider-TYPE_VERSION_OS_ARCH.zip`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ZipName {
    /// `TYPE`
    pub kind: String,
    pub version: Version,
    /// `OS_ARCH`
    pub platform: Platform,
}

impl ZipName {
    /// The name of the file that tells more of the same release:
    /// `terraform-provider-TYPE_VERSION_manifest.json`.
    pub fn manifest_name(&self) -> String {
        release_file(&self.kind, &self.version, "manifest.json")
    }
}

impl fmt::Display for ZipName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_file(&self.kind, &self.version, &format!("{}.zip", self.platform)))
    }
}

impl FromStr for ZipName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let read = || {
            let stem = text.strip_prefix(ZIP_PREFIX)?.strip_suffix(".zip")?;
            // A type may hold underscores, the other parts cannot.
            let mut parts = stem.rsplitn(4, '_');
            let (arch, os, version, kind) =
                (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let name = ZipName {
                kind: kind.to_owned(),
                version: version.parse().ok()?,
                platform: Platform::new(os, arch)?,
            };
            is_part(kind).then_some(name)
        };
        match read() {
            Some(name) => Ok(name),
            None => refuse(text, "a provider's zip (terraform-provider-TYPE_VERSION_OS_ARCH.zip)"),
        }
    }
}

/// The version of a release in its canonical form: `MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]`
/// (Semantic Versioning 2.0.0).
///
/// Ordered by precedence; versions that differ in their build alone by that.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

impl Version {
    /// `MAJOR`, `MINOR`, `PATCH`.
    pub fn numbers(&self) -> [u64; 3] {
        [self.0.major, self.0.minor, self.0.patch]
    }

    /// `PRERELEASE`, empty if there is none.
    pub fn prerelease(&self) -> &str {
        self.0.pre.as_str()
    }

    /// `BUILD`, empty if there is none.
    pub fn build(&self) -> &str {
        self.0.build.as_str()
    }

    /// By precedence alone: versions that differ in their build are equal.
    pub fn cmp_precedence(&self, other: &Version) -> Ordering {
        self.0.cmp_precedence(&other.0)
    }

    /// The version for which a tag stands: `_` is `+`, which no tag can hold. `None` if it is none
    /// in canonical form.
    pub fn of_tag(tag: &Tag) -> Option<Version> {
        if tag.as_str().contains('+') {
            return None;
        }
        tag.as_str().replacen('_', "+", 1).parse().ok()
    }

    /// The tag of this version. `None` if it is too long for one.
    pub fn tag(&self) -> Option<Tag> {
        self.to_string().replace('+', "_").parse().ok()
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(version) => Ok(Version(version)),
            Err(_) => refuse(text, "a version (MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD])"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_canonical_or_none() {
        for text in ["0.0.0", "1.2.3", "1.0.0-rc1", "1.0.0-RC.1+b1", "1.0.0+b-1.2", "10.20.30-0a"] {
            assert_eq!(version(text).to_string(), text);
        }
        for text in [
            "", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.03", "1.2.3-", "1.2.3+",
            "1.2.3-01", "1.2.x",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert!("99999999999999999999.0.0".parse::<Version>().is_err());
    }

    #[test]
    fn versions_are_ordered_by_precedence() {
        let order = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+b1",
            "1.0.1",
            "1.10.0",
        ];
        assert!(order.windows(2).all(|pair| version(pair[0]) < version(pair[1])));
    }

    #[test]
    fn a_tag_spells_plus_as_an_underscore() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        assert_eq!(Version::of_tag(&tag("1.0.0_b1")), Some(version("1.0.0+b1")));
        assert_eq!(version("1.0.0+b1").tag(), Some(tag("1.0.0_b1")));
        for text in ["latest", "v1.0.0", "1.2", "1.0.0_b_1", "sha256-abc"] {
            assert_eq!(Version::of_tag(&tag(text)), None, "{text}");
        }
    }

    #[test]
    fn an_address_has_a_host_or_the_default_one() {
        let default = "registry.opentofu.org".parse().unwrap();
        let parse = |text| ProviderAddr::parse(text, &default).map(|a| a.to_string());
        assert_eq!(parse("Hashicorp/aws").unwrap(), "registry.opentofu.org/hashicorp/aws");
        assert_eq!(parse("Reg.Example:443/a/b").unwrap(), "reg.example/a/b");
        assert_eq!(parse("localhost:8443/acme/demo_x").unwrap(), "localhost:8443/acme/demo_x");
        for text in ["aws", "a/b/c/d", "x.y/a/", "nohost/a/b", "x.y/-a/b", "x.y/a b/c", "x.y/../c"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_zip_is_read_as_it_is_written() {
        let address = ProviderAddr::new("a.b".parse().unwrap(), "n", "my_type").unwrap();
        let platform = "linux_amd64".parse::<Platform>().unwrap();
        let name = address.zip_name(&version("1.0.0-rc1+b"), &platform);
        assert_eq!(name, "terraform-provider-my_type_1.0.0-rc1+b_linux_amd64.zip");
        let read: ZipName = name.parse().unwrap();
        assert_eq!(
            (read.kind.as_str(), read.version, read.platform),
            ("my_type", version("1.0.0-rc1+b"), platform)
        );
        for text in [
            "terraform-provider-x_1.0_linux_amd64.zip",
            "terraform-provider-x_linux_amd64.zip",
            "x.zip",
        ] {
            assert!(text.parse::<ZipName>().is_err(), "{text}");
        }
    }
}
