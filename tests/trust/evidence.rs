//! Where signatures are looked for, and what it means that they are not found.

use crate::support::hostile::{Behaviour, Reply, Seen, path};
use crate::*;

/// What `tofufs verify` says of the one release of a registry, and of what there is beside it.
struct Bed {
    server: Hostile,
    trust: Trust,
    digest: Digest,
}

impl Bed {
    fn new(lists: bool) -> Bed {
        let (server, trust) = (Hostile::start(), Trust::by_new_key());
        if lists {
            server.list_referrers();
        }
        let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
        trust.policy(&server.host(), "");
        Bed { server, trust, digest }
    }

    /// The verdict and why.
    fn verdict(&self) -> (String, String) {
        let reference = format!("{}/acme/net:1.0.0", self.server.host());
        let words = ["verify", "--json", "--deadline", "3s", "--policy", "policy.hcl", &reference];
        let output = self.trust.run(&self.server.host(), &words);
        let said: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(output.status.success(), text("verdict") == "admitted", "{output:?}");
        (text("verdict"), text("why"))
    }

    #[track_caller]
    fn is(&self, verdict: &str, says: &str) {
        let (said, why) = self.verdict();
        assert!(said == verdict && why.contains(says), "{said}: {why:?}; wanted {verdict}: {says}");
    }

    fn bundle(&self) -> Vec<u8> {
        self.trust.approves(self.digest, &repo(&self.server, "acme/net"), Some("1.0.0"))
    }

    fn list_at(&self) -> String {
        format!("/v2/acme/net/referrers/{}", self.digest)
    }
}

/// S01, S02
#[test]
fn a_list_that_was_not_had_is_unknown_and_an_empty_one_is_a_refusal() {
    let bed = Bed::new(true);
    bed.is("refused", "found no signature");
    for (status, says) in [(403, "403"), (503, "503"), (400, "400")] {
        bed.server.rule(path(bed.list_at()), Behaviour::Answer(Reply::error(status, "NO")));
        bed.is("unknown", says);
    }
    bed.server.rule(path(bed.list_at()), Behaviour::Answer(Reply::new(200, "text/html", "<h>")));
    bed.is("unknown", "HTML");
    bed.server.behave();
    sign(&bed.server, &bed.trust, "acme/net", bed.digest, None);
    bed.is("admitted", "signed");
    let none = Reply::new(200, tofufs::oci::INDEX, "{\"schemaVersion\":2,\"manifests\":[]}");
    let other = Bed { trust: Trust::by_new_key(), ..Bed::new(true) };
    other.trust.policy(&other.server.host(), "");
    sign(&other.server, &other.trust, "acme/net", other.digest, None);
    other.server.rule(path(other.list_at()), Behaviour::Answer(none));
    other.is("refused", "found no signature");
}

/// S03, and signatures as cosign 2 left them.
#[test]
fn without_lists_the_tags_are_asked() {
    let bed = Bed::new(false);
    bed.is("refused", "found no signature");
    let stranger = Trust::by_new_key();
    sign_as_cosign_2(&bed.server, &stranger, "acme/net", bed.digest);
    bed.is("refused", "1 by another key");
    sign_as_cosign_2(&bed.server, &bed.trust, "acme/net", bed.digest);
    bed.is("admitted", "signed");
    // What a list has takes its place.
    let listed = Bed::new(true);
    speak(&listed.server, "acme/net", listed.digest, "application/vnd.acme.note", b"hello");
    sign_as_cosign_2(&listed.server, &listed.trust, "acme/net", listed.digest);
    listed.is("refused", "found no signature");
}

/// S04
#[test]
fn a_list_is_believed_about_nothing_but_that_something_exists() {
    let bed = Bed::new(true);
    let other = bed.server.publish("acme/net", "2.0.0", &module("# 2"));
    let of_other = speak(&bed.server, "acme/net", other, BUNDLE, &bed.bundle());
    let signature = speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bed.bundle());
    let list = |entries: &[Digest], kind: &str| {
        let entries: Vec<_> = entries
            .iter()
            .map(|digest| {
                let raw = bed.server.manifest("acme/net", &digest.to_string()).unwrap_or_default();
                json!({"mediaType": IMAGE, "digest": digest.to_string(), "size": raw.len().max(1),
                    "artifactType": kind})
            })
            .collect();
        let text = json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX,
            "manifests": entries});
        let reply = Reply::new(200, tofufs::oci::INDEX, text.to_string());
        bed.server.rule(path(bed.list_at()), Behaviour::Answer(reply));
    };
    list(&[of_other], BUNDLE);
    bed.is("refused", "found no signature");
    list(&[Digest::of(b"nothing")], BUNDLE);
    bed.is("unknown", "404");
    list(&[of_other, signature], "application/vnd.oci.empty.v1+json");
    bed.is("admitted", "signed");
}

/// S06
#[test]
fn so_many_signatures_are_looked_at_and_no_more() {
    for (bad, verdict, says) in [(63, "admitted", "signed"), (64, "unknown", "first 64")] {
        let bed = Bed::new(true);
        let stranger = Trust::by_new_key();
        let repo = repo(&bed.server, "acme/net");
        let mut listed = Vec::new();
        for n in 0..bad {
            let bundle = stranger.approves(bed.digest, &repo, Some(&n.to_string()));
            listed.push(speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bundle));
        }
        listed.push(speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bed.bundle()));
        let entries: Vec<_> = listed
            .iter()
            .map(|digest| {
                json!({"mediaType": IMAGE, "digest": digest.to_string(), "size": 1,
                    "artifactType": BUNDLE})
            })
            .collect();
        let text = json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX,
            "manifests": entries});
        let reply = Reply::new(200, tofufs::oci::INDEX, text.to_string());
        bed.server.rule(path(bed.list_at()), Behaviour::Answer(reply));
        bed.is(verdict, says);
    }
}

