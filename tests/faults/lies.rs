//! A registry that lies about blobs.

use super::support::hostile::{Behaviour, Reply};
use super::*;

/// One lie: the errno and words of the refusal, how often the blob is asked for (0: does not
/// matter).
struct Lie {
    repo: String,
    errno: Errno,
    words: Vec<String>,
    requests: usize,
}

/// A registry with one honest repository and one for each lie.
struct Liar {
    server: Hostile,
    lies: Vec<Lie>,
    packages: Vec<Digest>,
}

impl Liar {
    fn new() -> Liar {
        Liar { server: Hostile::start(), lies: Vec::new(), packages: Vec::new() }
    }

    fn refuses(&mut self, repo: &str, errno: Errno, requests: usize, words: &[&str]) {
        let words = words.iter().map(|&w| w.to_owned()).collect();
        self.lies.push(Lie { repo: repo.to_owned(), errno, words, requests });
    }

    /// A module in `repo` whose blob is answered for by `behaviour`; the digest of its package.
    fn blob(&mut self, repo: &str, behaviour: Behaviour) -> Digest {
        let (_, package) = put_small(&self.server, repo);
        self.server.rule(blobs_of(repo), behaviour);
        self.packages.push(package);
        package
    }

    /// A module in `repo` whose manifest claims another size of its package.
    fn size(&mut self, repo: &str, wrong: impl Fn(usize) -> usize) -> usize {
        let zip = pack::zip(&[("main.tf", &noise(seed_of(repo), 700))]);
        let mut manifest = module_manifest(&zip);
        manifest["layers"][0]["size"] = json!(wrong(zip.len()));
        self.packages.push(self.server.put_blob(&zip));
        let manifest = document(&manifest);
        self.server.put_manifest(repo, Some("1.0.0"), manifest.media_type, &manifest.bytes);
        zip.len()
    }

    /// All of it through one mount, with an honest module read before and afterwards.
    fn holds(self) {
        let (content, honest) = put_small(&self.server, "honest");
        let Some(bed) = Bed::over(&[&self.server], &["--deadline", "10s"]) else { return };
        let host = self.server.host();
        assert_eq!(bed.main_tf(&format!("{host}/honest:1.0.0")), content);
        for lie in &self.lies {
            let words: Vec<&str> = lie.words.iter().map(String::as_str).collect();
            let sentence = bed.refused(&format!("{host}/{}:1.0.0", lie.repo), lie.errno, &words);
            assert!(sentence.contains("sha256:"), "{sentence}");
            if lie.requests > 0 {
                assert_eq!(blob_requests(&self.server, &lie.repo), lie.requests, "{sentence}");
            }
        }
        for package in &self.packages {
            assert_eq!(bed.cached(package), None, "what was refused is not in the cache");
        }
        assert!(bed.cached(&honest).is_some());
        assert_eq!(bed.main_tf(&format!("{host}/honest:1.0.0")), content);
        assert_eq!(blob_requests(&self.server, "honest"), 1);
        bed.cache_is_sound();
    }
}

/// R01, R02, R03, R04 (complete, but short), R07, R53
#[test]
fn bytes_that_are_not_what_was_named_are_never_seen_and_never_kept() {
    let mut liar = Liar::new();
    let flipped = Behaviour::edit(|_, mut reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 1;
        reply
    });
    let package = liar.blob("r01", flipped);
    liar.refuses(
        "r01",
        Errno::IO,
        2,
        &[&package.to_string(), "what arrived is refused", "have the digest sha256:"],
    );
    let size = liar.size("r02-more", |size| size + 1);
    liar.refuses("r02-more", Errno::IO, 0, &["size", &size.to_string(), &(size + 1).to_string()]);
    let size = liar.size("r02-less", |size| size - 1);
    liar.refuses("r02-less", Errno::IO, 0, &["size", &size.to_string(), &(size - 1).to_string()]);
    liar.size("r03", |size| size - 1);
    liar.server.rule(blobs_of("r03"), Behaviour::Chunked { bytes: 1 << 20, terminated: true });
    liar.refuses("r03", Errno::IO, 0, &["longer"]);
    let part = Reply::new(200, "application/octet-stream", noise(4, 400));
    liar.blob("r04-length", Behaviour::Answer(part));
    liar.refuses("r04-length", Errno::IO, 0, &["the answer has 400 bytes"]);
    let part = Reply::new(200, "application/octet-stream", "5\r\nabcde\r\n0\r\n\r\n");
    liar.blob("r04-chunks", Behaviour::Answer(part.with("Transfer-Encoding", "chunked")));
    liar.refuses("r04-chunks", Errno::IO, 0, &["ended after 5"]);
    liar.blob("r07", Behaviour::Endless("application/octet-stream"));
    liar.refuses("r07", Errno::IO, 0, &["longer"]);
    // Each part looks right, and together they are two blobs.
    liar.blob("r53", Behaviour::Cut { after: 400, reset: false });
    let other = Behaviour::edit(|_, mut reply| {
        reply.body.iter_mut().for_each(|byte| *byte ^= 0x55);
        reply
    });
    liar.server.rule(|seen| blobs_of("r53")(seen) && seen.header("range").is_some(), other);
    liar.refuses("r53", Errno::IO, 0, &["what arrived is refused"]);
    liar.holds();
}

