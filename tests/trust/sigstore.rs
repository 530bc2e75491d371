//! An instance of Sigstore without a server: an authority, a log of certificates, a log of
//! signatures with one leaf, and timestamps by `openssl ts`.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use serde_json::Value;
use tofufs::trust::statement::Statement;

use crate::*;

pub const ISSUER: &str = "https://token.actions.githubusercontent.com";
pub const IDENTITY: &str = "https://github.com/acme/net/.github/workflows/release.yml@refs/tags/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const FULCIO: [u64; 8] = [1, 3, 6, 1, 4, 1, 57264, 1];
const SCT: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
const MINUTES: u64 = 10 * 60;

pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A key over P-256: of a log, of a signer.
pub struct Keys {
    pair: KeyPair,
    signing: SigningKey,
}

impl Keys {
    pub fn new() -> Keys {
        Keys::of(KeyPair::generate().unwrap())
    }

    fn of(pair: KeyPair) -> Keys {
        let signing = SigningKey::from_pem(&pair.serialize_pem()).unwrap();
        Keys { pair, signing }
    }

    /// As SubjectPublicKeyInfo.
    fn der(&self) -> Vec<u8> {
        let pem = self.pair.public_key_pem();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).unwrap()
    }

    fn id(&self) -> Vec<u8> {
        Digest::of(&self.der()).bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).unwrap()
    }
}

/// What an instance has. Which of it a root names is said by `Instance::root`.
pub struct Instance {
    dir: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
    authority_certificate: Vec<u8>,
    pub log: Keys,
    pub certificate_log: Keys,
    stamping: KeyPair,
    stamping_certificate: Vec<u8>,
}

/// Who signs what, and when.
#[derive(Clone)]
pub struct Signing {
    pub statement: Vec<u8>,
    pub identity: SanType,
    pub issuer: String,
    /// What else Fulcio says of the workload, by the last number of its object identifier.
    pub claims: Vec<(u64, &'static str)>,
    /// From when on the certificate counts, in seconds since 1970, for ten minutes.
    pub certified: u64,
    pub logged: u64,
    pub usage: ExtendedKeyUsagePurpose,
}

impl Signing {
    /// As a workflow of acme's signs that release now.
    pub fn of(digest: Digest, repo: &Repo, tag: Option<&str>) -> Signing {
        let tag = tag.map(|tag| tag.parse::<Tag>().unwrap());
        Signing::saying(Statement::approving(&digest, repo, tag.as_ref()))
    }

    pub fn saying(statement: Vec<u8>) -> Signing {
        let start = now() - 60;
        Signing {
            statement,
            identity: uri(IDENTITY),
            issuer: ISSUER.to_owned(),
            claims: vec![(11, "github-hosted"), (12, "https://github.com/acme/net")],
            certified: start,
            logged: start + 5,
            usage: ExtendedKeyUsagePurpose::CodeSigning,
        }
    }

    fn message(&self) -> Vec<u8> {
        let length = self.statement.len();
        let mut message = format!("DSSEv1 {} {IN_TOTO} {length} ", IN_TOTO.len()).into_bytes();
        message.extend_from_slice(&self.statement);
        message
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn email(text: &str) -> SanType {
    SanType::Rfc822Name(text.try_into().unwrap())
}

/// A signature whose certificate is known, before anybody vouches for it.
pub struct Signed {
    pub certificate: Vec<u8>,
    pub signature: Vec<u8>,
    pub signing: Signing,
}

impl Instance {
    pub fn new() -> Instance {
        let (pair, stamping) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = params("root", now() - 86_400, 10 * 86_400);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_certificate = root.self_signed(&pair).unwrap().der().to_vec();
        let authority = Issuer::new(root, pair);
        let mut stamp = params("stamps", now() - 86_400, 10 * 86_400);
        stamp.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let time_stamping = [0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8].to_vec();
        let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], time_stamping);
        usage.set_criticality(true);
        stamp.custom_extensions = vec![usage];
        let stamping_certificate = stamp.signed_by(&stamping, &authority).unwrap().der().to_vec();
        let dir = tempfile::tempdir().unwrap();
        let (log, certificate_log) = (Keys::new(), Keys::new());
        Instance {
            dir,
            authority,
            authority_certificate,
            log,
            certificate_log,
            stamping,
            stamping_certificate,
        }
    }

    /// The same, but that its certificates are promised by the log of another.
    pub fn with_certificate_log_of(&self, other: &Instance) -> Instance {
        let again = |pair: &KeyPair| KeyPair::from_pem(&pair.serialize_pem()).unwrap();
        let mut root = params("root", now() - 86_400, 10 * 86_400);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Instance {
            dir: tempfile::tempdir().unwrap(),
            authority: Issuer::new(root, again(self.authority.key())),
            authority_certificate: self.authority_certificate.clone(),
            log: Keys::of(again(&self.log.pair)),
            certificate_log: Keys::of(again(&other.certificate_log.pair)),
            stamping: again(&self.stamping),
            stamping_certificate: self.stamping_certificate.clone(),
        }
    }

