//! The look at each source when a mount begins: what fails is told at once, in a line that names
//! the host, in the status and in the log; what works costs nothing that its first use would not
//! have cost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::support::hostile::{Behaviour, Login, Reply, all, blobs, path};
use super::support::tls::Tls;
use super::*;

/// Credentials for `server` where the mount's home is.
fn log_in(mount: &Mount, server: &Hostile, user: &str, password: &str) {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    fs::create_dir_all(mount.home().join(".docker")).unwrap();
    let config = json!({"auths": {server.host(): {"auth": auth}}});
    fs::write(mount.home().join(".docker/config.json"), config.to_string()).unwrap();
}

fn plain(servers: &[&Hostile]) -> Options {
    servers
        .iter()
        .fold(Options::new(), |options, server| options.args(["--plain-http", &server.host()]))
}

/// The state of a source and the reason.
fn state(mount: &Mount, name: &str) -> (String, String) {
    let status = mount.status();
    let sources = status["sources"].as_array().unwrap();
    let source =
        sources.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name}: {status}"));
    let text = |key: &str| source[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        text("reason").is_empty(),
        text("time").is_empty(),
        "each failure has its time: {status}"
    );
    (text("state"), text("reason"))
}

/// A source fails: one line on standard error names it, as do the status and the log.
#[track_caller]
fn fails(mount: &Mount, host: &str, wanted: &str, words: &[&str]) {
    let line = format!("tofufs: {host} is {wanted}: ");
    let lines: Vec<&str> = mount.said().lines().filter(|said| said.starts_with(&line)).collect();
    let [line] = lines[..] else { panic!("{line:?} is not one line of {:?}", mount.said()) };
    let (state, reason) = state(mount, host);
    assert_eq!(state, wanted, "{line}");
    for word in words {
        assert!(
            line.contains(word) && reason.contains(word),
            "{word:?} is not in {line:?} and {reason:?}"
        );
    }
    assert!(mount.log().contains(line.trim_start_matches("tofufs: ")), "{line}: {}", mount.log());
}

#[test]
fn what_fails_is_one_line_a_state_and_a_sentence_in_the_log_and_is_mounted_all_the_same() {
    let sound = Hostile::start();
    let (content, _) = put_small(&sound, "acme/net");
    let untrusted = Hostile::start_tls(Arc::new(Tls::new().server()));
    let clear = Hostile::start_tls(Arc::new(Tls::new().server()));
    let mut away = Hostile::start();
    away.stop();
    let closed = Hostile::start();
    closed.login(Some(Login::Basic { user: "ann", password: "right" }));
    let page = Hostile::start();
    page.rule(all(), Behaviour::Answer(Reply::new(200, "text/html", "<html>")));
    let hosts = [&sound, &untrusted, &clear, &away, &closed, &page].map(|server| server.host());
    let options = plain(&[&sound, &clear, &away, &closed, &page]).args(["--deadline", "10s"]);
    let Some(mut mount) = Mount::start(&hosts, options) else { return };
    assert_eq!(mount.said().lines().count(), 5, "{}", mount.said());
    assert_eq!(state(&mount, &sound.host()), ("ok".to_owned(), String::new()));
    fails(&mount, &untrusted.host(), "untrusted", &["unknown authority", "--ca-file"]);
    fails(&mount, &clear.host(), "unreachable", &["leave off --plain-http"]);
    fails(&mount, &away.host(), "unreachable", &["refused"]);
    let login =
        format!("run `docker login {0}`, `podman login {0}` or `oras login {0}`", closed.host());
    fails(&mount, &closed.host(), "denied", &["no credential", &login, "tofufs refresh"]);
    fails(&mount, &page.host(), "unreachable", &["is not a registry"]);
    let read = fs::read(mount.join(format!("{}/acme/net/1.0.0/main.tf", sound.host())));
    assert_eq!(read.unwrap(), content);

    // What people read begins with what is wrong.
    let mut command = mount.command("status");
    command.arg(mount.path());
    let said = String::from_utf8(finish(command).stdout).unwrap();
    let problems: Vec<&str> = said.lines().skip(1).take(5).collect();
    assert!(problems.iter().all(|line| line.trim_start().starts_with("problem ")), "{said}");

    // The wrong password, and the right one.
    assert!(mount.umount().status.success());
    for (password, wanted) in [("wrong", "denied"), ("right", "ok")] {
        log_in(&mount, &closed, "ann", password);
        let output = mount.again_with(&[closed.host()], plain(&[&closed]));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(state(&mount, &closed.host()).0, wanted, "{password}");
        assert_eq!(
            mount.said().lines().count(),
            usize::from(wanted == "denied"),
            "{}",
            mount.said()
        );
        assert!(mount.umount().status.success());
    }
}

