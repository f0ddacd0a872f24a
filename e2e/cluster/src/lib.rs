//! A real Kubernetes on one machine: built from pinned Go modules, started per test, gone after it.
