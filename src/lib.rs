//! tofufs mounts OCI registries as a file system, for OpenTofu and Terraform. See ARCHITECTURE.md
//! for the layers.

pub mod archive;
pub mod artifact;
pub mod bounded;
pub mod cli;
pub mod copy;
pub mod descriptor;
pub mod digest;
pub mod disk;
pub mod facts;
pub mod failure;
pub mod flight;
pub mod fs;
pub mod fuse;
pub mod input;
pub mod local;
pub mod lockfile;
pub mod mapping;
pub mod members;
pub mod metrics;
pub mod module_registry;
pub mod moment;
pub mod name;
pub mod oci;
pub mod openpgp;
pub mod provider_registry;
pub mod registry;
pub mod sandbox;
pub mod stage;
pub mod store;
pub mod tree;
pub mod trust;

#[cfg(test)]
#[path = "../tests/support/skip.rs"]
mod skip;

// Doubles that integration tests share; in them this crate has the name that those know it by.
#[cfg(test)]
extern crate self as tofufs;
#[cfg(test)]
#[path = "../tests/support/memory.rs"]
mod memory;
