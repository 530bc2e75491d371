//! Copies that are cut off, damaged, or come upon something else.

use super::support::hostile::{Behaviour, Reply, Seen, blobs};
use super::*;

fn one(server: &Hostile) -> String {
    format!("{}/acme/net:1.0.0", server.host())
}

fn sent(server: &Hostile) -> Vec<String> {
    let puts = server.requests().into_iter().filter(|seen| seen.method == "PUT");
    puts.map(|seen| seen.path.rsplit(['/', '=']).next().unwrap_or_default().to_owned()).collect()
}

/// O14: nothing is sent twice, and no tag is there before all that it stands for.
#[test]
fn a_copy_that_was_cut_off_goes_on_where_it_was() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    let manifests = |seen: &Seen| seen.method == "PUT" && seen.path.contains("/manifests/");
    // each time one manifest more is taken, then none
    for taken in 0..3 {
        to.rule(manifests, Behaviour::Answer(Reply::error(403, "DENIED")));
        to.script(manifests, (0..taken).map(|_| Behaviour::Honest));
        bed.refused(&[from.host(), to.host()], 1, &["403", "no credential"]);
        to.behave();
        for (repo, tag, artifact) in
            artifacts().iter().filter(|(repo, tag, _)| to.manifest(repo, tag).is_some())
        {
            let whole = artifact.blobs.iter().all(|blob| to.blob(&Digest::of(blob)).is_some());
            assert!(whole, "{repo}:{tag} is there without all that it stands for");
        }
    }
    assert!(sent(&to).iter().any(|put| put.starts_with("sha256:")));
    assert_eq!(sorted(bed.copied(&[from.host(), to.host()])), lines(&to.host(), ""));
    let is_upload = |seen: &&Seen| seen.method == "PUT" && seen.path.contains("/uploads/");
    let requests = to.requests();
    let mut uploads: Vec<&str> =
        requests.iter().filter(is_upload).filter_map(|seen| seen.path.rsplit('=').next()).collect();
    let all = uploads.len();
    uploads.sort_unstable();
    uploads.dedup();
    assert_eq!(uploads.len(), all, "no blob was sent twice");
    for (repo, tag, artifact) in artifacts() {
        assert_eq!(to.manifest(repo, tag).as_deref(), Some(&*artifact.root().bytes));
    }
    let before = sent(&to).len();
    bed.copied(&[from.host(), to.host()]);
    assert_eq!(sent(&to).len(), before);
}

/// R01
#[test]
fn a_damaged_blob_is_refused() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    from.rule(
        |seen| blobs()(seen) && seen.method == "GET",
        Behaviour::edit(|_, mut reply| {
            let last = reply.body.len() - 1;
            reply.body[last] ^= 1;
            reply
        }),
    );
    bed.refused(&[one(&from), to.host()], 1, &["/acme/net@sha256:"]);
    let zip = Digest::of(&artifacts()[0].2.blobs[1]);
    assert_eq!((to.blob(&zip), to.manifest("acme/net", "1.0.0")), (None, None));
    from.behave();
    bed.copied(&[one(&from), to.host()]);

    // in a store
    let to = Hostile::start();
    let bed = Bed::new(&[to.host()]);
    let module = &artifacts()[0].2;
    let layout = layouts::add(&bed.path("store"), "reg.example", "acme/net", "1.0.0", module);
    let file = layout.join("blobs/sha256").join(zip.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let words = [format!("oci:{}", bed.path("store").display()), to.host()];
    bed.refused(&words, 1, &[&zip.to_string(), "its source holds sha256:"]);
    assert_eq!((to.blob(&zip), to.manifest("acme/net", "1.0.0")), (None, None));
    std::fs::remove_file(&file).unwrap();
    bed.refused(&words, 1, &[&zip.to_string(), "lacks"]);
}

/// R60: the destination gives other bytes than it took.
#[test]
fn what_the_destination_keeps_is_read_back() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    to.rule(
        |seen| seen.method == "GET" && seen.path.contains("/manifests/"),
        Behaviour::edit(|_, mut reply| {
            reply.body.push(b' ');
            reply.with("Docker-Content-Digest", Digest::of(b"x").to_string())
        }),
    );
    bed.refused(&[one(&from), to.host()], 1, &["/acme/net@sha256:"]);
    assert_eq!(to.manifest("acme/net", "1.0.0"), None, "the tag comes last");
}

/// R61
#[test]
fn a_tag_that_stands_for_something_else_is_kept_unless_that_is_asked_for() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    let other = pack::module(&[("main.tf", b"# other\n")]);
    publish(&to, "acme/net", "1.0.0", &other);
    let (ours, theirs) = (artifacts()[0].2.digest(), other.digest());
    let says = [&*ours.to_string(), &*theirs.to_string(), "--allow-overwrite"];
    bed.refused(&[one(&from), to.host()], 1, &says);
    assert!(sent(&to).is_empty());
    let archive = format!("oci-archive:{}", bed.path("x.tar").display());
    let store = format!("oci:{}", bed.path("store").display());
    for place in [archive, store] {
        bed.copied(&[&format!("{}/acme/net:1.0.0", to.host()), &place]);
        // the same HOST in the place, but from elsewhere
        let renamed = full();
        let bed = Bed { plain: vec![renamed.host(), to.host()], dir: tempfile::tempdir().unwrap() };
        bed.copied(&[&one(&renamed), &place]);
        publish(&renamed, "acme/net", "1.0.0", &other);
        bed.refused(&[&one(&renamed), &place], 1, &says);
        bed.copied(&[&one(&renamed), &place, &"--allow-overwrite".to_owned()]);
    }
    bed.copied(&[one(&from), to.host(), "--allow-overwrite".to_owned()]);
    assert_eq!(to.manifest("acme/net", "1.0.0"), Some(artifacts()[0].2.root().bytes.clone()));
}

/// A bundle for some platforms names others.
#[test]
fn an_index_without_all_that_it_names_is_copied_with_a_warning_where_that_is_possible() {
    let bed = Bed::new::<String>(&[]);
    let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
    let layout = layouts::add(&bed.path("store"), "reg.example", "acme/hello", "0.1.0", &provider);
    let missing = provider.manifests[1].digest();
    std::fs::remove_file(layout.join("blobs/sha256").join(missing.hex())).unwrap();
    let words = [
        format!("oci:{}", bed.path("store").display()),
        format!("oci:{}", bed.path("other").display()),
    ];
    let output = bed.copy(&words);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("1 manifests that its index names are not in"), "{text}");
    let to = Hostile::start();
    let bed = Bed { plain: vec![to.host()], ..bed };
    bed.refused(&[&words[0], &to.host()], 1, &["names content that the repository lacks"]);
}
