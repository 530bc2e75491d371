use super::ground::{BackEnd, CLAIM, HIDDEN, MODULE, PROVIDER, Releases, TAGS};
use crate::support::pack::Artifact;
use crate::*;
use tofufs::failure::Refusal;

async fn keeps_the_laws(all: &Releases, of: BackEnd) {
    tags_are_listed_whole_in_order_and_once_and_claims_are_found_by_name(&of, all).await;
    a_catalog_is_sorted_and_whole(&of, all).await;
    a_tag_stands_for_the_manifest_that_it_gives(&of, all).await;
    what_has_a_digest_is_what_the_digest_says(&of, all).await;
    a_sink_gets_the_rest_of_what_it_holds(&of, all).await;
    a_blob_has_the_size_that_its_descriptor_says(&of, all).await;
    what_is_not_there_is_absent_and_a_blob_that_is_named_is_lacking(&of, all).await;
    of_what_nobody_speaks_there_are_no_referrers(&of, all).await;
    nothing_that_is_held_is_said_to_be_lacking(&of, all).await;
    many_at_once_and_some_who_give_up_get_the_same(&of, all).await;
    an_outage_is_no_absence(of).await;
}

#[tokio::test]
async fn a_registry_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.remote()).await;
}

#[tokio::test]
async fn a_store_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.directory()).await;
}

#[tokio::test]
async fn an_archive_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.archive()).await;
}

#[tokio::test]
async fn a_part_of_a_registry_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.part()).await;
}

#[tokio::test]
async fn several_sources_keep_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.union()).await;
}

#[tokio::test]
async fn a_registry_with_mirrors_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.mirrored()).await;
}

#[tokio::test]
async fn a_store_beside_an_offline_source_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.beside_offline()).await;
}

/// The one that other tests have in place of these.
#[tokio::test]
async fn a_registry_in_memory_keeps_the_laws() {
    let all = Releases::new();
    keeps_the_laws(&all, all.memory()).await;
}

#[tokio::test]
async fn docker_registry_keeps_the_laws() {
    let all = Releases::new();
    if let Some(back_end) = all.docker().await {
        keeps_the_laws(&all, back_end).await;
    }
}

#[track_caller]
fn fails<T: std::fmt::Debug>(wanted: Failure, answer: Result<T, Refusal>) {
    let error = answer.expect_err("a failure");
    assert_eq!(error.failure, wanted, "{error}");
}

/// What was said of a blob, with what arrived of it.
async fn read(
    of: &BackEnd,
    repo: &str,
    blob: &Descriptor,
    sink: MemorySink,
) -> (Result<(), BlobError>, Vec<u8>) {
    let mut sink = sink;
    let end = of.registry.blob(&name(repo), blob, &mut sink).await;
    (end, sink.bytes)
}

fn releases(all: &Releases) -> [(&'static str, &'static str, &Artifact); 2] {
    [(MODULE, "1.0.0", &all.module), (PROVIDER, "0.1.0", &all.provider)]
}

async fn tags_are_listed_whole_in_order_and_once_and_claims_are_found_by_name(
    of: &BackEnd,
    all: &Releases,
) {
    let mut wanted = TAGS.map(tag);
    wanted.sort();
    assert_eq!(of.registry.tags(&name(MODULE)).await.unwrap(), wanted);
    assert_eq!(of.registry.tags(&name(PROVIDER)).await.unwrap(), [tag("0.1.0")]);
    for hidden in [CLAIM, HIDDEN] {
        let found = of.registry.resolve(&name(MODULE), &tag(hidden)).await.unwrap();
        assert_eq!(found, Some(all.module.digest()));
    }
}

async fn a_catalog_is_sorted_and_whole(of: &BackEnd, _: &Releases) {
    assert_eq!(of.registry.catalog().await.unwrap(), [MODULE, PROVIDER].map(name));
}

async fn a_tag_stands_for_the_manifest_that_it_gives(of: &BackEnd, all: &Releases) {
    for (repo, at, release) in releases(all) {
        let (repo, root) = (name(repo), release.root());
        let digest = of.registry.resolve(&repo, &tag(at)).await.unwrap();
        assert_eq!(digest, Some(root.digest()));
        let raw = of.registry.manifest(&repo, &by_tag(at)).await.unwrap();
        assert_eq!(*raw.bytes, *root.bytes);
        assert!(raw.claimed.is_none_or(|claimed| claimed == root.digest()));
    }
}

async fn what_has_a_digest_is_what_the_digest_says(of: &BackEnd, all: &Releases) {
    for (repo, _, release) in releases(all) {
        for document in &release.manifests {
            let selector = Selector::Digest(document.digest());
            let raw = of.registry.manifest(&name(repo), &selector).await.unwrap();
            assert_eq!(*raw.bytes, *document.bytes);
        }
        for blob in &release.blobs {
            let (end, bytes) = read(of, repo, &descriptor(blob), MemorySink::default()).await;
            assert!(end.is_ok() && bytes == *blob, "{end:?}");
        }
    }
}

