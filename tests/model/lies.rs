//! Whoever answers for a registry, and whatever a cache already holds: digests, sizes and limits
//! are checked above it.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tofufs::archive::Limits;
use tofufs::artifact::{PackageEntry, Release};
use tofufs::digest::Digest;
use tofufs::facts::{self, Facts};
use tofufs::failure::{Failure, Refusal};
use tofufs::fs::{Lookup, ROOT, ReadTarget, Thread};
use tofufs::name::{Repo, Selector};
use tofufs::oci::{Descriptor, IMAGE};
use tofufs::store::{Begin, Key, Object};

use crate::kernel::{mount, open_store};
use crate::memory::MemoryRegistry;
use crate::pack;
use crate::registry::registry_of;
use crate::truth::{HOST, REPOS, artifacts};

const TTL: Duration = Duration::from_secs(3600);

fn registry() -> Arc<MemoryRegistry> {
    let all: Vec<_> = artifacts().into_iter().map(|known| known.artifact).collect();
    Arc::new(registry_of(&REPOS, &all, true))
}

fn facts(fake: &Arc<MemoryRegistry>, cache: &tempfile::TempDir, archive: u64) -> Arc<Facts> {
    facts_within(Duration::from_secs(20), fake, cache, archive)
}

fn facts_within(
    deadline: Duration,
    fake: &Arc<MemoryRegistry>,
    cache: &tempfile::TempDir,
    archive: u64,
) -> Arc<Facts> {
    let host: tofufs::name::Host = HOST.parse().unwrap();
    Facts::new(facts::FactsOptions {
        policies: Default::default(),
        list_signed: false,
        sources: vec![facts::MountSource::Registry {
            kind: facts::RegistryKind::Oci,
            host,
            prefix: None,
            registry: fake.clone(),
            name: HOST.into(),
        }],
        store: open_store(cache),
        tag_ttl: TTL,
        deadline,
        limits: Limits { archive, ..Limits::default() },
        signatures: Default::default(),
        providers: facts::ProviderOptions::default(),
        stores_stand_in: false,
    })
}

fn repo() -> Repo {
    Repo { host: HOST.parse().unwrap(), name: "a".parse().unwrap() }
}

/// A blob, where no policy asks for anything.
async fn fetched(here: &Facts, blob: &Descriptor) -> Result<Object, Refusal> {
    let named = repo().at(Selector::Digest(blob.digest));
    let admitted = here.gate().admit(&named, blob.digest).await?;
    here.content().blob(&admitted, &repo(), blob).await
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, failure: Failure, words: &str) {
    let error = result.unwrap_err();
    assert!(error.failure == failure && error.to_string().contains(words), "{error:?}");
}

/// R01
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_what_its_digest_says_whoever_gives_it() {
    let (fake, cache) = (registry(), tempfile::tempdir().unwrap());
    let here = facts(&fake, &cache, 1 << 20);
    let known = artifacts();
    let (asked, given) = (known[0].artifact.digest(), known[1].artifact.root());
    let lie = (given.bytes.clone().into(), Some(IMAGE));
    fake.state().repo("a").manifests.insert(asked, lie);
    refused(
        here.manifests().get(&repo(), asked).await,
        Failure::Integrity,
        &given.digest().to_string(),
    );
    for digest in [asked, given.digest()] {
        assert!(
            here.store().get(&Key::Blob(digest)).unwrap().is_none(),
            "what is refused is not kept"
        );
    }
}

/// R02: also where the bytes are there already, by whatever name they came.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_contradicts_the_bytes_is_refused() {
    let (fake, cache) = (registry(), tempfile::tempdir().unwrap());
    let zip = &artifacts()[0].artifact.blobs[1];
    let (digest, size) = (Digest::of(zip), zip.len() as u64);
    for _ in 0..2 {
        let here = facts(&fake, &cache, 1 << 20);
        for wrong in [size - 1, size + 1] {
            let honest = fetched(&here, &Descriptor::bare(digest, size)).await.unwrap();
            assert_eq!(honest.read_all().unwrap(), *zip);
            refused(
                fetched(&here, &Descriptor::bare(digest, wrong)).await,
                Failure::Integrity,
                "its manifest says",
            );
        }
    }
    let here = facts(&fake, &cache, 1 << 20);
    let index = artifacts()[3].artifact.digest();
    let Release::Provider(targets) = here.manifests().release(&repo(), index).await.unwrap().1
    else {
        panic!("a provider")
    };
    let mut target = targets[0].clone();
    here.manifests().target(&repo(), &target).await.unwrap();
    let PackageEntry::Manifest(entry) = &mut target.package else { panic!("a manifest") };
    entry.size += 1;
    refused(here.manifests().target(&repo(), &target).await, Failure::Integrity, "its index says");
    assert!(
        here.manifests().known_target(&repo(), &target).is_none()
            && here.manifests().known_target(&repo(), &targets[0]).is_some()
    );
}

