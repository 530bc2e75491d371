//! Silence, slowness, overload, absence of the registry: how waits end, and what goes on meanwhile.

use std::thread;
use std::time::Instant;

use rustix::process::{Signal, kill_process};

use super::support::hostile::{Behaviour, Reply};
use super::*;

/// A bound that proves an end, many times the deadlines that are used here.
const HANGS: Duration = Duration::from_secs(40);

fn broken(status: u16) -> Behaviour {
    Behaviour::Answer(Reply::new(status, "text/plain", "out of order"))
}

/// R04, R08, R09, R50, R51, O02; one registry for each, since a registry that fails is left alone.
#[test]
fn every_wait_for_a_registry_ends_and_says_why() {
    let large = noise(9, 100_000);
    // A blob of its own for each, since a blob that one registry is asked for is not asked of
    // another at the same time.
    let artifacts: Vec<_> = (0..6).map(|n| module(&[large.as_slice(), &[n]].concat())).collect();
    let length = package_of(&artifacts[3]).len();
    let cut = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    let cut = [&cut, &package_of(&artifacts[3])[..400]].concat();
    let limited = Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "86400");
    let cases = [
        (Behaviour::Silence, "no progress for 2 s"),
        (Behaviour::Stall { after: 40_000 }, "no progress for 2 s"),
        (Behaviour::Slow { piece: 5, pause: Duration::from_millis(50) }, "no progress for 2 s"),
        (Behaviour::Raw(cut), "without progress"),
        (Behaviour::Answer(limited), "86400 s"),
        (broken(503), "503"),
    ];
    let servers: Vec<_> = cases.iter().map(|_| Hostile::start()).collect();
    let beds: Vec<_> = servers.iter().collect();
    let Some(bed) = Bed::over(&beds, &["--deadline", "2s"]) else { return };
    thread::scope(|scope| {
        for ((server, artifact), (behaviour, word)) in servers.iter().zip(&artifacts).zip(cases) {
            let (bed, package) = (&bed, Digest::of(package_of(artifact)));
            scope.spawn(move || {
                let (honest, _) = put_small(server, "honest");
                server.publish("net", "1.0.0", artifact);
                let known = format!("{}/honest:1.0.0", server.host());
                assert_eq!(bed.main_tf(&known), honest);
                server.rule(blobs_of("net"), behaviour);
                let reference = format!("{}/net:1.0.0", server.host());
                let path = bed.path(&reference);
                assert!(path.is_dir());
                let began = Instant::now();
                let sentence =
                    bed.failed(&path, &reference, Errno::TIMEDOUT, &[word, &package.to_string()]);
                assert!(began.elapsed() < HANGS, "{sentence}");
                assert_eq!(bed.main_tf(&known), honest, "what is cached is served");
                assert_eq!(bed.cached(&package), None);
            });
        }
    });
    // The last one is broken for everything, so that it is left alone.
    let server = servers.last().unwrap();
    let fresh = format!("{}/fresh:1.0.0", server.host());
    server.rule(|_| true, broken(503));
    let spelled = bed.mount.join(&fresh);
    let left_alone = || {
        assert_eq!(errno_of(fs::metadata(&spelled).err()), Some(Errno::TIMEDOUT));
        bed.mount.log().contains("is left alone for now")
    };
    assert!(support::wait_until(HANGS, left_alone), "the breaker opens");
    let before = server.requests().len();
    bed.reported(&fresh, &["is left alone for now"]);
    assert_eq!(server.requests().len(), before);
}

/// R50, R51, R08: a registry that recovers is not noticed, and who waits holds up nobody else.
#[test]
fn a_registry_that_recovers_is_not_noticed() {
    let server = Hostile::start();
    let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
    let later = |after: &str| {
        Behaviour::Answer(Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", after))
    };
    for (repo, script) in [
        ("r51", vec![broken(500), broken(502), broken(503), broken(504)]),
        ("r50", vec![later("1"), later("-5"), later("soon")]),
        ("reset", vec![Behaviour::Reset, Behaviour::Reset]),
    ] {
        let (content, _) = put_small(&server, repo);
        let failures = script.len();
        server.script(blobs_of(repo), script);
        assert_eq!(bed.main_tf(&format!("{}/{repo}:1.0.0", server.host())), content);
        assert_eq!(blob_requests(&server, repo), failures + 1);
    }
    put_small(&server, "silent");
    let (content, _) = put_small(&server, "other");
    server.rule(blobs_of("silent"), Behaviour::Silence);
    let silent = bed.path(&format!("{}/silent:1.0.0", server.host()));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fs::read(silent.join("main.tf")));
        assert!(support::wait_until(PATIENCE, || blob_requests(&server, "silent") > 0));
        assert_eq!(bed.main_tf(&format!("{}/other:1.0.0", server.host())), content);
        assert!(!waiting.is_finished(), "the one still waits while the other was served");
        server.behave();
        server.drop_connections();
        assert!(waiting.join().unwrap().is_ok());
    });
}

