//! `tofufs doctor REFERENCE`: what it says of registries of every kind, and that it says no secret.

use super::hostile::{Behaviour, Login, Reply, Seen, all, blobs, path};
use super::support::{pack, tls};
use super::*;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program in an otherwise empty home.
struct Doctor {
    home: tempfile::TempDir,
}

/// What it said about the registry.
struct Said {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Said {
    fn about(&self, subject: &str) -> (&str, String) {
        let finding = self.findings.iter().find(|f| f["subject"] == subject);
        let finding =
            finding.unwrap_or_else(|| panic!("nothing about {subject}: {:#?}", self.findings));
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        (text("mark"), format!("{}; {}", text("found"), text("remedy")))
    }

    #[track_caller]
    fn says(&self, subject: &str, mark: &str, words: &str) {
        let (got, text) = self.about(subject);
        assert!(
            got == mark && text.contains(words),
            "{subject}: {got} {text:?}; wanted {mark} {words:?}"
        );
    }

    fn knows(&self, subject: &str) -> bool {
        self.findings.iter().any(|f| f["subject"] == subject)
    }
}

impl Doctor {
    fn new() -> Doctor {
        Doctor { home: tempfile::tempdir().unwrap() }
    }

    /// One that knows `user` and `password` for the registry.
    fn with_login(server: &Hostile, user: &str, password: &str) -> Doctor {
        use base64::Engine as _;
        let doctor = Doctor::new();
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {server.host(): {"auth": auth}}});
        std::fs::create_dir(doctor.home.path().join(".docker")).unwrap();
        std::fs::write(doctor.home.path().join(".docker/config.json"), config.to_string()).unwrap();
        doctor
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tofufs"))
            .args(["doctor", "--deadline", "2s"])
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn asks(&self, words: &[&str]) -> Said {
        let output = self.run(&[words, &["--json"]].concat());
        for text in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(text).contains(CANARY), "{output:?}");
        }
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let findings =
            said["parts"][1]["findings"].as_array().unwrap_or_else(|| panic!("{output:?}")).clone();
        Said { code: output.status.code(), findings }
    }

    fn asks_plainly(&self, server: &Hostile, rest: &str) -> Said {
        let host = server.host();
        self.asks(&["--plain-http", &host, &format!("{host}{rest}")])
    }
}

fn module() -> pack::Artifact {
    pack::module(&[("main.tf", b"output \"name\" { value = 1 }\n")])
}

#[test]
fn a_release_is_told_with_its_type_its_packages_and_how_they_come() {
    let server = Hostile::start();
    server.publish("acme/net", "1.0.0", &module());
    server.publish(
        "acme/cloud",
        "2.0.0",
        &pack::provider("cloud", "2.0.0", &["linux_amd64", "darwin_arm64"]),
    );
    let said = Doctor::new().asks_plainly(&server, "/acme/net:1.0.0");
    said.says("connection", "ok", "answers");
    said.says("login", "ok", "none");
    said.says("catalog", "ok", "2");
    said.says("tags", "ok", "1 in one page");
    said.says("artifact", "ok", "a module package (application/vnd.opentofu.modulepkg)");
    said.says("package", "ok", "sha256:");
    said.says("ranges", "ok", "goes on");
    said.says("blobs", "ok", "the registry itself");
    let fetched: Vec<Seen> = server.requests().into_iter().filter(blobs()).collect();
    assert!(
        fetched.len() == 1 && fetched[0].header("range").is_some(),
        "one byte is fetched: {fetched:?}"
    );

    let said = Doctor::new().asks_plainly(&server, "/acme/cloud:2.0.0");
    said.says("artifact", "ok", "of 2 platforms");
    said.says("linux_amd64", "ok", "sha256:");
    said.says("darwin_arm64", "ok", "sha256:");
}

