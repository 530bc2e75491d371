//! Turns: of all writers of one tag, one at a time changes what it stands for.
//!
//! Registries know no conditional put. So a writer puts a claim first, a manifest of its own under
//! a tag of its own ([`ClaimTag`]), and looks at the list of tags then. Who sees a claim of a lower
//! name takes its own away and waits until the other is gone; else it waits until those of higher
//! names are gone, and has the turn (Burns and Lamport's one-bit algorithm). Of two writers each
//! looks after it has claimed, so one of them sees the other, and both never have the turn at once.
//! In a store on disk a lock does all of this.
//!
//! Nobody waits for ever for a writer that was killed: its claim counts no longer if it ran on this
//! machine, or when it has stood unchanged for `LEASE`. So who has the turn uses it within `HOLD`
//! of its claim, or begins anew; a writer that was stopped meanwhile, with its machine or alone,
//! notices. The two differ by enough for a put that is under way to arrive.
//!
//! INVARIANT: a claim names nothing but the empty blob and is like no other manifest, so that
//! removing it by its digest takes nothing away from anybody.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::process::Process;
use super::{Hold, Removed, Upload};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{ClaimTag, Reference, Repo, Selector, Tag};
use crate::oci::Manifest;
use crate::oci::write::{EMPTY_CONTENT, empty, image};

/// How long after its claim a writer may begin to change the tag.
const HOLD: Duration = Duration::from_secs(15);
/// How long after its claim the change has to be answered, or it is not waited for.
const ANSWERED: Duration = Duration::from_secs(30);
/// How long a claim counts that others see unchanged.
const LEASE: Duration = Duration::from_secs(40);
/// The age, by the clock of who made it, at which a claim counts for nothing at once.
const OLD: Duration = Duration::from_secs(3600);
/// How long a turn is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a list of tags may lag behind what was put.
const LAG: Duration = Duration::from_secs(60);
/// How often the list is looked at: at first, soon, and where the wait is long.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(2)];
/// How often the removal of a claim is tried.
const REMOVALS: u32 = 4;
/// After how long whoever waits is told why.
const TOLD: Duration = Duration::from_secs(2);

/// artifactType of a claim.
const CLAIM: &str = "application/vnd.tofufs.claim";
/// Annotation of a claim: the tag that is claimed.
const OF: &str = "vnd.tofufs.claim.tag";
/// Annotation of a claim: when it was made, in seconds since 1970.
const MADE: &str = "vnd.tofufs.claim.made";
/// Annotation of a claim: a random number, which makes it one of a kind.
const NUMBER: &str = "vnd.tofufs.claim.number";
/// Annotation of a claim: the process that made it.
const BY: &str = "vnd.tofufs.claim.by";
/// Annotation of a claim that its writer has given up, where the registry removes nothing.
const GIVEN_UP: &str = "vnd.tofufs.claim.given-up";

/// Told what is waited for, in a sentence.
pub type Told<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Why a change of the tag was not carried out.
#[derive(Debug)]
pub enum NotPut {
    /// So much time has passed since the claim that the turn may be another's by now. Nothing was
    /// sent.
    TooLate,
    /// As of [`Upload::put_manifest`].
    Failed(Refusal),
}

/// The turn of one writer at one tag. To be ended by [`Turn::end`]; where it is dropped, others
/// wait until its claim counts no longer.
pub struct Turn<'a> {
    claims: Claims<'a>,
    lock: Option<Hold>,
}

