//! A private certificate authority and a certificate of its making.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority, and a certificate that it has signed; all as PEM.
pub struct Tls {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

impl Tls {
    /// A sound one for this machine.
    pub fn new() -> Tls {
        Tls::with(&["localhost", "127.0.0.1"], 2100)
    }

    /// A certificate for `names` that is good until the first day of the year `until`.
    pub fn with(names: &[&str], until: i32) -> Tls {
        let mut params = CertificateParams::default();
        let name = format!("the test's own authority for {names:?} until {until}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca_key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&ca_key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("names");
        leaf.not_before = rcgen::date_time_ymd(2000, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate =
            leaf.signed_by(&key, &Issuer::new(params, ca_key)).expect("a certificate");
        Tls { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes `ca.pem`, `server.pem` and `server.key` into `dir`; returns their paths in this
    /// order.
    pub fn write(&self, dir: &Path) -> [PathBuf; 3] {
        [("ca.pem", &self.ca), ("server.pem", &self.certificate), ("server.key", &self.key)].map(
            |(name, text)| {
                let path = dir.join(name);
                std::fs::write(&path, text).expect("a writable directory");
                path
            },
        )
    }

    /// What a server needs to speak as this certificate.
    pub fn server(&self) -> rustls::ServerConfig {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain =
            vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM of ours")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM of ours");
        rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key")
    }
}
