//! Tags that move: who entered a release keeps it.

use super::support::hostile::Behaviour;
use super::*;
use std::io::Read as _;

/// R46
#[test]
fn who_entered_a_release_keeps_it_and_the_next_lookup_after_a_refresh_finds_the_new_one() {
    let server = Hostile::start();
    let [old, new] = [1, 2].map(|seed| {
        let large = noise(seed, 600_000);
        (pack::module(&[("main.tf", &noise(seed, 900)), ("sub/large.tf", &large)]), large)
    });
    server.publish("acme/net", "1.0.0", &old.0);
    let Some(bed) = Bed::over(&[&server], &["--tag-ttl", "1h"]) else { return };
    let reference = format!("{}/acme/net:1.0.0", server.host());
    let release = bed.path(&reference);
    let mut open = fs::File::open(release.join("sub/large.tf")).unwrap();
    let mut read = vec![0; 1000];
    open.read_exact(&mut read).unwrap();
    // A process whose working directory the release is.
    let inside =
        rustix::fs::open(&release, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
            .unwrap();
    let from_inside = |name: &str| {
        let file = rustix::fs::openat(
            &inside,
            name,
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let mut bytes = Vec::new();
        fs::File::from(file).read_to_end(&mut bytes).map(|_| bytes).unwrap()
    };
    let digest = |path: &Path| support::mount::xattr(path, "user.oci.digest").unwrap();
    server.publish("acme/net", "1.0.0", &new.0);

    assert_eq!(
        fs::read(release.join("sub/large.tf")).unwrap(),
        old.1,
        "the tag is believed for its time to live"
    );
    assert_eq!(digest(&release), old.0.digest().to_string());
    bed.refresh(format!("{}/acme/net", server.host()));
    assert!(support::wait_until(PATIENCE, || digest(&release) == new.0.digest().to_string()));
    assert_eq!(fs::read(release.join("sub/large.tf")).unwrap(), new.1);
    assert_eq!(bed.main_tf(&reference), noise(2, 900));

    open.read_to_end(&mut read).unwrap();
    assert_eq!(read, old.1, "an open file stays on its digest");
    assert_eq!(
        from_inside("main.tf"),
        noise(1, 900),
        "and so does all that is beneath an entered directory"
    );
    assert_eq!(from_inside("sub/large.tf"), old.1);
}

/// R46, R47: listing and opening see one answer for as long as it holds, whatever the registry says
/// at each request.
#[test]
fn a_tag_that_flips_at_each_request_gives_one_tree() {
    let server = Hostile::start();
    let [one, two] = [1, 2]
        .map(|seed| pack::module(&[("a.tf", &noise(seed, 900)), ("b.tf", &noise(seed, 800))]));
    server.publish("net", "1.0.0", &one);
    server.publish("net", "1.0.0", &two);
    let flips = std::sync::atomic::AtomicUsize::new(0);
    let (a, b) = (one.root().bytes.clone(), two.root().bytes.clone());
    let flip = Behaviour::edit(move |_, mut reply| {
        let odd = flips.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 == 1;
        reply.body = if odd { a.clone() } else { b.clone() };
        let digest = Digest::of(&reply.body).to_string();
        reply.with("Docker-Content-Digest", digest)
    });
    server.rule(|seen| seen.path == "/v2/net/manifests/1.0.0", flip);
    let Some(bed) = Bed::over(&[&server], &["--tag-ttl", "1ms"]) else { return };
    // A machine may be so fast that several rounds fall into one time to live.
    let looks = || server.requests_to("/v2/net/manifests/1.0.0").len();
    let enough = support::wait_until(PATIENCE, || {
        let path = bed.path(&format!("{}/net:1.0.0", server.host()));
        let dir = rustix::fs::open(path, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
            .unwrap();
        let seeds = ["a.tf", "b.tf"].map(|name| {
            let file = rustix::fs::openat(
                &dir,
                name,
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            )
            .unwrap();
            let mut bytes = Vec::new();
            fs::File::from(file).read_to_end(&mut bytes).unwrap();
            [1, 2]
                .into_iter()
                .find(|seed| noise(*seed, bytes.len()) == bytes)
                .expect("one of the two")
        });
        assert_eq!(seeds[0], seeds[1]);
        looks() > 20
    });
    assert!(enough, "the tag was asked for {} times", looks());
}
