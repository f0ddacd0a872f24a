//! Shows a run: a live table on a terminal, plain lines, or one JSON object per line.

mod rows;
mod screen;
mod table;

pub use rows::{Row, rows};
pub use screen::{Output, Ready, Screen};
