//! `plugins/`: an unpacked provider mirror. `HOST/NAMESPACE/TYPE/VERSION/OS_ARCH` is a link into
//! the registry tree, so that a client's walk ends there.

use super::Step;
use super::providers::{self, Offered, ProviderDirectory, ProviderEntry, ProviderListing};
use crate::name::{Platform, Version};

/// Finds `name` in `dir`.
pub fn lookup<K: Offered>(
    dir: &ProviderDirectory,
    name: &str,
    known: &K,
) -> Step<ProviderEntry, K::Error> {
    match dir {
        ProviderDirectory::Top | ProviderDirectory::Host(_) | ProviderDirectory::Namespace(..) => {
            providers::lookup(dir, name, known)
        }
        ProviderDirectory::Provider(provider) => {
            let Ok(version) = name.parse::<Version>() else { return Step::Absent };
            providers::release(provider, &version, known).and_then(|_| {
                Step::Edge(ProviderEntry::Dir(ProviderDirectory::Version(
                    provider.clone(),
                    version,
                )))
            })
        }
        ProviderDirectory::Version(provider, version) => {
            let Ok(platform) = name.parse::<Platform>() else { return Step::Absent };
            providers::release(provider, version, known).and_then(|(repo, tag)| {
                providers::has(&repo, &tag, &platform, known)
                    .and_then(|()| Step::Edge(providers::link(dir, &repo, &tag, name)))
            })
        }
    }
}

/// The entries of `dir`. An error costs the entries that it is about and no others.
pub fn list<K: Offered>(
    dir: &ProviderDirectory,
    known: &K,
) -> Step<ProviderListing<K::Error>, K::Error> {
    let step = match dir {
        ProviderDirectory::Top | ProviderDirectory::Host(_) | ProviderDirectory::Namespace(..) => {
            providers::list(dir, known)
        }
        ProviderDirectory::Provider(provider) => {
            providers::versions(provider, known).and_then(|versions| {
                let versions = versions.into_keys();
                let entry = |v: Version| {
                    (
                        v.to_string(),
                        ProviderEntry::Dir(ProviderDirectory::Version(provider.clone(), v)),
                    )
                };
                Step::Edge(ProviderListing::of(versions.map(entry).collect()))
            })
        }
        ProviderDirectory::Version(provider, version) => {
            providers::release(provider, version, known).and_then(|(repo, tag)| {
                providers::shown(&repo, &tag, known).and_then(|platforms| {
                    let names = platforms.iter().map(Platform::to_string);
                    let links =
                        names.map(|name| (name.clone(), providers::link(dir, &repo, &tag, &name)));
                    Step::Edge(ProviderListing::of(links.collect()))
                })
            })
        }
    };
    providers::or_empty(step)
}
