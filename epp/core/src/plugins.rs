//! Every plugin, one file each.

pub mod datalayer;
