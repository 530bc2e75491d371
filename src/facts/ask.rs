//! Answers for who waits for them, as commands do: what is known counts, what is not is loaded.

use std::sync::Arc;
use std::time::Instant;

use super::error::lost;
use super::{Facts, FactsView};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Reference, Repo, Selector, Tag, no_such_tag};
use crate::tree::{Fact, KnownFacts, Need};

impl Facts {
    /// The tags of a repository. `Absent` if the registry says that there is no such repository.
    pub async fn tags(self: &Arc<Self>, repo: &Repo) -> Result<Arc<Vec<Tag>>, Refusal> {
        self.ask_for(Need::Tags(repo.clone()), |view| view.tags(repo)).await
    }

    /// The manifest for which a reference stands: a digest for itself, a tag for what the registry
    /// says, or said last while it is away. `Absent` if the registry says that there is no such
    /// tag.
    pub async fn resolve(self: &Arc<Self>, reference: &Reference) -> Result<Digest, Refusal> {
        match &reference.selector {
            Selector::Digest(digest) => Ok(*digest),
            Selector::Tag(tag) => {
                let need = Need::Binding(reference.repo.clone(), tag.clone());
                match self.ask_for(need, |view| view.bound(&reference.repo, tag)).await {
                    Err(error) if error.failure == Failure::Absent => {
                        Err(self.no_such_tag(reference, tag).await)
                    }
                    answer => answer,
                }
            }
        }
    }

    /// Why there is no such tag, with those that there are.
    async fn no_such_tag(self: &Arc<Self>, reference: &Reference, tag: &Tag) -> Refusal {
        match self.tags(&reference.repo).await {
            Ok(tags) => Refusal::new(Failure::Absent, reference, no_such_tag(tag, &tags)),
            Err(error) if error.failure == Failure::Absent => error.about(reference),
            Err(_) => {
                Refusal::new(Failure::Absent, reference, format_args!("there is no tag {tag}"))
            }
        }
    }

    async fn ask_for<T>(
        self: &Arc<Self>,
        need: Need,
        read: impl Fn(&FactsView<'_>) -> Fact<T, Refusal>,
    ) -> Result<T, Refusal> {
        let since = Instant::now();
        let mut asked = false;
        loop {
            match read(&self.view(since)) {
                Fact::Is(answer) => return Ok(answer),
                Fact::Absent => {
                    return Err(Refusal::new(Failure::Absent, &need, absence(&need)));
                }
                Fact::Denied(e) | Fact::Failed(e) => return Err(e),
                Fact::Unknown if asked => return Err(lost()),
                Fact::Unknown => asked = true,
            }
            self.load(need.clone()).await?;
        }
    }
}

/// What the registry has said by saying that there is no such thing.
fn absence(need: &Need) -> String {
    match need {
        Need::Tags(repo) => format!("there is no repository {}", repo.name),
        Need::Binding(_, tag) | Need::Platforms(_, tag) => format!("there is no tag {tag}"),
        Need::Catalog(_) | Need::Held(_) => "there is no list of repositories".to_owned(),
    }
}
