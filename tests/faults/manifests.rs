//! A registry whose manifests are refused.

use base64::Engine as _;

use super::support::hostile::{Behaviour, Reply, path};
use super::*;
use tofufs::artifact::{PROVIDER, PROVIDER_TARGET};
use tofufs::oci::INDEX;

/// A text in place of the module's manifest, put under a tag of its own in one repository.
struct Refusal {
    tag: String,
    errno: Errno,
    words: Vec<String>,
}

struct Table {
    server: Hostile,
    zip: Vec<u8>,
    refusals: Vec<Refusal>,
}

const REPO: &str = "acme/net";

impl Table {
    fn new() -> Table {
        let zip = pack::zip(&[("main.tf", b"# sound\n")]);
        let server = Hostile::start();
        server.put_blob(&zip);
        Table { server, zip, refusals: Vec::new() }
    }

    fn text(&mut self, tag: &str, text: &str, errno: Errno, words: &[&str]) {
        self.server.put_manifest(REPO, Some(tag), IMAGE, text.as_bytes());
        self.expect(tag, errno, words);
    }

    /// The sound manifest, spoilt.
    fn spoilt(&mut self, tag: &str, spoil: impl FnOnce(&mut Value), errno: Errno, words: &[&str]) {
        let mut manifest = module_manifest(&self.zip);
        spoil(&mut manifest);
        self.text(tag, &manifest.to_string(), errno, words);
    }

    /// A manifest that only this tag has, whose answer is changed.
    fn answered(&mut self, tag: &str, behaviour: Behaviour, errno: Errno, words: &[&str]) {
        self.spoilt(tag, |m| m["annotations"] = json!({ "tag": tag }), errno, words);
        let mut manifest = module_manifest(&self.zip);
        manifest["annotations"] = json!({ "tag": tag });
        let names = [tag.to_owned(), document(&manifest).digest().to_string()];
        let named = move |seen: &Seen| {
            names.iter().any(|name| seen.path == format!("/v2/{REPO}/manifests/{name}"))
        };
        self.server.rule(named, behaviour);
    }

    fn expect(&mut self, tag: &str, errno: Errno, words: &[&str]) {
        let words = words.iter().map(|&w| w.to_owned()).collect();
        self.refusals.push(Refusal { tag: tag.to_owned(), errno, words });
    }

    fn holds(self) {
        let sound = document(&module_manifest(&self.zip));
        self.server.put_manifest(REPO, Some("sound"), sound.media_type, &sound.bytes);
        let Some(bed) = Bed::over(&[&self.server], &["--deadline", "10s"]) else { return };
        let host = self.server.host();
        for refusal in &self.refusals {
            let words: Vec<&str> = refusal.words.iter().map(String::as_str).collect();
            bed.refused(&format!("{host}/{REPO}:{}", refusal.tag), refusal.errno, &words);
            // The other spelling of the same.
            let spelled = bed.mount.join(format!("{host}/{REPO}:{}", refusal.tag));
            assert_eq!(
                errno_of(fs::read_dir(spelled).err()),
                Some(refusal.errno),
                "{}",
                refusal.tag
            );
        }
        assert_eq!(
            blob_requests(&self.server, REPO),
            0,
            "nothing that a refused manifest names is asked for"
        );
        assert_eq!(bed.main_tf(&format!("{host}/{REPO}:sound")), b"# sound\n");
        bed.cache_is_sound();
    }
}

