//! Where tokens come from, and to whom they go: to the host and its services address alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::json;

use crate::support::hostile::{Behaviour, Hostile, Seen, path};
use crate::support::origin::{Origin, json_reply};
use crate::support::tls::Tls;
use crate::{Bed, into};

/// A host whose services and files are elsewhere.
struct Places {
    bed: Bed,
    services: Hostile,
    files: Hostile,
    target: Hostile,
}

impl Places {
    fn new() -> Option<Places> {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls::new();
        let [authority, ..] = tls.write(dir.path());
        let [services, files] = [(); 2].map(|()| Hostile::start_tls(Arc::new(tls.server())));
        let mut origin = Origin::start_with(&tls, authority)?;
        let at = |server: &Hostile| format!("https://localhost:{}", server.addr().port());
        origin.files = at(&files);
        origin.discovery(&format!("{}/api/", at(&services)));
        let release = origin.publish("one", "1.0.0");
        let bytes = |bytes: &[u8]| {
            Behaviour::Answer(crate::support::hostile::Reply::new(
                200,
                "application/octet-stream",
                bytes,
            ))
        };
        files.rule(path(release.sums_path()), bytes(release.sums.as_bytes()));
        files.rule(path(release.signature_path()), bytes(&release.signature));
        let manifest = format!("/files/{}", release.file("manifest.json"));
        files.rule(path(manifest), bytes(release.manifest.as_deref().unwrap()));
        let keys = [origin.gpg.export(&origin.key)];
        for (platform, zip) in &release.zips {
            files.rule(path(release.zip_path(platform)), bytes(zip));
            let document = json_reply(&origin.download(&release, platform, &keys));
            let at = release.download_path(platform).replace("/v1/providers/", "/api/");
            services.rule(path(at), Behaviour::Answer(document));
        }
        let list = json!({ "versions": [{ "version": "1.0.0", "platforms": [
            { "os": "linux", "arch": "amd64" }
        ] }] });
        services.rule(path("/api/acme/one/versions"), Behaviour::Answer(json_reply(&list)));
        let bed = Bed { dir, origin, environment: Vec::new() };
        Some(Places { bed, services, files, target: Hostile::start() })
    }

    /// Mirrors; the tokens that the host and its services were shown, and nobody else.
    #[track_caller]
    fn shown(&self) -> Option<String> {
        let words = into(&self.target, &[&self.bed.address("one"), "1.0.0", "--verify"]);
        self.bed.lines(&words);
        let token = |seen: &Seen| seen.header("Authorization").map(str::to_owned);
        let tokens = |server: &Hostile| server.requests().iter().map(token).collect::<Vec<_>>();
        let mut all = [tokens(&self.bed.origin.server), tokens(&self.services)].concat();
        assert!(all.len() >= 3, "{all:?}");
        let files = tokens(&self.files);
        assert!(!files.is_empty() && files.iter().all(Option::is_none), "{files:?}");
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

#[test]
fn without_a_token_none_is_shown() {
    let Some(places) = Places::new() else { return };
    assert_eq!(places.shown(), None);
}

#[test]
fn a_variable_s_token_goes_to_the_host_and_its_services_alone() {
    let Some(mut places) = Places::new() else { return };
    let host = places.bed.origin.host.clone();
    // What is not for this host is for nobody here.
    places.bed.environment = vec![
        (format!("TF_TOKEN_{host}"), "from a variable".to_owned()),
        ("TF_TOKEN_other_example".to_owned(), "for another".to_owned()),
    ];
    let file = places.bed.path("home/.tofurc");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, format!("credentials \"{host}\" {{ token = \"from a block\" }}\n")).unwrap();
    assert_eq!(places.shown().as_deref(), Some("Bearer from a variable"));
}

#[test]
fn a_block_s_token_and_that_of_a_login_are_found() {
    for name in ["home/.tofurc", "home/.terraform.d/credentials.tfrc.json"] {
        let Some(places) = Places::new() else { return };
        let host = &places.bed.origin.host;
        let file = places.bed.path(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = if name.ends_with(".json") {
            json!({ "credentials": { host.as_str(): { "token": "kept" } } }).to_string()
        } else {
            format!("credentials \"{host}\" {{\n  token = \"kept\"\n}}\n")
        };
        fs::write(&file, text).unwrap();
        assert_eq!(places.shown().as_deref(), Some("Bearer kept"), "{name}");
    }
}

#[test]
fn a_helper_is_asked_where_nothing_else_has_a_token() {
    let Some(places) = Places::new() else { return };
    let dir = places.bed.path("home/.terraform.d/plugins");
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join("terraform-credentials-test");
    let host = &places.bed.origin.host;
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = \"--flag get {host}\" ] && echo '{{\"token\": \"helped\"}}'\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let file = places.bed.path("home/.tofurc");
    fs::write(&file, "credentials_helper \"test\" {\n  args = [\"--flag\"]\n}\n").unwrap();
    assert_eq!(places.shown().as_deref(), Some("Bearer helped"));
}

#[test]
fn a_token_that_is_refused_is_named_by_its_source_and_never_shown() {
    let Some(mut places) = Places::new() else { return };
    let variable = format!("TF_TOKEN_{}", places.bed.origin.host);
    places.bed.environment = vec![(variable.clone(), "s3cret".to_owned())];
    let denied = crate::support::hostile::Reply::new(401, "text/plain", "");
    places.services.rule(|_| true, Behaviour::Answer(denied));
    let said = places.bed.refused(&into(&places.target, &[&places.bed.address("one"), "1.0.0"]));
    assert!(said.contains(&variable) && !said.contains("s3cret"), "{said}");
}