/// S09
#[test]
fn evidence_is_what_its_digest_says_and_of_a_size() {
    let bed = Bed::new(true);
    let bundle = bed.bundle();
    speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bundle);
    let mut flipped = bundle.clone();
    flipped[10] ^= 1;
    let blob = path(format!("/v2/acme/net/blobs/{}", Digest::of(&bundle)));
    bed.server.rule(blob, Behaviour::Answer(Reply::new(200, "application/json", flipped)));
    bed.is("unknown", "digest");
    let large = Bed::new(true);
    speak(&large.server, "acme/net", large.digest, BUNDLE, &vec![b' '; (1 << 20) + 1]);
    large.is("unknown", "1048576");
}

/// S06. What lists say of keys is where the search begins, and nothing more.
#[test]
fn what_is_hinted_at_is_looked_at_first() {
    let bed = Bed::new(true);
    let stranger = Trust::by_new_key();
    let repo = repo(&bed.server, "acme/net");
    let mut listed = Vec::new();
    for n in 0..100 {
        let bundle = stranger.approves(bed.digest, &repo, Some(&n.to_string()));
        listed.push(speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bundle));
    }
    listed.push(speak(&bed.server, "acme/net", bed.digest, BUNDLE, &bed.bundle()));
    let list = |hinted: &dyn Fn(usize) -> bool| {
        let entries = listed.iter().enumerate().map(|(at, digest)| {
            let annotations = if hinted(at) {
                json!({"org.tofufs.key": bed.trust.key.public().hint()})
            } else {
                json!({"org.tofufs.key": stranger.key.public().hint()})
            };
            json!({"mediaType": IMAGE, "digest": digest.to_string(), "size": 1,
                "artifactType": BUNDLE, "annotations": annotations})
        });
        let text = json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX,
            "manifests": entries.collect::<Vec<_>>()});
        let reply = Reply::new(200, tofufs::oci::INDEX, text.to_string());
        bed.server.rule(path(bed.list_at()), Behaviour::Answer(reply));
    };
    list(&|at| at == 100);
    bed.is("admitted", "signed");
    list(&|_| false);
    bed.is("admitted", "signed");
    let other = Bed { trust: Trust::by_new_key(), ..bed };
    other.trust.policy(&other.server.host(), "");
    other.is("unknown", "first 64");
}

/// S06. A digest may have more tags than signatures are looked at: each of its signatures says in
/// the list for which tag it is, which is where the search begins and no evidence.
#[test]
fn of_two_hundred_tags_of_one_digest_each_is_signed_and_opens() {
    let bed = Bed::new(true);
    let host = bed.server.host();
    fs::create_dir(bed.trust.path("many")).unwrap();
    fs::write(bed.trust.path("many/main.tf"), "# many\n").unwrap();
    let tags: Vec<String> = (0..200).map(|n| format!("1.0.{n}")).collect();
    let repository = format!("{host}/acme/many");
    // Three that are pushed, and the others as a push would leave them.
    let pushed = ["1.0.0", "1.0.100", "1.0.199"];
    let push = ["push", "--sign-key", "acme.key", "many", &*repository];
    let named = pushed.iter().flat_map(|tag| ["--tag", tag]);
    bed.trust.ran(&host, &push.into_iter().chain(named).collect::<Vec<_>>());
    let release = bed.server.manifest("acme/many", &tags[0]).unwrap();
    let digest = Digest::of(&release);
    for tag in tags.iter().filter(|tag| !pushed.contains(&tag.as_str())) {
        bed.server.put_manifest("acme/many", Some(tag), IMAGE, &release);
        let bundle = bed.trust.approves(digest, &repo(&bed.server, "acme/many"), Some(tag));
        let made = speak(&bed.server, "acme/many", digest, BUNDLE, &bundle);
        let raw = bed.server.manifest("acme/many", &made.to_string()).unwrap();
        bed.server.remove_manifest("acme/many", &made);
        let mut hinted: serde_json::Value = serde_json::from_slice(&raw).unwrap();
        let key = bed.trust.key.public().hint();
        hinted["annotations"] = json!({"org.tofufs.key": key, "org.tofufs.tag": tag});
        bed.server.put_manifest("acme/many", None, IMAGE, hinted.to_string().as_bytes());
    }
    bed.trust.policy(&host, "bind = \"tag\"");
    let references: Vec<String> = tags.iter().map(|tag| format!("{repository}:{tag}")).collect();
    let admitted = |cache: &str, references: &[String]| {
        let words = ["verify", "--json", "--policy", "policy.hcl", "--cache-dir", cache];
        let words = words.into_iter().chain(references.iter().map(String::as_str));
        let output = bed.trust.run(&host, &words.collect::<Vec<_>>());
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.lines().count(), references.len(), "{said}");
        said.lines().filter(|line| line.contains("\"admitted\"")).count()
    };
    assert_eq!(admitted("cache", &references), 200);
    // A list that says of all of them that they are for one tag, which nobody signed.
    bed.server.put_manifest("acme/many", Some("2.0.0"), IMAGE, &release);
    let lie = |_: &Seen, mut reply: Reply| {
        let mut list: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        for entry in list["manifests"].as_array_mut().unwrap() {
            assert!(entry["annotations"]["org.tofufs.tag"].is_string(), "{entry}");
            entry["annotations"]["org.tofufs.tag"] = "2.0.0".into();
        }
        reply.body = list.to_string().into();
        reply
    };
    let list = path(format!("/v2/acme/many/referrers/{digest}"));
    bed.server.rule(list, Behaviour::edit(lie));
    assert_eq!(admitted("lied-to", &[format!("{repository}:2.0.0")]), 0, "it is a hint");
}