/// R31, R37, R39, R43
#[test]
fn a_manifest_that_opentofu_refuses_or_that_has_two_meanings_is_refused() {
    let mut table = Table::new();
    let bad = Errno::BADMSG;
    let sound = module_manifest(&table.zip).to_string();
    let twice = sound.replacen("\"layers\":", "\"layers\":[],\"layers\":", 1);
    table.text("r31-layers", &twice, bad, &["layers", "twice"]);
    let twice = sound.replace("\"size\":", "\"Digest\":\"sha256:00\",\"size\":");
    table.text("r31-case", &twice, bad, &["\"Digest\"", "twice"]);
    let twice = sound.replace("\"size\":", "\"digest\":\"sha256:00\",\"size\":");
    table.text("r31-digest", &twice, bad, &["digest", "twice"]);
    table.spoilt("r37", |m| m["manifests"] = json!([]), bad, &["manifests", "layers"]);
    let without = |key: &'static str| {
        move |m: &mut Value| {
            m.as_object_mut().unwrap().remove(key);
        }
    };
    table.spoilt(
        "r39-artifact",
        without("artifactType"),
        bad,
        &["artifactType is missing", MODULE],
    );
    table.spoilt(
        "r39-other",
        |m| m["artifactType"] = json!("x/y"),
        bad,
        &["\"x/y\"", "wanted", MODULE],
    );
    table.spoilt("r43-none", |m| m["layers"] = json!([]), bad, &["no layer", ZIP]);
    table.spoilt(
        "r43-tar",
        |m| m["layers"][0]["mediaType"] = json!("application/x-tar"),
        bad,
        &["application/x-tar"],
    );
    let doubled = |m: &mut Value| {
        let layer = m["layers"][0].clone();
        m["layers"].as_array_mut().unwrap().push(layer);
    };
    table.spoilt("r43-two", doubled, bad, &["more than one layer", ZIP]);
    table.text("trailing", &format!("{sound}x"), bad, &[]);
    table.holds();
}

/// R34, R36
#[test]
fn a_descriptor_that_is_none_is_refused_before_it_is_used() {
    let mut table = Table::new();
    let hex = Digest::of(b"x").hex().to_string();
    let digests = [
        ("r34-md5", "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), Errno::OPNOTSUPP),
        ("r34-sha1", format!("sha1:{}", &hex[..40]), Errno::OPNOTSUPP),
        ("r34-blake3", format!("blake3:{hex}"), Errno::OPNOTSUPP),
        ("r34-short", format!("sha256:{}", &hex[..63]), Errno::BADMSG),
        ("r34-long", format!("sha256:{hex}0"), Errno::BADMSG),
        ("r34-upper", format!("sha256:{}", hex.to_uppercase()), Errno::BADMSG),
        ("r34-path", "sha256:../../x".to_owned(), Errno::BADMSG),
        ("r34-empty", String::new(), Errno::BADMSG),
    ];
    for (tag, digest, errno) in digests {
        let word = if errno == Errno::OPNOTSUPP {
            digest.split(':').next().unwrap_or_default()
        } else {
            &*digest
        };
        table.spoilt(tag, |m| m["layers"][0]["digest"] = json!(digest), errno, &["digest", word]);
    }
    let sizes = [
        ("r36-nothing", json!(0), Errno::BADMSG),
        ("r36-negative", json!(-1), Errno::BADMSG),
        ("r36-most", json!(i64::MAX), Errno::FBIG),
        ("r36-beyond", json!(1u64 << 63), Errno::BADMSG),
        ("r36-half", json!(1.5), Errno::BADMSG),
        ("r36-text", json!("12"), Errno::BADMSG),
        ("r36-null", Value::Null, Errno::BADMSG),
    ];
    for (tag, size, errno) in sizes {
        let word = if errno == Errno::FBIG { "limit" } else { "size" };
        table.spoilt(tag, |m| m["layers"][0]["size"] = size, errno, &[word]);
    }
    let missing = |m: &mut Value| drop(m["layers"][0].as_object_mut().unwrap().remove("size"));
    table.spoilt("r36-missing", missing, Errno::BADMSG, &["size"]);
    table.holds();
}

/// R06, R07, R29, R38, R44, R49
#[test]
fn a_manifest_that_is_not_what_its_answer_says_is_refused() {
    let mut table = Table::new();
    let large = vec![b' '; (4 << 20) + 1];
    table.answered(
        "r29-header",
        Behaviour::Answer(Reply::new(200, IMAGE, large.clone())),
        Errno::FBIG,
        &["4194304"],
    );
    let head = format!("HTTP/1.1 200 X\r\nContent-Type: {IMAGE}\r\n\r\n");
    table.answered(
        "r29-body",
        Behaviour::Raw([head.as_bytes(), &large].concat()),
        Errno::FBIG,
        &["4194304"],
    );
    table.answered("r07", Behaviour::Endless("application/json"), Errno::FBIG, &["4194304"]);
    let typed = |media_type: &'static str| {
        Behaviour::edit(move |_, reply| reply.with("Content-Type", media_type))
    };
    table.answered("r38-index", typed(INDEX), Errno::BADMSG, &[IMAGE, INDEX]);
    let portal = Reply::new(200, "text/html; charset=utf-8", "<html>log in</html>");
    table.answered(
        "r38-portal",
        Behaviour::Answer(portal),
        Errno::PROTO,
        &["HTML", "not a registry"],
    );
    let gone = Reply::new(404, "text/html", "<html>gone</html>");
    table.answered("r49", Behaviour::Answer(gone), Errno::PROTO, &["404", "no absence"]);
    let claims = |digest: String| {
        Behaviour::edit(move |_, reply| reply.with("Docker-Content-Digest", digest.clone()))
    };
    let other = Digest::of(b"other").to_string();
    table.answered("r44-wrong", claims(other.clone()), Errno::IO, &[&other]);
    let two = Behaviour::edit(|_, reply| {
        reply.and("Docker-Content-Digest", Digest::of(b"other").to_string())
    });
    table.answered("r44-two", two, Errno::IO, &["two digests"]);
    let packed = Behaviour::edit(|_, reply| reply.with("Content-Encoding", "gzip"));
    table.answered("r06", packed, Errno::PROTO, &["gzip"]);
    table.holds();
}