#[test]
fn a_registry_alone_is_asked_for_its_catalog_alone() {
    let server = Hostile::start();
    server.rule(path("/v2/_catalog"), Behaviour::Answer(Reply::error(404, "UNSUPPORTED")));
    let said = Doctor::new().asks_plainly(&server, "");
    said.says("connection", "ok", "answers");
    said.says("catalog", "note", "does not list its repositories");
    assert!(!said.knows("tags") && !said.knows("artifact"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_scheme_and_the_credentials_source_are_named_and_the_credential_is_not() {
    let server = Hostile::start();
    server.publish("acme/net", "1.0.0", &module());
    let realm = format!("http://{}/token", server.host());
    for (login, scheme) in [
        (Login::Basic { user: "user", password: CANARY }, "(Basic)".to_owned()),
        (
            Login::Bearer { realm, user: Some(("user", CANARY)) },
            format!("a token of http://{} (Bearer)", server.host()),
        ),
    ] {
        server.login(Some(login));
        let said =
            Doctor::with_login(&server, "user", CANARY).asks_plainly(&server, "/acme/net:1.0.0");
        said.says("login", "ok", &scheme);
        said.says("login", "ok", ".docker/config.json");
        said.says("artifact", "ok", "a module package");

        let said = Doctor::new().asks_plainly(&server, "/acme/net:1.0.0");
        said.says("login", "note", "no credential");
        said.says("tags", "problem", "no credential");
        assert_eq!(said.code, Some(1));

        let said =
            Doctor::with_login(&server, "user", "wrong").asks_plainly(&server, "/acme/net:1.0.0");
        said.says("login", "note", ".docker/config.json, but:");
        assert_eq!(said.code, Some(1));
    }
}

/// R17
#[test]
fn a_token_service_elsewhere_is_refused_with_the_option_that_allows_it() {
    let server = Hostile::start();
    server
        .login(Some(Login::Bearer { realm: "https://auth.example/token".to_owned(), user: None }));
    server.publish("acme/net", "1.0.0", &module());
    let said = Doctor::with_login(&server, "user", CANARY).asks_plainly(&server, "/acme/net");
    said.says("login", "note", "a token of https://auth.example (Bearer)");
    said.says("tags", "problem", &format!("--token-realm {}=https://auth.example", server.host()));
}

#[test]
fn pages_ranges_and_the_origin_of_blobs_are_told() {
    let (server, store) = (Hostile::start(), Hostile::start());
    let artifact = module();
    server.publish("acme/net", "1.0.0", &artifact);
    store.publish("acme/net", "1.0.0", &artifact);
    for tag in ["1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        server.put_manifest(
            "acme/net",
            Some(tag),
            artifact.root().media_type,
            &artifact.root().bytes,
        );
    }
    let first = path("/v2/acme/net/tags/list");
    let short =
        |_: &Seen, reply: Reply| Reply { body: br#"{"tags":["1.0.0","1.1.0"]}"#.to_vec(), ..reply };
    let linked = move |seen: &Seen, reply: Reply| {
        short(seen, reply).with("Link", "</v2/acme/net/tags/list?n=1000&last=1.1.0>; rel=\"next\"")
    };
    server.script(first, [Behaviour::edit(linked)]);
    let target = format!("http://{}", store.host());
    let redirect = move |seen: &Seen, _: Reply| {
        Reply::redirect(307, &format!("{target}{}?sig={CANARY}", seen.path))
    };
    server.rule(blobs(), Behaviour::edit(redirect));
    let said = Doctor::new().asks_plainly(&server, "/acme/net:1.0.0");
    said.says("tags", "ok", "5 in 2 pages");
    said.says("ranges", "ok", "goes on");
    said.says("blobs", "ok", &format!("http://{}", store.host()));

    store.rule(blobs(), Behaviour::IgnoreRange);
    let said = Doctor::new().asks_plainly(&server, "/acme/net:1.0.0");
    said.says("ranges", "note", "begins anew");
    said.says("blobs", "ok", &format!("http://{}", store.host()));
    assert!(said.findings.iter().all(|f| f["mark"] != "problem"), "{:?}", said.findings);
}

#[test]
fn what_opentofu_would_refuse_is_a_problem_with_its_rule() {
    let server = Hostile::start();
    let image = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;
    server.put_manifest("acme/app", Some("1"), "application/vnd.oci.image.manifest.v1+json", image);
    let said = Doctor::new().asks_plainly(&server, "/acme/app:1");
    said.says("artifact", "problem", "artifactType is missing");
    said.says("tags", "ok", "1 in");
    assert_eq!(said.code, Some(1));

    let mut artifact = pack::provider("cloud", "1.0.0", &["linux_amd64", "darwin_arm64"]);
    artifact.manifests[0].bytes.push(b' ');
    server.publish("acme/cloud", "1.0.0", &artifact);
    let said = Doctor::new().asks_plainly(&server, "/acme/cloud:1.0.0");
    let marks = ["linux_amd64", "darwin_arm64"].map(|platform| said.about(platform).0.to_owned());
    assert!(marks.contains(&"problem".to_owned()) && marks.contains(&"ok".to_owned()), "{marks:?}");

    for (rest, subject) in [("/acme/none", "tags"), ("/acme/app:2", "artifact")] {
        assert_eq!(Doctor::new().asks_plainly(&server, rest).about(subject).0, "problem", "{rest}");
    }
    server.remove_blob(&Digest::of(&module().blobs[1]));
    server.publish("acme/net", "1.0.0", &pack::Artifact { blobs: Vec::new(), ..module() });
    Doctor::new().asks_plainly(&server, "/acme/net:1.0.0").says(
        "blob",
        "problem",
        "the registry lacks",
    );
}

#[test]
fn a_prefix_that_mounts_well_is_no_problem() {
    let server = Hostile::start();
    for repo in ["acme/net", "acme/team/dns", "other/net"] {
        server.publish(repo, "1.0.0", &module());
    }
    let asks = |rest: &str| Doctor::new().asks_plainly(&server, rest);
    let no_problem = |said: &Said| {
        assert!(
            said.findings.iter().all(|finding| finding["mark"] != "problem"),
            "{:?}",
            said.findings
        );
    };
    let said = asks("/acme");
    said.says("prefix", "ok", "2 repositories lie below it");
    no_problem(&said);
    let said = asks("/acme/team");
    said.says("prefix", "ok", "1 repository lies below it");
    no_problem(&said);
    let said = asks("/acme/net");
    said.says("tags", "ok", "1 in one page");
    assert!(!said.knows("prefix"), "{:?}", said.findings);
    asks("/acme/none").says(
        "tags",
        "problem",
        "it is no repository, and none lies below it; check the spelling",
    );

    // Where the registry does not list what it has, nobody can tell.
    server.rule(path("/v2/_catalog"), Behaviour::Answer(Reply::error(404, "UNSUPPORTED")));
    let said = asks("/acme");
    said.says("prefix", "note", "the registry does not tell");
    no_problem(&said);
    // Nor where it refuses to say whether there is a repository, as to who may read others.
    server.rule(path("/v2/acme/tags/list"), Behaviour::Answer(Reply::error(403, "DENIED")));
    let said = asks("/acme");
    said.says("prefix", "note", "the registry does not tell");
    no_problem(&said);
    server.login(Some(Login::Basic { user: "user", password: CANARY }));
    let said = asks("/acme");
    said.says("tags", "problem", &format!("run `docker login {}`", server.host()));
}

#[test]
fn an_unknown_tag_is_told_with_the_newest() {
    let server = Hostile::start();
    for tag in ["1.0.0", "1.2.0", "1.10.0", "1.9.0"] {
        server.publish("acme/net", tag, &module());
    }
    let said = Doctor::new().asks_plainly(&server, "/acme/net:9");
    said.says("artifact", "problem", "there is no tag 9; the newest are 1.10.0, 1.9.0, 1.2.0");
}

/// R54
#[test]
fn a_port_with_tls_that_is_asked_without_is_told_so() {
    let server = Hostile::start_tls(Arc::new(tls::Tls::new().server()));
    Doctor::new().asks_plainly(&server, "").says("connection", "problem", "leave off --plain-http");
    let says = Hostile::start();
    let refused = Reply::new(400, "text/plain", "Client sent an HTTP request to an HTTPS server.");
    says.rule(all(), Behaviour::Answer(refused));
    Doctor::new().asks_plainly(&says, "").says("connection", "problem", "leave off --plain-http");
}

/// R54
#[test]
fn what_cannot_be_reached_is_told_with_the_exact_reason() {
    let tls = tls::Tls::new();
    let server = Hostile::start_tls(Arc::new(tls.server()));
    let dir = tempfile::tempdir().unwrap();
    let [ca, ..] = tls.write(dir.path());
    let host = server.host();
    let said = Doctor::new().asks(&[&host]);
    said.says("connection", "problem", "signed by an unknown authority");
    said.says("connection", "problem", "--ca-file");
    assert_eq!(said.code, Some(1));
    let trusted = |file: &Path, subject: &str| {
        Doctor::new().asks(&["--ca-file", file.to_str().unwrap(), subject])
    };
    trusted(&ca, &host).says("connection", "ok", &format!("https://{host}"));
    trusted(Path::new("/nowhere/ca.pem"), &host).says("set-up", "problem", "/nowhere/ca.pem");

    let mut stopped = Hostile::start();
    stopped.stop();
    let said = Doctor::new().asks_plainly(&stopped, "/acme/net");
    said.says("connection", "problem", "refused");
    assert!(!said.knows("tags") && !said.knows("login"), "{:?}", said.findings);

    let silent = Hostile::start();
    silent.rule(all(), Behaviour::Silence);
    Doctor::new().asks_plainly(&silent, "").says("connection", "problem", "no progress");
}

/// O21
#[test]
fn a_registry_whose_clock_differs_is_told() {
    let server = Hostile::start();
    for (offset, mark, words) in
        [(0, "ok", "agrees"), (-3600, "problem", "ahead of"), (3600, "problem", "behind")]
    {
        let seconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
                as i64;
        let date = imf_date(seconds + offset);
        server.rule(all(), Behaviour::edit(move |_, reply| reply.with("Date", &*date)));
        Doctor::new().asks_plainly(&server, "").says("clock", mark, words);
    }
}

/// A time in seconds since 1970 as RFC 9110, section 5.6.7 writes it, by the program that every
/// system has.
fn imf_date(seconds: i64) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn people_get_marks_and_remedies_in_columns() {
    let server = Hostile::start();
    server.rule(path("/v2/_catalog"), Behaviour::Answer(Reply::error(404, "UNSUPPORTED")));
    let host = server.host();
    let output = Doctor::new().run(&["--plain-http", &host, &host]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("this host\n"), "{text}");
    assert!(text.contains(&format!("\n\n{host}\n")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("  note     catalog ")), "{text}");
    assert!(
        text.lines().any(|line| line.contains(" -> repositories can be opened by their names")),
        "{text}"
    );
    let wrong = Doctor::new().run(&["https://ghcr.io"]);
    assert!(wrong.status.code() == Some(2) && wrong.stdout.is_empty(), "{wrong:?}");
}
