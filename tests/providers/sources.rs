//! Every source from which the clients take providers, with their plugin cache on the mount:
//! without a lock file and with one, for the first time, again, and by many at once.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clients::Client;
use crate::network::Server;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::mount::Options;
use crate::support::tls::Tls;
use crate::support::{program, world};
use crate::tiny;
use crate::{ORIGIN, declared, here, mirror_flags, names, origin};

/// How many install at once: half of them with a lock file.
const CROWD: usize = 8;
const INIT: &[&str] = &["init", "-input=false", "-no-color"];
const APPLY: &[&str] = &["apply", "-input=false", "-no-color", "-auto-approve"];

/// A mount that serves itself as every source, and beside it the registry and a web server.
struct Bed {
    registry: DockerRegistry,
    mount: Mount,
    server: Server,
    origin: Option<Server>,
    base: PathBuf,
    authorities: PathBuf,
    name: &'static str,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new(name: &'static str) -> Option<Bed> {
        let (Some(_), Some(_)) = (program(name), program("python3")) else { return None };
        let registry = DockerRegistry::start(Access::Anybody, true)?;
        tiny::publish(&registry, &["1.0.0"])?;
        let host = registry.host();
        let authority = registry.ca_file().expect("it speaks TLS");
        let options =
            Options::new().args(["--ca-file".to_owned(), authority.display().to_string()]);
        let mount = Mount::start(
            &[&host],
            options.args(mirror_flags(&host)).args(declared(&["acme/tiny"])),
        )?;
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let [own, certificate, key] = Tls::new().write(&base);
        let server = Server::start(&mount.join("mirror"), &certificate, &key, &base.join("port"))?;
        let files = base.join("origin");
        let origin = match origin::write(&files) {
            Some(()) => Some(Server::start(&files, &certificate, &key, &base.join("origin-port"))?),
            None => None,
        };
        let authorities = base.join("authorities.pem");
        fs::write(&authorities, [fs::read(authority).unwrap(), fs::read(own).unwrap()].concat())
            .unwrap();
        Some(Bed { registry, mount, server, origin, base, authorities, name, _dir: dir })
    }

    /// The sources: their names, and how a configuration spells them.
    fn sources(&self) -> Vec<(&'static str, String)> {
        let directory =
            |path: &Path| format!("filesystem_mirror {{\n    path = \"{}\"\n  }}", path.display());
        let template = format!("{}/mirror/${{namespace}}/${{type}}", self.registry.host());
        let oci = format!(
            "oci_mirror {{\n    repository_template = \"{template}\"\n    \
             include = [\"{ORIGIN}/*/*\"]\n  }}"
        );
        let network = format!(
            "network_mirror {{\n    url = \"https://127.0.0.1:{}/\"\n  }}",
            self.server.port
        );
        let mut sources = vec![
            ("packed", directory(&self.mount.join("mirror"))),
            ("unpacked", directory(&self.mount.join("plugins"))),
            ("network", network),
        ];
        if self.origin.is_some() {
            sources.push(("direct", "direct {}".to_owned()));
        }
        if self.name == "tofu" {
            sources.push(("oci", oci));
        }
        sources
    }

    fn client(&self, label: &str, source: &str) -> Client {
        let cache = self.mount.join("plugin-cache");
        let origin = self
            .origin
            .as_ref()
            .map(|server| origin::configuration(server.port))
            .unwrap_or_default();
        let configuration = format!(
            "plugin_cache_dir = \"{}\"\nprovider_installation {{\n  {source}\n}}\n{origin}",
            cache.display()
        );
        let client =
            Client::new(self.name, &self.base, label, &configuration).expect("it is installed");
        client.with("SSL_CERT_FILE", &self.authorities)
    }

    fn version(&self, view: &str) -> PathBuf {
        self.mount.join(view).join(ORIGIN).join("acme/tiny/1.0.0")
    }

    /// The package in the plugin cache is still the registry's, and so is what the other views
    /// show.
    fn check(&self, what: &str) {
        let package = |view| self.version(view).join(here());
        let content =
            |view| fs::read(package(view).join("terraform-provider-tiny_v1.0.0")).unwrap();
        let built = tiny::built().expect("it was published");
        assert!(content("plugin-cache") == built && content("plugins") == built, "{what}");
        assert!(
            fs::symlink_metadata(package("plugin-cache")).unwrap().is_symlink(),
            "{what}: a link of the view"
        );
        let packages =
            |view| names(&self.version(view)).into_iter().filter(|name| !name.ends_with(".lock"));
        assert!(packages("plugin-cache").eq(packages("plugins")), "{what}");
        assert_eq!(self.mount.requests().1, 1, "{what}: one download");
    }

    /// For root the kernel reads large files by itself, which does not go together with writing
    /// them through a mount.
    fn for_root(&self) {
        for (label, source) in self.sources().into_iter().take(2) {
            let client = self.client(label, &source);
            client.use_provider();
            self.crowd(label, &source, &client.lock());
            self.check(label);
        }
    }

    /// All of them at once, each in a directory of its own.
    fn crowd(&self, label: &str, source: &str, lock: &str) {
        let clients: Vec<_> =
            (0..CROWD).map(|n| self.client(&format!("{label}-{n}"), source)).collect();
        std::thread::scope(|scope| {
            for (n, client) in clients.iter().enumerate() {
                scope.spawn(move || {
                    if n % 2 == 0 {
                        fs::write(client.dir.join(".terraform.lock.hcl"), lock).unwrap();
                    }
                    client.run(INIT);
                    assert!(client.run(APPLY).contains("said = \"hello\""));
                });
            }
        });
    }
}

fn every_source_fills_and_hits_the_plugin_cache(name: &'static str, test: &str) {
    let Some(built) = tiny::built() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = dir.path().join("tiny");
    fs::write(&file, built).unwrap();
    let is_ordinary = world::is_ordinary(&format!("sources::{test}"), &[(tiny::BUILT, &file)]);
    let Some(bed) = Bed::new(name) else { return };
    if !is_ordinary {
        return bed.for_root();
    }
    for (label, source) in bed.sources() {
        let client = bed.client(label, &source);
        client.use_provider();
        bed.check(&format!("{label}, first"));
        let lock = client.lock();
        for with_lock in [true, false] {
            client.forget(with_lock);
            client.use_provider();
            bed.check(&format!("{label}, again, without a lock file: {with_lock}"));
            assert_eq!(client.lock(), lock, "{label}");
        }
        bed.crowd(label, &source, &lock);
        bed.check(&format!("{label}, many at once"));
    }
}

#[test]
fn terraform_fills_and_hits_the_plugin_cache_from_every_source() {
    let test = "terraform_fills_and_hits_the_plugin_cache_from_every_source";
    every_source_fills_and_hits_the_plugin_cache("terraform", test);
}

#[test]
fn opentofu_fills_and_hits_the_plugin_cache_from_every_source() {
    let test = "opentofu_fills_and_hits_the_plugin_cache_from_every_source";
    every_source_fills_and_hits_the_plugin_cache("tofu", test);
}