    /// A trusted root that names these: `logs`, `certificates`, `stamps`.
    pub fn root(&self, has: &[&str]) -> Value {
        let since = json!({"start": "2020-01-01T00:00:00Z"});
        let log = |keys: &Keys, url: &str| {
            json!([{"baseUrl": url, "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": STANDARD.encode(keys.der()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since},
                "logId": {"keyId": STANDARD.encode(keys.id())}}])
        };
        let chain = |certificates: &[&Vec<u8>]| {
            let certificates: Vec<_> = certificates
                .iter()
                .map(|certificate| json!({"rawBytes": STANDARD.encode(certificate)}))
                .collect();
            json!([{"subject": {"organization": "acme", "commonName": "root"},
                "uri": "https://ca.example", "certChain": {"certificates": certificates},
                "validFor": since}])
        };
        let mut root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": chain(&[&self.authority_certificate]),
        });
        if has.contains(&"logs") {
            root["tlogs"] = log(&self.log, "https://log.example");
        }
        if has.contains(&"certificates") {
            root["ctlogs"] = log(&self.certificate_log, "https://certificates.example");
        }
        if has.contains(&"stamps") {
            root["timestampAuthorities"] =
                chain(&[&self.stamping_certificate, &self.authority_certificate]);
        }
        root
    }

    pub fn sign(&self, signing: Signing) -> Signed {
        let signer = Keys::new();
        let certificate = self.certify(&signing, &signer);
        let signature = signer.sign(&signing.message());
        Signed { certificate, signature, signing }
    }

    /// A certificate as Fulcio gives, with the promise of the log of certificates.
    fn certify(&self, signing: &Signing, signer: &Keys) -> Vec<u8> {
        let mut leaf = params("", signing.certified, MINUTES);
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.subject_alt_names = vec![signing.identity.clone()];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![signing.usage.clone()];
        leaf.is_ca = IsCa::ExplicitNoCa;
        let fulcio = |number: u64, content: Vec<u8>| {
            let id: Vec<u64> = FULCIO.iter().copied().chain([number]).collect();
            CustomExtension::from_oid_content(&id, content)
        };
        leaf.custom_extensions = vec![fulcio(8, utf8(&signing.issuer))];
        let claims = signing.claims.iter().map(|(number, value)| fulcio(*number, utf8(value)));
        leaf.custom_extensions.extend(claims);
        let before = leaf.signed_by(&signer.pair, &self.authority).unwrap().der().to_vec();
        let promise = self.promise(&before, signing.certified * 1000);
        leaf.custom_extensions.push(CustomExtension::from_oid_content(&SCT, promise));
        leaf.signed_by(&signer.pair, &self.authority).unwrap().der().to_vec()
    }

    /// A list of one signed certificate timestamp (RFC 6962) for what is to become a certificate.
    fn promise(&self, certificate: &[u8], milliseconds: u64) -> Vec<u8> {
        let to_be_signed = inner(certificate);
        let authority = Keys::of(KeyPair::from_pem(&self.authority.key().serialize_pem()).unwrap());
        let time = milliseconds.to_be_bytes();
        let mut message = [&[0, 0], &time[..], &[0, 1], &authority.id()].concat();
        message.extend_from_slice(&(to_be_signed.len() as u32).to_be_bytes()[1..]);
        message.extend_from_slice(&to_be_signed);
        message.extend_from_slice(&[0, 0]);
        let signature = self.certificate_log.sign(&message);
        let mut promise = [&[0], &self.certificate_log.id()[..], &time, &[0, 0, 4, 3]].concat();
        promise.extend(sized(&signature));
        let list = sized(&sized(&promise));
        tagged(4, &list)
    }
}

impl Signed {
    /// The bundle, with what vouches for the signature.
    pub fn bundle(&self, entries: &[Value], stamps: &[Vec<u8>]) -> Value {
        let stamps: Vec<_> =
            stamps.iter().map(|stamp| json!({"signedTimestamp": STANDARD.encode(stamp)})).collect();
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": STANDARD.encode(&self.certificate)},
                "tlogEntries": entries,
                "timestampVerificationData": {"rfc3161Timestamps": stamps},
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(&self.signing.statement),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": STANDARD.encode(&self.signature)}],
            },
        })
    }

    /// What Rekor v1 says of it.
    fn rekor_1_body(&self) -> Vec<u8> {
        let hash = |bytes: &[u8]| json!({"algorithm": "sha256", "value": Digest::of(bytes).hex()});
        let pem = pem_of(&self.certificate);
        json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": hash(b"as it was sent"), "payloadHash": hash(&self.signing.statement),
            "signatures": [{"signature": STANDARD.encode(&self.signature),
                "verifier": STANDARD.encode(pem)}]}})
        .to_string()
        .into_bytes()
    }

    /// What Rekor v2 says of it.
    fn rekor_2_body(&self) -> Vec<u8> {
        json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": "SHA2_256",
                "digest": STANDARD.encode(Digest::of(&self.signing.message()).bytes())},
            "signature": {"content": STANDARD.encode(&self.signature), "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "x509Certificate": {"rawBytes": STANDARD.encode(&self.certificate)}}}}}})
        .to_string()
        .into_bytes()
    }
}