async fn a_sink_gets_the_rest_of_what_it_holds(of: &BackEnd, all: &Releases) {
    let blob = &all.module.blobs[1];
    for held in [0, 1, blob.len() / 2, blob.len() - 1, blob.len()] {
        let sink = MemorySink::that_holds(&blob[..held]);
        let (end, bytes) = read(of, MODULE, &descriptor(blob), sink).await;
        assert!(end.is_ok() && bytes == *blob, "{held}: {end:?}");
    }
    let full = MemorySink::that_is_full();
    let (end, _) = read(of, MODULE, &descriptor(blob), full).await;
    assert_eq!(end, Err(BlobError::Sink(SinkError)));
}

async fn a_blob_has_the_size_that_its_descriptor_says(of: &BackEnd, all: &Releases) {
    let blob = &all.module.blobs[1];
    for size in [blob.len() - 1, blob.len() + 1] {
        let wrong = sized(Digest::of(blob), size as u64);
        match read(of, MODULE, &wrong, MemorySink::default()).await.0 {
            Err(BlobError::Registry(error)) => fails(of.lacking(), Err::<(), _>(error)),
            other => panic!("{size}: {other:?}"),
        }
    }
}

async fn what_is_not_there_is_absent_and_a_blob_that_is_named_is_lacking(
    of: &BackEnd,
    _: &Releases,
) {
    let (nowhere, digest) = (name("acme/none"), Digest::of(b"nothing"));
    fails(of.unknown, of.registry.tags(&nowhere).await);
    for repo in [&nowhere, &name(MODULE)] {
        fails(of.unknown, of.registry.resolve(repo, &tag("9")).await);
        for selector in [by_tag("9"), Selector::Digest(digest)] {
            fails(of.unknown, of.registry.manifest(repo, &selector).await);
        }
    }
    match read(of, MODULE, &sized(digest, 7), MemorySink::default()).await {
        (Err(BlobError::Registry(error)), bytes) => {
            assert!(bytes.is_empty() && error.failure == of.lacking(), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

async fn of_what_nobody_speaks_there_are_no_referrers(of: &BackEnd, all: &Releases) {
    let said = of.registry.referrers(&name(PROVIDER), &all.provider.digest()).await;
    assert_eq!((said.entries, said.unheard), (vec![], None));
    let nowhere = of.registry.referrers(&name("acme/none"), &Digest::of(b"nothing")).await;
    assert_eq!(nowhere.entries, []);
}

async fn nothing_that_is_held_is_said_to_be_lacking(of: &BackEnd, all: &Releases) {
    let documents: Vec<Digest> = all.provider.manifests.iter().map(|d| d.digest()).collect();
    assert_eq!(of.registry.lacking(&name(PROVIDER), &documents).await, []);
    let held = of.registry.held().await.unwrap();
    assert!(held.iter().all(|repo| [MODULE, PROVIDER].map(name).contains(repo)), "{held:?}");
    of.registry.greet(tofufs::registry::Greeting::LogIn).await.unwrap();
}

async fn many_at_once_and_some_who_give_up_get_the_same(of: &BackEnd, all: &Releases) {
    let blob = &all.module.blobs[1];
    let asked = async || {
        let tags = of.registry.tags(&name(MODULE)).await.unwrap().len();
        (tags, read(of, MODULE, &descriptor(blob), MemorySink::default()).await.1 == *blob)
    };
    // Whoever gives up has been polled once.
    let gives_up = async || drop(tokio::time::timeout(Duration::ZERO, asked()).await);
    let wanted = (TAGS.len(), true);
    let (a, (), b, (), c) = tokio::join!(asked(), gives_up(), asked(), gives_up(), asked());
    assert_eq!([a, b, c], [wanted; 3]);
}

/// Whatever was there before and whatever was not.
async fn an_outage_is_no_absence(mut of: BackEnd) {
    of.ground.fail();
    let (registry, module) = (&of.registry, name(MODULE));
    let ([there, gone], selector) = (["1.0.0", "9"].map(tag), by_tag("1.0.0"));
    let (tags, there, gone, manifest) = tokio::join!(
        registry.tags(&module),
        registry.resolve(&module, &there),
        registry.resolve(&module, &gone),
        registry.manifest(&module, &selector),
    );
    let referrers = registry.referrers(&module, &Digest::of(b"x")).await.whole();
    let errors = [
        referrers.expect_err("no referrers"),
        tags.expect_err("no list"),
        there.expect_err("no digest"),
        gone.expect_err("no digest"),
        manifest.expect_err("no manifest"),
    ];
    for error in errors {
        assert_ne!(error.failure, Failure::Absent, "{error}");
    }
}
