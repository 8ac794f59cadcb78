//! The archive.
pub mod format;