/// R05, R06, R52
#[test]
fn an_answer_that_breaks_the_protocol_is_told_from_a_wrong_blob() {
    let mut liar = Liar::new();
    let both = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"x\":1}\r\n0\r\n\r\n";
    liar.blob("r05", Behaviour::Raw(both.to_vec()));
    liar.refuses("r05", Errno::PROTO, 0, &["both Content-Length and"]);
    for (repo, encoding) in
        [("r06", "gzip"), ("r06-x", "x-gzip"), ("r06-br", "br"), ("r06-twice", "gzip, gzip")]
    {
        liar.blob(repo, Behaviour::edit(move |_, reply| reply.with("Content-Encoding", encoding)));
        liar.refuses(repo, Errno::PROTO, 0, &[encoding]);
    }
    let ranged = |repo: &'static str| {
        move |seen: &Seen| blobs_of(repo)(seen) && seen.header("range").is_some()
    };
    liar.blob("r52-range", Behaviour::Cut { after: 400, reset: false });
    liar.server.rule(
        ranged("r52-range"),
        Behaviour::edit(|_, reply| reply.with("Content-Range", "bytes 0-99/100")),
    );
    liar.refuses("r52-range", Errno::PROTO, 0, &["range"]);
    liar.blob("r52-parts", Behaviour::Cut { after: 400, reset: false });
    let parts = Reply::new(206, "multipart/byteranges; boundary=x", "--x--");
    liar.server.rule(ranged("r52-parts"), Behaviour::Answer(parts));
    liar.refuses("r52-parts", Errno::PROTO, 0, &["range"]);
    liar.blob("r52-etag", Behaviour::Cut { after: 400, reset: false });
    liar.server
        .rule(ranged("r52-etag"), Behaviour::edit(|_, reply| reply.with("ETag", "\"other\"")));
    liar.refuses("r52-etag", Errno::PROTO, 0, &["ETag"]);
    liar.blob("r52-416", Behaviour::Cut { after: 400, reset: false });
    liar.server.rule(ranged("r52-416"), Behaviour::Answer(Reply::error(416, "RANGE")));
    liar.refuses("r52-416", Errno::PROTO, 0, &["416"]);
    liar.holds();
}

/// R48, R49
#[test]
fn a_blob_that_is_not_given_is_never_an_absence() {
    let mut liar = Liar::new();
    for (status, errno, words) in [
        (403, Errno::ACCESS, "403"),
        (451, Errno::ACCESS, "451"),
        (404, Errno::IO, "names a blob that the registry lacks"),
        (410, Errno::IO, "names a blob that the registry lacks"),
    ] {
        let repo = format!("r48-{status}");
        let package = liar.blob(&repo, Behaviour::Answer(Reply::error(status, "X")));
        liar.refuses(&repo, errno, 0, &[words, &package.to_string()]);
    }
    for status in [200, 404] {
        let repo = format!("r49-{status}");
        liar.blob(&repo, Behaviour::Answer(Reply::new(status, "text/html", "<html>log in</html>")));
        liar.refuses(&repo, Errno::PROTO, 0, &["HTML", "not a registry"]);
    }
    liar.holds();
}

/// R52: what can be mended is, and two versions are never spliced.
#[test]
fn a_transfer_that_starts_over_serves_the_right_bytes() {
    let server = Hostile::start();
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let cut = || Behaviour::Cut { after: 400, reset: false };
    let wrong_range = Behaviour::edit(|_, reply| reply.with("Content-Range", "bytes 0-99/100"));
    for (repo, second) in
        [("whole", Behaviour::IgnoreRange), ("range", wrong_range), ("ended", cut())]
    {
        let (content, _) = put_small(&server, repo);
        server.script(blobs_of(repo), [cut(), second]);
        assert_eq!(bed.main_tf(&format!("{}/{repo}:1.0.0", server.host())), content);
        assert!(blob_requests(&server, repo) > 1, "{repo}");
    }
}

