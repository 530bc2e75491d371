//! Modules and provider releases as values: zips, manifests, indexes. Equal input gives equal
//! bytes.

use std::io::{Cursor, Read, Write};

use serde_json::{Value, json};
use tofufs::artifact::{H1_ANNOTATION, MODULE, PROVIDER, PROVIDER_TARGET, ZIP};
use tofufs::digest::{Digest, H1};
use tofufs::oci::{IMAGE, INDEX};
use zip::write::SimpleFileOptions;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest as it is pushed.
#[derive(Clone, Debug)]
pub struct Document {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

impl Document {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    fn new(media_type: &'static str, value: Value) -> Document {
        Document { media_type, bytes: value.to_string().into_bytes() }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest().to_string(), "size": self.bytes.len()})
    }
}

/// What a tag stands for, with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub blobs: Vec<Vec<u8>>,
    /// Those that an index names, before it.
    pub manifests: Vec<Document>,
}

impl Artifact {
    /// The manifest that is tagged.
    pub fn root(&self) -> &Document {
        self.manifests.last().expect("an artifact has a manifest")
    }

    pub fn digest(&self) -> Digest {
        self.root().digest()
    }
}

/// Bytes that cannot be made smaller, others for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A zip of `(name, content)`; names that end in `!` are executable (without the `!`).
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let (name, mode) = match name.strip_suffix('!') {
            Some(name) => (name, 0o755),
            None => (*name, 0o644),
        };
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(mode);
        writer.start_file(name, options).expect("a name that fits");
        writer.write_all(content).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn image(artifact_type: &str, layers: Value) -> Document {
    Document::new(
        IMAGE,
        json!({
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": artifact_type,
            "config": {"mediaType": EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2},
            "layers": layers,
        }),
    )
}

fn layer(zip: &[u8]) -> Value {
    json!({"mediaType": ZIP, "digest": Digest::of(zip).to_string(), "size": zip.len()})
}

/// A module package of `zip`, which need not be a zip at all.
pub fn module_of(zip: Vec<u8>) -> Artifact {
    let manifest = image(MODULE, json!([layer(&zip)]));
    Artifact { blobs: vec![b"{}".to_vec(), zip], manifests: vec![manifest] }
}

/// A module package of files, as for [`zip`].
pub fn module(files: &[(&str, &[u8])]) -> Artifact {
    module_of(zip(files))
}

/// The package of a provider's platform, with `content` as its program.
pub fn provider_zip(name: &str, version: &str, content: &[u8]) -> Vec<u8> {
    zip(&[
        (&format!("terraform-provider-{name}_v{version}!"), content),
        ("README.md", b"a provider\n"),
    ])
}

/// A provider release of `(OS_ARCH, package)`.
pub fn provider_of(packages: &[(&str, Vec<u8>)]) -> Artifact {
    release_of(packages, |_| None)
}

/// The same with the h1 of each package annotated, as tofufs publishes it.
pub fn annotated_provider_of(packages: &[(&str, Vec<u8>)]) -> Artifact {
    release_of(packages, |package| Some(h1(package)))
}

/// The h1 of what a client unpacks from a zip without entries for directories.
pub fn h1(package: &[u8]) -> String {
    let mut archive = zip::ZipArchive::new(Cursor::new(package)).expect("a zip of ours");
    let files = (0..archive.len()).map(|at| {
        let mut file = archive.by_index(at).expect("an entry");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("memory");
        (file.name().expect("a name").as_bytes().to_vec(), Digest::of(&content))
    });
    let files: Vec<_> = files.filter(|(name, _)| !name.ends_with(b"/")).collect();
    H1::of(&files).expect("names without line breaks").to_string()
}

fn release_of(packages: &[(&str, Vec<u8>)], h1_of: impl Fn(&[u8]) -> Option<String>) -> Artifact {
    let mut artifact = Artifact { blobs: vec![b"{}".to_vec()], manifests: vec![] };
    let mut entries = Vec::new();
    for (platform, package) in packages {
        let (os, arch) = platform.split_once('_').expect("OS_ARCH");
        let manifest = image(PROVIDER_TARGET, json!([layer(package)]));
        let mut entry = manifest.descriptor();
        entry["artifactType"] = json!(PROVIDER_TARGET);
        entry["platform"] = json!({"os": os, "architecture": arch});
        if let Some(h1) = h1_of(package) {
            entry["annotations"] = json!({H1_ANNOTATION: h1});
        }
        entries.push(entry);
        artifact.blobs.push(package.clone());
        artifact.manifests.push(manifest);
    }
    artifact.manifests.push(Document::new(
        INDEX,
        json!({"schemaVersion": 2, "mediaType": INDEX, "artifactType": PROVIDER, "manifests": entries}),
    ));
    artifact
}

/// A provider release whose program says for which platform it is.
pub fn provider(name: &str, version: &str, platforms: &[&str]) -> Artifact {
    let packages: Vec<_> = platforms
        .iter()
        .map(|&p| {
            (
                p,
                provider_zip(
                    name,
                    version,
                    format!("#!/bin/sh\necho {name} {version} {p}\n").as_bytes(),
                ),
            )
        })
        .collect();
    provider_of(&packages)
}
