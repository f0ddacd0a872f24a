//! The suite itself: its data, its coverage, its teeth, and our picker against it.

mod coverage;
mod data;
mod faults;
mod llmd;
mod stub;
