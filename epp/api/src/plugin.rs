//! Stub: H-core fills this in.
