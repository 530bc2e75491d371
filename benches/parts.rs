//! Rates of the parts that a read is made of, each beside the plainest code that does the same
//! work.
//!
//!     cargo bench --bench parts
//!
//! Nothing is asserted: times depend on the machine. Without the argument `--bench`, which `cargo
//! bench` gives, every part runs once on little data, so that a test run sees that they work.
//! docs/performance.md has figures.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tofufs::archive::{self, Limits};
use tofufs::digest::Digest;
use tofufs::members::{FileNo, Members};
use tofufs::moment::Moment;
use tofufs::name::{Component, Host, Repo, RepoName, Tag};
use tofufs::store::{Begin, Key, Object, Store, StoreOptions};
use tofufs::tree::registry::{RegistrySpace, lookup};
use tofufs::tree::{Fact, KnownFacts, Standing};
use tofufs::trust::bundle::SignedStatement;
use tofufs::trust::signing::SigningKey;
use tofufs::trust::{Asked, Policies, Policy, ReleaseDates};
use zip::write::SimpleFileOptions;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// As much as the kernel asks of a file system at once, at most.
const READ: usize = 128 << 10;

struct Size {
    entries: usize,
    bytes: usize,
    rounds: usize,
}

fn main() -> Outcome<()> {
    let size = if std::env::args().any(|argument| argument == "--bench") {
        Size { entries: 10_000, bytes: 128 << 20, rounds: 9 }
    } else {
        Size { entries: 100, bytes: 1 << 20, rounds: 1 }
    };
    println!("{:<52} {:>14} {:>14}", "part (median)", "tofufs", "plain");
    index(&size)?;
    extract(&size)?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    publish_and_read(&size, dir.path())?;
    look_up(&size)?;
    judge(&size)
}

/// The median time of `rounds` runs, in seconds.
fn median<T>(rounds: usize, mut run: impl FnMut() -> Outcome<T>) -> Outcome<f64> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(run()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Bytes that compress about as much as a program does.
fn program_like(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<Vec<u8>> =
        (0..2000).map(|_| (0..random.usize(2..14)).map(|_| random.u8(..)).collect()).collect();
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        // A square prefers the first words, as languages do.
        let at = random.f32() * random.f32() * random.f32() * words.len() as f32;
        bytes.extend_from_slice(&words[at as usize]);
    }
    bytes.truncate(length);
    bytes
}

fn zip_of<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Outcome<Vec<u8>> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(name, SimpleFileOptions::default())?;
        writer.write_all(content)?;
    }
    Ok(writer.finish()?.into_inner())
}

fn rate(what: &str, bytes: usize, ours: f64, plain: f64) {
    let mb = |seconds: f64| format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds);
    println!("{what:<52} {:>14} {:>14}", mb(ours), mb(plain));
}

fn index(size: &Size) -> Outcome<()> {
    let content = program_like(1000);
    let names =
        (0..size.entries).map(|n| (format!("dir{}/file{n}.tf", n / 100), content.as_slice()));
    let zip = zip_of(names)?;
    let ours = median(size.rounds, || Ok(archive::index(&zip, &Limits::default())?))?;
    let plain = median(size.rounds, || Ok(zip::ZipArchive::new(Cursor::new(&zip))?))?;
    let ms = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let what = format!("index a zip of {} entries (plain: zip)", size.entries);
    println!("{what:<52} {:>14} {:>14}", ms(ours), ms(plain));
    Ok(())
}

fn extract(size: &Size) -> Outcome<()> {
    let content = program_like(size.bytes);
    let zip = zip_of([("member".to_owned(), content.as_slice())])?;
    let members: Members = archive::index(&zip, &Limits::default())?;
    let file = *members.file(FileNo(0));
    let data = &zip[file.offset as usize..(file.offset + file.compressed) as usize];
    let plain = median(size.rounds, || {
        let (mut inflater, mut buffer, mut length) =
            (flate2::read::DeflateDecoder::new(data), vec![0; READ], 0);
        loop {
            match inflater.read(&mut buffer)? {
                0 => return Ok(length),
                n => length += n,
            }
        }
    })?;
    let ours = median(size.rounds, || Ok(archive::extract(&zip, &file, &mut io::sink())?))?;
    rate("extract a member in pieces (plain: flate2, no CRC)", size.bytes, ours, plain);
    let ours = median(size.rounds, || Ok(archive::inflate(&zip, &file)?))?;
    rate("inflate a member whole (plain: flate2, no CRC)", size.bytes, ours, plain);
    Ok(())
}

