//! Where endpoints come from.

pub mod file;
