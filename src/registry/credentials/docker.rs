//! Docker-style configuration files (`config.json`, `auth.json`), read as OpenTofu reads them.
//!
//! Nothing here prints the content of a file: errors name lines and keys only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::{Credential, Secret};
use crate::input;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// The parts of a file that hold credentials.
#[derive(Default)]
pub struct DockerFile {
    /// By key, credentials.
    pub auths: Vec<(String, AuthEntry)>,
    /// By domain, the credential helper to ask.
    pub cred_helpers: BTreeMap<String, String>,
    /// The credential helper for every registry.
    pub creds_store: Option<String>,
}

/// One entry of `auths`.
pub struct AuthEntry {
    /// What `auth` holds: `user:password`. `None` where it is missing or empty.
    pub basic: Option<Result<Credential, &'static str>>,
    /// `identitytoken`, unless empty.
    pub identity_token: Option<Secret>,
    /// `username` and `password`, which some programs write in place of `auth`.
    pub plain: Option<Credential>,
}

#[derive(Deserialize)]
struct RawFile {
    auths: Option<BTreeMap<String, Option<RawAuth>>>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct RawAuth {
    #[serde(default, deserialize_with = "from_base64")]
    auth: Zeroizing<Vec<u8>>,
    identitytoken: Option<serde_json::Value>,
    username: Option<serde_json::Value>,
    password: Option<serde_json::Value>,
}

/// Standard base64 with padding; line breaks in it do not count. A text that is none makes the
/// whole file invalid, as it does for OpenTofu.
fn from_base64<'de, D: Deserializer<'de>>(input: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    let text = Zeroizing::new(Option::<String>::deserialize(input)?.unwrap_or_default());
    let packed: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect());
    let bytes = STANDARD.decode(packed.as_slice());
    bytes.map(Zeroizing::new).map_err(|_| serde::de::Error::custom("not base64"))
}

impl DockerFile {
    /// Reads a file's content. The error is a reason, without any of the content.
    pub fn parse(bytes: &[u8]) -> Result<DockerFile, String> {
        let raw: Option<RawFile> = serde_json::from_slice(bytes).map_err(|error| {
            let rule = if error.is_data() {
                "auths, credHelpers and credsStore must have the types that Docker gives them, and \
                 auth must be base64"
            } else {
                "it is not valid JSON"
            };
            format!("{rule} (line {}, column {})", error.line(), error.column())
        })?;
        let Some(raw) = raw else { return Ok(DockerFile::default()) };
        let auths = raw.auths.unwrap_or_default().into_iter();
        let helpers = raw.cred_helpers.unwrap_or_default().into_iter();
        Ok(DockerFile {
            auths: auths.filter_map(|(key, auth)| Some((key, AuthEntry::new(auth?)))).collect(),
            cred_helpers: helpers
                .filter_map(|(domain, name)| Some((domain, name.filter(|n| !n.is_empty())?)))
                .collect(),
            creds_store: raw.creds_store.filter(|name| !name.is_empty()),
        })
    }
}

impl AuthEntry {
    fn new(raw: RawAuth) -> AuthEntry {
        let basic = (!raw.auth.is_empty()).then(|| {
            let text = std::str::from_utf8(&raw.auth).map_err(|_| "its auth is not UTF-8 text")?;
            let (username, password) =
                text.split_once(':').ok_or("its auth does not hold user:password")?;
            Ok(Credential::Basic {
                username: username.to_owned(),
                password: Secret::new(password.to_owned()),
            })
        });
        let identity_token = text(raw.identitytoken).map(Secret::new);
        let plain = text(raw.username).zip(text(raw.password));
        let plain = plain.map(|(username, password)| Credential::Basic {
            username,
            password: Secret::new(password),
        });
        AuthEntry { basic, identity_token, plain }
    }
}

