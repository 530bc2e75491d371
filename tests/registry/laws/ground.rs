//! The same releases in every back end.

use std::fs;
use std::io::Write;
use std::path::Path;

use tofufs::oci::Manifest;
use tofufs::registry::decorate::{Mirrored, Offline, Scoped, Union};
use tofufs::registry::layout::{LayoutArchive, RegistryLayout};
use tofufs::registry::mirror::MirrorAddress;
use tofufs::registry::{HostStore, Upload, Uploaded};

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::memory::MemoryRegistry;
use crate::support::pack::{self, Artifact, Document};
use crate::support::{hostile::Hostile, layouts};
use crate::*;

pub const MODULE: &str = "acme/net";
pub const PROVIDER: &str = "acme/providers/hello";
/// The tags of the module, in the order in which they are pushed.
pub const TAGS: [&str; 12] = [
    "2.0.0",
    "1.10.0",
    "1.2.0",
    "latest",
    "1.0.0_x",
    "B",
    "a",
    "0",
    "_a",
    "1.0.0-rc.1",
    "1.0.0",
    "A.b-c",
];
/// A writer's claim, which is a tag to the registry alone.
pub const CLAIM: &str = "_tofufs.1.0.0.0123456789ab";
/// A tag of referrers, which is there for machines alone.
pub const HIDDEN: &str = "sha256-0000000000000000000000000000000000000000000000000000000000000001";
const STORED: &str = "reg.example";

/// What stands on what, and can be made to fail.
pub enum Ground {
    Server(Hostile),
    Docker(Box<DockerRegistry>),
    Store(tempfile::TempDir),
    Archive(tempfile::NamedTempFile),
    Memory(MemoryRegistry),
    Several(Vec<Ground>),
}

impl Ground {
    /// Nothing can be asked any more, or be understood.
    pub fn fail(&mut self) {
        match self {
            Ground::Server(server) => server.stop(),
            Ground::Docker(server) => server.stop(),
            Ground::Store(dir) => {
                for repo in [MODULE, PROVIDER] {
                    let layout = dir.path().join(STORED).join(repo);
                    if layout.exists() {
                        fs::write(layout.join("index.json"), "no index").unwrap();
                    }
                }
            }
            Ground::Archive(file) => file.as_file().set_len(1).unwrap(),
            Ground::Memory(registry) => registry.state().failing = Some(Failure::Unreachable),
            Ground::Several(grounds) => grounds.iter_mut().for_each(Ground::fail),
        }
    }
}

/// A registry under the laws.
pub struct BackEnd {
    pub registry: Arc<dyn Registry>,
    pub ground: Ground,
    /// What it says of that which it does not hold.
    pub unknown: Failure,
}

impl BackEnd {
    /// What it says of a blob that it does not hold as it is named: another source may.
    pub fn lacking(&self) -> Failure {
        if self.unknown == Failure::Absent { Failure::Integrity } else { self.unknown }
    }

    fn new(ground: Ground, registry: impl Registry + 'static) -> BackEnd {
        BackEnd { registry: Arc::new(registry), ground, unknown: Failure::Absent }
    }
}

pub struct Releases {
    pub module: Artifact,
    pub provider: Artifact,
}

