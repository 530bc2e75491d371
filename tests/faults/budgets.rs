//! How many requests a cold and a warm mount send.

use super::support::hostile::{Behaviour, Reply, path};
use super::*;

const REPO: &str = "acme/net";

fn cold(with_catalog: bool, file: &str) -> Option<u64> {
    let server = Hostile::start();
    let (content, _) = put_small(&server, REPO);
    if !with_catalog {
        server.rule(path("/v2/_catalog"), Behaviour::Answer(Reply::error(404, "UNSUPPORTED")));
    }
    let bed = Bed::over(&[&server], &[])?;
    assert_eq!(bed.mount.requests(), (1, 0), "one look, at what is asked first anyway");
    assert_eq!(fs::read(bed.mount.join(format!("{}/{file}", server.host()))).unwrap(), content);
    let (total, blob) = bed.mount.requests();
    assert_eq!(blob, 1);
    assert_eq!(total as usize, server.requests().len(), "the status counts what arrived");
    Some(total)
}

#[test]
fn a_cold_file_costs_few_requests_with_and_without_a_catalog() {
    for with_catalog in [true, false] {
        let Some(spelled) = cold(with_catalog, "acme/net:1.0.0/main.tf") else { return };
        let Some(listed) = cold(with_catalog, "acme/net/1.0.0/main.tf") else { return };
        println!("catalog {with_catalog}: {spelled} requests by NAME:TAG, {listed} by NAME/TAG");
        assert!(spelled <= 3 && listed <= 5, "{spelled}, {listed}");
    }
}

#[test]
fn a_cold_file_of_a_declared_repository_costs_manifest_and_blob_and_the_list_if_it_is_walked() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, REPO);
    let source = format!("{}/{REPO}", server.host());
    for (file, budget) in [(format!("{source}:1.0.0"), 3), (format!("{source}/1.0.0"), 5)] {
        let options = Options::new().args(["--plain-http", &server.host()]);
        let Some(mount) = Mount::start(&[&source], options) else { return };
        assert_eq!(fs::read(mount.join(file).join("main.tf")).unwrap(), content);
        let (total, _) = mount.requests();
        assert!(total <= budget, "{total} requests");
    }
}

#[test]
fn attributes_of_four_hundred_tags_cost_one_request() {
    let server = Hostile::start();
    for n in 0..400 {
        server.put_manifest(REPO, Some(&format!("1.0.{n}")), IMAGE, b"{}");
    }
    let source = format!("{}/{REPO}", server.host());
    let options = Options::new().args(["--plain-http", &server.host()]);
    let Some(mount) = Mount::start(&[&source], options) else { return };
    let mut command = std::process::Command::new("ls");
    command.arg("-l").arg(mount.join(&source));
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout.split(|b| *b == b'\n').filter(|l| l.starts_with(b"d")).count(), 400);
    assert_eq!(mount.requests(), (1, 0));
}

#[test]
fn what_was_read_before_costs_nothing_within_the_time_to_live() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, REPO);
    server.publish("hello", "1.0.0", &pack::provider("hello", "1.0.0", &["linux_amd64"]));
    let Some(mut bed) = Bed::over(&[&server], &["--tag-ttl", "1h"]) else { return };
    let host = server.host();
    let walk = |bed: &Bed| {
        assert_eq!(bed.main_tf(&format!("{host}/{REPO}:1.0.0")), content);
        fs::read_dir(bed.mount.join(format!("{host}/{REPO}"))).unwrap().count();
        let provider = bed.path(&format!("{host}/hello:1.0.0"));
        let zip = fs::read(provider.join("linux_amd64.zip")).unwrap();
        assert_eq!(fs::read_dir(provider.join("linux_amd64")).unwrap().count(), 2);
        zip
    };
    let zip = walk(&bed);
    let (total, _) = bed.mount.requests();
    assert_eq!(walk(&bed), zip);
    assert_eq!(bed.mount.requests().0, total);
    assert_eq!(server.requests().len() as u64, total, "and none arrived");
    // The next mount has the content and asks for names at most.
    assert!(bed.mount.umount().status.success());
    assert!(bed.mount.again().status.success());
    assert_eq!(walk(&bed), zip);
    assert_eq!(bed.mount.requests().1, 0);
}

/// How many absent names are looked up one after another: `ABSENT_NAMES`, or a quick 4,000.
fn absent_names() -> usize {
    std::env::var("ABSENT_NAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(4000)
}

/// Whether `path` is there; only an absence that is told is one.
#[track_caller]
fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(e) => {
            assert_eq!(errno_of(Some(e)), Some(Errno::NOENT), "{}", path.display());
            false
        }
    }
}

