//! Whether policies will let anybody open what is pushed.

use std::sync::Arc;

use async_trait::async_trait;

use crate::artifact::{SignaturePolicy, Target};
use crate::cli::directories::DirectoryEnvironment;
use crate::cli::network::Network;
use crate::cli::output::CommandError;
use crate::digest::Digest;
use crate::facts::{Facts, FactsOptions, MountSource, ProviderOptions, RegistryKind};
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, Repo, Selector, Tag};
use crate::registry::Upload;
use crate::stage::plan::{PlannedArtifact, ReleasePlan};
use crate::stage::sign::ReleaseCheck;
use crate::store::{Store, StoreOptions};
use crate::trust::Policies;

/// The policies that count for what is pushed to one registry.
pub(super) struct PolicyCheck {
    facts: Arc<Facts>,
    /// The platforms that are pushed: others are not answered for.
    platforms: Vec<Platform>,
}

impl PolicyCheck {
    /// Nothing where there are no policies. What is being published is not old, so no policy is
    /// asked for an age.
    pub(super) fn new(
        policies: &Policies,
        plan: &ReleasePlan,
        upload: &Arc<dyn Upload>,
        network: &Network,
        environment: &DirectoryEnvironment,
    ) -> Result<Option<PolicyCheck>, CommandError> {
        if policies.is_empty() {
            return Ok(None);
        }
        let dir = environment.cache_dir(None).map_err(CommandError::usage)?;
        let options = StoreOptions { dir, limit: u64::MAX };
        let store = Store::open(options).map_err(CommandError::failed)?;
        let host = plan.repo.host.clone();
        let registry = MountSource::Registry {
            name: host.to_string(),
            host,
            kind: RegistryKind::Oci,
            prefix: None,
            registry: upload.clone(),
        };
        let facts = Facts::new(FactsOptions {
            sources: vec![registry],
            stores_stand_in: false,
            store,
            tag_ttl: network.tag_ttl,
            deadline: network.deadline,
            limits: Default::default(),
            policies: Arc::new(policies.without_ages()),
            list_signed: false,
            providers: ProviderOptions::default(),
            signatures: SignaturePolicy::default(),
        });
        let platforms = match &plan.artifact {
            PlannedArtifact::Module(_) => Vec::new(),
            PlannedArtifact::Provider { targets, .. } => {
                targets.iter().map(|target| target.platform.clone()).collect()
            }
        };
        Ok(Some(PolicyCheck { facts, platforms }))
    }
}

#[async_trait]
impl ReleaseCheck for PolicyCheck {
    async fn check(&self, repo: &Repo, tag: &Tag, digest: Digest) -> Result<(), Refusal> {
        let reference = repo.at(Selector::Tag(tag.clone()));
        let is_pushed = |target: &Target| self.platforms.contains(&target.platform);
        let admitted = self.facts.gate().admit_all(&reference, digest, &is_pushed).await;
        admitted.map(drop).map_err(|e| match e.failure {
            Failure::Unsigned => {
                let rule =
                    format!("the tag is not written, since nobody could open it: {}", e.rule);
                Refusal { rule, ..e }
                    .remedy("have it signed as it is pushed (--sign-key, --sign-command)")
            }
            _ => e,
        })
    }
}
