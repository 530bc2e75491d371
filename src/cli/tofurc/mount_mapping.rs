//! What the CLI configuration of a mount is written from: the mapping, as the mount tells it.

use serde::{Deserialize, Serialize};

use crate::cli::args::mapping;
use crate::mapping::{Mapping, ProviderPattern};

/// What a mount tells about its mapping.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct MountMapping {
    /// The flags that spell the mapping.
    pub flags: Vec<String>,
    /// Patterns of the providers that it is for; none means all.
    pub include: Vec<String>,
    /// Patterns of providers that some rule is not for.
    pub exclude: Vec<String>,
    /// Patterns of the providers that come from their own registries.
    #[serde(default)]
    pub from_origin: Vec<String>,
}

impl MountMapping {
    /// Whether it is that of a mount, as opposed to a directory that was exported.
    pub fn is_of_mount(&self) -> bool {
        !self.flags.is_empty() || !self.from_origin.is_empty()
    }

    /// Of this mapping.
    pub fn of(mapping: &Mapping) -> MountMapping {
        let all = mapping.rules().iter().any(|rule| rule.include().is_empty());
        let texts = |patterns: Vec<&ProviderPattern>| {
            let mut texts: Vec<String> = Vec::new();
            for text in patterns.iter().map(ToString::to_string) {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
            texts
        };
        let include = if all {
            Vec::new()
        } else {
            mapping.rules().iter().flat_map(|rule| rule.include()).collect()
        };
        let exclude = mapping.rules().iter().flat_map(|rule| rule.exclude()).collect();
        let origins = mapping.rules().iter().filter(|rule| rule.is_itself());
        let from_origin = origins.flat_map(|rule| rule.include()).collect();
        MountMapping {
            flags: mapping::flags(mapping),
            include: texts(include),
            exclude: texts(exclude),
            from_origin: texts(from_origin),
        }
    }
}