fn resident(mount: &Mount) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn names_that_fresh_lists_lack_cost_no_request_and_no_memory() {
    let server = Hostile::start();
    put_small(&server, REPO);
    let patient = Options::new().longer(Duration::from_millis(absent_names() as u64));
    let Some(bed) = Bed::with(patient, &[&server], &["--tag-ttl", "1h"]) else { return };
    let repository = bed.mount.join(format!("{}/{REPO}", server.host()));
    assert!(is_there(&repository.join("1.0.0")) && !is_there(&repository.join("0.9.9")));
    let (total, _) = bed.mount.requests();
    let before = resident(&bed.mount);
    for n in 0..absent_names() {
        assert!(
            !is_there(&repository.join(format!("a{n}")))
                && !is_there(&repository.join(format!("9.{n}.0")))
        );
        assert!(!is_there(&repository.with_file_name(format!("net:1.0.{n}x"))));
    }
    assert_eq!(bed.mount.requests().0, total, "the lists of tags and repositories answer");
    let grown = resident(&bed.mount).saturating_sub(before);
    println!("{} absent names: {grown} KiB more", 3 * absent_names());
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn what_comes_after_a_list_is_found_by_the_end_of_its_time_or_a_refresh_and_what_is_published_here_at_once()
 {
    let server = Hostile::start();
    put_small(&server, REPO);
    let Some(bed) = Bed::over(&[&server], &["--tag-ttl", "1h"]) else { return };
    let host = server.host();
    let repository = bed.mount.join(format!("{host}/{REPO}"));
    let (listed, spelled) = (repository.join("2.0.0"), repository.with_file_name("net:2.0.0"));
    let nested = repository.join("sub/1.0.0");
    assert!(!is_there(&listed) && !is_there(&spelled) && !is_there(&nested));
    server.publish(REPO, "2.0.0", &module(b"# new\n"));
    server.publish(&format!("{REPO}/sub"), "1.0.0", &module(b"# nested\n"));
    bed.refresh(format!("{host}/{REPO}"));
    assert!(is_there(&listed) && is_there(&spelled) && is_there(&nested));
    // With the same lists at hand:
    let tag = format!("{host}/{REPO}/deep:1.0.0");
    assert!(!is_there(&repository.join("deep")) && !is_there(&bed.mount.join(&tag)));
    let stage = bed.mount.join(format!("staging/{tag}"));
    fs::create_dir_all(&stage).unwrap();
    fs::write(stage.join("main.tf"), "# deep\n").unwrap();
    fs::rename(&stage, bed.mount.join(&tag)).unwrap();
    assert_eq!(fs::read(bed.mount.join(&tag).join("main.tf")).unwrap(), b"# deep\n");
    assert_eq!(fs::read(repository.join("deep/1.0.0/main.tf")).unwrap(), b"# deep\n");
}

/// Looks up absent names as the user 65534, `each` in each of so many programs at once: how many
/// are told to be absent, and how many are refused as busy.
fn look_up(dir: &Path, programs: usize, each: usize) -> Option<(usize, usize)> {
    let (true, Some(setpriv)) = (rustix::process::geteuid().is_root(), support::program("setpriv"))
    else {
        support::skip("needs root and setpriv");
        return None;
    };
    let look = |program: usize| {
        let mut command = std::process::Command::new(&setpriv);
        command.env("LC_ALL", "C").args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "stat",
        ]);
        command.args((0..each).map(|n| dir.join(format!("x{program}-{n}.{programs}"))));
        let said = String::from_utf8(finish(command).stderr).unwrap();
        let count = |words: &str| said.lines().filter(|line| line.ends_with(words)).count();
        let told = (count(": No such file or directory"), count(": Device or resource busy"));
        assert_eq!(told.0 + told.1, each, "{said}");
        told
    };
    let told: Vec<_> = std::thread::scope(|scope| {
        let look = &look;
        let running: Vec<_> =
            (0..programs).map(|program| scope.spawn(move || look(program))).collect();
        running.into_iter().map(|thread| thread.join().expect("a count")).collect()
    });
    Some((told.iter().map(|told| told.0).sum(), told.iter().map(|told| told.1).sum()))
}

/// L22
#[test]
fn other_users_cannot_use_up_what_the_registry_grants_and_ordinary_work_of_theirs_is_not_refused() {
    use std::os::unix::fs::PermissionsExt;

    let server = Hostile::start();
    put_small(&server, REPO);
    let Some(bed) = Bed::over(&[&server], &["--allow-other"]) else { return };
    let base = bed.mount.path().parent().unwrap();
    fs::set_permissions(base, fs::Permissions::from_mode(0o755)).unwrap();
    let prefix = bed.mount.join(format!("{}/acme", server.host()));
    let Some(told) = look_up(&prefix, 1, 230) else { return };
    assert_eq!(told, (230, 0), "one after another, each is answered");
    let (before, _) = bed.mount.requests();
    let began = std::time::Instant::now();
    let (absent, busy) = look_up(&prefix, 40, 15).unwrap();
    let seconds = began.elapsed().as_secs() + 1;
    let (after, _) = bed.mount.requests();
    println!("{absent} absent, {busy} busy: {} requests in {seconds} s", after - before);
    assert!(after - before <= 210 + 10 * seconds, "{} requests in {seconds} s", after - before);
    assert!(busy > 200, "{busy}");
    let log = bed.mount.log();
    assert!(log.contains("65534") && log.contains("one after another"), "{log}");
    // The owner is served as before.
    for n in 0..300 {
        assert!(!is_there(&prefix.join(format!("mine-{n}.x"))));
    }
}
