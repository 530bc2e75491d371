//! Source addresses of modules: which of them name something that can be carried.

use std::path::PathBuf;

use crate::name::{Address, AddressError, Reference};

/// Where a module's source points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ModuleSource {
    /// `./…` or `../…`: relative to the module that calls.
    Relative(PathBuf),
    /// An absolute path, `//` taken as `/`.
    Absolute(PathBuf),
    /// `oci://…`: the release, and the directory in it.
    Release(Reference, PathBuf),
    /// Something else; why it is not carried.
    Other(String),
}

impl ModuleSource {
    /// Reads an address by OpenTofu's rules.
    pub(super) fn parse(text: &str) -> ModuleSource {
        let text = text.trim();
        if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
            return ModuleSource::Relative(PathBuf::from(text));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return ModuleSource::Absolute(PathBuf::from(path));
        }
        if text.starts_with('/') {
            return ModuleSource::Absolute(PathBuf::from(text));
        }
        if !text.starts_with("oci://") {
            let why = "modules are carried from paths below a mount and from oci:// addresses";
            return ModuleSource::Other(why.to_owned());
        }
        match release(text) {
            Ok((release, dir)) => ModuleSource::Release(release, dir),
            Err(e) => ModuleSource::Other(e.to_string()),
        }
    }
}

/// The release that an `oci://` address names, and the directory in it.
fn release(address: &str) -> Result<(Reference, PathBuf), AddressError> {
    let (address, dir) = address.parse::<Address>()?.without_dir();
    Ok((address.release()?, PathBuf::from(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_opentofu_reads_them() {
        let release = |text: &str| match ModuleSource::parse(text) {
            ModuleSource::Release(reference, dir) => format!("{reference} {}", dir.display()),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(release("oci://a.b/c/d?tag=1.0"), "a.b/c/d:1.0 ");
        assert_eq!(release("oci://a.b:5/c//sub/x"), "a.b:5/c:latest sub/x");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            release(&format!("oci://a.b/c//s?digest={digest}")),
            format!("a.b/c@{digest} s")
        );
        for bad in
            ["oci://a.b", "oci://a.b/c?tag=1&digest=x", "oci://a.b/c?archive=zip", "oci://a.b/c:1"]
        {
            assert!(matches!(ModuleSource::parse(bad), ModuleSource::Other(_)), "{bad}");
        }
        assert_eq!(ModuleSource::parse("../a//b"), ModuleSource::Relative("../a/b".into()));
        assert_eq!(ModuleSource::parse("/mnt/x//b"), ModuleSource::Absolute("/mnt/x/b".into()));
        assert_eq!(ModuleSource::parse("file:///mnt/x"), ModuleSource::Absolute("/mnt/x".into()));
        for other in ["hashicorp/consul/aws", "git::https://x.example/y.git", "github.com/a/b", "x"]
        {
            assert!(matches!(ModuleSource::parse(other), ModuleSource::Other(_)), "{other}");
        }
    }
}