impl<'a> Turn<'a> {
    /// Waits until it is this writer's turn.
    ///
    /// # Errors
    /// `TimedOut` where other writers, or the list of tags, take too long; those of [`Upload`].
    pub async fn take(
        upload: &'a dyn Upload,
        repo: &'a Repo,
        tag: &'a Tag,
        told: Told<'a>,
    ) -> Result<Turn<'a>, Refusal> {
        let mut claims = Claims::new(upload, repo, tag, told);
        let lock = upload.hold(&repo.name).await?;
        if lock.is_none()
            && let Err(e) = claims.win().await
        {
            claims.withdraw().await;
            return Err(e);
        }
        Ok(Turn { claims, lock })
    }

    /// Puts `manifest` under the tag.
    ///
    /// # Errors
    /// [`NotPut`].
    pub async fn put(&mut self, manifest: &Manifest) -> Result<(), NotPut> {
        let claims = &mut self.claims;
        let selector = Selector::Tag(claims.tag.clone());
        let put = claims.upload.put_manifest(&claims.repo.name, &selector, manifest);
        let Some(claim) = &mut claims.own else { return put.await.map_err(NotPut::Failed) };
        if claim.age() > HOLD {
            return Err(NotPut::TooLate);
        }
        let failed = match timeout(ANSWERED.saturating_sub(claim.age()), put).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e,
            Err(_) => {
                let rule = format!("putting the tag was not answered within {ANSWERED:?}");
                Refusal::new(Failure::TimedOut, claims.subject(), rule).remedy("push again")
            }
        };
        // It may arrive yet, and the claim keeps others away meanwhile.
        if matches!(failed.failure, Failure::TimedOut | Failure::Unreachable) {
            claims.own = None;
        }
        Err(NotPut::Failed(failed))
    }

    /// Lets others have their turn.
    pub async fn end(self) {
        let mut claims = self.claims;
        claims.withdraw().await;
        drop(self.lock);
        for dead in std::mem::take(&mut claims.dead) {
            let removed = claims.upload.remove(&claims.repo.name, &dead).await;
            tracing::debug!("{}: a claim that was left behind: {removed:?}", claims.subject());
        }
    }
}

/// A claim of this writer that stands in the registry.
struct Claim {
    name: ClaimTag,
    digest: Digest,
    since: (Instant, SystemTime),
}

impl Claim {
    /// Also a machine that slept grew older.
    fn age(&self) -> Duration {
        self.since.0.elapsed().max(self.since.1.elapsed().unwrap_or_default())
    }
}

/// Where a claim stands among all.
enum ClaimStand {
    First,
    /// Others come before it.
    Behind(Vec<ClaimTag>),
    /// It was the first, but too late.
    TooLate,
}

/// The claims of one tag, as one writer sees them.
struct Claims<'a> {
    upload: &'a dyn Upload,
    repo: &'a Repo,
    tag: &'a Tag,
    told: Told<'a>,
    own: Option<Claim>,
    /// The name of an own claim that was given up and could not be removed.
    used: Option<ClaimTag>,
    /// When the claims of others were seen first.
    seen: HashMap<Digest, Instant>,
    /// Claims that count no longer.
    dead: BTreeSet<Digest>,
    /// Whether the list has to be read as a whole, since the registry begins it elsewhere than
    /// asked.
    whole: bool,
    begun: Instant,
    is_told: bool,
}

