//! The law of precedence, the files, the helpers. Case numbers: L13, L14, L15 (secrets), Q3, Q5
//! (registries).

mod programs;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine;
use proptest::prelude::*;

use super::*;

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn repo(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn basic(username: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: Secret::new("pw".to_owned()) }
}

fn block(prefix: &str, username: &str) -> Block {
    Block {
        prefix: prefix.parse().unwrap(),
        login: Login::Credential(basic(username)),
        origin: "/etc/tofurc:1".to_owned(),
    }
}

/// `auth` for `username` and the password `pw`.
fn auth(username: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:pw"));
    format!(r#"{{"auth":"{text}"}}"#)
}

/// A directory with files and helpers in it, which is also the PATH of its helpers.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A shell script as helper. Another process writes it: were it open for writing here, a fork
    /// of a parallel test would inherit that and the script could not be run (ETXTBSY).
    fn program(&self, name: &str, script: &str) -> Program {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        name.parse().unwrap()
    }

    fn config(&self) -> CredentialsConfig {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        CredentialsConfig { search_path: path.into(), ..CredentialsConfig::default() }
    }

    fn with_files(&self, files: DockerFiles) -> Credentials {
        Credentials::new(CredentialsConfig { files, ..self.config() })
    }

    fn with_program(&self, program: Program) -> Credentials {
        Credentials::new(CredentialsConfig { default_program: Some(program), ..self.config() })
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.0.path().join("runs")).unwrap_or_default().lines().count()
    }
}

async fn user(credentials: &Credentials, at: &str, name: &str) -> Option<String> {
    let found = credentials
        .find(&host(at), (!name.is_empty()).then(|| repo(name)).as_ref(), false)
        .await
        .unwrap();
    found.map(|found| match found.credential {
        Credential::Basic { username, .. } => username,
        Credential::Tokens { refresh, .. } => format!("token:{}", refresh.unwrap().expose()),
    })
}

const KNOWS: &str = r#"cat >/dev/null; echo '{"ServerURL":"x","Username":"helped","Secret":"pw"}'"#;

/// A Docker-style file, blocks, whether there is a default helper, the repository, whose credential
/// it gets.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool, &'a str, &'a str);

