//! `tofufs sign`.

use super::access::{self, RegistryAccess};
use super::args::sign::SignArgs;
use super::daemon;
use super::directories::{DirectoryEnvironment, absolute};
use super::network::Network;
use super::output::{self, CommandError};
use super::signing::SigningSetting;
use super::typed::release;
use crate::name::Selector;
use crate::registry::Asker;
use crate::stage::attach::subject;

/// Signs each release, and prints its reference.
pub fn run(args: &SignArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network = Network::reaching(&args.reach, &environment.base).map_err(CommandError::usage)?;
    let references = args.reference.iter().map(|text| release(text, &environment.base));
    let references = references.collect::<Result<Vec<_>, _>>()?;
    daemon::keep_memory_private()?;
    let key = args.key.as_ref().map(|key| absolute(key, &environment.base));
    let signing = SigningSetting { key, command: args.command.clone() };
    let Some(signer) = signing.signer(network.deadline, None)? else {
        return Err(CommandError::usage("name a --key or a --command"));
    };
    access::check(&network)?;
    daemon::runtime()?.block_on(async {
        let access = RegistryAccess::new(&network, Asker::Person);
        for reference in &references {
            let repo = &reference.repo;
            let upload = access.connections()?.writer(&repo.host).map_err(CommandError::failed)?;
            let named = subject(&upload, repo, &reference.selector).await;
            let named = named.map_err(CommandError::failed)?;
            let tag = match &reference.selector {
                Selector::Tag(tag) => Some(tag),
                Selector::Digest(_) => None,
            };
            signer.sign(&upload, repo, &named, tag).await.map_err(CommandError::failed)?;
            output::text(format!("{repo}@{}\n", named.digest))?;
        }
        Ok(())
    })
}
