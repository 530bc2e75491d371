//! Other tools that push: the Python SDK of ORAS and `skopeo copy`.

use std::process::{Command, Stdio};

use super::docker_registry::{DockerRegistry, PASSWORD, USER};
use super::pack::Artifact;
use super::{layouts, oras_python, program};

/// Pushes a module package by the SDK's own upload of blobs and manifests: its `push` knows no
/// artifactType, and its `upload_blob` asks for the blob first, whereupon it keeps a token that may
/// only pull.
const PUSH: &str = r#"
import sys
import tempfile
import oras.client
import oras.oci
host, repo, tag, package, scheme, ca, backend, config, artifact_type, media_type = sys.argv[1:]
client = oras.client.OrasClient(
    hostname=host, insecure=scheme == "http", tls_verify=ca or True, auth_backend=backend
)
target = f"{host}/{repo}:{tag}"
container = client.get_container(target)
client.auth.load_configs(container, configs=[config])
layer = oras.oci.NewLayer(package, media_type=media_type)
client._check_200_response(client.put_upload(package, container, layer))
with tempfile.NamedTemporaryFile() as file:
    file.write(b"{}")
    file.flush()
    config = oras.oci.NewLayer(file.name, media_type="application/vnd.oci.empty.v1+json")
    client._check_200_response(client.put_upload(file.name, container, config))
manifest = oras.oci.NewManifest()
manifest["artifactType"] = artifact_type
manifest["config"] = config
manifest["layers"] = [layer]
client._check_200_response(client.upload_manifest(manifest, container))
"#;

/// Pushes `package` as a module by the Python SDK; false, with the reason printed, where that is
/// missing.
pub fn oras_push_module(registry: &DockerRegistry, repo: &str, tag: &str, package: &[u8]) -> bool {
    let Some(python) = oras_python() else { return false };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("package.zip");
    std::fs::write(&file, package).expect("a writable directory");
    let config = registry.write_docker_config(dir.path());
    let ca = registry.ca_file();
    let output = Command::new(python)
        .args(["-c", PUSH, &registry.host(), repo, tag])
        .arg(&file)
        .arg(if ca.is_some() { "https" } else { "http" })
        .arg(ca.unwrap_or_default())
        .arg(if registry.token_server().is_some() { "token" } else { "basic" })
        .arg(config)
        .args([tofufs::artifact::MODULE, tofufs::artifact::ZIP])
        .env("HOME", dir.path())
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Copies `artifact` into a registry by `skopeo copy`; false, with the reason printed, where that
/// is missing.
pub fn skopeo_copy(registry: &DockerRegistry, repo: &str, tag: &str, artifact: &Artifact) -> bool {
    let Some(skopeo) = program("skopeo") else { return false };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = layouts::add(dir.path(), "from.example", "it", tag, artifact);
    let mut command = Command::new(skopeo);
    command
        .args(["copy", "--quiet", "--all", "--insecure-policy", "--dest-creds"])
        .arg(format!("{USER}:{PASSWORD}"));
    match registry.ca_file() {
        // skopeo takes every *.crt of a directory as an authority.
        Some(ca) => {
            let authorities = dir.path().join("authorities");
            std::fs::create_dir(&authorities).expect("a writable directory");
            std::fs::copy(ca, authorities.join("ca.crt")).expect("a writable directory");
            command.arg("--dest-cert-dir").arg(authorities);
        }
        None => {
            command.arg("--dest-tls-verify=false");
        }
    }
    let output = command
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("docker://{}/{repo}:{tag}", registry.host()))
        .env("HOME", dir.path())
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .expect("skopeo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}
