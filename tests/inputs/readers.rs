//! What reads the bytes of strangers, a function for each kind: whatever the bytes, it ends with a
//! value or an error, and what was read can be written and read again. The fuzzer of `tests/fuzz`
//! calls the same functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};
use tofufs::archive::{Entries, Limits, tarball};
use tofufs::artifact::{Release, target_package};
use tofufs::cli::tofurc::{ClientEnvironment, Tofurc};
use tofufs::digest::Digest;
use tofufs::lockfile::LockFile;
use tofufs::lockfile::configuration::Configuration;
use tofufs::mapping::{Mapping, MappingRule, ProviderPattern};
use tofufs::moment::Moment;
use tofufs::name::{
    Component, Constraints, Host, Platform, ProviderAddr, Reference, Repo, RepoName, Selector, Tag,
    Version,
};
use tofufs::oci::{Manifest, layout, referrer};
use tofufs::openpgp::{Certificate, verify};
use tofufs::registry::Registry;
use tofufs::registry::challenge::Challenge;
use tofufs::registry::credentials::Credentials;
use tofufs::registry::layout::{LayoutArchive, Stored};
use tofufs::registry::origin::Origin;
use tofufs::registry::paging::{self, Pages};
use tofufs::stage::journal::JournalRecord;
use tofufs::trust::Policy;
use tofufs::trust::bundle::SignedStatement;
use tofufs::trust::key::PublicKey;
use tofufs::trust::statement::Statement;

use super::build::{Archive, with_data};
use super::tree::{self, Node};

/// The most bytes that content may grow to, so that an input takes no minute.
const LIMITS: u64 = 1 << 20;

/// When they are read, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// A reader by the name of its kind.
pub type Reader = fn(&[u8]);

/// All of them, for whom only ends and panics count.
pub const READERS: [(&str, Reader); 17] = [
    ("archive", archive),
    ("archive_stream", archive_stream),
    ("bundle", |text| {
        let _ = bundle(text);
    }),
    ("challenge", login_challenge),
    ("cli_configuration", cli_configuration),
    ("configuration", configuration),
    ("deflate", deflate),
    ("docker_configuration", docker_configuration),
    ("journal", journal),
    ("link", link),
    ("lock_file", lock_file),
    ("manifest", manifest),
    ("name", name),
    ("openpgp", openpgp),
    ("policy", policy),
    ("statement", statement),
    ("tag_list", tag_list),
];

/// A file with this content that nobody else sees; its path.
fn file(name: &str, content: &[u8]) -> PathBuf {
    thread_local! {
        static DIR: tempfile::TempDir = tempfile::tempdir().expect("a temporary directory");
    }
    DIR.with(|dir| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a writable directory");
        path
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// The index, its local headers, and every file by both ways to read it.
pub fn archive(zip: &[u8]) {
    let _ = tree::shown_within(zip, &Limits::up_to(LIMITS, LIMITS));
}

/// The entries from the front, as they are read while the archive still arrives.
pub fn archive_stream(zip: &[u8]) {
    let mut entries = Entries::new(&zip);
    let mut content = Vec::new();
    while let Ok(Some(entry)) = entries.upcoming() {
        content.clear();
        if entry.size().is_some_and(|size| size > LIMITS) {
            if entries.skip(&entry) { continue } else { return }
        }
        match entries.extract(&entry, LIMITS, &mut content) {
            Ok(streamed) => assert_eq!(streamed.size(), content.len() as u64),
            Err(_) => return,
        }
    }
    let _ = tarball(&zip, &Limits::up_to(LIMITS, LIMITS), &mut |_, _, content| {
        std::io::copy(content, &mut std::io::sink()).map(drop)
    });
}

/// A deflate stream, as that of an archive's only file. What is shown is what the laxest reader
/// makes of it.
pub fn deflate(stream: &[u8]) {
    let content = super::deflate::inflate(stream);
    let entry = with_data(b"main.tf", content.as_deref().unwrap_or_default(), 8, stream.to_vec());
    let zip = Archive::of(vec![entry]).bytes();
    let Ok(tree) = tree::shown_within(&zip, &Limits::up_to(LIMITS, LIMITS)) else { return };
    let content = content.expect("what is shown can be inflated");
    let Some(Node::File { size, .. }) = tree.values().next() else { panic!("{tree:?}") };
    assert_eq!(*size, content.len() as u64);
}

/// A tar of image layouts; how many repositories it has.
pub fn bundle(tar: &[u8]) -> usize {
    let Ok(archive) = LayoutArchive::open(&file("bundle.tar", tar)) else { return 0 };
    let tag = Selector::Tag("1.0.0".parse().expect("a tag"));
    let repos: Vec<Repo> = archive.repositories().cloned().collect();
    let archive = Arc::new(archive);
    for repo in &repos {
        let stored = Stored::of(archive.clone(), &repo.host);
        let _ = block_on(stored.tags(&repo.name));
        let _ = block_on(stored.manifest(&repo.name, &tag));
    }
    repos.len()
}

/// A `WWW-Authenticate` header.
pub fn login_challenge(text: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(text) else { return };
    if let Ok(challenge) = Challenge::of(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)])) {
        let _ = challenge.scheme();
    }
}

