//! Why there is no answer, in words that tell what to do: names of hosts, ports, proxies,
//! certificates, connections that broke.

use std::error::Error;
use std::sync::LazyLock;

use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, InvalidMessage};

use super::address::Forbidden;
use super::origin::{Origin, Scheme};
use super::retry::Fault;
use super::server_text::escaped;
use crate::failure::Failure;
use crate::moment::Moment;

/// What the system's resolver says before its reason.
const RESOLVER: &str = "failed to lookup address information: ";
/// The reasons that mean that there is no such name, in the words of the C libraries.
const NO_SUCH_NAME: [&str; 3] =
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"];

/// The fault of a connection that could not be made, by way of `proxy` if there is one; `words` say
/// why.
pub(super) fn unconnected(words: &str, origin: &Origin, proxy: Option<&str>) -> Fault {
    let asked = proxy.map_or_else(|| origin.to_string(), |proxy| format!("the proxy {proxy}"));
    match words.split_once(RESOLVER) {
        Some((_, reason)) if NO_SUCH_NAME.iter().any(|said| reason.contains(said)) => {
            Fault::new(Failure::Unreachable, format!("there is no such host as that of {asked}"))
                .remedy("check the spelling of its name")
        }
        Some((_, reason)) => Fault::passing(
            Failure::Unreachable,
            format!("the name of {asked} cannot be resolved now ({reason})"),
        )
        .remedy("check whether this machine reaches its name server"),
        None => {
            let by = proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
            Fault::passing(Failure::Unreachable, format!("{origin} cannot be reached{by}: {words}"))
        }
    }
}

/// What may help where something answers without TLS, but not as a registry does.
pub(super) fn may_want_tls(origin: &Origin) -> Option<&'static str> {
    (origin.scheme() == Scheme::Http).then_some("it may want TLS: leave off --plain-http")
}

/// TLS never falls back to anything; the reason reaches the user.
pub(super) fn tls_fault(error: &rustls::Error, origin: &Origin) -> Fault {
    let rule = |why: &str| format!("no TLS connection to {}: {why}", way_to(origin));
    match error {
        rustls::Error::InvalidCertificate(reason) => untrusted(reason, rule),
        rustls::Error::FailedToGetCurrentTime => Fault::new(
            Failure::Untrusted,
            rule("no certificate is valid by this machine's clock, which is before 1970"),
        )
        .remedy("set the clock"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Fault::new(Failure::Unreachable, rule("what answers does not speak TLS"))
                .remedy("if it is a registry without TLS that you trust, name it by --plain-http")
        }
        _ => Fault::new(Failure::Unreachable, rule(&error.to_string())),
    }
}

fn untrusted(reason: &CertificateError, rule: impl Fn(&str) -> String) -> Fault {
    let fault = |why: &str| Fault::new(Failure::Untrusted, rule(why));
    match reason {
        CertificateError::UnknownIssuer => {
            fault("the certificate is signed by an unknown authority")
                .remedy("name that authority's certificate by --ca-file, if you trust it")
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let (now, end) = (moment(*time), moment(*not_after));
            fault(&format!("the certificate expired on {}, {}", end.day(), ago(end.days_to(now))))
                .remedy(format!(
                    "have it renewed; if this machine's clock is wrong ({now}), set it"
                ))
        }
        CertificateError::Expired => {
            fault("the certificate has expired").remedy("check this machine's clock")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (now, start) = (moment(*time), moment(*not_before));
            fault(&format!(
                "the certificate is not valid before {}, {}",
                start.day(),
                ahead(now.days_to(start))
            ))
            .remedy(format!("check this machine's clock, which says {now}"))
        }
        CertificateError::NotValidYet => {
            fault("the certificate is not valid yet").remedy("check this machine's clock")
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let names: Vec<String> = presented.iter().map(|name| bare(name)).collect();
            fault(&format!("the certificate is for another host ({})", names.join(", ")))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            fault("the certificate is for another host")
        }
        // Their own words are a dump of every algorithm that is supported.
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            fault("the certificate is signed by an algorithm that is not accepted, such as SHA-1")
                .remedy("have it replaced by one that is signed with SHA-256 or better")
        }
        _ => fault(&rustls::Error::InvalidCertificate(reason.clone()).to_string()),
    }
}

/// A name without what the library writes around it: `DnsName("HOST")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')'));
    escaped(inner.trim_matches('"'))
}

fn moment(time: UnixTime) -> Moment {
    Moment::at(time.as_secs())
}

fn ago(days: u64) -> String {
    match days {
        0 => "less than a day ago".to_owned(),
        1 => "1 day ago".to_owned(),
        days => format!("{days} days ago"),
    }
}

fn ahead(days: u64) -> String {
    match days {
        0 => "in less than a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    }
}

/// The proxies that the environment names. The HTTP client asks the same library in the same way.
static PROXIES: LazyLock<Matcher> = LazyLock::new(Matcher::from_system);

/// The proxy on the way to an origin, without its user and password.
pub(super) fn proxy_of(origin: &Origin) -> Option<String> {
    if origin.is_loopback() {
        return None;
    }
    let proxy = PROXIES.intercept(&origin.to_string().parse().ok()?)?;
    Some(proxy.uri().to_string().trim_end_matches('/').to_owned())
}

/// An origin for a sentence about what came back from it: with the proxy on the way, which may be
/// to blame.
pub(super) fn way_to(origin: &Origin) -> String {
    match proxy_of(origin) {
        Some(proxy) => format!("{origin} through the proxy {proxy}"),
        None => origin.to_string(),
    }
}

pub(super) fn proxy_denies(origin: &Origin) -> Fault {
    let proxy = proxy_of(origin).map(|proxy| format!(" {proxy}")).unwrap_or_default();
    Fault::new(
        Failure::Denied,
        format!("the proxy{proxy} on the way to {origin} asks for a password (407)"),
    )
    .remedy(
        "put the user and password into the proxy's address in the environment (HTTPS_PROXY, \
             HTTP_PROXY)",
    )
}

pub(super) fn forbidden(target: &Forbidden) -> Fault {
    Fault::new(
        Failure::Protocol,
        format!("a redirect of the registry leads to a forbidden address: {target}"),
    )
}

/// What an error is caused by. An `io::Error` does not give its payload as its source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(payload) => Some(payload),
        None => error.source(),
    }
}

