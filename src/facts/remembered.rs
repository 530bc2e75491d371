//! What the store remembers of providers for later mounts: which were used, and the rules by which
//! they were found.

use std::collections::BTreeSet;

use crate::failure::{Failure, Refusal};
use crate::mapping::{Carried, Mapping, RULES_MAX};
use crate::name::ProviderAddr;
use crate::store::Store;

/// The name under which the store keeps the providers that were used.
const PROVIDERS: &str = "providers";
/// The name under which it keeps the rules that a command was given to find some.
const MAPPING: &str = "mapping";
/// The most providers that are remembered.
pub(super) const PROVIDERS_MAX: usize = 10_000;

/// The providers that any mount or command used.
pub(super) fn providers(store: &Store) -> BTreeSet<ProviderAddr> {
    read_providers(store.edge(PROVIDERS))
}

fn read_providers(bytes: Option<Vec<u8>>) -> BTreeSet<ProviderAddr> {
    let names = bytes.and_then(|bytes| serde_json::from_slice::<Vec<String>>(&bytes).ok());
    let read = |name: String| name.parse().ok();
    names.unwrap_or_default().into_iter().filter_map(read).take(PROVIDERS_MAX).collect()
}

/// Adds `new` to what the store remembers, beside what other mounts add.
pub(super) fn add_providers(store: &Store, new: &BTreeSet<ProviderAddr>) -> Result<(), Refusal> {
    store.change_edge(PROVIDERS, |bytes| {
        let mut all = read_providers(bytes);
        let before = all.len();
        all.extend(new.iter().cloned());
        let names: Vec<String> = all.iter().map(ProviderAddr::to_string).collect();
        (before < names.len() && names.len() <= PROVIDERS_MAX)
            .then(|| serde_json::to_vec(&names).ok())
            .flatten()
    })
}

/// Notes that releases of providers are in the cache now, with the rules that a command was given
/// to find them: a mount that is given none goes by them. Blocks on the disk.
///
/// # Errors
/// The store does not keep all of it.
pub fn remember(store: &Store, used: &Carried) -> Result<(), Refusal> {
    add_providers(store, &used.providers)?;
    if !used.mapping.rules().is_empty() {
        add_rules(store, used)?;
    }
    let kept = Carried { providers: providers(store), mapping: read_mapping(store.edge(MAPPING)) };
    if kept.clone().and(used) == kept {
        return Ok(());
    }
    let rule = format!(
        "the cache remembers {PROVIDERS_MAX} providers and {RULES_MAX} rules of --oci-mirror, and \
         these are more; what was fetched stays, and a mount shows it if it is given the same \
         --oci-mirror and --lock-file"
    );
    Err(Refusal::new(Failure::TooLarge, store.dir(), rule))
}

fn add_rules(store: &Store, used: &Carried) -> Result<(), Refusal> {
    store.change_edge(MAPPING, |bytes| {
        // Older rules for the same providers give way, and of too many the oldest.
        let others =
            read_mapping(bytes).only(|rule| !used.providers.iter().any(|p| rule.matches(p)));
        let all = used.mapping.clone().and(&others);
        let newest = all.rules().iter().take(RULES_MAX).cloned().collect();
        Some(Carried { mapping: Mapping::new(newest), ..Carried::default() }.document())
    })
}

/// The rules that commands were given, of the cache in `dir`, and the providers that were used;
/// nothing where there is no cache. Blocks on the disk.
pub fn remembered_in(dir: &std::path::Path) -> Carried {
    let mapping = read_mapping(Store::edge_at(dir, MAPPING));
    Carried { providers: read_providers(Store::edge_at(dir, PROVIDERS)), mapping }
}

fn read_mapping(bytes: Option<Vec<u8>>) -> Mapping {
    let carried = bytes.and_then(|bytes| Carried::parse(&bytes, MAPPING).ok());
    carried.map(|carried| carried.mapping).unwrap_or_default()
}
