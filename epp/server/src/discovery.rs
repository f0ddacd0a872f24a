//! Where endpoints come from.

pub mod file;
pub mod fixed;
pub mod kubernetes;
