//! Elections on a real API server.

mod cluster;
