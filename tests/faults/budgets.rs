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
