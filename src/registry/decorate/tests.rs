use super::super::SinkError;
use super::super::layout::RegistryLayout;
use super::*;
use crate::failure::Failure;
use crate::memory::{MemoryRegistry, MemorySink};

fn host() -> Host {
    "reg.example".parse().unwrap()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn blob(content: &str) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        artifact_type: None,
        platform: None,
        annotations: Default::default(),
    }
}

fn union(sources: &[&Arc<MemoryRegistry>]) -> Union {
    Union::new(host(), sources.iter().map(|&source| source.clone() as Arc<dyn Registry>).collect())
}

fn names<T: ToString>(list: Vec<T>) -> Vec<String> {
    list.iter().map(T::to_string).collect()
}

#[tokio::test]
async fn a_name_outside_the_prefix_is_absent_without_a_request() {
    let memory = Arc::new(MemoryRegistry::holding(&[
        ("acme/net", "1", "a"),
        ("acmeother", "1", "b"),
        ("acme", "1", "c"),
    ]));
    let scoped = Scoped::new(memory.clone(), host(), Some(repo("acme/net")));
    let mut sink = MemorySink::default();
    for outside in ["acme", "acmeother", "acme/ne", "acme/network"].map(repo) {
        let failures = [
            scoped.tags(&outside).await.unwrap_err(),
            scoped.resolve(&outside, &tag("1")).await.unwrap_err(),
            scoped.manifest(&outside, &Selector::Tag(tag("1"))).await.unwrap_err(),
        ];
        assert!(failures.iter().all(|e| e.failure == Failure::Absent), "{outside}");
        assert!(scoped.blob(&outside, &blob("a"), &mut sink).await.is_err());
    }
    assert_eq!(memory.state().requests(), 0);
    assert_eq!(names(scoped.tags(&repo("acme/net")).await.unwrap()), ["1"]);
    scoped.blob(&repo("acme/net"), &blob("a"), &mut sink).await.unwrap();
    assert_eq!(sink.bytes, b"a");
    assert_eq!(names(scoped.catalog().await.unwrap()), ["acme/net"]);
    let whole = Scoped::new(memory, host(), None);
    assert_eq!(names(whole.catalog().await.unwrap()), ["acme", "acme/net", "acmeother"]);
}

/// Sources `r.io/acme`, `r.io/other/x` and `r.io`, as a mapping adds the last one: each name and
/// list is asked for once.
#[tokio::test]
async fn parts_of_one_registry_ask_it_for_nothing_twice() {
    let tags = ["acme/net", "other/x/y", "else"].map(|name| (name, "1.0", "x"));
    let memory = Arc::new(MemoryRegistry::holding(&tags));
    let parts = ["acme", "other/x", ""].map(|prefix| prefix.parse::<RepoName>().ok());
    let sources = (0..parts.len()).map(|at| {
        let scoped = Scoped::new(memory.clone(), host(), parts[at].clone());
        Arc::new(scoped.between(parts[..at].to_vec(), parts[at + 1..].to_vec()))
            as Arc<dyn Registry>
    });
    let union = Union::new(host(), sources.collect());
    let names: Vec<_> = union.catalog().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        (names.join(" "), memory.state().requests()),
        ("acme/net else other/x/y".to_owned(), 1)
    );
    for (name, asked) in [("acme/net", 2), ("other/x/y", 3), ("else", 4)] {
        assert_eq!(union.tags(&repo(name)).await.unwrap().len(), 1);
        assert_eq!(memory.state().requests(), asked, "{name}");
    }
    assert_eq!(
        union.resolve(&repo("acme/net"), &"9".parse().unwrap()).await.unwrap_err().failure,
        Failure::Absent
    );
    assert_eq!(memory.state().requests(), 5);
}

#[tokio::test]
async fn of_several_sources_the_first_that_holds_a_tag_wins() {
    let first = Arc::new(MemoryRegistry::holding(&[("net", "1", "from the first")]));
    let second = Arc::new(MemoryRegistry::holding(&[
        ("net", "1", "from the second"),
        ("net", "2", "only there"),
    ]));
    let both = union(&[&first, &second]);
    for (name, content) in [("1", "from the first"), ("2", "only there")] {
        let digest = Digest::of(content.as_bytes());
        assert_eq!(both.resolve(&repo("net"), &tag(name)).await.unwrap(), Some(digest));
        let raw = both.manifest(&repo("net"), &Selector::Tag(tag(name))).await.unwrap();
        assert_eq!(&raw.bytes[..], content.as_bytes());
    }
    assert_eq!(names(both.tags(&repo("net")).await.unwrap()), ["1", "2"]);
    assert_eq!(both.resolve(&repo("net"), &tag("3")).await.unwrap_err().failure, Failure::Absent);
    assert_eq!(both.tags(&repo("other")).await.unwrap_err().failure, Failure::Absent);
}

