//! What has a place in `referrers/`.

use std::sync::{Arc, OnceLock};

use crate::digest::Digest;
use crate::name::Reference;
use crate::oci::{Descriptor, Manifest};
use crate::tree::registry::RegistrySpace;

/// The name of the view in the root. No registry's name is like it.
pub(super) const NAME: &str = "referrers";

/// A place in the view.
#[derive(Debug)]
pub(super) enum ReferrerPlace {
    Top,
    /// A registry, or what leads to repositories.
    Space(RegistrySpace),
    /// What speaks about a release or one of its platforms.
    About(Spoken),
    /// One of those.
    Referrer(Arc<Referrer>),
    /// A layer of it.
    Layer(Arc<Referrer>, Descriptor),
}

/// A manifest about which others speak: of a tag, once it was asked for.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) reference: Reference,
    pub(super) digest: OnceLock<Digest>,
}

/// Something that speaks about a manifest.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) reference: Reference,
    pub(super) manifest: Arc<Manifest>,
    /// Whether it counts for the policy, where there is one.
    pub(super) counts: Option<String>,
}