/// Z18: by what is announced, before anything is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_over_the_limit_is_not_fetched() {
    let (fake, cache) = (registry(), tempfile::tempdir().unwrap());
    let zip = &artifacts()[0].artifact.blobs[1];
    let (digest, size) = (Digest::of(zip), zip.len() as u64);
    let words = format!("the limit for archives is {}", size - 1);
    let blob = Descriptor::bare(digest, size);
    refused(fetched(&facts(&fake, &cache, size - 1), &blob).await, Failure::TooLarge, &words);
    assert_eq!(fake.state().requests(), 0);
    fetched(&facts(&fake, &cache, size), &blob).await.unwrap();
}

/// A wait ends for whoever fetches it, a process that was stopped included.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_stands_still_elsewhere_is_waited_for_no_longer_than_the_deadline() {
    let (fake, cache) = (registry(), tempfile::tempdir().unwrap());
    let here = facts_within(Duration::from_millis(300), &fake, &cache, 1 << 20);
    let zip = &artifacts()[0].artifact.blobs[1];
    let blob = Descriptor::bare(Digest::of(zip), zip.len() as u64);
    let elsewhere = open_store(&cache);
    let Ok(Begin::Fill(stands)) = elsewhere.begin(&Key::Blob(blob.digest), blob.size) else {
        panic!("a fill")
    };
    let waited =
        tokio::time::timeout(Duration::from_secs(60), fetched(&here, &blob)).await.expect("an end");
    refused(waited, Failure::TimedOut, "without progress for 300ms");
    drop(stands);
    here.forget(|_| true);
    fetched(&here, &blob).await.unwrap();
}

/// O08: a zip that is damaged while it is open is fetched anew and read on.
#[tokio::test(flavor = "multi_thread")]
async fn damage_under_an_open_zip_is_healed() {
    let mut noise = vec![0; 200_000];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    let zip = pack::provider_zip("x", "1", &noise);
    assert!(zip.len() > 100_000, "large enough not to be held in memory");
    let provider = pack::provider_of(&[("linux_amd64", zip.clone())]);
    let fake = Arc::new(registry_of(&REPOS, std::slice::from_ref(&provider), true));
    fake.set_tag("p", "1", Some(provider.digest()));
    let cache = tempfile::tempdir().unwrap();
    let fs = mount(&fake, &open_store(&cache), TTL, false);
    let mut ino = ROOT;
    for name in [HOST, "p", "1", "linux_amd64.zip"] {
        let Ok(Lookup::Found(entry)) =
            fs.clone().lookup(Thread(0), ino, OsStr::new(name).into()).await
        else {
            panic!("{name}")
        };
        ino = entry.attr.ino;
    }
    let opened = fs.clone().open(ino, false).await.unwrap();
    let digest = Digest::of(&zip);
    let file =
        cache.path().join(format!("cache/v1/blobs/{}/sha256-{}", &digest.hex()[..2], digest.hex()));
    let mut permissions = file.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(&[!zip[70_000]], 70_000)
        .unwrap();
    let mut buf = vec![0; 1000];
    assert_eq!(
        fs.read(ReadTarget::Handle(opened.handle), 69_500, &mut buf),
        Ok(None),
        "it has to be fetched"
    );
    let healed =
        fs.clone().read_again(ReadTarget::Handle(opened.handle), 69_500, 1000).await.unwrap();
    assert!(healed == zip[69_500..70_500]);
    assert_eq!(fake.state().downloads[&digest], 2);
    // And from then on as ever.
    assert_eq!(fs.read(ReadTarget::Handle(opened.handle), 69_500, &mut buf), Ok(Some(1000)));
    assert!(buf == zip[69_500..70_500]);
}