/// An outage is not an absence.
#[tokio::test]
async fn a_source_out_of_reach_decides_tags_and_lists_but_not_what_has_a_digest() {
    let good = Arc::new(MemoryRegistry::holding(&[("net", "1", "content")]));
    for failure in
        [Failure::Unreachable, Failure::TimedOut, Failure::Denied, Failure::Protocol, Failure::Io]
    {
        let down = Arc::new(MemoryRegistry::failing(failure));
        let later = union(&[&good, &down]);
        assert!(
            later.resolve(&repo("net"), &tag("1")).await.is_ok(),
            "the earlier source has decided"
        );
        assert_eq!(later.resolve(&repo("net"), &tag("2")).await.unwrap_err().failure, failure);
        let earlier = union(&[&down, &good]);
        assert_eq!(earlier.resolve(&repo("net"), &tag("1")).await.unwrap_err().failure, failure);
        let by_tag = earlier.manifest(&repo("net"), &Selector::Tag(tag("1"))).await;
        assert_eq!(by_tag.unwrap_err().failure, failure);
        for both in [&later, &earlier] {
            assert_eq!(both.tags(&repo("net")).await.unwrap_err().failure, failure);
            assert_eq!(both.catalog().await.unwrap_err().failure, failure);
            let selector = Selector::Digest(blob("content").digest);
            assert!(both.manifest(&repo("net"), &selector).await.is_ok());
            let mut sink = MemorySink::default();
            both.blob(&repo("net"), &blob("content"), &mut sink).await.unwrap();
            assert_eq!(sink.bytes, b"content");
            let unknown =
                both.manifest(&repo("net"), &Selector::Digest(Digest::of(b"unknown"))).await;
            assert_eq!(unknown.unwrap_err().failure, failure, "the other source may hold it");
        }
    }
}

#[tokio::test]
async fn an_offline_source_is_passed_over_and_named_only_where_nothing_else_answers() {
    let good: Arc<dyn Registry> = Arc::new(MemoryRegistry::holding(&[("net", "1", "content")]));
    let both = Union::new(host(), vec![Arc::new(Offline::new(host())), good]);
    assert_eq!(names(both.tags(&repo("net")).await.unwrap()), ["1"]);
    assert_eq!(names(both.catalog().await.unwrap()), ["net"]);
    assert!(both.resolve(&repo("net"), &tag("1")).await.unwrap().is_some());
    assert!(both.manifest(&repo("net"), &Selector::Tag(tag("1"))).await.is_ok());
    assert_eq!(both.resolve(&repo("net"), &tag("2")).await.unwrap_err().failure, Failure::Offline);
    assert_eq!(both.tags(&repo("other")).await.unwrap_err().failure, Failure::Offline);
}

#[tokio::test]
async fn bytes_of_a_source_that_failed_are_not_mixed_with_those_of_the_next() {
    let broken = Arc::new(MemoryRegistry::failing(Failure::TimedOut));
    broken.state().arriving = 3;
    let lacking = Arc::new(MemoryRegistry::default());
    let good = Arc::new(MemoryRegistry::holding(&[("net", "1", "content")]));
    let all = union(&[&broken, &lacking, &good]);
    let mut sink = MemorySink::default();
    all.blob(&repo("net"), &blob("content"), &mut sink).await.unwrap();
    assert_eq!(sink.bytes, b"content");
    let mut resumed = MemorySink::that_holds(b"con");
    union(&[&lacking, &good]).blob(&repo("net"), &blob("content"), &mut resumed).await.unwrap();
    assert_eq!(resumed.bytes, b"content");
    let missing = union(&[&broken, &lacking])
        .blob(&repo("net"), &blob("content"), &mut MemorySink::default())
        .await;
    assert!(matches!(missing, Err(BlobError::Registry(e)) if e.failure == Failure::TimedOut));
    let nowhere =
        union(&[&lacking]).blob(&repo("net"), &blob("content"), &mut MemorySink::default()).await;
    assert!(matches!(nowhere, Err(BlobError::Registry(e)) if e.failure == Failure::Integrity));
    let mut full = MemorySink::that_is_full();
    assert_eq!(
        all.blob(&repo("net"), &blob("content"), &mut full).await,
        Err(BlobError::Sink(SinkError))
    );
}

