use super::*;
use serde_json::{Value, json};

fn manifest(value: Value) -> Manifest {
    let raw = value.to_string().into_bytes();
    let digest = Digest::of(&raw);
    Manifest::parse(raw.into(), digest, None).unwrap()
}

fn layer(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"zip").to_string(), "size": 3})
}

fn image(artifact_type: &str, layers: Vec<Value>) -> Manifest {
    manifest(json!({"mediaType": IMAGE, "artifactType": artifact_type, "layers": layers}))
}

fn entry(os: &str, arch: &str) -> Value {
    json!({"mediaType": IMAGE, "artifactType": PROVIDER_TARGET, "digest": Digest::of(os.as_bytes()).to_string(),
        "size": 9, "platform": {"os": os, "architecture": arch}})
}

fn index(entries: Vec<Value>) -> Manifest {
    manifest(json!({"mediaType": INDEX, "artifactType": PROVIDER, "manifests": entries}))
}

fn refused(result: Result<impl std::fmt::Debug, ArtifactRefusal>) -> String {
    result.expect_err("a refusal").to_string()
}

#[test]
fn a_module_has_one_zip_layer_and_may_have_others() {
    let m = image(MODULE, vec![layer("text/plain"), layer(ZIP), layer("image/png")]);
    assert!(matches!(Release::read(&m), Ok(Release::Module(d)) if d.media_type == ZIP));
}

/// R43
#[test]
fn two_zip_layers_none_or_a_tar_are_refused() {
    assert!(
        refused(Release::read(&image(MODULE, vec![layer(ZIP), layer(ZIP)])))
            .contains("more than one")
    );
    assert!(refused(Release::read(&image(MODULE, vec![]))).contains("no layer"));
    let tar = image(MODULE, vec![layer("application/vnd.oci.image.layer.v1.tar+gzip")]);
    assert!(refused(Release::read(&tar)).contains("tar+gzip"));
}

/// R39
#[test]
fn other_artifact_types_are_named() {
    let m = manifest(json!({"mediaType": IMAGE, "layers": [layer(ZIP)]}));
    assert!(refused(Release::read(&m)).contains("missing"));
    assert!(refused(Release::read(&image("x/y", vec![layer(ZIP)]))).contains("x/y"));
    let module_index =
        manifest(json!({"mediaType": INDEX, "artifactType": MODULE, "manifests": []}));
    assert!(refused(Release::read(&module_index)).contains("image manifest"));
}

#[test]
fn a_provider_release_lists_its_platforms_in_order() {
    let mut versioned = entry("windows", "amd64");
    versioned["platform"]["os.version"] = json!("10");
    let mut foreign = entry("plan9", "amd64");
    foreign["artifactType"] = json!("other");
    let m = index(vec![entry("linux", "arm64"), versioned, foreign, entry("darwin", "arm64")]);
    let Ok(Release::Provider(targets)) = Release::read(&m) else { panic!("a provider") };
    let names: Vec<_> = targets.iter().map(|t| t.platform.to_string()).collect();
    assert_eq!(names, ["darwin_arm64", "linux_arm64"]);
}

#[test]
fn a_release_with_a_platform_twice_or_none_is_refused() {
    assert!(
        refused(Release::read(&index(vec![entry("linux", "amd64"), entry("linux", "amd64")])))
            .contains("twice")
    );
    let mut bare = entry("linux", "amd64");
    bare["platform"] = Value::Null;
    assert!(refused(Release::read(&index(vec![bare]))).contains("no platform"));
    let mut docker = entry("linux", "amd64");
    docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    assert!(refused(Release::read(&index(vec![docker]))).contains("mediaType"));
    assert!(
        refused(Release::read(&index(vec![entry("..", "amd64")])))
            .contains("no platform of OpenTofu")
    );
}

#[test]
fn a_target_is_for_its_platform_and_by_sha256() {
    let linux: Platform = "linux_amd64".parse().unwrap();
    assert!(target_package(&image(PROVIDER_TARGET, vec![layer(ZIP)]), &linux).is_ok());
    let mut other = layer(ZIP);
    other["platform"] = json!({"os": "darwin", "architecture": "amd64"});
    assert!(
        refused(target_package(&image(PROVIDER_TARGET, vec![other]), &linux)).contains("darwin")
    );
    let mut long = layer(ZIP);
    long["digest"] = json!(Digest::of_with(crate::digest::Algorithm::Sha512, b"zip").to_string());
    let m = image(PROVIDER_TARGET, vec![long]);
    assert!(matches!(target_package(&m, &linux), Err(ArtifactRefusal::Unsupported(_))));
    assert!(
        refused(target_package(&image(MODULE, vec![layer(ZIP)]), &linux)).contains("artifactType")
    );
}