impl<'a> Claims<'a> {
    fn new(upload: &'a dyn Upload, repo: &'a Repo, tag: &'a Tag, told: Told<'a>) -> Claims<'a> {
        Claims {
            upload,
            repo,
            tag,
            told,
            own: None,
            used: None,
            seen: HashMap::new(),
            dead: BTreeSet::new(),
            whole: false,
            begun: Instant::now(),
            is_told: false,
        }
    }

    fn subject(&self) -> Reference {
        self.repo.at(Selector::Tag(self.tag.clone()))
    }

    /// Claims until the claim is the first of all.
    async fn win(&mut self) -> Result<(), Refusal> {
        loop {
            self.claim().await?;
            match self.stand().await? {
                ClaimStand::First => return Ok(()),
                ClaimStand::TooLate => self.withdraw().await,
                ClaimStand::Behind(others) => {
                    self.withdraw().await;
                    self.until_gone(&others).await?;
                }
            }
        }
    }

    /// Puts a claim, or puts it anew.
    async fn claim(&mut self) -> Result<(), Refusal> {
        let known = self.own.take().map(|claim| claim.name).or_else(|| self.used.take());
        let name = known.unwrap_or_else(|| ClaimTag::new(self.tag, fastrand::u64(..)));
        let since = (Instant::now(), SystemTime::now());
        let digest = self.put(&name, false).await?;
        self.own = Some(Claim { name, digest, since });
        Ok(())
    }

    async fn put(&self, name: &ClaimTag, given_up: bool) -> Result<Digest, Refusal> {
        let document = document(self.tag, given_up).map_err(|e| {
            Refusal::new(
                Failure::Structure,
                self.subject(),
                format!("no claim can be made for it: {e}"),
            )
        })?;
        let selector = Selector::Tag(name.tag().clone());
        let put = || self.upload.put_manifest(&self.repo.name, &selector, &document);
        match put().await {
            Err(e)
                if !matches!(
                    e.failure,
                    Failure::TimedOut | Failure::Unreachable | Failure::Denied
                ) =>
            {
                // What is copied need not hold the blob that a claim names.
                let content = Bytes::from_static(EMPTY_CONTENT);
                self.upload.put_blob(&self.repo.name, &empty(), &content).await?;
                put().await?;
            }
            done => done?,
        }
        Ok(document.digest)
    }

    /// Takes the own claim away.
    async fn withdraw(&mut self) {
        let Some(claim) = self.own.take() else { return };
        let mut digest = claim.digest;
        for _ in 0..REMOVALS {
            match self.upload.remove(&self.repo.name, &digest).await {
                Ok(Removed::Yes) => return,
                Ok(Removed::Refused) => {
                    self.give_up(&claim.name).await;
                    break;
                }
                // Where other tags change meanwhile, a registry may drop the manifest and keep the
                // tag (distribution).
                Ok(Removed::WasAbsent) | Err(_) => match self.give_up(&claim.name).await {
                    Some(given_up) => digest = given_up,
                    None => break,
                },
            }
        }
        self.used = Some(claim.name);
    }

    /// Puts in place of a claim that it counts no longer.
    async fn give_up(&self, name: &ClaimTag) -> Option<Digest> {
        let put = self.put(name, true).await;
        put.inspect_err(|e| {
            tracing::debug!("{}: {} stays until it is old: {e}", self.subject(), name.tag())
        })
        .ok()
    }

    async fn stand(&mut self) -> Result<ClaimStand, Refusal> {
        let (own, mut others) = self.shown().await?;
        if others.iter().any(|other| *other < own) {
            others.retain(|other| *other < own);
            return Ok(ClaimStand::Behind(others));
        }
        let mut pause = Pause::new();
        while others.iter().any(|other| *other > own) {
            self.wait(&mut pause).await?;
            others = self.others(&self.names().await?).await?;
        }
        let in_time = self.own.as_ref().is_some_and(|claim| claim.age() <= HOLD);
        Ok(if in_time { ClaimStand::First } else { ClaimStand::TooLate })
    }

    /// Waits until the list shows the own claim: its name, and the claims of others that count.
    async fn shown(&mut self) -> Result<(ClaimTag, Vec<ClaimTag>), Refusal> {
        let (mut pause, begun) = (Pause::new(), Instant::now());
        loop {
            let names = self.names().await?;
            let Some(claim) = &self.own else { return Err(self.lagging()) };
            let own = claim.name.clone();
            if begun.elapsed() > LAG {
                return Err(self.lagging());
            } else if names.contains(&own) {
                if claim.age() <= HOLD {
                    return Ok((own, self.others(&names).await?));
                }
                self.claim().await?;
            } else if !self.whole {
                // Some registries begin the list elsewhere where `last` is no tag of theirs.
                self.whole = true;
            } else {
                if begun.elapsed() > TOLD && !std::mem::replace(&mut self.is_told, true) {
                    (self.told)(
                        "waiting for the registry's list of tags, which lags behind what is put",
                    );
                }
                pause.now().await;
            }
        }
    }

    fn lagging(&self) -> Refusal {
        let rule = format!("the registry's list of tags does not show what was put {LAG:?} ago");
        Refusal::new(Failure::TimedOut, self.subject(), rule).remedy(
            "push again when the list is up to date: without it writers cannot be kept apart",
        )
    }

    async fn until_gone(&mut self, awaited: &[ClaimTag]) -> Result<(), Refusal> {
        let mut pause = Pause::new();
        loop {
            self.wait(&mut pause).await?;
            let others = self.others(&self.names().await?).await?;
            if !others.iter().any(|other| awaited.contains(other)) {
                return Ok(());
            }
        }
    }

    /// Waits for others, for a moment.
    async fn wait(&mut self, pause: &mut Pause) -> Result<(), Refusal> {
        let waited = self.begun.elapsed();
        if waited > PATIENCE {
            let rule = format!("other writers of this tag did not end within {PATIENCE:?}");
            return Err(
                Refusal::new(Failure::TimedOut, self.subject(), rule).remedy("push again later")
            );
        }
        if waited > TOLD && !std::mem::replace(&mut self.is_told, true) {
            (self.told)(&format!(
                "waiting for another writer of this tag, {} at most if it was killed",
                seconds(LEASE)
            ));
        }
        pause.now().await;
        Ok(())
    }

    /// The names of all claims of the tag.
    async fn names(&self) -> Result<Vec<ClaimTag>, Refusal> {
        let prefix = (!self.whole).then(|| ClaimTag::prefix(self.tag));
        let tags = match self.upload.tags_now(&self.repo.name, prefix.as_deref()).await {
            Err(e) if e.failure == Failure::Protocol && prefix.is_some() => {
                self.upload.tags_now(&self.repo.name, None).await?
            }
            tags => tags?,
        };
        Ok(tags.iter().filter_map(|tag| ClaimTag::read(tag, self.tag)).collect())
    }

    /// Those of `names` that others claim by now, as far as they count.
    async fn others(&mut self, names: &[ClaimTag]) -> Result<Vec<ClaimTag>, Refusal> {
        let mut others = Vec::new();
        for name in names {
            let is_own = self.own.as_ref().is_some_and(|claim| claim.name == *name)
                || self.used.as_ref() == Some(name);
            if !is_own && self.counts(name).await? {
                others.push(name.clone());
            }
        }
        Ok(others)
    }

    async fn counts(&mut self, name: &ClaimTag) -> Result<bool, Refusal> {
        let selector = Selector::Tag(name.tag().clone());
        let raw = match self.upload.read_back(&self.repo.name, &selector).await {
            Err(e) if e.failure == Failure::Absent => return Ok(false),
            raw => raw?,
        };
        let digest = Digest::of(&raw.bytes);
        let Some(claim) =
            Manifest::parse(raw.bytes, digest, None).ok().filter(|claim| is_claim(claim, self.tag))
        else {
            return Ok(false);
        };
        let since = *self.seen.entry(digest).or_insert_with(Instant::now);
        let is_dead = is_old(&claim) || has_ended(&claim) || since.elapsed() >= LEASE;
        if is_dead {
            self.dead.insert(digest);
        }
        Ok(!is_dead && !claim.annotations.contains_key(GIVEN_UP))
    }
}