impl Releases {
    pub fn new() -> Releases {
        let large = bytes(300_000);
        Releases {
            module: pack::module(&[("main.tf", b"# 1\n"), ("large.bin", &large)]),
            provider: pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]),
        }
    }

    /// Each release with its repository and tag.
    fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, &Artifact)> {
        let tags = TAGS.into_iter().chain([CLAIM, HIDDEN]);
        tags.map(|tag| (MODULE, tag, &self.module)).chain([(PROVIDER, "0.1.0", &self.provider)])
    }

    fn server(&self) -> Hostile {
        let server = Hostile::start();
        server.page(5);
        for (repo, tag, release) in self.each() {
            server.publish(repo, tag, release);
        }
        server
    }

    /// A store of the releases of which `wanted` says so, by their places.
    fn store(&self, wanted: impl Fn(usize) -> bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (_, (repo, tag, release)) in self.each().enumerate().filter(|(at, _)| wanted(*at)) {
            layouts::add(dir.path(), STORED, repo, tag, release);
        }
        dir
    }

    pub fn remote(&self) -> BackEnd {
        let server = self.server();
        let registry = remote(&server);
        BackEnd::new(Ground::Server(server), registry)
    }

    pub async fn docker(&self) -> Option<BackEnd> {
        let server = DockerRegistry::start(Access::Anybody, false)?;
        let registry = remote_at(&server.host());
        for (repo, at, release) in self.each() {
            put(&registry, repo, at, release).await;
        }
        Some(BackEnd::new(Ground::Docker(Box::new(server)), registry))
    }

    pub fn memory(&self) -> BackEnd {
        let registry = MemoryRegistry::default();
        for (repo, at, release) in self.each() {
            for document in &release.manifests {
                registry.add(repo, &document.bytes, Some(document.media_type));
            }
            release.blobs.iter().for_each(|blob| registry.add_blob(repo, blob));
            registry.set_tag(repo, at, Some(release.digest()));
        }
        BackEnd::new(Ground::Memory(registry.again()), registry)
    }

    pub fn directory(&self) -> BackEnd {
        let dir = self.store(|_| true);
        let registry = layout(dir.path());
        BackEnd::new(Ground::Store(dir), registry)
    }

    pub fn archive(&self) -> BackEnd {
        let dir = self.store(|_| true);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all("", dir.path()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&tar.into_inner().unwrap()).unwrap();
        let archive = Arc::new(LayoutArchive::open(file.path()).unwrap());
        let registry = archive.registry(&STORED.parse().unwrap());
        let (ground, unknown) = (Ground::Archive(file), Failure::Absent);
        BackEnd { registry, ground, unknown }
    }

    pub fn part(&self) -> BackEnd {
        let server = self.server();
        let host = server.host().parse().unwrap();
        let registry = Scoped::new(Arc::new(remote(&server)), host, Some(name("acme")));
        BackEnd::new(Ground::Server(server), registry)
    }

    /// Two stores of which each has half of the tags.
    pub fn union(&self) -> BackEnd {
        let dirs = [0, 1].map(|half| self.store(|at| at % 2 == half));
        let stores = dirs.iter().map(|dir| Arc::new(layout(dir.path())) as Arc<dyn Registry>);
        let registry = Union::new(STORED.parse().unwrap(), stores.collect());
        let grounds = dirs.map(Ground::Store).into_iter().collect();
        BackEnd::new(Ground::Several(grounds), registry)
    }

    /// A registry with a mirror that lacks everything and one that has everything.
    pub fn mirrored(&self) -> BackEnd {
        let servers = [self.server(), Hostile::start(), self.server()];
        let host: Host = servers[0].host().parse().unwrap();
        let mirrors = servers[1..].iter().map(|server| {
            let address = format!("http://{}", server.host());
            let address = MirrorAddress::parse(host.clone(), &address).unwrap();
            (address, Arc::new(remote(server)) as Arc<dyn Registry>)
        });
        let registry = Mirrored::new(Arc::new(remote(&servers[0])), mirrors.collect());
        let grounds = servers.map(Ground::Server).into_iter().collect();
        BackEnd::new(Ground::Several(grounds), registry)
    }

    /// A store beside a registry that may not be asked, and may hold what the store lacks.
    pub fn beside_offline(&self) -> BackEnd {
        let BackEnd { registry, ground, .. } = self.directory();
        let host: Host = STORED.parse().unwrap();
        let offline = Arc::new(Offline::new(host.clone()));
        let registry = Arc::new(Union::new(host, vec![registry, offline]));
        BackEnd { registry, ground, unknown: Failure::Offline }
    }
}

/// A registry that holds nothing yet: what writes, and what reads, by another connection.
pub struct Writer {
    pub name: &'static str,
    pub upload: Box<dyn Upload>,
    pub reader: Arc<dyn Registry>,
    pub _ground: Ground,
}

pub fn writers() -> Vec<Writer> {
    let server = Hostile::start();
    let dir = tempfile::tempdir().unwrap();
    let mut all = vec![
        Writer {
            name: "a registry",
            upload: Box::new(remote(&server)),
            reader: Arc::new(remote(&server)),
            _ground: Ground::Server(server),
        },
        Writer {
            name: "a store",
            upload: Box::new(layout(dir.path())),
            reader: Arc::new(layout(dir.path())),
            _ground: Ground::Store(dir),
        },
    ];
    let registry = MemoryRegistry::default();
    all.push(Writer {
        name: "a registry in memory",
        upload: Box::new(registry.again()),
        reader: Arc::new(registry.again()),
        _ground: Ground::Memory(registry),
    });
    all.extend(DockerRegistry::start(Access::Anybody, false).map(|server| Writer {
        name: "docker-registry",
        upload: Box::new(remote_at(&server.host())),
        reader: Arc::new(remote_at(&server.host())),
        _ground: Ground::Docker(Box::new(server)),
    }));
    all
}

fn layout(dir: &Path) -> RegistryLayout {
    RegistryLayout::open(dir, &STORED.parse().unwrap()).unwrap()
}

/// Blobs, manifests by digest, the tag last.
pub async fn put(to: &dyn Upload, repo: &str, at: &str, release: &Artifact) -> Vec<Uploaded> {
    let manifest =
        |d: &Document| Manifest::parse(d.bytes.clone().into(), d.digest(), None).unwrap();
    let (repo, mut sent) = (name(repo), Vec::new());
    for blob in &release.blobs {
        let bytes = Bytes::copy_from_slice(blob);
        sent.push(to.put_blob(&repo, &descriptor(blob), &bytes).await.unwrap());
    }
    for document in &release.manifests {
        let selector = Selector::Digest(document.digest());
        to.put_manifest(&repo, &selector, &manifest(document)).await.unwrap();
    }
    to.put_manifest(&repo, &by_tag(at), &manifest(release.root())).await.unwrap();
    sent
}
