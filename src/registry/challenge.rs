//! `WWW-Authenticate`: how a registry wants to be logged in to.
//!
//! Only what names the token service is taken from a challenge. The scope is ours: a challenge that
//! asks for more, or for something malformed, changes nothing (hostile input R20).

use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::observed::LoginScheme;
use super::origin::Origin;
use super::retry::Fault;
use crate::failure::Failure;

/// What a registry asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    /// A user name and password in each request.
    Basic,
    /// A token from a token service.
    Bearer {
        /// The token service.
        realm: Url,
        /// The name by which it knows the registry.
        service: Option<String>,
    },
}

impl Challenge {
    /// The scheme, and whose tokens it wants.
    pub fn scheme(&self) -> LoginScheme {
        match self {
            Challenge::Basic => LoginScheme::Basic,
            Challenge::Bearer { realm, .. } => LoginScheme::Bearer(Origin::of(realm)),
        }
    }

    /// The challenge of a 401: Bearer if it is offered, else Basic.
    pub fn of(headers: &HeaderMap) -> Result<Challenge, Fault> {
        let mut offers = Vec::new();
        for value in headers.get_all(WWW_AUTHENTICATE) {
            offers.extend(value.to_str().map(offers_of).unwrap_or_default());
        }
        let refused = |rule: &str| {
            Err(Fault::new(Failure::Protocol, format!("the challenge of the registry {rule}")))
        };
        if let Some(bearer) =
            offers.iter().find(|offer| offer.scheme.eq_ignore_ascii_case("bearer"))
        {
            let one = |name: &str| {
                let mut values =
                    bearer.parameters.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
                (values.next().map(|(_, v)| v.as_str()), values.next().is_some())
            };
            let ((Some(realm), false), (service, false)) = (one("realm"), one("service")) else {
                return refused("names no token service, or several");
            };
            return match Url::parse(realm) {
                Ok(realm) => Ok(Challenge::Bearer { realm, service: service.map(str::to_owned) }),
                Err(_) => refused("names a token service that is no address"),
            };
        }
        if offers.iter().any(|offer| offer.scheme.eq_ignore_ascii_case("basic")) {
            return Ok(Challenge::Basic);
        }
        Err(Fault::new(
            Failure::Denied,
            "the registry answered 401 without offering the Bearer or Basic scheme",
        ))
    }
}

struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// All challenges of one header: `Scheme name=value, name="value", Scheme …`. RFC 9110, section
/// 11.6.1.
fn offers_of(header: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return offers;
        }
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let (value, after) = value_of(value.trim_start());
                if let Some(offer) = offers.last_mut() {
                    offer.parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                offers.push(Offer { scheme: word.to_owned(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

/// A token or quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        // a stray `=` (token68 padding) is skipped, so that every call gets further
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Challenge, Failure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers).map_err(|fault| fault.failure)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Result<Challenge, Failure> {
        Ok(Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn bearer_is_read_in_the_forms_that_registries_send() {
        let full =
            r#"Bearer realm="https://a.example/token",service="r,=x",scope="repository:x:pull""#;
        assert_eq!(read(&[full]), bearer("https://a.example/token", Some("r,=x")));
        assert_eq!(
            read(&["bearer Realm=https://a.example/t"]),
            bearer("https://a.example/t", None)
        );
        assert_eq!(
            read(&[r#"Bearer scope="aws" , realm = "https://a.example/" "#]),
            bearer("https://a.example/", None)
        );
        assert_eq!(
            read(&[r#"Basic realm="x", Bearer realm="https://a.example/""#]),
            bearer("https://a.example/", None)
        );
        assert_eq!(
            read(&[r#"Basic realm="x""#, r#"Bearer realm="https://a.example/""#]),
            bearer("https://a.example/", None)
        );
        assert_eq!(
            read(&[r#"Bearer realm="https://a.example/\"q""#]),
            bearer("https://a.example/\"q", None)
        );
        assert_eq!(read(&["Negotiate YWJj==", "Basic"]), Ok(Challenge::Basic));
    }

    /// R20
    #[test]
    fn an_ambiguous_challenge_is_refused() {
        for text in [
            "Bearer",
            r#"Bearer realm="/t""#,
            r#"Bearer realm="https://a.example/",realm="https://b.example/""#,
        ] {
            assert_eq!(read(&[text]), Err(Failure::Protocol), "{text}");
        }
        for text in ["", "Negotiate", "=", ",,, =,\"", "Digest realm=\"Basic\""] {
            assert_eq!(read(&[text]), Err(Failure::Denied), "{text}");
        }
    }
}
