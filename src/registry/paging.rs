//! Lists that come in pages, linked by `Link: <…>; rel="next"`.
//!
//! A list is whole or an error: a loop, a link to another origin or too many entries end it, never
//! a shorter list.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::answer::ResponseDocument;
use super::origin::Origin;
use super::retry::Fault;
use super::scope::TokenScope;
use super::server_text::escaped;
use crate::failure::Failure;

/// The most bytes of one page.
pub(super) const PAGE_MAX: u64 = 4 << 20;
/// The most entries of a list.
const ENTRIES_MAX: usize = 100_000;
/// The most pages of a list; registries that choose the page's size themselves send 100 entries and
/// more.
const PAGES_MAX: usize = 2_000;

/// One page; `tags` or `repositories`, `null` being the same as empty.
#[derive(Deserialize)]
struct ListPage {
    #[serde(default, rename = "tags", alias = "repositories", deserialize_with = "present")]
    entries: Option<Vec<serde_json::Value>>,
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<serde_json::Value>>, D::Error> {
    let entries: Option<Vec<serde_json::Value>> = Deserialize::deserialize(deserializer)?;
    Ok(Some(entries.unwrap_or_default()))
}

/// The entries of one page, and how many were no valid names; `None` of what is no list.
pub fn entries<T: std::str::FromStr>(page: &[u8]) -> Option<(Vec<T>, usize)> {
    let page: ListPage = serde_json::from_slice(page).ok()?;
    let all = page.entries?;
    let valid: Vec<T> =
        all.iter().filter_map(|entry| entry.as_str().and_then(|text| text.parse().ok())).collect();
    let refused = all.len() - valid.len();
    Some((valid, refused))
}

/// The pages of a list as far as they were read.
pub struct Pages {
    registry: Origin,
    seen: HashSet<String>,
}

impl Pages {
    pub fn new(registry: Origin, first: &Url) -> Pages {
        Pages { registry, seen: HashSet::from([first.to_string()]) }
    }

    /// The next page's address, if the answer `headers` at `at` names one.
    pub fn next(&mut self, at: &Url, headers: &HeaderMap) -> Result<Option<Url>, Fault> {
        let Some(next) = next(headers, at, &self.registry)? else { return Ok(None) };
        if !self.seen.insert(next.to_string()) {
            return Err(Fault::new(Failure::Protocol, "the pages of the list form a loop"));
        }
        if self.seen.len() > PAGES_MAX {
            return Err(Fault::new(
                Failure::TooLarge,
                format!("the list has more than {PAGES_MAX} pages"),
            ));
        }
        Ok(Some(next))
    }
}

/// A list as far as it was read.
pub struct PagedList<T> {
    pages: Pages,
    entries: Vec<T>,
    refused: usize,
}

impl<T: Ord + std::str::FromStr> PagedList<T> {
    pub fn new(registry: Origin, first: &Url) -> PagedList<T> {
        PagedList { pages: Pages::new(registry, first), entries: Vec::new(), refused: 0 }
    }

    /// Takes a page in; the next page's address, if there is one. `at` is this page's own.
    pub(super) fn page(&mut self, at: &Url, page: &ResponseDocument) -> Result<Option<Url>, Fault> {
        page.refuse_html()?;
        let Some((entries, refused)) = entries(&page.bytes) else {
            return Err(Fault::new(
                Failure::Protocol,
                format!("{} did not answer with a list", page.origin),
            ));
        };
        self.entries.extend(entries);
        self.refused += refused;
        if self.entries.len() + self.refused > ENTRIES_MAX {
            return Err(Fault::new(
                Failure::TooLarge,
                format!("the list has more than {ENTRIES_MAX} entries"),
            )
            .remedy("a single tag can still be opened by its name"));
        }
        self.pages.next(at, &page.headers)
    }

    /// In how many pages the list came, as far as it was read.
    pub fn pages(&self) -> usize {
        self.pages.seen.len()
    }

    /// The entries, sorted, without duplicates; and how many were no valid names.
    pub fn finish(mut self) -> (Vec<T>, usize) {
        self.entries.sort();
        self.entries.dedup();
        (self.entries, self.refused)
    }
}

/// The address of the next page, which must be at the registry itself (hostile input R25).
fn next(headers: &HeaderMap, at: &Url, registry: &Origin) -> Result<Option<Url>, Fault> {
    let Some(target) =
        headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok()).find_map(next_target)
    else {
        return Ok(None);
    };
    let refused = |why: &str| {
        Fault::new(
            Failure::Protocol,
            format!("the Link to the next page ({}) {why}", escaped(&bounded(target))),
        )
    };
    let mut url = at.join(target).map_err(|_| refused("is not an address"))?;
    url.set_fragment(None);
    if Origin::of(&url).as_ref() != Some(registry)
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(Fault::new(
            Failure::Protocol,
            format!("the Link to the next page leads away from {registry}"),
        ));
    }
    Ok(Some(url))
}

