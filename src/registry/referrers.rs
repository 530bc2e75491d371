//! What speaks about a manifest (signatures, bills of materials, scan reports): how a registry is
//! asked for it, and how one more comes into its list.
//!
//! A registry makes the list itself (distribution spec, "Listing Referrers"), or there is a tag
//! under which those who write keep it. That tag is changed by one writer at a time (see
//! [`super::turn`]), so that no entry is lost.
//!
//! INVARIANT: what was not understood is never an empty list.

use std::collections::HashSet;

use reqwest::StatusCode;

use super::Upload;
use super::answer::ResponseDocument;
use super::paging::{PAGE_MAX, Pages};
use super::remote::Remote;
use super::request::{Question, is_redirect};
use super::retry::Fault;
use super::scope::TokenScope;
use super::turn::{NotPut, Told, Turn};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, RepoName, Selector, Tag};
use crate::oci::referrer::{listed, referrers_tag, with_referrer};
use crate::oci::{Descriptor, INDEX, INDEX_ENTRIES_MAX, Manifest};

/// How many turns are taken that end before the list is put.
const TRIES: u32 = 6;

/// What is said to speak about a manifest.
#[derive(Clone, Default, Debug)]
pub struct Referrers {
    /// Each once, in the order in which they were named.
    pub entries: Vec<Descriptor>,
    /// Why there may be more: not all who may know have answered.
    pub unheard: Option<Refusal>,
}

impl Referrers {
    /// None, since nobody answered.
    pub fn unheard(why: Refusal) -> Referrers {
        Referrers { entries: Vec::new(), unheard: Some(why) }
    }

    /// What one source said. A repository that is not there has none.
    pub fn of(said: Result<Vec<Descriptor>, Refusal>) -> Referrers {
        match said {
            Ok(entries) => {
                let mut all = Referrers::default();
                all.add(entries);
                all
            }
            Err(e) if e.failure == Failure::Absent => Referrers::default(),
            Err(e) => Referrers::unheard(e),
        }
    }

    /// Adds what it lacks.
    pub fn add(&mut self, entries: Vec<Descriptor>) {
        let mut known: HashSet<Digest> = self.entries.iter().map(|entry| entry.digest).collect();
        self.entries.extend(entries.into_iter().filter(|entry| known.insert(entry.digest)));
    }

    /// All of them.
    ///
    /// # Errors
    /// Why there may be more.
    pub fn whole(self) -> Result<Vec<Descriptor>, Refusal> {
        self.unheard.map_or(Ok(self.entries), Err)
    }
}

/// Puts a manifest that speaks about `subject`, by its digest, and has it listed among the
/// subject's referrers. What it names has to be there. Nothing is sent that is there already.
///
/// # Errors
/// `TimedOut` where other writers take too long; those of [`Upload`].
pub async fn attach(
    to: &dyn Upload,
    repo: &Repo,
    manifest: &Manifest,
    subject: &Digest,
    told: Told<'_>,
) -> Result<(), Refusal> {
    let selector = Selector::Digest(manifest.digest);
    let said = to.referrers(&repo.name, subject).await.whole()?;
    if said.iter().any(|entry| entry.digest == manifest.digest) {
        return Ok(());
    }
    let there = match to.present(&repo.name, &selector).await {
        Err(e) if e.failure == Failure::Absent => None,
        there => there?,
    };
    if there.is_none() {
        to.put_manifest(&repo.name, &selector, manifest).await?;
    }
    if to.lists_referrers(&repo.name, subject).await? {
        return Ok(());
    }
    let tag = referrers_tag(subject);
    for _ in 0..TRIES {
        let mut turn = Turn::take(to, repo, &tag, told).await?;
        let entered = enter(to, repo, &tag, manifest, subject, &mut turn).await;
        turn.end().await;
        if entered? {
            return Ok(());
        }
    }
    let rule = format!(
        "the registry answered too slowly, {TRIES} times, to change the list of referrers before \
         others might"
    );
    Err(Refusal::new(Failure::TimedOut, repo.at(Selector::Tag(tag)), rule))
}

