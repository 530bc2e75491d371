//! The test bed itself: what it packs is what the program accepts, what it pushes is there, and
//! what it starts stops.

mod support;

use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use support::docker_registry::{Access, DockerRegistry, PASSWORD, USER};
use support::push::{Credential, Push};
use support::{layouts, mount, pack, peers, program};
use tofufs::artifact::{Release, target_package};
use tofufs::digest::Digest;
use tofufs::name::Selector;
use tofufs::oci::Manifest;
use tofufs::registry::Registry;
use tofufs::registry::layout::RegistryLayout;

fn module() -> pack::Artifact {
    pack::module(&[("main.tf", b"output \"name\" { value = 1 }\n"), ("modules/inner/main.tf", b"")])
}

fn manifest(document: &pack::Document) -> Manifest {
    Manifest::parse(document.bytes.clone().into(), document.digest(), Some(document.media_type))
        .unwrap()
}

#[test]
fn packed_artifacts_are_releases_by_the_programs_own_rules() {
    assert!(matches!(Release::read(&manifest(module().root())), Ok(Release::Module(_))));
    let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
    let Ok(Release::Provider(targets)) = Release::read(&manifest(provider.root())) else {
        panic!("a provider")
    };
    assert_eq!(targets.len(), 2);
    for target in targets {
        let document = provider.manifests.iter().find(|m| m.digest() == target.digest()).unwrap();
        let package = target_package(&manifest(document), &target.platform).unwrap();
        assert!(provider.blobs.iter().any(|b| Digest::of(b) == package.digest));
    }
}

#[test]
fn equal_content_packs_to_equal_bytes() {
    assert_eq!(module().digest(), module().digest());
}