fn publish(store: &Arc<Store>, key: Key, bytes: &[u8]) -> Outcome<Object> {
    let mut fill = match store.begin(&key, bytes.len() as u64)? {
        Begin::Fill(fill) => fill,
        Begin::Present(object) => return Ok(object),
        Begin::Busy { .. } => return Err("another process fills it".into()),
    };
    for piece in bytes.chunks(READ) {
        fill.write(piece)?;
    }
    Ok(fill.publish()?)
}

fn publish_and_read(size: &Size, dir: &Path) -> Outcome<()> {
    let store = Store::open(StoreOptions { dir: dir.join("cache"), limit: 1 << 40 })?;
    let (content, plain) = (program_like(size.bytes), dir.join("plain"));
    let archive = Digest::of(b"an archive");
    let mut number = 0;
    let ours = median(size.rounds, || {
        number += 1;
        publish(&store, Key::Member { archive, number: FileNo(number) }, &content)
    })?;
    let mut copies = 0;
    let written = median(size.rounds, || {
        // A new file each time, as in the cache: overwriting one finds its pages in the processor's
        // caches.
        copies += 1;
        let mut file = File::create(dir.join(format!("plain{copies}")))?;
        content.chunks(READ).try_for_each(|piece| file.write_all(piece))?;
        Ok(())
    })?;
    rate("publish a member (plain: write)", size.bytes, ours, written);

    let key = Key::Blob(Digest::of(&content));
    let ours = median(size.rounds, || {
        store.quarantine(&key, "it is measured again");
        publish(&store, key, &content)
    })?;
    let synced = median(size.rounds, || {
        let mut file = File::create(&plain)?;
        content.chunks(READ).try_for_each(|piece| file.write_all(piece))?;
        file.sync_data()?;
        Ok(Digest::of(&content))
    })?;
    rate("publish a blob (plain: SHA-256, write, sync)", size.bytes, ours, synced);

    let object = publish(&store, key, &content)?;
    let mut buffer = vec![0; READ];
    let ours = median(size.rounds, || {
        for at in (0..size.bytes).step_by(READ) {
            object.read_at(&mut buffer, at as u64)?;
        }
        Ok(())
    })?;
    let file = File::open(&plain)?;
    let plain = median(size.rounds, || {
        for at in (0..size.bytes).step_by(READ) {
            black_box(file.read_at(&mut buffer, at as u64)?);
        }
        Ok(())
    })?;
    rate("read an object (plain: pread)", size.bytes, ours, plain);
    Ok(())
}

/// A registry of one repository with many tags.
struct Tags(Arc<Vec<Tag>>);

impl KnownFacts for Tags {
    type Error = ();

    fn tags(&self, _: &Repo) -> Fact<Arc<Vec<Tag>>, ()> {
        Fact::Is(self.0.clone())
    }

    fn catalog(&self, _: &Host) -> Fact<Arc<Vec<RepoName>>, ()> {
        Fact::Absent
    }

    fn held(&self, _: &Host) -> Fact<Arc<Vec<RepoName>>, ()> {
        Fact::Is(Arc::default())
    }

    fn binding(&self, _: &Repo, _: &Tag) -> Fact<(), ()> {
        Fact::Unknown
    }

    fn is_confirmed(&self, _: &tofufs::tree::Need) -> bool {
        true
    }

    fn was_bound(&self, _: &Repo, _: &Tag) -> bool {
        false
    }

    fn standing(&self, _: &Host, _: &RepoName) -> Standing {
        Standing::Inside
    }

    fn given_below(&self, _: &Host, _: Option<&RepoName>) -> Vec<RepoName> {
        Vec::new()
    }
}