/// Enters a manifest into the list that stands under `tag`; false where the turn was over before.
async fn enter(
    to: &dyn Upload,
    repo: &Repo,
    tag: &Tag,
    manifest: &Manifest,
    subject: &Digest,
    turn: &mut Turn<'_>,
) -> Result<bool, Refusal> {
    let selector = Selector::Tag(tag.clone());
    let at = || repo.at(selector.clone());
    let before = match to.present(&repo.name, &selector).await {
        Err(e) if e.failure == Failure::Absent => None,
        there => there?,
    };
    let before = match before {
        // a registry may resolve the tag to the subject itself (registry quirk Q21)
        Some(digest) if digest != *subject => {
            let by_digest = Selector::Digest(digest);
            let raw = to.read_back(&repo.name, &by_digest).await?;
            Some(Manifest::parse(raw.bytes, digest, None).map_err(|e| e.about(at()))?)
        }
        _ => None,
    };
    let list = with_referrer(before.as_ref(), &manifest.as_referrer());
    let Some(list) = list.map_err(|e| e.about(at()))? else { return Ok(true) };
    match turn.put(&list).await {
        Ok(()) => {}
        Err(NotPut::TooLate) => return Ok(false),
        Err(NotPut::Failed(e)) => return Err(e),
    }
    let now = to.present(&repo.name, &selector).await?;
    // whoever came between has not seen ours
    Ok(now == Some(list.digest))
}

/// What a registry said to the question for a list.
enum ListAnswer {
    Listed(Vec<Descriptor>),
    /// It makes no lists.
    NoLists,
}

impl Remote {
    pub(super) async fn referrers_of(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Fault> {
        let scope = TokenScope::Pull(repo.clone());
        match self.own_list(repo, subject, scope).await? {
            ListAnswer::Listed(entries) => Ok(entries),
            ListAnswer::NoLists => self.list_under_tag(repo, subject).await,
        }
    }

    /// Whether the registry makes such lists itself.
    pub(super) async fn makes_lists(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<bool, Fault> {
        let answer = self.own_list(repo, subject, TokenScope::Push(repo.clone())).await?;
        Ok(matches!(answer, ListAnswer::Listed(_)))
    }

    async fn own_list(
        &self,
        repo: &RepoName,
        subject: &Digest,
        scope: TokenScope,
    ) -> Result<ListAnswer, Fault> {
        if self.observed().lists_no_referrers {
            return Ok(ListAnswer::NoLists);
        }
        let url = self.url(&format!("{repo}/referrers/{subject}"))?;
        let mut question = Question { stays: true, ..Question::get(url, INDEX, scope) };
        let mut pages = Pages::new(self.origin().clone(), &question.url);
        let mut entries = Vec::new();
        let _place = self.enter(&self.questions).await?;
        loop {
            // each page is progress, so that each has the whole of the time and the tries
            let mut patience = self.requester.patience();
            let page =
                self.document(&question, PAGE_MAX, "a page of the list", &mut patience).await?;
            if makes_none(&page) {
                let is_of_repo = page
                    .error_codes()
                    .is_some_and(|codes| codes.iter().any(|code| code == "NAME_UNKNOWN"));
                if !is_of_repo {
                    let transport = &self.requester.transport;
                    transport.observe(self.origin(), |seen| seen.lists_no_referrers = true);
                }
                return Ok(ListAnswer::NoLists);
            }
            entries.extend(page_entries(&page)?);
            if entries.len() > INDEX_ENTRIES_MAX {
                return Err(Fault::new(
                    Failure::TooLarge,
                    format!("the list has more than {INDEX_ENTRIES_MAX} entries"),
                ));
            }
            let Some(next) = pages.next(&question.url, &page.headers)? else { break };
            question.url = next;
        }
        Ok(ListAnswer::Listed(entries))
    }

    async fn list_under_tag(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Fault> {
        let tag = referrers_tag(subject);
        let url = self.url(&format!("{repo}/manifests/{tag}"))?;
        let question = Question::get(url, super::remote::MANIFESTS, TokenScope::Pull(repo.clone()));
        let raw = match self.get(question, &Selector::Tag(tag.clone())).await {
            Ok(raw) => raw,
            Err(fault) if fault.failure == Failure::Absent => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        };
        // registry quirk Q21
        if Digest::of_with(subject.algorithm(), &raw.bytes) == *subject {
            return Ok(Vec::new());
        }
        listed(&raw.bytes).map_err(|e| {
            let rule = format!("what stands under {tag} is no list of referrers: {e}");
            Fault::new(failure_of(&e), rule)
        })
    }
}

/// Whether an answer says that there are no such lists: a 404 of any kind, a method that is not
/// allowed, or a redirect to other sites.
fn makes_none(page: &ResponseDocument) -> bool {
    is_redirect(page.status)
        || matches!(page.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

fn page_entries(page: &ResponseDocument) -> Result<Vec<Descriptor>, Fault> {
    if page.status != StatusCode::OK {
        return Err(page.unexpected());
    }
    page.refuse_html()?;
    listed(&page.bytes).map_err(|e| {
        let rule = format!("{} did not answer with a list of referrers: {e}", page.origin);
        Fault::new(failure_of(&e), rule)
    })
}

fn failure_of(e: &crate::oci::DocumentError) -> Failure {
    match e {
        crate::oci::DocumentError::TooLarge(_) => Failure::TooLarge,
        _ => Failure::Protocol,
    }
}
