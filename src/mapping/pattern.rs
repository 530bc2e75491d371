//! Patterns of `include` and `exclude`: `[HOST/]NAMESPACE/TYPE` with `*` from the right.

use std::fmt;
use std::str::FromStr;

use super::template::Variable;
use super::{DEFAULT_REGISTRY, MappingError, refuse};
use crate::name::{Host, ProviderAddr};

/// A set of providers. A part that is `*` holds all values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderPattern {
    host: Option<Host>,
    namespace: Option<String>,
    kind: Option<String>,
}

impl ProviderPattern {
    /// Whether `provider` belongs to the set.
    pub fn matches(&self, provider: &ProviderAddr) -> bool {
        self.host.as_ref().is_none_or(|host| *host == provider.host)
            && self.namespace.as_deref().is_none_or(|namespace| namespace == provider.namespace())
            && self.kind.as_deref().is_none_or(|kind| kind == provider.kind())
    }

    /// Whether a provider of this host (and namespace) belongs to the set.
    pub(super) fn touches(&self, host: &Host, namespace: Option<&str>) -> bool {
        self.host.as_ref().is_none_or(|own| own == host)
            && namespace.is_none_or(|namespace| {
                self.namespace.as_deref().is_none_or(|own| own == namespace)
            })
    }

    /// Whether all providers of this host (and namespace) belong to the set.
    pub(super) fn covers(&self, host: &Host, namespace: Option<&str>) -> bool {
        self.touches(host, namespace)
            && self.kind.is_none()
            && (namespace.is_some() || self.namespace.is_none())
    }

    /// The only value of a part, if it has only one.
    pub(super) fn value(&self, variable: Variable) -> Option<&str> {
        match variable {
            Variable::Hostname => self.host.as_ref().map(Host::as_str),
            Variable::Namespace => self.namespace.as_deref(),
            Variable::Type => self.kind.as_deref(),
        }
    }
}

impl FromStr for ProviderPattern {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        const WANTED: &str =
            "a pattern is [HOST/]NAMESPACE/TYPE, in which TYPE, then NAMESPACE, then HOST may be *";
        let parts: Vec<&str> = text.split('/').collect();
        let (host, namespace, kind) = match parts[..] {
            [namespace, kind] => (DEFAULT_REGISTRY, namespace, kind),
            [host, namespace, kind] => (host, namespace, kind),
            _ => return refuse(format!("the pattern {text:?}"), WANTED),
        };
        let wild = |part: &str| part == "*";
        // An address with something for each `*` checks and normalizes the other parts.
        let stand_in = |part, instead| if wild(part) { instead } else { part };
        let address = stand_in(host, DEFAULT_REGISTRY).parse().ok().and_then(|host| {
            ProviderAddr::new(host, stand_in(namespace, "x"), stand_in(kind, "x"))
        });
        let from_the_right = (!wild(host) || wild(namespace)) && (!wild(namespace) || wild(kind));
        let Some(address) = address.filter(|_| from_the_right) else {
            return refuse(format!("the pattern {text:?}"), WANTED);
        };
        Ok(ProviderPattern {
            host: (!wild(host)).then(|| address.host.clone()),
            namespace: (!wild(namespace)).then(|| address.namespace().to_owned()),
            kind: (!wild(kind)).then(|| address.kind().to_owned()),
        })
    }
}

impl fmt::Display for ProviderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |variable| self.value(variable).unwrap_or("*");
        write!(
            f,
            "{}/{}/{}",
            text(Variable::Hostname),
            text(Variable::Namespace),
            text(Variable::Type)
        )
    }
}
