//! Lists of tags that are refused as a whole, and tags that are none.

use super::support::hostile::{Behaviour, Reply, path};
use super::*;

fn list(tags: &[&str]) -> Reply {
    Reply::new(200, "application/json", json!({ "tags": tags }).to_string())
}

/// R07, R23, R24, R25, R38, R49
#[test]
fn a_list_that_cannot_be_had_whole_is_an_error_and_hides_no_tag() {
    let (server, elsewhere) = (Hostile::start(), Hostile::start());
    let itself = list(&["a"]).with("Link", "<?n=1000>; rel=\"next\"");
    let round = Behaviour::edit(|seen, _| {
        let next = if seen.path.ends_with("?b") { "?a" } else { "?b" };
        list(&["a"]).with("Link", format!("<{next}>; rel=\"next\""))
    });
    let many = Behaviour::edit(|seen, _| {
        let page: usize = seen.path.split_once("?p").map_or(0, |(_, p)| p.parse().unwrap());
        let tags: Vec<_> = (0..40_000).map(|n| format!("{page}.{n}")).collect();
        let link = format!("<?p{}>; rel=next", page + 1);
        Reply::new(200, "application/json", json!({ "tags": tags }).to_string()).with("Link", link)
    });
    let away = list(&["a"])
        .with("Link", format!("<http://{}/v2/x/tags/list>; rel=next", elsewhere.host()));
    let page = |status| Behaviour::Answer(Reply::new(status, "text/html", "<html>log in</html>"));
    let Some(bed) = Bed::over(&[&server, &elsewhere], &["--deadline", "10s"]) else { return };
    let cases = [
        ("r23-itself", Behaviour::Answer(itself), Errno::PROTO, "loop"),
        ("r23-round", round, Errno::PROTO, "loop"),
        ("r24", many, Errno::FBIG, "100000"),
        ("r07", Behaviour::Endless("application/json"), Errno::FBIG, "4194304"),
        ("r25", Behaviour::Answer(away), Errno::PROTO, "leads away"),
        ("r38", page(200), Errno::PROTO, "not a registry"),
        ("r49", page(404), Errno::PROTO, "no absence"),
    ];
    let repos: Vec<_> = cases.iter().map(|(repo, ..)| (repo, put_small(&server, repo).0)).collect();
    for (repo, behaviour, errno, word) in cases.clone() {
        let repository = format!("{}/{repo}", server.host());
        server.rule(path(format!("/v2/{repo}/tags/list")), behaviour);
        let listed = fs::read_dir(bed.mount.join(&repository));
        let listed = listed.and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        assert_eq!(errno_of(listed.err()), Some(errno), "{repo}");
        bed.reported(&repository, &[word]);
    }
    for (repo, content) in repos {
        assert_eq!(
            bed.main_tf(&format!("{}/{repo}:1.0.0", server.host())),
            content,
            "{repo}: a tag is still found"
        );
        let spelled = bed.mount.join(format!("{}/{repo}:1.0.0/main.tf", server.host()));
        assert_eq!(fs::read(spelled).unwrap(), content, "{repo}: by NAME:TAG no list is needed");
    }
    assert!(elsewhere.requests_to("/v2/x/").is_empty());
}

/// R26, R27, R28, L16
#[test]
fn what_cannot_be_a_tag_is_neither_listed_nor_found() {
    let server = Hostile::start();
    let long = "x".repeat(129);
    let names = [
        "b", "a", "B", "_digest", "..", ".", "a/b", "a\0b", &long, "ä", "%2e%2e", "-x", "x\ny", "",
        ".status", "a",
    ];
    server.put_manifest("acme/net", Some("1.0.0"), IMAGE, b"{}");
    server.rule(path("/v2/acme/net/tags/list"), Behaviour::Answer(list(&names)));
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let repository = bed.mount.join(format!("{}/acme/net", server.host()));
    let mut listed: Vec<_> =
        fs::read_dir(&repository).unwrap().map(|e| e.unwrap().file_name()).collect();
    listed.sort();
    assert_eq!(listed, ["B", "_digest", "a", "b"]);
    let before = bed.mount.requests();
    for name in ["ä", "%2e%2e", "-x", "x\ny", ".status", "..:1.0.0", "a@sha256:00"] {
        assert_eq!(
            errno_of(fs::metadata(repository.join(name)).err()),
            Some(Errno::NOENT),
            "{name:?}"
        );
        assert_eq!(bed.mount.requests(), before, "{name:?}: grammar needs no request");
    }
    assert_eq!(errno_of(fs::metadata(repository.join(&long)).err()), Some(Errno::NOENT));
    for length in [256, 4096] {
        let name = "x".repeat(length);
        assert_eq!(errno_of(fs::metadata(repository.join(name)).err()), Some(Errno::NAMETOOLONG));
    }
}
