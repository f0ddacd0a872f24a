//! Pickers: which of the scored endpoints are taken.

pub mod max_score_picker;
mod parameters;
pub mod random_picker;
pub mod weighted_random_picker;
