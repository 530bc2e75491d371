//! The certificate authorities that are trusted: those of the system, or of the files that the
//! environment names, and those of files that the user names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::{Failure, Refusal};
use crate::input::{self, InputError};

/// The largest file of certificates that is read, in bytes.
const FILE_MAX: u64 = 16 << 20;
/// The variables that take the place of the system's authorities: a file, and directories joined as
/// in `PATH`.
const CERT_FILE: &str = "SSL_CERT_FILE";
const CERT_DIR: &str = "SSL_CERT_DIR";

/// The certificate authorities of the system.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Authorities {
    /// How many can be used.
    pub usable: usize,
    /// What could not be read, and why.
    pub errors: Vec<String>,
}

impl Authorities {
    /// The files and directories that the environment names in the place of the
    /// system's.
    pub fn of_environment() -> Vec<PathBuf> {
        let file = std::env::var_os(CERT_FILE).map(PathBuf::from);
        let dirs = std::env::var_os(CERT_DIR).unwrap_or_default();
        let named = file.into_iter().chain(std::env::split_paths(&dirs));
        named.filter(|path| !path.as_os_str().is_empty()).collect()
    }

    /// Those that a [`Transport`](super::Transport) would trust now, beside files that it is told
    /// of.
    pub fn of_system() -> Authorities {
        let system = match Certificates::of_system() {
            Ok(system) => system,
            Err(e) => return Authorities { usable: 0, errors: vec![e.to_string()] },
        };
        let (usable, _) = RootCertStore::empty().add_parsable_certificates(system.certificates);
        Authorities { usable, errors: system.errors }
    }

    /// Whether the files that the user names can be used.
    ///
    /// # Errors
    /// `Io`: the first of them that cannot.
    pub fn check(files: &[PathBuf]) -> Result<(), Refusal> {
        files.iter().try_for_each(|file| add_authorities(&mut RootCertStore::empty(), file))
    }
}

/// Certificates, and what could not be read of those that were wanted.
#[derive(Default)]
struct Certificates {
    certificates: Vec<CertificateDer<'static>>,
    errors: Vec<String>,
}

impl Certificates {
    fn of_system() -> Result<Certificates, Refusal> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let (file, dirs) = (named(CERT_FILE), named(CERT_DIR));
        if file.is_none() && dirs.is_none() {
            let system = rustls_native_certs::load_native_certs();
            let errors = system.errors.iter().map(ToString::to_string).collect();
            return Ok(Certificates { certificates: system.certs, errors });
        }
        let mut found = Certificates::default();
        if let Some(file) = file {
            found.of_variable(Path::new(&file))?;
        }
        for dir in std::env::split_paths(&dirs.unwrap_or_default())
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            found.of_directory(&dir);
        }
        Ok(found)
    }

    /// The file that the variable names. One that is missing, as a variable often outlives its
    /// file, is told and no more.
    fn of_variable(&mut self, file: &Path) -> Result<(), Refusal> {
        match input::read(file, FILE_MAX) {
            Ok(pem) => self.add(file, &pem),
            Err(e @ InputError::System(_)) => self.errors.push(format!("{}: {e}", file.display())),
            Err(e) => {
                let rule = format!("cannot be read: {e}");
                let remedy = format!("correct {CERT_FILE}, which names it");
                return Err(Refusal::new(Failure::Io, file, rule).remedy(remedy));
            }
        }
        Ok(())
    }

    /// The files of a directory, each once. What else lies there is passed over.
    fn of_directory(&mut self, dir: &Path) {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => return self.errors.push(format!("{}: {e}", dir.display())),
        };
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for file in names.iter().map(|name| dir.join(name)) {
            match input::read(&file, FILE_MAX) {
                Ok(pem) => self.add(&file, &pem),
                Err(InputError::Kind(_)) => {}
                Err(e) if e.is_absence() => {}
                Err(e) => self.errors.push(format!("{}: {e}", file.display())),
            }
        }
        self.certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        self.certificates.dedup();
    }

    fn add(&mut self, file: &Path, pem: &[u8]) {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            match certificate {
                Ok(certificate) => self.certificates.push(certificate),
                Err(e) => self.errors.push(format!("{}: {e}", file.display())),
            }
        }
    }
}

/// This machine's clock, by which certificates are good or not. It tells no time before 1970, as the
/// library has none for that.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.ok().map(UnixTime::since_unix_epoch)
    }
}

/// How TLS is spoken: who is trusted, and which protocols are offered.
pub(super) fn tls(ca_files: &[PathBuf]) -> Result<ClientConfig, Refusal> {
    let mut roots = RootCertStore::empty();
    let system = Certificates::of_system()?;
    for error in &system.errors {
        tracing::warn!(%error, "certificate authorities of the system");
    }
    roots.add_parsable_certificates(system.certificates);
    for file in ca_files {
        add_authorities(&mut roots, file)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .map_err(|e| Refusal::new(Failure::Io, "TLS", format!("cannot be set up: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), Refusal> {
    let refused = |rule: String| {
        Refusal::new(Failure::Io, file, rule).remedy("--ca-file takes a file of PEM certificates")
    };
    let pem = input::read(file, FILE_MAX).map_err(|e| refused(format!("cannot be read: {e}")))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refused(format!("is not PEM: {e}")))?;
    if certificates.is_empty() {
        let key = PrivateKeyDer::pem_slice_iter(&pem).any(|key| key.is_ok());
        let beside = if key { ", but a private key, which nobody should be given" } else { "" };
        return Err(refused(format!("holds no certificate{beside}")));
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|e| refused(format!("holds an unusable certificate: {e}")))?;
    }
    Ok(())
}