/// R38, R44: what proves nothing is not held against a manifest.
#[test]
fn a_missing_or_unusable_claim_is_no_reason_to_refuse() {
    let server = Hostile::start();
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let without = Behaviour::edit(|_, mut reply| {
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        reply
    });
    let md5 = Behaviour::edit(|_, r| {
        r.with("Docker-Content-Digest", "md5:d41d8cd98f00b204e9800998ecf8427e")
    });
    let parameter =
        Behaviour::edit(|_, r| r.with("Content-Type", format!("{IMAGE}; charset=utf-8")));
    for (repo, behaviour) in [("without", without), ("md5", md5), ("parameter", parameter)] {
        let (content, _) = put_small(&server, repo);
        server.rule(manifests_of(repo), behaviour);
        assert_eq!(bed.main_tf(&format!("{}/{repo}:1.0.0", server.host())), content);
    }
}

/// Programs that copy attributes list them first, and fail where there are more than the kernel or
/// their disk takes.
#[test]
fn a_release_with_more_annotations_than_a_disk_takes_can_be_copied_with_its_attributes() {
    let server = Hostile::start();
    let zip = pack::zip(&[("main.tf", b"# sound\n")]);
    server.put_blob(&zip);
    let mut manifest = module_manifest(&zip);
    let long = "n".repeat(60);
    manifest["annotations"] = (0..1500)
        .map(|n| (format!("a{n:04}-{long}"), json!("value")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    manifest["annotations"]["long"] = "x".repeat(70_000).into();
    server.put_manifest(REPO, Some("1.0.0"), IMAGE, manifest.to_string().as_bytes());
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let release = bed.path(&format!("{}/{REPO}:1.0.0", server.host()));
    assert_eq!(fs::read(release.join("main.tf")).unwrap(), b"# sound\n");
    let last = format!("user.oci.annotation.a1499-{long}");
    assert_eq!(
        support::mount::xattr(&release, &last).as_deref(),
        Some("value"),
        "what is not listed is read by name"
    );
    let copies = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let Some(program) = support::program(program) else {
            return support::skip(&format!("{program} is not there"));
        };
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        let output = finish(command);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    };
    let (release, copies) = (release.as_os_str(), copies.path().as_os_str());
    run("getfattr", &["-d".as_ref(), "--absolute-names".as_ref(), release]);
    run("rsync", &["-aX".as_ref(), release, copies]);
    run("cp", &["-r".as_ref(), "--preserve=xattr".as_ref(), release, copies]);
}

/// R41, R42: neither content that a descriptor brings along nor addresses in it stand for a blob.
#[test]
fn what_a_descriptor_says_of_its_content_and_of_other_places_is_not_looked_at() {
    let (server, elsewhere) = (Hostile::start(), Hostile::start());
    let zip = pack::zip(&[("main.tf", b"# sound\n")]);
    let wrong = pack::zip(&[("main.tf", b"# wrong\n")]);
    elsewhere.put_blob(&zip);
    let address = format!("http://{}/v2/{REPO}/blobs/{}", elsewhere.host(), Digest::of(&zip));
    let data = |content: &[u8]| base64::engine::general_purpose::STANDARD.encode(content);
    let publish = |tag: &str, member: &str, value: Value| {
        let mut manifest = module_manifest(&zip);
        manifest["layers"][0][member] = value;
        manifest["annotations"] = json!({ "tag": tag });
        server.put_manifest(REPO, Some(tag), IMAGE, manifest.to_string().as_bytes());
    };
    publish("data-wrong", "data", json!(data(&wrong)));
    publish("data-right", "data", json!(data(&zip)));
    publish("data-none", "data", json!("no base64"));
    publish("urls", "urls", json!([address]));
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let release = |tag| format!("{}/{REPO}:{tag}", server.host());
    // The registry does not have the blob: what brings it along does not help.
    for tag in ["data-right", "urls"] {
        bed.refused(&release(tag), Errno::IO, &[&Digest::of(&zip).to_string()]);
    }
    server.put_blob(&zip);
    bed.refresh(format!("{}/{REPO}", server.host()));
    for tag in ["data-wrong", "data-right", "data-none", "urls"] {
        assert_eq!(bed.main_tf(&release(tag)), b"# sound\n", "{tag}");
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

/// R40: what was read is its bytes, whatever a later answer calls them; a cache that does not have
/// them yet takes no part in it.
#[test]
fn a_digest_that_comes_with_two_types_means_one_thing_or_is_refused() {
    let server = Hostile::start();
    let (content, _) = put_small(&server, REPO);
    let release = format!("{}/{REPO}:1.0.0", server.host());
    let Some(first) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    assert_eq!(first.main_tf(&release), content);
    let typed = Behaviour::edit(move |_, reply| reply.with("Content-Type", INDEX));
    server.rule(manifests_of(REPO), typed);
    first.refresh(format!("{}/{REPO}", server.host()));
    let again = fs::read(first.path(&release).join("main.tf"));
    assert!(
        again.as_ref().is_ok_and(|bytes| *bytes == content)
            || errno_of(again.err()) == Some(Errno::BADMSG)
    );
    let Some(second) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    second.refused(&release, Errno::BADMSG, &[IMAGE, INDEX]);
    server.behave();
    second.refresh(format!("{}/{REPO}", server.host()));
    assert_eq!(second.main_tf(&release), content);
}

/// R32: an index of an index of an index, and one whose entry is answered with the index itself.
#[test]
fn indexes_that_lead_to_indexes_end_in_a_refusal() {
    let server = Hostile::start();
    let index = |entry: &Document, platform: &str| {
        let (os, arch) = platform.split_once('_').unwrap();
        let value = json!({
            "schemaVersion": 2, "mediaType": INDEX, "artifactType": PROVIDER,
            "manifests": [{
                "mediaType": entry.media_type, "digest": entry.digest().to_string(),
                "size": entry.bytes.len(), "artifactType": PROVIDER_TARGET,
                "platform": {"os": os, "architecture": arch},
            }],
        });
        Document { media_type: INDEX, bytes: value.to_string().into_bytes() }
    };
    let repo = "acme/hello";
    let mut chain = document(&module_manifest(&pack::zip(&[("main.tf", b"#\n")])));
    server.put_manifest(repo, None, chain.media_type, &chain.bytes);
    for _ in 0..20 {
        chain = index(&chain, "linux_amd64");
        server.put_manifest(repo, None, chain.media_type, &chain.bytes);
    }
    server.put_manifest(repo, Some("1.0.0"), INDEX, &chain.bytes);
    let entry = Document { media_type: IMAGE, bytes: vec![b'x'; 500] };
    let circle = index(&entry, "linux_amd64");
    server.put_manifest(repo, Some("2.0.0"), INDEX, &circle.bytes);
    let itself = Reply::new(200, IMAGE, circle.bytes.clone());
    let of_entry = path(format!("/v2/{repo}/manifests/{}", entry.digest()));
    server.rule(of_entry, Behaviour::Answer(itself));
    let Some(bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let release = |tag| bed.path(&format!("{}/{repo}:{tag}", server.host()));
    let refused = |tag| errno_of(fs::read_dir(release(tag).join("linux_amd64")).err());
    assert_eq!(refused("1.0.0"), Some(Errno::BADMSG));
    assert_eq!(refused("2.0.0"), Some(Errno::IO));
    let asked = server.requests_to(&format!("/v2/{repo}/manifests/sha256:")).len();
    assert!(asked <= 4, "it asked {asked} times");
}