/// O02: what arrived is kept, not shown, and gone on with.
#[test]
fn a_download_that_broke_off_is_resumed_by_the_next_reader() {
    let server = Hostile::start();
    let content = noise(3, 300_000);
    let artifact = module(&content);
    let package = Digest::of(package_of(&artifact));
    server.publish("net", "1.0.0", &artifact);
    server.rule(blobs_of("net"), Behaviour::Stall { after: 200_000 });
    let Some(bed) = Bed::over(&[&server], &["--deadline", "2s"]) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    bed.failed(&bed.path(&reference), &reference, Errno::TIMEDOUT, &["no progress for 2 s"]);
    assert_eq!(bed.cached(&package), None);
    let partial = fs::read_dir(bed.mount.cache().join("v1/tmp")).unwrap().map(|e| e.unwrap());
    let kept: Vec<_> = partial.map(|e| e.metadata().unwrap().len()).collect();
    assert!(kept.iter().any(|length| (1..300_000).contains(length)), "{kept:?}");
    server.behave();
    let asked = blob_requests(&server, "net");
    bed.refresh(server.host());
    assert!(support::wait_until(PATIENCE, || fs::read_dir(bed.path(&reference)).is_ok()));
    assert_eq!(bed.main_tf(&reference), content);
    let resumed = &server.requests_to("/v2/net/blobs/")[asked];
    assert!(
        resumed.header("range").is_some_and(|range| !range.starts_with("bytes=0-")),
        "{resumed:?}"
    );
    bed.cache_is_sound();
}

/// R04, O02: the connection is reset again and again.
#[test]
fn a_download_over_a_line_that_breaks_goes_on_by_ranges() {
    let server = Hostile::start();
    let content = noise(4, 400_000);
    server.publish("net", "1.0.0", &module(&content));
    server.script(
        blobs_of("net"),
        (0..6).map(|n| Behaviour::Cut { after: 50_000, reset: n % 2 == 0 }),
    );
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", server.host())), content);
    let ranged =
        server.requests_to("/v2/net/blobs/").iter().filter(|s| s.header("range").is_some()).count();
    assert!(ranged >= 3, "{ranged}");
}

/// 200 KB/s for three times the deadline.
#[test]
fn a_slow_line_outlasts_the_deadline() {
    let server = Hostile::start();
    let content = noise(5, 1_200_000);
    server.publish("net", "1.0.0", &module(&content));
    server.rule(
        blobs_of("net"),
        Behaviour::Slow { piece: 20_000, pause: Duration::from_millis(100) },
    );
    let Some(bed) = Bed::over(&[&server], &["--deadline", "2s"]) else { return };
    let began = Instant::now();
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", server.host())), content);
    assert!(began.elapsed() > Duration::from_secs(4), "the line was slow: {:?}", began.elapsed());
    assert_eq!(blob_requests(&server, "net"), 1);
}

/// O01, R51: an outage is not an absence.
#[test]
fn without_its_registry_a_mount_serves_what_was_seen_and_calls_nothing_absent() {
    let mut server = Hostile::start();
    let (content, _) = put_small(&server, "net");
    put_small(&server, "unseen");
    let Some(mut bed) = Bed::over(&[&server], &["--deadline", "5s"]) else { return };
    let host = server.host();
    let (seen, unseen) = (format!("{host}/net:1.0.0"), format!("{host}/unseen:1.0.0"));
    assert_eq!(bed.main_tf(&seen), content);
    assert_eq!(bed.mount.xattr(format!("{host}/net/1.0.0"), "user.tofufs.stale"), None);
    server.stop();
    bed.refresh(&host);
    let stale = |bed: &Bed| {
        support::wait_until(PATIENCE, || {
            bed.mount.xattr(format!("{host}/net/1.0.0"), "user.tofufs.stale").is_some()
        })
    };
    assert!(stale(&bed), "the release tells that the registry has not confirmed it");
    assert_eq!(bed.main_tf(&seen), content);

    // The next mount finds no registry from the start.
    assert!(bed.mount.umount().status.success());
    let mounted = bed.mount.again();
    assert!(mounted.status.success(), "{mounted:?}");
    assert_eq!(bed.main_tf(&seen), content);
    assert_eq!(fs::read(bed.mount.join(format!("{seen}/main.tf"))).unwrap(), content);
    bed.refresh(&host);
    assert!(stale(&bed));
    assert_eq!(bed.main_tf(&seen), content);
    for name in [&unseen, &format!("{host}/net:9.9.9")] {
        assert_eq!(
            errno_of(fs::metadata(bed.mount.join(name)).err()),
            Some(Errno::HOSTUNREACH),
            "{name}"
        );
        bed.reported(name, &[]);
    }
    assert_eq!(bed.mount.status()["sources"][0]["state"], "unreachable");

    server.restart();
    let back = support::wait_until(PATIENCE, || fs::metadata(bed.mount.join(&unseen)).is_ok());
    assert!(back, "{}", bed.mount.log());
}