/// A `Link` header of a list's page.
pub fn link(text: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(text) else { return };
    let at: Url = "https://ghcr.io/v2/acme/net/tags/list?n=10".parse().expect("an address");
    let registry = Origin::of(&at).expect("an origin");
    let mut pages = Pages::new(registry, &at);
    if let Ok(Some(next)) = pages.next(&at, &HeaderMap::from_iter([(LINK, value)])) {
        assert_eq!(Origin::of(&next), Origin::of(&at), "a link stays at the registry");
    }
}

/// A page of a list of tags.
pub fn tag_list(text: &[u8]) {
    let _ = paging::entries::<Tag>(text);
}

/// A client's configuration, in either syntax.
pub fn cli_configuration(text: &[u8]) {
    let path = file("rc", text);
    let environment = ClientEnvironment::new(home(&path)).with("HOME", home(&path));
    if let Ok(found) = Tofurc::load_file(&path, &environment) {
        let _ = found.credentials(&environment);
    }
}

fn home(file: &Path) -> &Path {
    file.parent().expect("a directory")
}

/// Docker's configuration, asked for credentials of some registries.
pub fn docker_configuration(text: &[u8]) {
    let path = file("config.json", text);
    let environment = ClientEnvironment::new(home(&path)).with("REGISTRY_AUTH_FILE", &path);
    let credentials = Credentials::new(Tofurc::default().credentials(&environment));
    let repo: RepoName = "acme/network".parse().expect("a name");
    for host in ["ghcr.io", "docker.io", "x.io"] {
        let host: Host = host.parse().expect("a host");
        let _ = block_on(credentials.find(&host, Some(&repo), false));
    }
}

/// Files of a root module, in either syntax.
pub fn configuration(text: &[u8]) {
    let text = &String::from_utf8_lossy(text);
    let host: Host = "registry.opentofu.org".parse().expect("a host");
    for name in ["main.tf", "main.tf.json"] {
        let mut configuration = Configuration::default();
        let _ = configuration.add(name, text);
        let _ = configuration.providers(&host).map(|found| found.len());
        assert!(configuration.calls().count() <= text.len());
    }
}

/// A dependency lock file.
pub fn lock_file(text: &[u8]) {
    let Ok(mut lock) = LockFile::parse(&String::from_utf8_lossy(text)) else { return };
    let known: Vec<_> =
        lock.locks().map(|(address, lock)| (address.clone(), lock.clone())).collect();
    for (address, known) in known {
        lock.set(&[(address, known)].into()).expect("what was read can be written");
    }
    LockFile::parse(lock.text()).expect("what was written can be read");
}

/// A record of what was being committed.
pub fn journal(text: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<JournalRecord>(text) {
        let _ = record.path();
        let written = serde_json::to_vec(&record).expect("what was read can be written");
        let again: JournalRecord = serde_json::from_slice(&written).expect("and read again");
        assert_eq!(again, record);
    }
}

