//! (see ARCHITECTURE.md)
pub mod tofurc;