#[tokio::test]
async fn a_catalog_is_complete_or_absent() {
    let one = Arc::new(MemoryRegistry::holding(&[("b", "1", "x"), ("a", "1", "x")]));
    let two = Arc::new(MemoryRegistry::holding(&[("c", "1", "x"), ("a", "2", "x")]));
    assert_eq!(names(union(&[&one, &two]).catalog().await.unwrap()), ["a", "b", "c"]);
    let silent = Arc::new(MemoryRegistry::default());
    silent.state().has_catalog = false;
    assert_eq!(union(&[&one, &silent]).catalog().await.unwrap_err().failure, Failure::Absent);
}

#[tokio::test]
async fn offline_answers_offline_to_everything() {
    let offline = Offline::new(host());
    let name = repo("net");
    let mut sink = MemorySink::default();
    let blob = match offline.blob(&name, &blob("x"), &mut sink).await {
        Err(BlobError::Registry(e)) => e,
        other => panic!("{other:?}"),
    };
    for error in [
        offline.tags(&name).await.unwrap_err(),
        offline.catalog().await.unwrap_err(),
        offline.resolve(&name, &tag("1")).await.unwrap_err(),
        offline.manifest(&name, &Selector::Tag(tag("1"))).await.unwrap_err(),
        blob,
    ] {
        assert_eq!(error.failure, Failure::Offline);
        assert!(
            error.to_string().contains("--offline") && error.to_string().contains("reg.example"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn two_stores_are_one_registry() {
    let write = |name: &str, content: &str| {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("reg.example/net");
        let digest = Digest::of(content.as_bytes());
        std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(layout.join("blobs/sha256").join(digest.hex()), content).unwrap();
        let index = serde_json::json!({"manifests": [{"digest": digest.to_string(), "size": content.len(),
            "annotations": {"org.opencontainers.image.ref.name": name}}]});
        std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let registry: Arc<dyn Registry> =
            Arc::new(RegistryLayout::open(dir.path(), &host()).unwrap());
        (dir, registry)
    };
    let ((_first, one), (_second, two)) = (write("1", "first"), write("2", "second"));
    let both = Union::new(host(), vec![one, two]);
    assert_eq!(names(both.tags(&repo("net")).await.unwrap()), ["1", "2"]);
    let raw = both.manifest(&repo("net"), &Selector::Tag(tag("2"))).await.unwrap();
    assert_eq!(&raw.bytes[..], b"second");
    let mut sink = MemorySink::default();
    both.blob(&repo("net"), &blob("second"), &mut sink).await.unwrap();
    assert_eq!(sink.bytes, b"second", "the first store lacks it");
}

#[tokio::test]
async fn a_manifest_is_lacking_where_every_source_is_certain_of_it() {
    let [a, b, none] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
    let store = |held: &[Digest]| -> (tempfile::TempDir, Arc<dyn Registry>) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join(host().as_str()).join("net/blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        held.iter().for_each(|digest| std::fs::write(blobs.join(digest.hex()), b"x").unwrap());
        let layout = RegistryLayout::open(dir.path(), &host()).unwrap();
        (dir, Arc::new(layout))
    };
    let ((_a, of_a), (_b, of_b)) = (store(&[a]), store(&[b]));
    let (net, all) = ("net".parse().unwrap(), [a, b, none]);
    assert_eq!(of_a.lacking(&net, &all).await, [b, none]);
    assert_eq!(of_a.lacking(&"other".parse().unwrap(), &all).await, all);
    let outside = Scoped::new(of_a.clone(), host(), Some("acme".parse().unwrap()));
    assert_eq!(outside.lacking(&net, &all).await, all);
    let union = |sources| Union::new(host(), sources);
    assert_eq!(union(vec![of_a.clone(), of_b]).lacking(&net, &all).await, [none]);
    // What a registry holds that is not asked is not known.
    let offline: Arc<dyn Registry> = Arc::new(Offline::new(host()));
    assert_eq!(union(vec![of_a, offline]).lacking(&net, &all).await, []);
}
