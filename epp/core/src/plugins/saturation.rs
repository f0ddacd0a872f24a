//! Saturation detectors: how full a pool is.

pub mod concurrency_detector;
pub mod utilization_detector;