/// Pauses that grow, with the time that was waited already.
struct Pause {
    next: Duration,
    waited: Duration,
}

impl Pause {
    fn new() -> Pause {
        Pause { next: PAUSES[0], waited: Duration::ZERO }
    }

    async fn now(&mut self) {
        sleep(self.next.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        self.waited += self.next;
        let most = PAUSES[1].max(self.waited / 8).min(PAUSES[2]);
        self.next = (self.next * 3 / 2).min(most);
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

fn document(tag: &Tag, given_up: bool) -> Result<Manifest, crate::oci::DocumentError> {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let number = format!("{:032x}", fastrand::u128(..));
    let mut annotations: std::collections::BTreeMap<String, String> =
        [(OF, tag.to_string()), (MADE, made.to_string()), (NUMBER, number)]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
    annotations.extend(Process::own().map(|process| (BY.to_owned(), process.to_string())));
    if given_up {
        annotations.insert(GIVEN_UP.to_owned(), "true".to_owned());
    }
    image(CLAIM, &[empty()], &annotations)
}

fn is_claim(manifest: &Manifest, of: &Tag) -> bool {
    manifest.artifact_type.as_deref() == Some(CLAIM)
        && manifest.annotations.get(OF).map(String::as_str) == Some(of.as_str())
}

/// Whether the writer of a claim was a process of this machine that runs no longer.
fn has_ended(claim: &Manifest) -> bool {
    claim
        .annotations
        .get(BY)
        .and_then(|by| Process::read(by))
        .is_some_and(|process| process.has_ended())
}

/// One whose age nobody can tell is old.
fn is_old(claim: &Manifest) -> bool {
    let made =
        claim.annotations.get(MADE).and_then(|made| made.parse().ok()).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    made.is_none_or(|made| now.saturating_sub(made) > OLD)
}