/// I6: the same blob, asked first of a registry that stays silent, is served from one that answers.
#[test]
fn a_silent_registry_holds_up_the_same_blob_of_another_one_for_a_deadline_at_most() {
    let (silent, honest) = (Hostile::start(), Hostile::start());
    let content = noise(80, 100_000);
    let artifact = module(&content);
    silent.publish("net", "1.0.0", &artifact);
    honest.publish("net", "1.0.0", &artifact);
    silent.rule(blobs_of("net"), Behaviour::Silence);
    let Some(bed) = Bed::over(&[&silent, &honest], &["--deadline", "2s"]) else { return };
    thread::scope(|scope| {
        let waiting =
            scope.spawn(|| fs::read_dir(bed.path(&format!("{}/net:1.0.0", silent.host()))).err());
        assert!(support::wait_until(PATIENCE, || blob_requests(&silent, "net") > 0));
        // Later than the other by so much that its own patience outlasts it.
        thread::sleep(Duration::from_millis(700));
        assert!(
            bed.main_tf(&format!("{}/net:1.0.0", honest.host())) == content,
            "{}",
            bed.mount.log()
        );
        assert_eq!(errno_of(waiting.join().unwrap()), Some(Errno::TIMEDOUT));
    });
}

/// O03: the registry is back, and `tofufs refresh` says so before a probe would.
#[test]
fn a_refresh_ends_the_time_for_which_a_registry_is_left_alone() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, "net");
    let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    server.rule(|_| true, broken(503));
    let spelled = bed.mount.join(&reference);
    let left_alone = || {
        assert_eq!(errno_of(fs::metadata(&spelled).err()), Some(Errno::TIMEDOUT));
        bed.mount.log().contains("is left alone for now")
    };
    assert!(support::wait_until(HANGS, left_alone), "the breaker opens");
    server.behave();
    let asked = server.requests().len();
    bed.refresh("");
    assert_eq!(fs::read(spelled.join("main.tf")).unwrap(), content);
    assert!(server.requests().len() > asked);
}

/// What a person typed is asked at once: after a failure, and after so many that programs are
/// refused.
#[test]
fn a_commit_asks_at_once_whatever_has_failed_before() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, "net");
    let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
    let staged = |repo: &str| {
        let path = bed.mount.join(format!("staging/{}/{repo}/2.0.0", server.host()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("main.tf"), &content).unwrap();
        path
    };
    let commit = |path: &std::path::Path| {
        let mut command = bed.mount.command("commit");
        command.arg(path);
        support::mount::finish(command)
    };
    let (net, other) = (staged("net"), staged("other"));
    server.rule(|_| true, broken(503));
    assert!(!commit(&net).status.success());
    let spelled = bed.mount.join(format!("{}/net:1.0.0", server.host()));
    let left_alone =
        || fs::metadata(&spelled).is_err() && bed.mount.log().contains("is left alone for now");
    assert!(support::wait_until(HANGS, left_alone), "{}", bed.mount.log());
    assert!(!commit(&net).status.success(), "it still fails");
    server.behave();
    for path in [net, other] {
        let output = commit(&path);
        assert!(output.status.success(), "{output:?}");
    }
}

/// O22: the process stood still for a while, and its connections are gone or dead when it goes on.
#[test]
fn a_process_that_was_suspended_asks_again_on_new_connections() {
    let mut server = Hostile::start();
    let large = noise(22, 300_000);
    server.publish("before", "1.0.0", &module(b"# before\n"));
    server.publish("during", "1.0.0", &module(&large));
    server.publish("after", "1.0.0", &module(b"# after\n"));
    let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
    let release = |repo: &str| format!("{}/{repo}:1.0.0", server.host());
    let [before, during, after] = ["before", "during", "after"].map(release);
    assert_eq!(bed.main_tf(&before), b"# before\n");
    server.script(blobs_of("during"), [Behaviour::Stall { after: 100_000 }]);
    thread::scope(|scope| {
        let reader = scope.spawn(|| bed.main_tf(&during));
        assert!(wait_until(PATIENCE, || blob_requests(&server, "during") == 1));
        let process = bed.mount.pid();
        kill_process(process, Signal::STOP).unwrap();
        thread::sleep(Duration::from_millis(300));
        server.drop_connections();
        kill_process(process, Signal::CONT).unwrap();
        assert_eq!(reader.join().unwrap(), large);
    });
    server.restart();
    assert_eq!(bed.main_tf(&after), b"# after\n");
}
