//! Trust: which releases may be opened, by rules that a person wrote and by signatures.
//!
//! Values only: a policy's text becomes a [`Policy`], a signature's bytes become what they say, and
//! [`Policies::judge`] decides from both. Files and registries are read by others, and nothing in
//! here knows a network.
//!
//! INVARIANT: what is not understood admits nothing.

pub mod bundle;
mod conditions;
pub mod key;
pub mod keyless;
pub mod policy;
pub mod signing;
pub mod statement;
mod syntax;
pub mod vendor;
mod verdict;

pub use conditions::ReleaseDates;
pub use policy::Policy;
pub use syntax::PolicyError;
pub use verdict::{Admission, Asked, Evidence, Judgement, NotAdmitted, Policies, Verdict};