/// R01, R48: the reason stands on the platform and on the zip that were opened; other platforms go
/// on.
#[test]
fn a_platform_that_is_refused_says_so_and_leaves_the_others_alone() {
    let server = Hostile::start();
    let provider =
        pack::provider("hello", "1.0.0", &["linux_amd64", "linux_arm64", "darwin_arm64"]);
    server.publish("hello", "1.0.0", &provider);
    let [_, amd64, arm64, _] = &provider.blobs[..] else { panic!("three packages") };
    let of = |digest: Digest| move |seen: &Seen| seen.path.ends_with(&digest.to_string());
    let (amd64, arm64) = (Digest::of(amd64), Digest::of(arm64));
    let flipped = Behaviour::edit(|_, mut reply| {
        reply.body[40] ^= 1;
        reply
    });
    server.rule(of(amd64), flipped);
    server.rule(of(arm64), Behaviour::Answer(Reply::error(404, "BLOB_UNKNOWN")));
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let reference = format!("{}/hello:1.0.0", server.host());
    let release = bed.path(&reference);
    for (platform, package, words) in
        [("linux_amd64", amd64, "what arrived"), ("linux_arm64", arm64, "registry lacks")]
    {
        bed.refused_at(
            &release.join(platform),
            &reference,
            Errno::IO,
            &[platform, words, &package.to_string()],
        );
        let zip = release.join(format!("{platform}.zip"));
        assert!(zip.metadata().unwrap().len() > 0, "the size is known from the manifest");
        assert_eq!(errno_of_reading(&zip), Some(Errno::IO));
        let sentence = support::mount::xattr(&zip, "user.tofufs.error").unwrap();
        bed.explained(&sentence, &reference, &[platform, words, &package.to_string()]);
        assert_eq!(bed.cached(&package), None);
    }
    let sound = fs::read(release.join("darwin_arm64.zip")).unwrap();
    assert_eq!(&sound, provider.blobs.last().unwrap());
    assert_eq!(fs::read_dir(release.join("darwin_arm64")).unwrap().count(), 2);
}

/// R48: the index stands, so that a platform's manifest that the registry lacks is a fault and no
/// absence.
#[test]
fn a_platform_whose_manifest_is_missing_is_a_fault() {
    let server = Hostile::start();
    let provider = pack::provider("hello", "1.0.0", &["linux_amd64"]);
    server.publish("hello", "1.0.0", &provider);
    let target = provider.manifests[0].digest();
    let of_target = move |seen: &Seen| seen.path.ends_with(&target.to_string());
    server.rule(of_target, Behaviour::Answer(Reply::error(404, "MANIFEST_UNKNOWN")));
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let reference = format!("{}/hello:1.0.0", server.host());
    let platform = bed.path(&reference).join("linux_amd64");
    bed.refused_at(
        &platform,
        &reference,
        Errno::IO,
        &["linux_amd64", "its source lacks", &target.to_string()],
    );
}

/// I6: what one repository refuses or spoils, or says wrongly of its size, another one serves.
#[test]
fn the_same_blob_in_an_honest_repository_is_not_spoilt() {
    let server = Hostile::start();
    let content = noise(77, 700);
    let artifact = module(&content);
    let lies = [
        ("denied", Errno::ACCESS, Behaviour::Answer(Reply::error(403, "DENIED"))),
        ("lacking", Errno::IO, Behaviour::Answer(Reply::error(404, "BLOB_UNKNOWN"))),
        ("portal", Errno::PROTO, Behaviour::Answer(Reply::new(200, "text/html", "<html></html>"))),
    ];
    for (repo, ..) in &lies {
        server.publish(repo, "1.0.0", &artifact);
    }
    server.publish("honest", "1.0.0", &artifact);
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let host = server.host();
    for (repo, errno, behaviour) in lies {
        server.rule(blobs_of(repo), behaviour);
        bed.refused(&format!("{host}/{repo}:1.0.0"), errno, &[]);
    }
    assert_eq!(bed.main_tf(&format!("{host}/honest:1.0.0")), content);
}

/// R04, R53, I6: what broke off is resumed, but not believed.
#[test]
fn wrong_bytes_of_a_download_that_broke_off_spoil_no_later_one() {
    let (evil, honest) = (Hostile::start(), Hostile::start());
    let content = noise(78, 200_000);
    let artifact = module(&content);
    evil.publish("net", "1.0.0", &artifact);
    honest.publish("net", "1.0.0", &artifact);
    let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", package_of(&artifact).len());
    evil.rule(blobs_of("net"), Behaviour::Raw([head.as_bytes(), &noise(79, 90_000)].concat()));
    let Some(bed) = Bed::over(&[&evil, &honest], &["--deadline", "10s"]) else { return };
    let reference = format!("{}/net:1.0.0", evil.host());
    bed.failed(&bed.path(&reference), &reference, Errno::TIMEDOUT, &["without progress"]);
    assert!(bed.main_tf(&format!("{}/net:1.0.0", honest.host())) == content, "{}", bed.mount.log());
    let asked = honest.requests_to("/v2/net/blobs/");
    assert!(
        asked[0].header("range").is_some() && asked[1].header("range").is_none(),
        "the wrong part was met"
    );
    bed.cache_is_sound();
}