#[test]
fn with_strict_a_source_that_fails_is_not_mounted() {
    let sound = Hostile::start();
    let untrusted = Hostile::start_tls(Arc::new(Tls::new().server()));
    let Some(mut mount) = Mount::start(&[sound.host()], plain(&[&sound]).args(["--strict"])) else {
        return;
    };
    assert_eq!(mount.said(), "");
    assert!(mount.umount().status.success());
    let hosts = [sound.host(), untrusted.host()];
    let output = mount.again_with(&hosts, plain(&[&sound]).args(["--strict"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("tofufs: {} is untrusted: ", untrusted.host())), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        !support::mount::mounted().contains(&format!(" {} ", mount.path().display())),
        "nothing is mounted"
    );
    let output = mount.again_with(&hosts, plain(&[&sound]).args(["--strict", "--offline"]));
    assert!(output.status.success(), "who is to use no network fails at none: {output:?}");
}

/// Every request once, tokens too; by the first use of each kind of source.
#[test]
fn a_look_costs_nothing_that_the_first_use_would_not() {
    let server = Hostile::start();
    let realm = format!("http://{}/token", server.host());
    let host = server.host();
    let (content, _) = put_small(&server, "acme/net");
    server.publish("acme/aws", "1.0.0", &pack::provider("aws", "1.0.0", &["linux_amd64"]));
    let template = format!("{host}/acme/${{type}}");
    let mapped = [
        "--oci-mirror",
        &template,
        "--include",
        "reg.example/acme/*",
        "--provider",
        "reg.example/acme/aws",
    ];
    let module = format!("{host}/acme/net/1.0.0/main.tf");
    for (source, options, used) in [
        (host.clone(), &[][..], module.clone()),
        (format!("{host}/acme"), &[][..], module.clone()),
        (format!("{host}/acme/net"), &[][..], module),
        (format!("{host}/acme"), &mapped[..], "plugins/reg.example/acme/aws".to_owned()),
    ] {
        for login in [None, Some(Login::Bearer { realm: realm.clone(), user: None })] {
            server.login(login);
            let begun = server.requests().len();
            let Some(mount) = Mount::start(&[&source], plain(&[&server]).args(options)) else {
                return;
            };
            assert_eq!((mount.said(), state(&mount, &source).0.as_str()), ("", "ok"));
            let looked = server.requests().len();
            assert!(looked > begun, "{source} was looked at");
            match fs::read(mount.join(&used)) {
                Ok(read) => assert_eq!(read, content),
                Err(_) => assert_eq!(fs::read_dir(mount.join(&used)).unwrap().count(), 1),
            }
            let requests = server.requests().split_off(begun);
            let once: BTreeSet<_> =
                requests.iter().map(|r| (&r.method, &r.path, r.header("authorization"))).collect();
            assert_eq!(once.len(), requests.len(), "{source}: {requests:?}");
            assert!(server.requests_to("/v2/_ping").is_empty());
        }
    }
}

#[test]
fn what_another_mount_has_just_confirmed_is_not_asked_again_and_the_certificate_is_looked_at_all_the_same()
 {
    let tls = Tls::new();
    let server = Hostile::start_tls(Arc::new(tls.server()));
    put_small(&server, "acme/net");
    let dir = tempfile::tempdir().unwrap();
    let [ca, ..] = tls.write(dir.path());
    let trusting =
        || Options::new().args(["--ca-file", &ca.display().to_string(), "--tag-ttl", "1h"]);
    let Some(mut mount) = Mount::start(&[server.host()], trusting()) else { return };
    assert_eq!(mount.requests().0, 1);
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    assert_eq!((mount.requests(), state(&mount, &server.host()).0.as_str()), ((0, 0), "ok"));
    assert!(mount.umount().status.success());
    let output = mount.again_with(&[server.host()], Options::new().args(["--tag-ttl", "1h"]));
    assert!(output.status.success());
    fails(&mount, &server.host(), "untrusted", &["unknown authority"]);
}

/// A registry may refuse the list of what is below a prefix, and the prefix as a repository, to who
/// may read all of it.
#[test]
fn a_prefix_that_the_registry_denies_is_no_source_that_fails() {
    let server = Hostile::start();
    put_small(&server, "acme/net");
    for denied in ["/v2/acme/tags/list", "/v2/_catalog"] {
        server.rule(path(denied), Behaviour::Answer(Reply::error(403, "DENIED")));
    }
    let source = format!("{}/acme", server.host());
    for source in [source, server.host()] {
        let Some(mount) = Mount::start(&[&source], plain(&[&server])) else { return };
        assert_eq!((mount.said(), state(&mount, &source).0.as_str()), ("", "ok"));
    }
}

#[test]
fn a_declared_provider_that_is_denied_is_told() {
    let server = Hostile::start();
    let host = server.host();
    server.rule(path("/v2/acme/aws/tags/list"), Behaviour::Answer(Reply::error(403, "DENIED")));
    let template = format!("{host}/acme/${{type}}");
    let mapped = [
        "--oci-mirror",
        &template,
        "--include",
        "reg.example/acme/*",
        "--provider",
        "reg.example/acme/aws",
    ];
    let Some(mount) = Mount::start(&[format!("{host}/acme")], plain(&[&server]).args(mapped))
    else {
        return;
    };
    let line = mount.said();
    assert!(
        line.starts_with(&format!("tofufs: {host} is denied: ")) && line.contains("acme/aws"),
        "{line}"
    );
}

#[test]
fn offline_looks_at_no_registry() {
    let server = Hostile::start();
    let options = plain(&[&server]).args(["--offline"]);
    let Some(mount) = Mount::start(&[server.host()], options) else { return };
    assert_eq!((mount.said(), state(&mount, &server.host()).0.as_str()), ("", "unknown"));
    assert!(server.requests().is_empty());
}

#[test]
fn a_silent_registry_is_waited_for_no_longer_than_the_deadline() {
    let server = Hostile::start();
    server.rule(all(), Behaviour::Silence);
    let options = plain(&[&server]).args(["--deadline", "1s"]);
    let Some(mount) = Mount::start(&[server.host()], options) else { return };
    let line = format!("tofufs: {} is unreachable: ", server.host());
    assert!(
        mount.said().starts_with(&line) && mount.said().lines().count() == 1,
        "{}",
        mount.said()
    );
    assert_eq!(state(&mount, &server.host()).0, "unreachable");
}

/// A list that takes long is no outage.
#[test]
fn a_registry_whose_list_takes_long_answers() {
    let server = Hostile::start();
    server.rule(path("/v2/_catalog"), Behaviour::Silence);
    let options = plain(&[&server]).args(["--deadline", "2s"]);
    let Some(mount) = Mount::start(&[server.host()], options) else { return };
    assert_eq!((mount.said(), state(&mount, &server.host()).0.as_str()), ("", "ok"));
}

#[test]
fn a_failure_that_a_later_success_has_ended_goes_from_the_status() {
    let mut server = Hostile::start();
    let (content, _) = put_small(&server, "acme/net");
    let host = server.host();
    server.stop();
    let options = plain(&[&server]).args(["--deadline", "5s", "--tag-ttl", "1s"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    fails(&mount, &host, "unreachable", &[]);
    let bed = Bed { mount };
    let release = bed.mount.join(format!("{host}/acme/net:1.0.0"));
    assert_eq!(errno_of(fs::metadata(&release).err()), Some(Errno::HOSTUNREACH));
    let status = bed.mount.status();
    let failures = status["failures"].as_array().unwrap();
    assert!(!failures.is_empty() && failures.len() == bed.errors().len(), "{status}");
    for failure in failures {
        assert_eq!(
            (failure["errno"].as_str(), failure["time"].as_str().map(str::len)),
            (Some("EHOSTUNREACH"), Some(20))
        );
    }
    server.restart();
    assert!(wait_until(PATIENCE, || fs::read(release.join("main.tf"))
        .is_ok_and(|read| read == content)));
    assert_eq!(state(&bed.mount, &host), ("ok".to_owned(), String::new()));
    assert_eq!(bed.errors(), [""; 0], "{}", bed.mount.status());
}

#[test]
fn a_refusal_that_was_mended_goes_from_the_status() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, "acme/net");
    server.rule(manifests_of("acme/net"), Behaviour::Answer(Reply::error(403, "DENIED")));
    let Some(bed) = Bed::over(&[&server], &["--tag-ttl", "1s"]) else { return };
    let release = bed.mount.join(format!("{}/acme/net:1.0.0", server.host()));
    assert_eq!(errno_of(fs::metadata(&release).err()), Some(Errno::ACCESS));
    assert_eq!(bed.errors().len(), 1);
    server.behave();
    bed.refresh("");
    assert!(wait_until(PATIENCE, || fs::read(release.join("main.tf"))
        .is_ok_and(|read| read == content)));
    // The directory above it was asked for it.
    assert_eq!(bed.errors(), [""; 0]);
}

#[test]
fn a_download_is_told_with_its_bytes_and_who_waits_for_it() {
    let server = Hostile::start();
    let artifact = module(&noise(5, 300_000));
    server.publish("acme/net", "1.0.0", &artifact);
    server.rule(blobs(), Behaviour::Stall { after: 100_000 });
    let Some(bed) = Bed::over(&[&server], &["--deadline", "60s"]) else { return };
    assert!(bed.mount.status()["downloads"].as_array().unwrap().is_empty());
    let file = bed.mount.join(format!("{}/acme/net:1.0.0/main.tf", server.host()));
    let mut cat = std::process::Command::new("cat").arg(&file).spawn().unwrap();
    let told = || bed.mount.status()["downloads"][0].clone();
    let stalled =
        wait_until(PATIENCE, || told()["bytes"] == 100_000 && !told()["waiting"][0].is_null());
    let download = told();
    let mut command = bed.mount.command("status");
    command.arg(bed.mount.path());
    let said = String::from_utf8(finish(command).stdout).unwrap();
    let _ = cat.kill();
    let _ = cat.wait();
    assert!(stalled, "{download}");
    assert_eq!(download["size"], package_of(&artifact).len());
    assert_eq!(download["waiting"][0], json!({"pid": cat.id(), "name": "cat"}));
    assert!(
        download["reference"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{}/acme/net@sha256:", server.host()))
    );
    assert!(said.contains(&format!("for cat ({})", cat.id())) && said.contains(" of "), "{said}");
}

/// A name below a repository's prefix may be a tag of it; the sentence is about the path that was
/// looked up.
#[test]
fn what_cannot_be_looked_up_is_told_by_its_path() {
    let mut server = Hostile::start();
    let host = server.host();
    server.stop();
    let options = plain(&[&server]).args(["--deadline", "5s"]);
    let Some(mount) = Mount::start(&[format!("{host}/acme")], options) else { return };
    let bed = Bed { mount };
    assert_eq!(
        errno_of(fs::metadata(bed.mount.join(format!("{host}/acme/network"))).err()),
        Some(Errno::HOSTUNREACH)
    );
    let errors = bed.errors();
    let last = errors.last().unwrap();
    assert!(
        last.starts_with(&format!("{host}/acme/network: ")) && !last.contains("acme:network"),
        "{last}"
    );
}

/// What is published after the look is there for the first use.
#[test]
fn that_there_was_nothing_when_the_mount_began_is_not_held_against_what_comes() {
    let server = Hostile::start();
    let host = server.host();
    let template = format!("{host}/acme/${{type}}");
    let mapped = [
        "--oci-mirror",
        &template,
        "--include",
        "reg.example/acme/*",
        "--provider",
        "reg.example/acme/aws",
    ];
    for (options, used) in
        [(&[][..], host.clone()), (&mapped[..], "plugins/reg.example/acme/aws".to_owned())]
    {
        let Some(mount) = Mount::start(&[&host], plain(&[&server]).args(options)) else { return };
        assert_eq!((mount.said(), state(&mount, &host).0.as_str()), ("", "ok"));
        server.publish("acme/aws", "1.0.0", &pack::provider("aws", "1.0.0", &["linux_amd64"]));
        assert_eq!(fs::read_dir(mount.join(&used)).unwrap().count(), 1, "{used}");
        server.remove_tag("acme/aws", "1.0.0");
    }
}
