//! Whether policies will let anybody open what is published, by a command or from a mount.

use std::sync::Arc;

use async_trait::async_trait;

use crate::artifact::{SignaturePolicy, Target};
use crate::cli::directories::DirectoryEnvironment;
use crate::cli::network::Network;
use crate::cli::output::CommandError;
use crate::digest::Digest;
use crate::facts::{Facts, FactsOptions, Gate, MountSource, ProviderOptions, RegistryKind};
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Reference};
use crate::registry::Upload;
use crate::stage::plan::{PlannedArtifact, ReleasePlan};
use crate::stage::push::ReleaseCheck;
use crate::store::{Store, StoreOptions};
use crate::trust::Policies;

/// Asks the policies that count where a release is read.
pub struct PolicyCheck(Arc<Gate>);

impl PolicyCheck {
    /// By the policies of a mount, which may change, and by what its sources say.
    pub fn of_mount(facts: &Facts) -> PolicyCheck {
        PolicyCheck(facts.gate().clone())
    }

    /// By these policies, and by what is in the registry to which a command publishes. Nothing where
    /// there are none.
    ///
    /// # Errors
    /// The cache cannot be opened.
    pub fn of_command(
        policies: Arc<Policies>,
        host: &Host,
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
        let registry = MountSource::Registry {
            name: host.to_string(),
            host: host.clone(),
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
            policies,
            list_signed: false,
            providers: ProviderOptions::default(),
            signatures: SignaturePolicy::default(),
        });
        Ok(Some(PolicyCheck(facts.gate().clone())))
    }
}

#[async_trait]
impl ReleaseCheck for PolicyCheck {
    fn asks(&self) -> bool {
        self.0.has_policies()
    }

    async fn check(
        &self,
        plan: &ReleasePlan,
        reference: &Reference,
        digest: Digest,
    ) -> Result<(), Refusal> {
        let is_published = |target: &Target| match &plan.artifact {
            PlannedArtifact::Module(_) => false,
            PlannedArtifact::Provider { targets, .. } => {
                targets.iter().any(|planned| planned.platform == target.platform)
            }
        };
        let admitted = self.0.admit_new(reference, digest, &is_published).await;
        admitted.map_err(|e| match e.failure {
            Failure::Unsigned => {
                let rule =
                    format!("the tag is not written, since nobody could open it: {}", e.rule);
                Refusal { rule, ..e }
                    .remedy("have it signed as it is published (--sign-key, --sign-command)")
            }
            _ => e,
        })
    }
}
