//! Where endpoints come from.

pub mod file;
pub mod kubernetes;