fn cause_of_type<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    std::iter::successors(error.source(), |inner| cause(*inner))
        .find_map(|inner| inner.downcast_ref())
}

/// An error's causes in words, innermost last, without the URL that the outermost one would print.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut words: Vec<String> = std::iter::successors(error.source(), |inner| cause(*inner))
        .map(|inner| escaped(&inner.to_string()))
        .collect();
    // The client's own layer says only that it is an error of a client.
    words.retain(|words| !words.starts_with("client error ("));
    words.dedup();
    if words.is_empty() { "the request failed".to_owned() } else { words.join(": ") }
}

/// The fault of a request that got no answer, or of a body that broke off.
pub(super) fn fault_of(error: &reqwest::Error, origin: &Origin) -> Fault {
    if let Some(target) = cause_of_type::<Forbidden>(error) {
        return forbidden(target);
    }
    if let Some(tls) = cause_of_type::<rustls::Error>(error) {
        return tls_fault(tls, origin);
    }
    let words = causes(error);
    if words.contains("proxy authorization required") {
        return proxy_denies(origin);
    }
    if error.is_connect() {
        return unconnected(&words, origin, proxy_of(origin).as_deref());
    }
    let malformed = [
        "invalid HTTP",
        "message head is too large",
        "invalid content-length",
        "unexpected transfer",
    ];
    if malformed.iter().any(|m| words.contains(m)) {
        let fault = Fault::new(
            Failure::Protocol,
            format!("{} does not speak HTTP: {words}", way_to(origin)),
        );
        return Fault { remedy: may_want_tls(origin).map(str::to_owned), ..fault };
    }
    Fault::passing(
        Failure::TimedOut,
        format!("the connection to {} broke: {words}", way_to(origin)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn origin() -> Origin {
        "https://gchr.example".parse().unwrap()
    }

    #[test]
    fn a_name_that_nobody_has_is_told_from_one_that_cannot_be_resolved_now() {
        let of = |reason: &str, proxy| {
            let words = format!("dns error: error resolving DNS: {RESOLVER}{reason}");
            let fault = unconnected(&words, &origin(), proxy);
            (
                fault.failure,
                format!("{}; {}", fault.rule, fault.remedy.unwrap_or_default()),
                fault.retry,
            )
        };
        let (failure, sentence, retry) = of("Name or service not known", None);
        assert_eq!(failure, Failure::Unreachable);
        assert_eq!(
            sentence,
            "there is no such host as that of https://gchr.example; check the spelling of its name"
        );
        assert_eq!(retry, super::super::retry::Retry::Never, "asking again finds nothing else");
        let (_, sentence, retry) = of("Temporary failure in name resolution", None);
        assert!(
            sentence.contains("cannot be resolved now (Temporary failure in name resolution)"),
            "{sentence}"
        );
        assert_eq!(retry, super::super::retry::Retry::After(None));
        let (_, sentence, _) = of("Name or service not known", Some("http://proxi.example:3128"));
        assert!(
            sentence.starts_with(
                "there is no such host as that of the proxy http://proxi.example:3128"
            )
        );
        let refused =
            unconnected("tcp connect error: Connection refused (os error 111)", &origin(), None);
        assert_eq!(
            refused.rule,
            "https://gchr.example cannot be reached: tcp connect error: Connection refused (os \
             error 111)"
        );
    }

    fn said(reason: CertificateError) -> String {
        let fault = tls_fault(&rustls::Error::InvalidCertificate(reason), &origin());
        assert_eq!(fault.failure, Failure::Untrusted);
        format!("{}; {}", fault.rule, fault.remedy.unwrap_or_default())
    }

    #[test]
    fn a_certificate_out_of_its_time_is_told_with_its_date() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let day = 86_400;
        let expired = CertificateError::ExpiredContext {
            time: at(951_782_400 + 9 * day),
            not_after: at(951_782_400),
        };
        let sentence = said(expired);
        assert!(
            sentence.contains("the certificate expired on 2000-02-29, 9 days ago; have it renewed"),
            "{sentence}"
        );
        let early = CertificateError::NotValidYetContext {
            time: at(951_782_400 - day),
            not_before: at(951_782_400),
        };
        let sentence = said(early);
        assert!(
            sentence
                .contains("is not valid before 2000-02-29, in 1 day; check this machine's clock"),
            "{sentence}"
        );
        assert!(sentence.contains("2000-02-28T00:00:00Z"), "{sentence}");
    }

    #[test]
    fn a_certificate_of_another_host_is_told_with_its_names() {
        let expected = "gchr.example".try_into().unwrap();
        let presented =
            vec!["DnsName(\"ghcr.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        let sentence = said(CertificateError::NotValidForNameContext { expected, presented });
        assert!(sentence.contains("for another host (ghcr.example, 10.0.0.1)"), "{sentence}");
    }

    #[test]
    fn what_is_spoken_to_in_the_clear_may_want_tls() {
        assert!(may_want_tls(&"http://r.example:5000".parse().unwrap()).is_some());
        assert!(may_want_tls(&origin()).is_none());
    }
}