/// A manifest, an index, a list of referrers, or a document of an image layout.
pub fn manifest(text: &[u8]) {
    if let Ok(manifest) = Manifest::parse(Arc::from(text), Digest::of(text), None) {
        let _ = Release::read(&manifest);
        let _ = target_package(&manifest, &Platform::host());
        let _ = (manifest.blobs(), manifest.descriptor());
        let _ = (manifest.subject(), manifest.kind(), manifest.as_referrer());
    }
    let _ = (layout::check_version(text), layout::in_order(text));
    for entry in layout::entries(text).unwrap_or_default() {
        let _ = layout::tag_of(&entry);
    }
    if let Ok(entries) = referrer::listed(text) {
        let written = referrer::list_of(&entries);
        let again = referrer::listed(&written).expect("what was written can be read");
        assert_eq!(again.len(), entries.len());
    }
}

/// Certificates, and signatures over a document.
pub fn openpgp(bytes: &[u8]) {
    let now = 1_800_000_000;
    let certificates = Certificate::read(&String::from_utf8_lossy(bytes), now).unwrap_or_default();
    let _ = verify(b"a document", bytes, &certificates, now);
}

/// A policy, all of whose keys are there.
pub fn policy(text: &[u8]) {
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let mut read = |_: &str| Ok(KEY.to_owned());
    let text = String::from_utf8_lossy(text);
    if let Ok(policy) = Policy::parse("policy.hcl", &text, Moment::at(NOW), &mut read) {
        let _ = policy.counts();
        let repo: Repo = "ghcr.io/acme/modules/x".parse().expect("a repository");
        assert!(!policy.says_of(&repo).is_empty());
    }
}

/// What a signature says, and a public key.
pub fn statement(text: &[u8]) {
    let _ = (Statement::read(text), Statement::read_simple(text));
    let _ = SignedStatement::read_bundle(text);
    if let Ok(key) = PublicKey::from_pem(&String::from_utf8_lossy(text)) {
        let again = PublicKey::from_pem(&key.to_pem()).expect("what was written can be read");
        assert_eq!(again.hint(), key.hint());
    }
}

/// References, names, versions, patterns and templates, as people and registries write them.
pub fn name(text: &[u8]) {
    let text = &String::from_utf8_lossy(text);
    let host: Host = "registry.opentofu.org".parse().expect("a host");
    let _ = (Component::parse(text), layout::LayoutPart::split(text));
    let _ = (text.parse::<Host>(), text.parse::<RepoName>(), text.parse::<Platform>());
    let _ = (text.parse::<Digest>(), text.parse::<Tag>().map(|tag| Version::of_tag(&tag)));
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
    if let Ok(version) = text.parse::<Version>() {
        assert_eq!(version.to_string().parse::<Version>().ok(), Some(version));
    }
    if let Ok(constraints) = text.parse::<Constraints>() {
        let versions = ["1.2.3", "0.0.0", "18446744073709551615.0.0-a"];
        let allowed = |text: &&str| constraints.allow(&text.parse().expect("a version"));
        let _ = versions.iter().filter(|text| allowed(text)).count();
    }
    if let Ok(address) = ProviderAddr::parse(text, &host) {
        assert_eq!(ProviderAddr::parse(&address.to_string(), &host).ok(), Some(address));
    }
    patterns(text, &host);
}

fn patterns(text: &str, host: &Host) {
    let providers = ["acme/x", "example.com/a/b", "xn--9ca.com:80/c/d"]
        .map(|text| ProviderAddr::parse(text, host).expect("an address"));
    if let Ok(pattern) = text.parse::<ProviderPattern>() {
        let _ = providers.iter().filter(|provider| pattern.matches(provider)).count();
    }
    let Ok(rule) = MappingRule::new(text, &["registry.opentofu.org/*/*".to_owned()], &[]) else {
        return;
    };
    let mapping = Mapping::new(vec![rule]);
    for repo in providers.iter().flat_map(|provider| mapping.repos(provider).unwrap_or_default()) {
        let _ = mapping.providers_of(&repo);
    }
    let _ = mapping.prefixes();
}
