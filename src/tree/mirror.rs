//! `mirror/`: a packed provider mirror. `HOST/NAMESPACE/TYPE/` holds the zips as links into the
//! registry tree, and the documents of the provider mirror protocol: `index.json` and, by version,
//! `VERSION.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Step;
use super::providers::{self, Offered, ProviderDirectory, ProviderEntry, ProviderListing};
use crate::name::{Platform, ProviderAddr, Version, ZipName};

/// The name of the list of versions.
pub const INDEX: &str = "index.json";

/// Finds `name` in `dir`.
pub fn lookup<K: Offered>(
    dir: &ProviderDirectory,
    name: &str,
    known: &K,
) -> Step<ProviderEntry, K::Error> {
    let provider = match dir {
        ProviderDirectory::Top | ProviderDirectory::Host(_) | ProviderDirectory::Namespace(..) => {
            return providers::lookup(dir, name, known);
        }
        ProviderDirectory::Version(..) => return Step::Absent,
        ProviderDirectory::Provider(provider) => provider,
    };
    if name == INDEX {
        return providers::versions(provider, known)
            .and_then(|versions| Step::Edge(ProviderEntry::Versions(index(versions.keys()))));
    }
    if let Some(version) = name.strip_suffix(".json").and_then(|text| text.parse::<Version>().ok())
    {
        return providers::release(provider, &version, known)
            .and_then(|(repo, tag)| Step::Edge(ProviderEntry::Archives(repo, tag, version)));
    }
    let Ok(zip) = name.parse::<ZipName>() else { return Step::Absent };
    if zip.kind != provider.kind() || provider.zip_name(&zip.version, &zip.platform) != name {
        return Step::Absent;
    }
    providers::release(provider, &zip.version, known).and_then(|(repo, tag)| {
        providers::has(&repo, &tag, &zip.platform, known).and_then(|()| {
            Step::Edge(providers::link(dir, &repo, &tag, &format!("{}.zip", zip.platform)))
        })
    })
}

/// The entries of `dir`, but for the documents of single versions. An error costs the entries that
/// it is about and no others.
pub fn list<K: Offered>(
    dir: &ProviderDirectory,
    known: &K,
) -> Step<ProviderListing<K::Error>, K::Error> {
    let step = match dir {
        ProviderDirectory::Top | ProviderDirectory::Host(_) | ProviderDirectory::Namespace(..) => {
            providers::list(dir, known)
        }
        ProviderDirectory::Version(..) => Step::Absent,
        ProviderDirectory::Provider(provider) => {
            providers::versions(provider, known).and_then(|versions| {
                let mut listing = ProviderListing::of(BTreeMap::new());
                for (version, (repo, tag)) in &versions {
                    match providers::shown(repo, tag, known) {
                        Step::Edge(platforms) => {
                            listing.entries.extend(platforms.iter().map(|platform| {
                                let link =
                                    providers::link(dir, repo, tag, &format!("{platform}.zip"));
                                (provider.zip_name(version, platform), link)
                            }))
                        }
                        Step::Need(need) => return Step::Need(need),
                        Step::Absent => {}
                        Step::Failed(e) => listing.error = Some(e),
                    }
                }
                listing
                    .entries
                    .insert(INDEX.to_owned(), ProviderEntry::Versions(index(versions.keys())));
                Step::Edge(listing)
            })
        }
    };
    providers::or_empty(step)
}

/// `index.json`, by the provider network mirror protocol.
fn index<'a>(versions: impl Iterator<Item = &'a Version>) -> Vec<u8> {
    let versions: Map<String, Value> =
        versions.map(|version| (version.to_string(), json!({}))).collect();
    rendered(&json!({ "versions": versions }))
}

/// `VERSION.json`, by the same protocol: the zips of a release, with their hashes where those may be
/// told.
pub fn archives(
    provider: &ProviderAddr,
    version: &Version,
    packages: &[(Platform, Option<Vec<String>>)],
) -> Vec<u8> {
    let archives: Map<String, Value> = packages
        .iter()
        .map(|(platform, hashes)| {
            let url = provider.zip_name(version, platform);
            let archive = match hashes {
                Some(hashes) => json!({ "hashes": hashes, "url": url }),
                None => json!({ "url": url }),
            };
            (platform.to_string(), archive)
        })
        .collect();
    rendered(&json!({ "archives": archives }))
}

/// As the clients lay such documents out.
fn rendered(document: &Value) -> Vec<u8> {
    let mut bytes = format!("{document:#}").into_bytes();
    bytes.push(b'\n');
    bytes
}