// Q5
#[tokio::test]
async fn the_most_specific_source_wins_and_of_equals_the_first() {
    let place = Place::new();
    place.program("h", KNOWS);
    let (a, b, deep) = (auth("a"), auth("b"), auth("deep"));
    let table: &[Case] = &[
        ("{}", &[], false, "x/y", ""),
        ("{}", &[("r.io", "block")], false, "x/y", "block"),
        ("{}", &[("r.io:443", "block"), ("R.io", "block")], false, "x/y", ""),
        ("{}", &[("r.io/x", "near"), ("r.io", "far")], false, "x/y", "near"),
        ("{}", &[("r.io", "far"), ("r.io/x/y", "near"), ("r.io/x", "mid")], false, "x/y", "near"),
        ("{}", &[("r.io/x/y/z", "below"), ("r.io/x/yy", "other")], false, "x/y", ""),
        ("{}", &[("r.io/x", "near")], false, "", ""),
        ("{}", &[("r.io", "first"), ("r.io", "second")], false, "x/y", "first"),
        ("{}", &[("r.io", "block")], true, "x/y", "block"),
        ("{}", &[], true, "x/y", "helped"),
        (&format!(r#"{{"auths":{{"r.io":{a}}}}}"#), &[], true, "x/y", "a"),
        (&format!(r#"{{"auths":{{"r.io":{a}}}}}"#), &[("r.io", "block")], false, "x/y", "block"),
        (&format!(r#"{{"auths":{{"r.io/x":{a}}}}}"#), &[("r.io", "block")], false, "x/y", "a"),
        (&format!(r#"{{"auths":{{"r.io/x":{a}, "r.io/x/y":{deep}}}}}"#), &[], false, "x/y", "deep"),
        (&format!(r#"{{"auths":{{"r.io/x":{a}, "r.io/x/y":{deep}}}}}"#), &[], false, "x/yy", "a"),
        (
            &format!(r#"{{"auths":{{"r.io":{a}}}, "credHelpers":{{"r.io":"h"}}}}"#),
            &[],
            false,
            "x/y",
            "a",
        ),
        (r#"{"credHelpers":{"r.io":"h"}, "credsStore":"none"}"#, &[], false, "x/y", "helped"),
        (r#"{"credsStore":"h"}"#, &[], false, "x/y", "helped"),
        (r#"{"credHelpers":{"r.io":""}, "credsStore":"h"}"#, &[], false, "x/y", "helped"),
        (
            &format!(r#"{{"auths":{{"https://o.io/v1/":{a}, "r.io/x:tag":{b}, "r.io/x/":{b}}}}}"#),
            &[],
            false,
            "y",
            "",
        ),
        (r#"{"auths":{"r.io":{}, "r.io/x":{"auth":""}, "r.io/x/y":null}}"#, &[], false, "x/y", ""),
        (r#"{"auths":{"r.io":{"username":"u","registrytoken":"t"}}}"#, &[], false, "x/y", ""),
        ("null", &[("r.io", "block")], false, "x/y", "block"),
    ];
    for (file, blocks, default, name, who) in table {
        let credentials = Credentials::new(CredentialsConfig {
            blocks: blocks.iter().map(|(prefix, who)| block(prefix, who)).collect(),
            default_program: default.then(|| "h".parse().unwrap()),
            files: DockerFiles::Listed(vec![place.file("config.json", file)]),
            ..place.config()
        });
        let found = user(&credentials, "r.io", name).await.unwrap_or_default();
        assert_eq!(found, *who, "{file} {blocks:?} {default} {name}");
    }
}

#[tokio::test]
async fn of_two_files_the_first_wins_a_tie() {
    let place = Place::new();
    let files =
        ["a", "b"].map(|n| place.file(n, &format!(r#"{{"auths":{{"r.io":{}}}}}"#, auth(n))));
    assert_eq!(
        user(&place.with_files(DockerFiles::Ambient(files.to_vec())), "r.io", "x").await.unwrap(),
        "a"
    );
}

#[tokio::test]
async fn one_broken_ambient_file_drops_all_and_a_listed_one_is_an_error() {
    let place = Place::new();
    let good = place.file("good", &format!(r#"{{"auths":{{"r.io":{}}}}}"#, auth("a")));
    let missing = place.0.path().join("missing");
    let ambient =
        |paths: &[&PathBuf]| DockerFiles::Ambient(paths.iter().map(|p| (*p).clone()).collect());
    assert_eq!(
        user(&place.with_files(ambient(&[&missing, &good])), "r.io", "x").await.unwrap(),
        "a"
    );
    let listed = DockerFiles::Listed(vec![good.clone(), missing]);
    assert!(place.with_files(listed).find(&host("r.io"), None, false).await.is_err());
    let broken = [
        "{",
        "",
        r#"{"auths":[]}"#,
        r#"{"auths":{"z.io":{"auth":"???"}}}"#,
        r#"{"credHelpers":{"z":1}}"#,
    ];
    for content in broken {
        let bad = place.file("bad", content);
        assert_eq!(
            user(&place.with_files(ambient(&[&good, &bad])), "r.io", "x").await,
            None,
            "{content}"
        );
        let store = DockerStore::new(ambient(&[&good, &bad]));
        assert!(store.read().warnings.iter().any(|w| w.contains("bad")), "{content}");
        assert!(store.read().warnings.is_empty(), "a warning is given once: {content}");
        let listed = DockerFiles::Listed(vec![good.clone(), bad]);
        let error = place.with_files(listed).find(&host("r.io"), None, false).await.unwrap_err();
        assert!(error.source_name.ends_with("bad"), "{error}");
    }
}

#[tokio::test]
async fn an_auth_without_colon_is_an_error_for_its_own_registry_only() {
    let place = Place::new();
    let file = place.file("f", r#"{"auths":{"r.io":{"auth":"bm9jb2xvbg=="}}}"#);
    let credentials = place.with_files(DockerFiles::Ambient(vec![file]));
    let error = credentials.find(&host("r.io"), None, false).await.unwrap_err();
    assert!(error.to_string().contains(r#"auths["r.io"]"#), "{error}");
    assert!(
        !error.to_string().contains("nocolon") && !error.to_string().contains("bm9jb2xvbg"),
        "{error}"
    );
    assert_eq!(user(&credentials, "other.io", "x").await, None);
}

// Q3
#[tokio::test]
async fn an_identity_token_counts_only_where_opentofu_finds_nothing() {
    let place = Place::new();
    place.program("h", KNOWS);
    place.program("empty", "echo 'credentials not found in native keychain'; exit 1");
    let nameless = base64::engine::general_purpose::STANDARD.encode("0000:");
    let table = [
        (r#"{"auths":{"r.io":{"identitytoken":"t"}}}"#.to_owned(), "token:t"),
        (
            r#"{"auths":{"r.io":{"identitytoken":"t"},"r.io/x":{"identitytoken":"near"}}}"#
                .to_owned(),
            "token:near",
        ),
        (r#"{"auths":{"r.io":{"identitytoken":"t"}},"credsStore":"h"}"#.to_owned(), "helped"),
        (r#"{"auths":{"r.io":{"identitytoken":"t"}},"credsStore":"empty"}"#.to_owned(), "token:t"),
        (
            format!(r#"{{"auths":{{"r.io":{{"auth":"{nameless}","identitytoken":"t"}}}}}}"#),
            "token:t",
        ),
        (format!(r#"{{"auths":{{"r.io":{},"r.io/x":{{"identitytoken":"t"}}}}}}"#, auth("a")), "a"),
        (r#"{"auths":{"r.io":{"identitytoken":7}}}"#.to_owned(), ""),
    ];
    for (content, who) in table {
        let credentials = place.with_files(DockerFiles::Listed(vec![place.file("f", &content)]));
        assert_eq!(user(&credentials, "r.io", "x").await.unwrap_or_default(), who, "{content}");
    }
}

/// What `docker login` and others leave, where OpenTofu would find nothing; a source that it finds
/// stands before.
#[tokio::test]
async fn keys_and_entries_count_as_other_programs_leave_them() {
    let place = Place::new();
    let one = |key: &str, entry: &str| format!(r#"{{"auths":{{"{key}":{entry}}}}}"#);
    let plain = r#"{"username":"u","password":"pw"}"#;
    let mut table: Vec<(String, &str, &str)> = Vec::new();
    for key in [
        "https://r.io",
        "https://r.io/",
        "https://r.io/v1/",
        "https://r.io/v2/",
        "http://r.io",
        "R.IO",
        "r.io/v2/",
    ] {
        table.push((one(key, &auth("a")), "r.io", "a"));
        table.push((one(key, plain), "r.io", "u"));
    }
    let other = |key: &str| {
        format!(r#"{{"auths":{{"{key}":{},"r.io":{}}}}}"#, auth("loose"), auth("literal"))
    };
    table.extend([
        (one("r.io", plain), "r.io", "u"),
        (one("r.io", r#"{"username":"u","password":7}"#), "r.io", ""),
        (one("r.io", r#"{"username":"u"}"#), "r.io", ""),
        (other("https://r.io/x"), "r.io", "literal"),
        (one("https://r.io/x", &auth("a")), "r.io", "a"),
        (one("https://r.io/y", &auth("a")), "r.io", ""),
        (one("https://r.io.evil", &auth("a")), "r.io", ""),
        (one("https://evil@r.io", &auth("a")), "r.io", ""),
        (one("https://index.docker.io/v1/", &auth("hub")), "docker.io", "hub"),
        (one("https://index.docker.io/v1/", &auth("hub")), "registry-1.docker.io", "hub"),
        (one("https://index.docker.io/v1/", &auth("hub")), "r.io", ""),
    ]);
    for (content, at, who) in table {
        let credentials = place.with_files(DockerFiles::Listed(vec![place.file("f", &content)]));
        assert_eq!(user(&credentials, at, "x").await.unwrap_or_default(), who, "{content} {at}");
    }
}

#[tokio::test]
async fn it_is_told_why_an_entry_is_not_used() {
    let place = Place::new();
    let content = format!(
        r#"{{"auths":{{"r.io":{{}},"r.io/x":{},"https://r.io/":{},"r.io/y":{},"other.io":{}}}}}"#,
        auth("a"),
        auth("b"),
        auth("c"),
        auth("d")
    );
    let credentials = place.with_files(DockerFiles::Listed(vec![place.file("f", &content)]));
    let found = credentials.find(&host("r.io"), Some(&repo("x")), false).await.unwrap().unwrap();
    let reasons =
        credentials.unused(&host("r.io"), Some(&repo("x")), Some(&found.source)).join("\n");
    for part in [
        r#"auths["https://r.io/"]"#,
        "OpenTofu passes over such a key",
        "another part of that registry",
    ] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    assert!(!reasons.contains("other.io") && reasons.lines().count() == 3, "{reasons}");
    let empty = credentials.unused(&host("r.io"), None, None).join("\n");
    assert!(empty.contains("neither auth nor identitytoken nor username and password"), "{empty}");
}

#[tokio::test]
async fn a_file_is_read_again_after_it_changed() {
    let place = Place::new();
    let path = place.file("f", "{}");
    let credentials = place.with_files(DockerFiles::Ambient(vec![path.clone()]));
    assert_eq!(user(&credentials, "r.io", "x").await, None);
    place.file("f", &format!(r#"{{"auths":{{"r.io":{}}}}}"#, auth("later")));
    assert_eq!(user(&credentials, "r.io", "x").await.unwrap(), "later");
    std::fs::remove_file(path).unwrap();
    assert_eq!(user(&credentials, "r.io", "x").await, None);
}

// L15
#[test]
fn a_file_open_to_others_is_warned_of_once() {
    let place = Place::new();
    let path = place.file("f", "{}");
    let store = DockerStore::new(DockerFiles::Ambient(vec![path.clone()]));
    assert!(store.read().warnings.is_empty());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = store.read().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("0644"), "{warnings:?}");
    assert!(store.read().warnings.is_empty());
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_not_read() {
    let place = Place::new();
    let auths = format!(r#"{{"auths":{{"r.io":{}}}}}"#, auth("u"));
    let padded = |size: usize| auths.clone() + &" ".repeat(size - auths.len());
    let path = place.file("config.json", &padded(4 << 20));
    let credentials = place.with_files(DockerFiles::Listed(vec![path]));
    assert_eq!(user(&credentials, "r.io", "x").await.as_deref(), Some("u"));
    place.file("config.json", &padded((4 << 20) + 1));
    let error = credentials.find(&host("r.io"), None, false).await.unwrap_err().to_string();
    assert!(error.contains("larger than 4194304 bytes"), "{error}");
}

// L13
#[tokio::test]
async fn no_secret_is_printed() {
    let secret = || Secret::new("canary".to_owned());
    let tokens = Credential::Tokens { access: Some(secret()), refresh: Some(secret()) };
    let config = CredentialsConfig {
        blocks: vec![
            Block { login: Login::Credential(tokens), ..block("r.io", "u") },
            Block {
                login: Login::Credential(Credential::Basic {
                    username: "u".into(),
                    password: secret(),
                }),
                ..block("s.io", "u")
            },
        ],
        ..CredentialsConfig::default()
    };
    assert!(!format!("{config:#?}").contains("canary"));
    let credentials = Credentials::new(config);
    for at in ["r.io", "s.io"] {
        let found = credentials.find(&host(at), None, false).await.unwrap().unwrap();
        assert!(!format!("{found:#?} {credentials:#?}").contains("canary"));
    }
    // serde's own messages would quote the value
    for content in [
        r#"{"auths":"canary"}"#,
        r#"{"auths":{"r.io":"canary"}}"#,
        r#"{"auths":{"r.io":{"auth":"canary!"}}}"#,
    ] {
        let reason = docker::DockerFile::parse(content.as_bytes()).err().unwrap();
        assert!(!reason.contains("canary"), "{reason}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Q5: the winner among blocks and auths is the longest key that is a prefix by whole components
    #[test]
    fn the_longest_fitting_prefix_wins(
        keys in proptest::collection::vec("r\\.io(/[ab]){0,3}", 0..6),
        wanted in "[ab](/[ab]){0,3}",
        split in 0_usize..6,
    ) {
        let split = split.min(keys.len());
        let (blocks, file) = keys.split_at(split);
        // a file cannot hold one key twice
        let file: std::collections::BTreeSet<&String> = file.iter().collect();
        let entries: Vec<String> = file.iter().map(|key| format!("{key:?}:{}", auth(&format!("file {key}")))).collect();
        let place = Place::new();
        let path = place.file("f", &format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")));
        let credentials = Credentials::new(CredentialsConfig {
            blocks: blocks.iter().map(|key| block(key, &format!("block {key}"))).collect(),
            files: DockerFiles::Listed(vec![path]),
            ..CredentialsConfig::default()
        });
        let full = format!("r.io/{wanted}/");
        let ordered = blocks.iter().map(|k| ("block", k)).chain(file.iter().map(|k| ("file", *k)));
        let mut expected: Option<(&str, &String)> = None;
        for (kind, key) in ordered.filter(|(_, key)| full.starts_with(&format!("{key}/"))) {
            if expected.is_none_or(|(_, best)| key.len() > best.len()) {
                expected = Some((kind, key));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(user(&credentials, "r.io", &wanted));
        prop_assert_eq!(found, expected.map(|(kind, key)| format!("{kind} {key}")));
    }
}