fn bounded(text: &str) -> String {
    text.split('?').next().unwrap_or_default().chars().take(200).collect()
}

/// The target of the first link with the relation `next` in one `Link` header. RFC 8288, section 3.
fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        // parameters reach to the comma before the next link
        let end = after.find('<').unwrap_or(after.len());
        let is_next =
            after[..end].split([';', ',']).any(|parameter| match parameter.split_once('=') {
                Some((name, value)) => {
                    name.trim().eq_ignore_ascii_case("rel")
                        && value
                            .trim()
                            .trim_matches('"')
                            .split_ascii_whitespace()
                            .any(|r| r.eq_ignore_ascii_case("next"))
                }
                None => false,
            });
        if is_next {
            return Some(target);
        }
        rest = &after[end..];
    }
}

/// When the lists that are being fetched moved last.
#[derive(Default)]
pub(super) struct Moving(Mutex<HashMap<TokenScope, Instant>>);

/// A list that is being fetched; forgotten when dropped.
pub(super) struct Move<'a> {
    moving: &'a Moving,
    scope: TokenScope,
}

impl Moving {
    /// The list of `scope` begins to be fetched.
    pub fn begin(&self, scope: &TokenScope) -> Move<'_> {
        Move { moving: self, scope: scope.clone() }
    }

    /// When the list of `scope` moved last.
    pub fn last(&self, scope: &TokenScope) -> Option<Instant> {
        self.0.lock().get(scope).copied()
    }
}

impl Move<'_> {
    /// A page has come.
    pub fn moved(&self) {
        self.moving.0.lock().insert(self.scope.clone(), Instant::now());
    }
}

impl Drop for Move<'_> {
    fn drop(&mut self) {
        self.moving.0.lock().remove(&self.scope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        assert_eq!(
            next_target(r#"</v2/a/tags/list?n=1&last=b>; rel="next""#),
            Some("/v2/a/tags/list?n=1&last=b")
        );
        assert_eq!(next_target(r#"<a>; rel=prev, <b,c>; title="x"; rel="last next""#), Some("b,c"));
        assert_eq!(next_target(r#"<a>;REL=Next"#), Some("a"));
        for none in ["", "<a", r#"<a>; rel="previous""#, "a; rel=next"] {
            assert_eq!(next_target(none), None, "{none}");
        }
    }

    /// R24
    #[test]
    fn a_list_of_as_many_entries_as_the_limit_is_whole() {
        let at = Url::parse("https://r.example/v2/a/tags/list").unwrap();
        let origin = Origin::of(&at).unwrap();
        for (entries, fits) in [(ENTRIES_MAX, true), (ENTRIES_MAX + 1, false)] {
            let tags: Vec<String> = (0..entries).map(|n| n.to_string()).collect();
            let bytes = serde_json::json!({ "tags": tags }).to_string().into_bytes();
            let (headers, status) = (HeaderMap::new(), reqwest::StatusCode::OK);
            let page = ResponseDocument { status, headers, bytes, origin: origin.clone() };
            let mut listing = PagedList::<crate::name::Tag>::new(origin.clone(), &at);
            match listing.page(&at, &page) {
                Ok(next) => assert!(fits && next.is_none() && listing.finish().0.len() == entries),
                Err(fault) => {
                    assert!(!fits && fault.failure == Failure::TooLarge, "{}", fault.rule)
                }
            }
        }
    }

    /// R25
    #[test]
    fn a_link_stays_at_the_registry() {
        let at = Url::parse("https://r.example/v2/a/tags/list").unwrap();
        let registry = Origin::of(&at).unwrap();
        let link = |target: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, format!("<{target}>; rel=\"next\"").parse().unwrap());
            next(&headers, &at, &registry)
        };
        for (target, wanted) in [
            ("/v2/a/tags/list?last=x", "https://r.example/v2/a/tags/list?last=x"),
            ("?next_page=x", "https://r.example/v2/a/tags/list?next_page=x"),
            ("https://R.example:443/x", "https://r.example/x"),
        ] {
            assert_eq!(link(target).unwrap().unwrap().as_str(), wanted);
        }
        for target in [
            "//evil.example/x",
            "https://r.example:444/x",
            "http://r.example/x",
            "file:///x",
            "https://u@r.example/",
        ] {
            assert_eq!(link(target).unwrap_err().failure, Failure::Protocol, "{target}");
        }
    }
}
