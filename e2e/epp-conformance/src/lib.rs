//! Black-box conformance of Endpoint Pickers: cases as data, played over ext-proc against any picker.
//!
//! Takes in: the files in `cases/`, a picker's binary or its address. Knows no picker's code: the messages in
//! [`wire`] are its own. Holds: engines on loopback, pickers as children; both end with their guards.
//! Gives out: a result per case, what is wrong in words, a report.
//!
//! ```text
//!  cases/*.yaml ─▶ run ─▶ rig: engines (metrics pages) ◀─scrape─ picker under test
//!                   │      └─▶ exchange over stream ──ext-proc──▶   │
//!                   └─▶ check: rules of the wire + the case ◀─ transcript ─┘ ─▶ report
//! ```

pub mod case;
pub mod check;
pub mod coverage;
pub mod engine;
pub mod exchange;
pub mod report;
pub mod rig;
pub mod run;
pub mod samples;
pub mod setup;
pub mod stream;
pub mod suite;
mod tls;
pub mod transcript;
pub mod wire;