#[test]
fn a_layout_of_ours_is_read_by_the_program_and_by_skopeo() {
    let store = tempfile::tempdir().unwrap();
    let artifact = module();
    layouts::add(
        store.path(),
        "reg.example",
        "acme/net",
        "0.9.0",
        &pack::module(&[("main.tf", b"")]),
    );
    let dir = layouts::add(store.path(), "reg.example", "acme/net", "1.0.0", &artifact);
    let layout: Arc<dyn Registry> =
        Arc::new(RegistryLayout::open(store.path(), &"reg.example".parse().unwrap()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let repo = "acme/net".parse().unwrap();
    assert_eq!(runtime.block_on(layout.tags(&repo)).unwrap().len(), 2);
    let raw =
        runtime.block_on(layout.manifest(&repo, &Selector::Tag("1.0.0".parse().unwrap()))).unwrap();
    assert_eq!(Digest::of(&raw.bytes), artifact.digest());
    if let Some(skopeo) = program("skopeo") {
        let reference = format!("oci:{}:1.0.0", dir.display());
        let output = Command::new(skopeo).args(["inspect", "--raw", &reference]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(Digest::of(&output.stdout), artifact.digest());
    }
}

/// A layout that skopeo has written: no mediaType in `index.json`, and ref.name as it was given.
#[test]
fn a_layout_of_skopeo_is_read_by_the_program() {
    let Some(skopeo) = program("skopeo") else { return };
    let store = tempfile::tempdir().unwrap();
    let artifact = module();
    let from = layouts::add(store.path(), "a.example", "net", "1.0.0", &artifact);
    let to = store.path().join("b.example/net");
    std::fs::create_dir_all(&to).unwrap();
    for name in ["2.0.0", "b.example/net:3.0.0"] {
        let output = Command::new(&skopeo)
            .args([
                "copy",
                "-q",
                &format!("oci:{}:1.0.0", from.display()),
                &format!("oci:{}:{name}", to.display()),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let layout = RegistryLayout::open(store.path(), &"b.example".parse().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let repo = "net".parse().unwrap();
    let tags: Vec<_> =
        runtime.block_on(layout.tags(&repo)).unwrap().iter().map(|t| t.to_string()).collect();
    assert_eq!(tags, ["2.0.0", "3.0.0"]);
    let digest = runtime.block_on(layout.resolve(&repo, &"3.0.0".parse().unwrap())).unwrap();
    assert_eq!(digest, Some(artifact.digest()));
}

#[test]
fn a_registry_takes_and_gives_in_every_way_of_access() {
    for (access, tls) in [
        (Access::Anybody, false),
        (Access::Htpasswd, true),
        (Access::Token, false),
        (Access::Token, true),
    ] {
        let Some(mut registry) = DockerRegistry::start(access, tls) else { return };
        let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
        let push = registry.push("acme/providers/hello");
        let digest = push.artifact("0.1.0", &provider);
        let tags = String::from_utf8(push.get("tags/list")).unwrap();
        assert!(tags.contains("0.1.0"), "{access:?}: {tags}");
        let zip = Digest::of(&provider.blobs[1]);
        assert_eq!(Digest::of(&push.get(&format!("blobs/{zip}"))), zip);
        registry.start_again();
        assert_eq!(
            Digest::of(&registry.push("acme/providers/hello").get(&format!("blobs/{zip}"))),
            zip
        );
        assert!(provider.digest() == digest);
        let host = registry.host();
        drop(registry);
        assert!(TcpStream::connect(&host).is_err(), "the registry outlives its value");
    }
}

#[test]
fn a_registry_refuses_who_has_no_credential() {
    for access in [Access::Htpasswd, Access::Token] {
        let Some(registry) = DockerRegistry::start(access, false) else { return };
        let base = format!("http://{}", registry.host());
        let nobody = Push::new(&base, "acme/net", Credential::None, None);
        let response = nobody.request(reqwest::Method::GET, "tags/list", None, vec![]);
        assert_eq!(response.status(), reqwest::StatusCode::UNAUTHORIZED);
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        match registry.token_server() {
            None => assert!(challenge.starts_with("Basic "), "{challenge}"),
            Some(server) => {
                assert!(challenge.contains(&server.realm()), "{challenge}");
                let ask = |credential| {
                    let client = Push::new(&server.origin(), "", credential, None);
                    client.request(
                        reqwest::Method::GET,
                        "/token?service=x&scope=repository:acme/net:pull",
                        None,
                        vec![],
                    )
                };
                assert_eq!(ask(Credential::None).status(), reqwest::StatusCode::UNAUTHORIZED);
                assert!(ask(Credential::Basic(USER.into(), PASSWORD.into())).status().is_success());
                assert_eq!((server.issued(), server.refused()), (1, 1));
                assert_eq!(server.scopes(), ["repository:acme/net:pull"]);
            }
        }
    }
}

#[test]
fn what_other_tools_push_is_a_module_by_the_programs_own_rules() {
    for (access, tls) in [(Access::Htpasswd, true), (Access::Token, true), (Access::Anybody, false)]
    {
        let Some(registry) = DockerRegistry::start(access, tls) else { return };
        let artifact = module();
        let mut pushed = Vec::new();
        if peers::oras_push_module(&registry, "by/oras", "1.0.0", &artifact.blobs[1]) {
            pushed.push("by/oras");
        }
        if peers::skopeo_copy(&registry, "by/skopeo", "1.0.0", &artifact) {
            pushed.push("by/skopeo");
        }
        for repo in pushed {
            let body = registry.push(repo).get("manifests/1.0.0");
            let digest = Digest::of(&body);
            let manifest = Manifest::parse(body.into(), digest, None).unwrap();
            let Ok(Release::Module(zip)) = Release::read(&manifest) else {
                panic!("{repo}: {manifest:?}")
            };
            assert_eq!(zip.digest, Digest::of(&artifact.blobs[1]), "{repo}");
        }
    }
}

#[test]
fn a_command_is_done_when_it_ends_though_its_daemon_holds_its_output() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60 & echo $!"]);
    let output = mount::finish(command);
    let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .expect("the daemon is still there");
}