impl Instance {
    /// An entry of Rekor v1 in a log that has no other, with a time and a promise (SET).
    pub fn entry(&self, signed: &Signed) -> Value {
        let body = STANDARD.encode(signed.rekor_1_body());
        let logged = signed.signing.logged;
        let id: String = self.log.id().iter().map(|byte| format!("{byte:02x}")).collect();
        let promised = format!(
            "{{\"body\":\"{body}\",\"integratedTime\":{logged},\"logID\":\"{id}\",\"logIndex\":0}}"
        );
        let mut entry = self.entry_of(&signed.rekor_1_body(), ("dsse", "0.0.1"));
        entry["integratedTime"] = json!(logged.to_string());
        entry["inclusionPromise"] =
            json!({"signedEntryTimestamp": STANDARD.encode(self.log.sign(promised.as_bytes()))});
        entry
    }

    /// An entry of Rekor v2, which knows no time.
    pub fn entry_2(&self, signed: &Signed) -> Value {
        self.entry_of(&signed.rekor_2_body(), ("hashedrekord", "0.0.2"))
    }

    fn entry_of(&self, body: &[u8], (kind, version): (&str, &str)) -> Value {
        let leaf = Digest::of(&[&[0], body].concat());
        let hash = STANDARD.encode(leaf.bytes());
        // Rekor v1 names its tree, by which cosign tells it from v2.
        let tree = if version == "0.0.1" { " - 1" } else { "" };
        let note = format!("log.example{tree}\n1\n{hash}\n");
        let signature = [&self.log.id()[..4], &self.log.sign(note.as_bytes())].concat();
        let checkpoint = format!("{note}\n— log.example {}\n", STANDARD.encode(signature));
        json!({
            "logIndex": "0",
            "logId": {"keyId": STANDARD.encode(self.log.id())},
            "kindVersion": {"kind": kind, "version": version},
            "inclusionProof": {"logIndex": "0", "rootHash": hash, "treeSize": "1", "hashes": [],
                "checkpoint": {"envelope": checkpoint}},
            "canonicalizedBody": STANDARD.encode(body),
        })
    }

    /// A timestamp of a signature, now; `None` without `openssl`.
    pub fn stamp(&self, signature: &[u8]) -> Option<Vec<u8>> {
        let openssl = support::program("openssl")?;
        let at = |name: &str| self.dir.path().join(name);
        fs::write(at("signature"), signature).unwrap();
        fs::write(at("key"), self.stamping.serialize_pem()).unwrap();
        fs::write(at("certificate"), pem_of(&self.stamping_certificate)).unwrap();
        let config = "[tsa]\ndefault_tsa = own\n[own]\nserial = serial\nsigner_cert = certificate\n\
             signer_key = key\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\n\
             digests = sha256\ness_cert_id_alg = sha256\n";
        fs::write(at("config"), config).unwrap();
        let run = |words: &[&str]| {
            let mut command = Command::new(&openssl);
            command.arg("ts").args(words).current_dir(self.dir.path());
            let output = support::mount::finish(command);
            assert!(output.status.success(), "{output:?}");
        };
        let query = "-query -data signature -sha256 -cert -out query";
        let reply = "-reply -config config -queryfile query -out reply";
        run(&query.split(' ').collect::<Vec<_>>());
        run(&reply.split(' ').collect::<Vec<_>>());
        Some(fs::read(at("reply")).unwrap())
    }
}

fn params(name: &str, from: u64, seconds: u64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&[1, 2, 3]));
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(from);
    params.not_after = at(from + seconds);
    params
}

fn pem_of(certificate: &[u8]) -> String {
    let encoded = STANDARD.encode(certificate);
    let lines: Vec<_> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn utf8(text: &str) -> Vec<u8> {
    tagged(12, text.as_bytes())
}

/// DER of one tag.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    der.extend_from_slice(content);
    der
}

/// Two bytes of length, and the bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The first sequence in a sequence that is longer than 255 bytes: what is signed of a certificate.
fn inner(certificate: &[u8]) -> Vec<u8> {
    let inner = &certificate[4..];
    assert!(inner[0] == 0x30 && inner[1] == 0x82, "it is longer than 255 bytes");
    let length = usize::from(inner[2]) << 8 | usize::from(inner[3]);
    inner[..4 + length].to_vec()
}
