//! `dcgm-extractor`: how busy the GPUs of an endpoint are, from NVIDIA's DCGM exporter.
//!
//! No parameters. The greatest `DCGM_FI_DEV_GPU_UTIL` of the series whose label `pod` is the endpoint's pod, or that
//! have no such label, divided by 100, goes into the attribute `GPUUtilization`.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{MetricsRecord, Plugin, PluginType, Stability};

use super::core_metrics_extractor::{Extracted, SpecFailure, series};
use super::reader::PageReader;

/// Type name in configurations.
pub const TYPE: &str = "dcgm-extractor";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        let reader = PageReader::Gpus(DcgmExtractor::default());
        Ok(Plugin::component(Component::Extractor(Arc::new(reader))))
    },
};

const FAMILY: &str = "DCGM_FI_DEV_GPU_UTIL";
/// Key of the attribute.
const ATTRIBUTE: &str = "GPUUtilization";

/// The extractor.
#[derive(Debug)]
pub struct DcgmExtractor {
    key: Arc<str>,
}

impl Default for DcgmExtractor {
    fn default() -> Self {
        Self {
            key: ATTRIBUTE.into(),
        }
    }
}

impl DcgmExtractor {
    /// Reads one page for the endpoint of `pod`.
    pub fn extract(&self, pod: &str, page: &[u8], record: &mut MetricsRecord) -> Extracted<'static> {
        let mut busiest: Option<f64> = None;
        let mut seen = false;
        for (labels, value) in series(page, FAMILY.as_bytes()) {
            seen = true;
            let is_own = labels.get(b"pod").is_none_or(|owner| owner == pod.as_bytes());
            if is_own && value.is_finite() {
                busiest = Some(busiest.unwrap_or(0.0).max(value));
            }
        }
        let Some(busiest) = busiest else {
            let reason = if seen {
                "no series is of the endpoint's pod"
            } else {
                "the page has no such metric family"
            };
            return Extracted::failed(SpecFailure {
                field: ATTRIBUTE,
                spec: FAMILY,
                reason,
            });
        };
        record.set_custom(&self.key, busiest / 100.0);
        Extracted::read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> (Vec<f64>, Option<&'static str>) {
        let mut record = MetricsRecord::default();
        let extracted = DcgmExtractor::default().extract("engine-0", page.as_bytes(), &mut record);
        let values = record.custom.iter().map(|(_, value)| *value).collect();
        (values, extracted.first_failure.map(|failure| failure.reason))
    }

    #[test]
    fn the_busiest_gpu_of_the_pod_counts() {
        let page = "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",pod=\"engine-0\"} 40\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",pod=\"engine-0\"} 75\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"2\",pod=\"other\"} 99\n";
        assert_eq!(read(page), (vec![0.75], None));
        // An exporter in the pod itself names none.
        assert_eq!(read("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 5\n"), (vec![0.05], None));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(read(""), (vec![], Some("the page has no such metric family")));
        let others = "DCGM_FI_DEV_GPU_UTIL{pod=\"other\"} 99\n";
        assert_eq!(read(others), (vec![], Some("no series is of the endpoint's pod")));
    }
}
