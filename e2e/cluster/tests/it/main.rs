//! The cluster base against itself: what it starts serves, and what it starts ends.
//!
//! Everything is in modules named `cluster`, so that `cargo xtask test --tier 1,2` can leave it out.

mod cluster;
