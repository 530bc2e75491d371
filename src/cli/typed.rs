//! What is typed where releases come from or go to: a store on disk, an archive, or an address.
//! Read in one way for all commands, so that no address is taken for a directory and no directory
//! for an address.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::directories::absolute;
use super::output::{CommandError, shell_word};
use crate::name::{Address, AddressError, Host, Reference};

/// A place, as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Typed {
    /// `oci:DIR`, with whatever follows the directory's name.
    Layouts(PathBuf),
    /// `oci-archive:FILE`
    Archive(PathBuf),
    /// Something in a registry.
    Address(Address),
}

const SLASHES: &str =
    "oci:// is for addresses of registries, and a path follows oci: or oci-archive: at once";
const PATH: &str =
    "a path on disk is written with oci: before a store, and oci-archive: before an archive";

impl Typed {
    /// Reads a place; a relative path is one below `base`.
    ///
    /// # Errors
    /// It is none; where it is plain what was meant, the error holds the argument to write instead.
    pub fn parse(text: &OsStr, base: &Path) -> Result<Typed, AddressError> {
        let path = |bytes: &[u8]| absolute(Path::new(OsStr::from_bytes(bytes)), base);
        let refuse = |rule: &dyn fmt::Display, instead| {
            Err(AddressError::new(&text.to_string_lossy(), rule, instead))
        };
        if let Some(file) = text.as_bytes().strip_prefix(b"oci-archive:") {
            return match file {
                b"" => refuse(&"the file of the archive is missing; write oci-archive:FILE", None),
                file if file.starts_with(b"//") => {
                    refuse(&SLASHES, Some(path_word("oci-archive:", &file[2..])))
                }
                file => Ok(Typed::Archive(path(file))),
            };
        }
        if let Some(dir) =
            text.as_bytes().strip_prefix(b"oci:").filter(|dir| !dir.starts_with(b"//"))
        {
            return match dir {
                b"" => refuse(&"the directory of the store is missing; write oci:DIR", None),
                dir => Ok(Typed::Layouts(path(dir))),
            };
        }
        if let Some(dir) =
            text.as_bytes().strip_prefix(b"oci://").filter(|dir| looks_like_path(dir))
        {
            return refuse(&SLASHES, Some(path_word("oci:", dir)));
        }
        let as_path =
            |rule| refuse(&rule, Some(path_word(scheme(&path(text.as_bytes())), text.as_bytes())));
        if looks_like_path(text.as_bytes()) {
            return as_path(PATH);
        }
        let Some(address) = text.to_str() else { return refuse(&"this is no text in UTF-8", None) };
        let on_disk = path(text.as_bytes());
        match address.parse::<Address>() {
            Ok(address) if address.is_host() && is_store_or_archive(&on_disk) => {
                as_path("there is a store or an archive of this name here")
            }
            Ok(address) => Ok(Typed::Address(address)),
            Err(_) if !address.is_empty() && on_disk.exists() => as_path(PATH),
            Err(e) => Err(e),
        }
    }
}

/// Whether it begins as a path does, and as no registry's name can.
fn looks_like_path(text: &[u8]) -> bool {
    [&b"/"[..], b"./", b"../", b"~"].iter().any(|start| text.starts_with(start))
        || text == b"."
        || text == b".."
}

/// One release of a registry, as it was typed.
///
/// # Errors
/// It is none: a usage error.
pub fn release(text: &OsStr, base: &Path) -> Result<Reference, CommandError> {
    match Typed::parse(text, base).map_err(CommandError::usage)? {
        Typed::Address(address) => address.release().map_err(CommandError::usage),
        Typed::Layouts(_) | Typed::Archive(_) => Err(CommandError::usage(format_args!(
            "{}: a release of a registry is wanted: HOST/NAME:TAG or HOST/NAME@DIGEST",
            text.to_string_lossy().escape_debug()
        ))),
    }
}

/// How a path of this kind is written: by what it is, else by its name.
fn scheme(path: &Path) -> &'static str {
    let named = path.extension().is_some_and(|extension| extension == "tar");
    if path.is_file() || (named && !path.is_dir()) { "oci-archive:" } else { "oci:" }
}

fn path_word(scheme: &str, path: &[u8]) -> String {
    shell_word(&format!("{scheme}{}", String::from_utf8_lossy(path)))
}

/// Whether a registry's name is that of an archive or of a store too. A directory of a store has a
/// registry's name, and holds none.
fn is_store_or_archive(path: &Path) -> bool {
    let is_host = |name: &OsStr| name.to_str().is_some_and(|name| name.parse::<Host>().is_ok());
    path.is_file()
        || path.read_dir().is_ok_and(|dir| dir.flatten().any(|entry| is_host(&entry.file_name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_path_is_taken_for_no_address_and_an_address_for_no_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("my.store/ghcr.io/acme")).unwrap();
        fs::create_dir_all(dir.path().join("ghcr.io/acme")).unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("bundle.tar"), "").unwrap();
        let parse = |text: &str| Typed::parse(OsStr::new(text), dir.path());
        for (text, wanted) in [
            ("oci:x", Typed::Layouts(dir.path().join("x"))),
            ("oci:/x", Typed::Layouts("/x".into())),
            ("oci-archive:x.tar", Typed::Archive(dir.path().join("x.tar"))),
            // A directory of this name lies here, as in a store.
            ("ghcr.io", Typed::Address("ghcr.io".parse().unwrap())),
            ("my.other", Typed::Address("my.other".parse().unwrap())),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&wanted), "{text}");
        }
        for (text, instead) in [
            ("oci:///srv/my store", "'oci:/srv/my store'"),
            ("oci://./store", "oci:./store"),
            ("oci-archive:///b.tar", "oci-archive:/b.tar"),
            ("oci-archive://b.tar", "oci-archive:b.tar"),
            ("./store/ghcr.io/acme/n:1", "oci:./store/ghcr.io/acme/n:1"),
            ("/srv/new.tar", "oci-archive:/srv/new.tar"),
            ("./bundle.tar", "oci-archive:./bundle.tar"),
            ("store", "oci:store"),
            ("store/", "oci:store/"),
            ("my.store", "oci:my.store"),
            ("bundle.tar", "oci-archive:bundle.tar"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("; write {instead}")), "{text}: {error}");
        }
        for bad in ["", "nothing", "oci:", "oci-archive:"] {
            let error = parse(bad).unwrap_err().wanted("SOURCE").to_string();
            assert!(error.ends_with("; SOURCE"), "no other spelling is known: {error}");
        }
    }
}
