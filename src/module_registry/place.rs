//! Where a module lies, as registries write it: the addresses of `go-getter`, as far as they are
//! taken.

use url::Url;

/// How an archive is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveKind {
    /// A zip.
    Zip,
    /// A tar, compressed by gzip.
    TarGz,
}

/// A repository of git.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GitPlace {
    /// By https or ssh.
    pub url: String,
    /// A branch, a tag or a commit; its default branch if there is none.
    pub reference: Option<String>,
}

/// Where a module lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModulePlace {
    /// In an archive.
    Archive {
        /// Which one.
        url: Url,
        /// How it is packed.
        kind: ArchiveKind,
        /// The directory in it; a name of `*` alone is the one that is there.
        subdirectory: String,
    },
    /// In a repository of git.
    Git {
        /// Which one.
        place: GitPlace,
        /// The directory in it.
        subdirectory: String,
    },
}

impl ModulePlace {
    /// Reads an address that the answer from `from` holds.
    ///
    /// # Errors
    /// The rule by which it is not taken.
    pub fn parse(text: &str, from: &Url) -> Result<ModulePlace, String> {
        if let Some(rest) = text.strip_prefix("git::") {
            return git(rest);
        }
        let not_taken = || {
            format!(
                "it lies at {:?}, and modules are taken from zip and tar.gz archives over https \
                 and from git:: over https or ssh",
                Url::parse(text).map_or(text.to_owned(), |url| without_query(&url))
            )
        };
        let is_relative = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        let (address, subdirectory) = split(text);
        let url = if is_relative { from.join(&address) } else { Url::parse(&address) };
        let mut url = url.map_err(|_| not_taken())?;
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(not_taken());
        }
        let named = url
            .query_pairs()
            .find(|(key, _)| key == "archive")
            .map(|(_, value)| value.into_owned());
        let kind = match named.as_deref() {
            Some("zip") => Some(ArchiveKind::Zip),
            Some("tar.gz" | "tgz") => Some(ArchiveKind::TarGz),
            Some(_) => None,
            None if url.path().ends_with(".zip") => Some(ArchiveKind::Zip),
            None if url.path().ends_with(".tar.gz") || url.path().ends_with(".tgz") => {
                Some(ArchiveKind::TarGz)
            }
            None => None,
        };
        let kind = kind.ok_or_else(not_taken)?;
        if named.is_some() {
            without(&mut url, "archive");
        }
        Ok(ModulePlace::Archive { url, kind, subdirectory: plain(&subdirectory)? })
    }
}

/// An address without what may be secret in it.
pub fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn git(rest: &str) -> Result<ModulePlace, String> {
    let (address, subdirectory) = split(rest);
    let refuse = || {
        Err(format!(
            "it lies in a repository of git at {rest:?}, and those are read over https and ssh \
             alone"
        ))
    };
    // What git takes for a host and a path: git@HOST:PATH.
    let is_short = !address.contains("://")
        && address.split_once(':').is_some_and(|(host, _)| {
            host.contains('@') && !host.contains('/') && !host.starts_with('-')
        });
    let (plain_address, query) = address.split_once('?').unwrap_or((&address, ""));
    let is_taken = is_short
        || Url::parse(plain_address)
            .is_ok_and(|url| matches!(url.scheme(), "https" | "ssh") && url.has_host());
    if !is_taken {
        return refuse();
    }
    let reference = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "ref")
        .map(|(_, value)| value.into_owned());
    if reference.as_ref().is_some_and(|text| text.is_empty() || text.starts_with('-')) {
        return refuse();
    }
    let place = GitPlace { url: plain_address.to_owned(), reference };
    Ok(ModulePlace::Git { place, subdirectory: plain(&subdirectory)? })
}

/// An address, and the directory behind its `//`.
fn split(text: &str) -> (String, String) {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (before_query, query) = match text.split_once('?') {
        Some((before, query)) => (before, format!("?{query}")),
        None => (text, String::new()),
    };
    match before_query.get(start..).and_then(|path| path.find("//")) {
        Some(at) => {
            let (address, directory) = before_query.split_at(start + at);
            (format!("{address}{query}"), directory[2..].to_owned())
        }
        None => (text.to_owned(), String::new()),
    }
}

/// A directory that does not lead outside.
fn plain(directory: &str) -> Result<String, String> {
    let names: Vec<&str> =
        directory.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") {
        return Err(format!("the directory {directory:?} leads outside of it"));
    }
    Ok(names.join("/"))
}

fn without(url: &mut Url, key: &str) {
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != key)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModulePlace, String> {
        ModulePlace::parse(
            text,
            &Url::parse("https://r.example/v1/modules/a/b/c/1/download").unwrap(),
        )
    }

    #[test]
    fn archives_are_known_by_their_names() {
        for (text, address, kind, directory) in [
            ("https://x.example/m.zip", "https://x.example/m.zip", ArchiveKind::Zip, ""),
            ("https://x.example/m.tgz//a/b", "https://x.example/m.tgz", ArchiveKind::TarGz, "a/b"),
            (
                "https://x.example/tarball/v1//*?archive=tar.gz",
                "https://x.example/tarball/v1",
                ArchiveKind::TarGz,
                "*",
            ),
            (
                "https://x.example/d?archive=zip&t=1",
                "https://x.example/d?t=1",
                ArchiveKind::Zip,
                "",
            ),
            ("/m.tar.gz", "https://r.example/m.tar.gz", ArchiveKind::TarGz, ""),
            ("./m.zip", "https://r.example/v1/modules/a/b/c/1/m.zip", ArchiveKind::Zip, ""),
        ] {
            let url = Url::parse(address).unwrap();
            let wanted = ModulePlace::Archive { url, kind, subdirectory: directory.to_owned() };
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn repositories_of_git_are_reached_over_https_and_ssh() {
        for (text, url, reference, directory) in [
            ("git::https://x.example/m.git?ref=v1", "https://x.example/m.git", Some("v1"), ""),
            ("git::https://x.example/m//sub?ref=v1", "https://x.example/m", Some("v1"), "sub"),
            ("git::ssh://git@x.example/m.git", "ssh://git@x.example/m.git", None, ""),
            ("git::git@x.example:a/m.git", "git@x.example:a/m.git", None, ""),
        ] {
            let reference = reference.map(str::to_owned);
            let place = GitPlace { url: url.to_owned(), reference };
            let wanted = ModulePlace::Git { place, subdirectory: directory.to_owned() };
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_taken() {
        for bad in [
            "",
            "https://x.example/m",
            "http://x.example/m.zip",
            "https://user:secret@x.example/m.zip",
            "https://x.example/m.tar.xz",
            "https://x.example/m.zip?archive=false",
            "https://x.example/m.zip//../../etc",
            "file:///srv/m.zip",
            "git::file:///srv/m",
            "git::/srv/m",
            "git::http://x.example/m",
            "git::ext::sh -c x",
            "git::https://x.example/m?ref=--upload-pack=x",
            "git::-oProxyCommand=x@y:z",
            "s3::https://s3.example/m.zip",
            "hg::https://x.example/m",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let said = parse("https://x.example/m?token=secret").unwrap_err();
        assert!(!said.contains("secret"), "{said}");
    }
}
