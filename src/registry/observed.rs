//! What the requests that were sent anyway have shown of a registry: for people who ask what it can
//! do. Nothing in here decides anything, and nothing in here is a secret.

use std::time::SystemTime;

use parking_lot::Mutex;

use super::origin::Origin;
use crate::bounded::Bounded;

/// How many origins are remembered. A registry can name any number of them by redirects.
const ORIGINS_MAX: usize = 256;

/// How a registry wants to be logged in to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoginScheme {
    /// A user name and password in each request.
    Basic,
    /// A token of the service at this origin; `None` if it is named by an address of another kind.
    Bearer(Option<Origin>),
}

/// What is known of one origin so far. `None` where no request has shown it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Observed {
    /// How it has asked for a login.
    pub login: Option<LoginScheme>,
    /// Where the credential of the last login was found; `None` if there is none for it.
    pub credential: Option<String>,
    /// Why the last login or the last request after it was refused; `None` once a request was not.
    pub refused: Option<String>,
    /// In how many pages the last list of tags came.
    pub tag_pages: Option<usize>,
    /// Who sent the last blob, after redirects.
    pub blobs_from: Option<Origin>,
    /// Whether it has refused to remove a manifest.
    pub keeps_manifests: bool,
    /// Whether it has said that it makes no lists of referrers itself.
    pub lists_no_referrers: bool,
    /// By how many seconds this machine's clock is ahead of its `Date`.
    pub clock_ahead: Option<i64>,
}

/// What is known of all origins.
#[derive(Debug)]
pub(super) struct Observations(Mutex<Bounded<Origin, Observed>>);

impl Default for Observations {
    fn default() -> Self {
        Observations(Mutex::new(Bounded::counted(ORIGINS_MAX)))
    }
}

impl Observations {
    pub fn of(&self, origin: &Origin) -> Observed {
        self.0.lock().get(origin).cloned().unwrap_or_default()
    }

    pub fn note_all(&self, note: impl Fn(&mut Observed)) {
        self.0.lock().change_all(|_, seen| note(seen));
    }

    pub fn note(&self, origin: &Origin, note: impl FnOnce(&mut Observed)) {
        self.0.lock().change_or(origin, Observed::default, note);
    }
}

/// By how many seconds `now` is later than an HTTP date; `None` if it is none.
pub(super) fn seconds_ahead(date: &str, now: SystemTime) -> Option<i64> {
    let theirs = httpdate::parse_http_date(date).ok()?;
    match now.duration_since(theirs) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok(),
        Err(behind) => i64::try_from(behind.duration().as_secs()).ok().map(|seconds| -seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_is_ahead_of_a_date_or_behind_it() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(seconds_ahead(date, at(784_111_777 + 400)), Some(400));
        assert_eq!(seconds_ahead(date, at(784_111_777 - 400)), Some(-400));
        assert_eq!(seconds_ahead("yesterday", at(0)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_stays_known_of_who_is_asked() {
        let known = Observations::default();
        let asked: Origin = "https://r.example".parse().unwrap();
        for port in 1..=2 * ORIGINS_MAX {
            known.note(&asked, |seen| seen.tag_pages = seen.tag_pages.or(Some(7)));
            known.note(&format!("https://a.example:{port}").parse().unwrap(), |seen| {
                seen.tag_pages = Some(port)
            });
        }
        assert_eq!(known.0.lock().len(), ORIGINS_MAX);
        assert_eq!(known.of(&"https://a.example:512".parse().unwrap()).tag_pages, Some(512));
        assert_eq!(known.of(&"https://a.example:1".parse().unwrap()).tag_pages, None);
        assert_eq!(known.of(&asked).tag_pages, Some(7));
    }
}
