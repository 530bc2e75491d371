//! The policy.json of containers (podman, skopeo, CRI-O) as a policy of ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// The policy, and in sentences what of the other one it does not say.
///
/// # Errors
/// It is no such file.
pub fn imported(text: &str) -> Result<(String, Vec<String>), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let default = value.get("default").and_then(Value::as_array).ok_or("it has no default")?;
    let mut import = Import::default();
    let policy = match requirement("the default", default, &mut import) {
        Rule::Accepts => "default = \"insecure_accept_anything\"\n",
        Rule::Refuses => "default = \"refuse\"\n",
        Rule::Signed(_) => {
            import.left_out.push(
                "the default wants a signature, which a scope has to say here; it refuses now"
                    .into(),
            );
            "default = \"refuse\"\n"
        }
    };
    let mut scopes = String::new();
    let transports = value.get("transports").and_then(Value::as_object);
    for (transport, places) in transports.into_iter().flatten() {
        if transport != "docker" {
            import.left_out.push(format!("the transport {transport} is none of registries"));
            continue;
        }
        for (place, requirements) in places.as_object().into_iter().flatten() {
            import.scope(place, requirements, &mut scopes);
        }
    }
    let mut policy = policy.to_owned();
    for (file, signer) in &import.signers {
        let _ = writeln!(policy, "\nsigner {signer:?} {{\n  keys = [{file:?}]\n}}");
    }
    Ok((policy + &scopes, import.left_out))
}

/// What a requirement comes to.
enum Rule {
    Accepts,
    Refuses,
    Signed(String),
}

#[derive(Default)]
struct Import {
    /// Signers by the files of their keys.
    signers: BTreeMap<String, String>,
    left_out: Vec<String>,
}

impl Import {
    fn scope(&mut self, place: &str, requirements: &Value, scopes: &mut String) {
        let Some(requirements) = requirements.as_array() else { return };
        if place.is_empty() || place.contains('*') || place.contains('@') {
            self.left_out.push(format!("the scope {place:?} has no counterpart and is left out"));
            return;
        }
        let body = match requirement(place, requirements, self) {
            Rule::Accepts => "insecure_accept_anything = true".to_owned(),
            Rule::Signed(signer) => format!("signed_by = [{signer:?}]"),
            // a digest that nothing has
            Rule::Refuses => format!("digests = [\"sha256:{}\"]", "0".repeat(64)),
        };
        let _ = writeln!(scopes, "\nscope {place:?} {{\n  {body}\n}}");
    }

    fn signer(&mut self, file: &str) -> String {
        let next = format!("signer-{}", self.signers.len() + 1);
        self.signers.entry(file.to_owned()).or_insert(next).clone()
    }
}

fn requirement(of: &str, requirements: &[Value], import: &mut Import) -> Rule {
    let [one] = requirements else {
        import.left_out.push(format!("{of}: several requirements at once; it refuses now"));
        return Rule::Refuses;
    };
    let text = |key: &str| one.get(key).and_then(Value::as_str);
    match (text("type"), text("keyPath")) {
        (Some("insecureAcceptAnything"), _) => Rule::Accepts,
        (Some("reject"), _) => Rule::Refuses,
        (Some("sigstoreSigned"), Some(file)) => {
            if one.get("signedIdentity").is_some() {
                import.left_out.push(format!(
                    "{of}: signedIdentity has no counterpart; say bind = \"tag\" where signatures \
                     name tags"
                ));
            }
            Rule::Signed(import.signer(file))
        }
        (kind, _) => {
            let kind = kind.unwrap_or("no type");
            import.left_out.push(format!("{of}: {kind} has no counterpart; it refuses now"));
            Rule::Refuses
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_containers_becomes_one_of_ours() {
        let text = r#"{"default": [{"type": "reject"}], "transports": {
            "docker": {
                "docker.io": [{"type": "insecureAcceptAnything"}],
                "ghcr.io/acme": [{"type": "sigstoreSigned", "keyPath": "/etc/a.pub"}],
                "ghcr.io/old": [{"type": "signedBy", "keyType": "GPGKeys"}],
                "*.example.com": [{"type": "reject"}]
            },
            "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}}}"#;
        let (policy, left_out) = imported(text).unwrap();
        assert!(policy.starts_with("default = \"refuse\"\n"), "{policy}");
        for part in [
            "signer \"signer-1\" {\n  keys = [\"/etc/a.pub\"]\n}",
            "scope \"docker.io\" {\n  insecure_accept_anything = true\n}",
            "scope \"ghcr.io/acme\" {\n  signed_by = [\"signer-1\"]\n}",
            "scope \"ghcr.io/old\" {\n  digests = ",
        ] {
            assert!(policy.contains(part), "{policy} lacks {part}");
        }
        assert_eq!(left_out.len(), 3, "{left_out:?}");
        let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        crate::trust::Policy::parse("p", &policy, crate::moment::Moment::now(), &mut |_| {
            Ok(key.to_owned())
        })
        .unwrap();
        assert!(imported("{}").is_err());
    }
}
