//! The laws of [`Registry`] and [`Upload`], over everything that is one: a registry on the network,
//! a store as a directory and as an archive, and what is made of those.

mod ground;
mod reads;
mod writes;
