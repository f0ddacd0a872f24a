//! Saturation detectors: how full a pool is.

pub mod utilization_detector;
