//! `llmd up` driven as a process: from one file to a routed answer, through failures and edits, to a clean end.

mod attach;
mod clients;
mod edits;
mod end;
mod failures;
mod input;
pub(crate) mod support;