fn look_up(size: &Size) -> Outcome<()> {
    let names: Vec<String> = (0..size.entries).map(|n| format!("1.{n}.0")).collect();
    let mut tags = names.iter().map(|name| name.parse()).collect::<Result<Vec<Tag>, _>>()?;
    tags.sort();
    let known = Tags(Arc::new(tags));
    let space =
        RegistrySpace { host: "registry.example".parse()?, path: Some("acme/network".parse()?) };
    let ours = median(size.rounds, || {
        for name in &names {
            black_box(lookup(&space, &Component::parse(name), &known));
        }
        Ok(())
    })?;
    let plain = median(size.rounds, || {
        for name in &names {
            black_box(known.0.binary_search_by(|tag| tag.as_str().cmp(name.as_str())).is_ok());
        }
        Ok(())
    })?;
    let ns = |seconds: f64| format!("{:.0} ns", seconds * 1e9 / size.entries as f64);
    let what = format!("look up one of {} tags (plain: binary search)", size.entries);
    println!("{what:<52} {:>14} {:>14}", ns(ours), ns(plain));
    Ok(())
}

const ISSUER: &str = "https://token.actions.githubusercontent.com";
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";

/// Signatures from their bytes to a verdict, beside the one check over P-256 that each needs.
fn judge(size: &Size) -> Outcome<()> {
    let random = ring::rand::SystemRandom::new();
    let kind = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair =
        ring::signature::EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|e| e.to_string())?;
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair.as_ref());
    let key = SigningKey::from_pem(&format!(
        "-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n"
    ))?;
    let (public, signature) = (key.public(), key.sign(b"message")?);
    let plain = median(size.rounds * 10, || Ok(public.verifies(b"message", &signature)))?;

    let release = Digest::of(b"release");
    let repo = Repo { host: "registry.example".parse()?, name: "acme/network".parse()? };
    let bundle = SignedStatement::sign(&key, &release, &repo, None)?;
    let pem = public.to_pem();
    let by_key = policies("keys = [\"key\"]", &mut |_| Ok(pem.clone()))?;
    verdict(size, "by a key", &by_key, release, &bundle, plain)?;

    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigstore-conformance");
    for (what, name) in [
        ("keyless, Rekor 1", "intoto-with-custom-trust-root"),
        ("keyless, Rekor 2 and a timestamp", "rekor2-dsse-happy-path"),
    ] {
        let read = |file: &str| std::fs::read(vectors.join(name).join(file));
        let (bundle, root) = (read("bundle.sigstore.json")?, read("trusted_root.json")?);
        let artifact = read("artifact").or_else(|_| std::fs::read(vectors.join("a.txt")))?;
        let predicate = SignedStatement::read_bundle(&bundle)?.statement.predicate_type;
        let attributes = format!(
            "trusted_root = \"root\"\n  issuer = {ISSUER:?}\n  identity = {IDENTITY:?}\n  \
             predicate = {predicate:?}"
        );
        let root = String::from_utf8(root)?;
        let keyless = policies(&attributes, &mut |_| Ok(root.clone()))?;
        verdict(size, what, &keyless, Digest::of(&artifact), &bundle, plain)?;
    }
    Ok(())
}

fn policies(
    signer: &str,
    read: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Outcome<Policies> {
    let text = format!(
        "default = \"refuse\"\nsigner \"it\" {{\n  {signer}\n}}\n\
         scope \"registry.example\" {{\n  signed_by = [\"it\"]\n}}\n"
    );
    Ok(Policies(vec![Arc::new(Policy::parse("policy.hcl", &text, Moment::now(), read)?)]))
}

fn verdict(
    size: &Size,
    what: &str,
    policies: &Policies,
    digest: Digest,
    bundle: &[u8],
    plain: f64,
) -> Outcome<()> {
    let repo = Repo { host: "registry.example".parse()?, name: "acme/network".parse()? };
    let asked = Asked { repo, tag: None, digest, platform: None };
    let ours = median(size.rounds * 10, || {
        let mut judgement = policies.judge(&asked, ReleaseDates::UNKNOWN);
        judgement.add(SignedStatement::read_bundle(bundle));
        Ok(judgement.admission().ok_or_else(|| judgement.refusal().rule)?)
    })?;
    let us = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    let what = format!("judge a signature {what} (plain: P-256)");
    println!("{what:<52} {:>14} {:>14}", us(ours), us(plain));
    Ok(())
}
