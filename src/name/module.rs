//! Addresses of modules in module registries.

use std::fmt;

use super::{Host, NameError, refuse};

/// A module of a module registry: `HOST/NAMESPACE/NAME/SYSTEM`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ModuleAddr {
    /// The module registry.
    pub host: Host,
    namespace: String,
    name: String,
    system: String,
}

impl ModuleAddr {
    /// Reads `[HOST/]NAMESPACE/NAME/SYSTEM`; without a host it is one of `default`.
    ///
    /// # Errors
    /// The text is no such address.
    pub fn parse(text: &str, default: &Host) -> Result<ModuleAddr, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (host, rest) = match parts.as_slice() {
            [namespace, name, system] => (Some(default.clone()), [*namespace, *name, *system]),
            [host, namespace, name, system] => (host.parse().ok(), [*namespace, *name, *system]),
            _ => (None, [""; 3]),
        };
        match host.filter(|_| rest.iter().all(|part| is_part(part))) {
            Some(host) => {
                let [namespace, name, system] = rest.map(str::to_owned);
                Ok(ModuleAddr { host, namespace, name, system })
            }
            None => refuse(text, "a module of a registry ([HOST/]NAMESPACE/NAME/SYSTEM)"),
        }
    }

    /// `NAMESPACE/NAME/SYSTEM`
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.name, self.system)
    }
}

impl fmt::Display for ModuleAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path())
    }
}

/// As the clients have it: letters, digits, `-` and `_` in the middle.
fn is_part(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 64
        && text.bytes().all(inside)
        && ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_three_parts_behind_its_host() {
        let default: Host = "registry.opentofu.org".parse().unwrap();
        let shown = |text| ModuleAddr::parse(text, &default).map(|address| address.to_string());
        assert_eq!(shown("acme/net/aws").unwrap(), "registry.opentofu.org/acme/net/aws");
        assert_eq!(shown("r.example:8080/a/b_c/d").unwrap(), "r.example:8080/a/b_c/d");
        for bad in
            ["", "a/b", "a/b/c/d", "./a/b", "a/../b/c", "r.example/a/b/c/d", "a/b/-c", "a//b"]
        {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
