//! Profile handlers: which profiles run and which one decides.

pub mod data_parallel_profile_handler;
pub mod disagg_headers_handler;
pub mod disagg_profile_handler;
mod disaggregation;
pub mod header_profile_handler;
pub mod pd_profile_handler;
mod primary_port;
pub mod single_profile_handler;