/// A text that is not empty. Other types are passed over: OpenTofu does not look at these members.
fn text(value: Option<serde_json::Value>) -> Option<String> {
    match value {
        Some(serde_json::Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Which Docker-style files are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DockerFiles {
    /// Those at the usual places. A missing file is skipped; one that is there and cannot be used
    /// takes all others with it, with a warning (OpenTofu's rule).
    Ambient(Vec<PathBuf>),
    /// Those that the user listed, possibly none. Each must be usable.
    Listed(Vec<PathBuf>),
}

impl Default for DockerFiles {
    fn default() -> Self {
        DockerFiles::Listed(Vec::new())
    }
}

/// What tells one state of a file from another: time of change (seconds, nanoseconds), modification
/// likewise, size, inode and device.
type ConfigStamp = (i64, i64, i64, i64, u64, u64, u64);

type Parsed = Arc<Result<DockerFile, String>>;

/// A file that was read, and its name.
pub type NamedFile = (PathBuf, Parsed);

/// What one look at all files gave.
pub struct ConfigReading {
    /// The files in order, or which one failed and why.
    pub files: Result<Vec<NamedFile>, (PathBuf, String)>,
    /// For the log; none is given twice while nothing changes.
    pub warnings: Vec<String>,
}

/// The configured files and what they held when they were last read.
#[derive(Default)]
pub struct DockerStore {
    files: DockerFiles,
    seen: Mutex<Seen>,
    dropped: Mutex<Option<String>>,
}

#[derive(Default)]
struct Seen {
    parsed: HashMap<PathBuf, (ConfigStamp, Parsed)>,
    open_to_others: HashSet<PathBuf>,
}

impl DockerStore {
    /// A store of these files; none is read yet.
    pub fn new(files: DockerFiles) -> DockerStore {
        DockerStore { files, seen: Mutex::default(), dropped: Mutex::default() }
    }

    /// Why all files were dropped when they were read last, if they were. Does not wait for the
    /// disk.
    pub fn dropped(&self) -> Option<String> {
        self.dropped.lock().clone()
    }

    /// All files as they are now; those that did not change are not read again. Blocks on the disk.
    pub fn read(&self) -> ConfigReading {
        let (paths, ambient) = match &self.files {
            DockerFiles::Ambient(paths) => (paths, true),
            DockerFiles::Listed(paths) => (paths, false),
        };
        let mut seen = self.seen.lock();
        let mut files: Vec<NamedFile> = Vec::new();
        let mut warnings = Vec::new();
        let mut failed = None;
        for path in paths {
            if files.last().is_some_and(|(last, _)| last == path) {
                continue;
            }
            match seen.file(path, &mut warnings) {
                Ok(Some(parsed)) => match parsed.as_ref() {
                    Ok(_) => files.push((path.clone(), parsed)),
                    Err(reason) => failed = failed.or(Some((path.clone(), reason.clone()))),
                },
                Ok(None) if ambient => {}
                Ok(None) => {
                    failed = failed.or(Some((path.clone(), "it does not exist".to_owned())))
                }
                Err(reason) => failed = failed.or(Some((path.clone(), reason))),
            }
        }
        let files = match failed {
            Some((path, reason)) if ambient => {
                let warning = format!(
                    "no Docker-style configuration file is used for credentials, because {} \
                     cannot be: {reason}; repair or remove it",
                    path.display()
                );
                let mut dropped = self.dropped.lock();
                if dropped.as_ref() != Some(&warning) {
                    *dropped = Some(warning.clone());
                    warnings.push(warning);
                }
                Ok(Vec::new())
            }
            Some(failed) => Err(failed),
            None => {
                *self.dropped.lock() = None;
                Ok(files)
            }
        };
        ConfigReading { files, warnings }
    }
}

impl Seen {
    /// One file, `None` if there is none; the error is why it cannot be read.
    fn file(&mut self, path: &Path, warnings: &mut Vec<String>) -> Result<Option<Parsed>, String> {
        let file = match input::open(path) {
            Ok(file) => file,
            Err(e) if e.is_absence() => {
                self.parsed.remove(path);
                return Ok(None);
            }
            Err(e) => return Err(e.to_string()),
        };
        let meta = file.metadata().map_err(|e| e.to_string())?;
        let stamp = (
            meta.ctime(),
            meta.ctime_nsec(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.size(),
            meta.ino(),
            meta.dev(),
        );
        if meta.mode() & 0o077 != 0 && self.open_to_others.insert(path.to_owned()) {
            warnings.push(format!(
                "{} may hold credentials and other users can open it (mode {:04o}); run chmod 600 \
                 on it",
                path.display(),
                meta.mode() & 0o7777
            ));
        }
        if let Some((known, parsed)) = self.parsed.get(path)
            && *known == stamp
        {
            return Ok(Some(parsed.clone()));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        input::append_from(file, FILE_MAX, &mut bytes).map_err(|e| e.to_string())?;
        let parsed = Arc::new(DockerFile::parse(&bytes));
        self.parsed.insert(path.to_owned(), (stamp, parsed.clone()));
        Ok(Some(parsed))
    }
}
