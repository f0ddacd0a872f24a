//! Profile handlers: which profiles run and which one decides.

pub mod single_profile_handler;
