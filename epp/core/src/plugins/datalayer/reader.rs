//! What reads a page: one of the extractors.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{EndpointSpec, MetricsRecord};

use super::core_metrics_extractor::{CoreMetricsExtractor, EngineId, Extracted, Scratch};
use super::dcgm_extractor::{self, DcgmExtractor};
use super::models_data_extractor;
use super::polled::PageFormat;

/// An extractor of polled pages.
#[derive(Debug)]
pub enum PageReader {
    /// Metrics of an engine or of a cluster.
    Metrics(CoreMetricsExtractor),
    /// NVIDIA's DCGM exporter.
    Gpus(DcgmExtractor),
    /// A list of models.
    Models,
}

/// What a reader reads of one endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Aspect {
    /// Metrics of this engine.
    Engine(EngineId),
    /// All there is.
    Whole,
}

impl PageReader {
    /// Its type name in configurations.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Metrics(metrics) => metrics.type_name(),
            Self::Gpus(_) => dcgm_extractor::TYPE,
            Self::Models => models_data_extractor::TYPE,
        }
    }

    /// What pages it can read.
    pub fn format(&self) -> PageFormat {
        match self {
            Self::Metrics(_) | Self::Gpus(_) => PageFormat::Metrics,
            Self::Models => PageFormat::Models,
        }
    }

    /// What is read of an endpoint; stays as it is while the endpoint does.
    pub fn aspect_of(&self, endpoint: &EndpointSpec) -> Aspect {
        match self {
            Self::Metrics(metrics) => Aspect::Engine(metrics.engine_of(&endpoint.labels)),
            Self::Gpus(_) | Self::Models => Aspect::Whole,
        }
    }

    /// The engine whose metrics are read of an endpoint.
    pub fn engine_name(&self, endpoint: &EndpointSpec) -> Option<Arc<str>> {
        match self {
            Self::Metrics(metrics) => Some(Arc::clone(
                metrics.engine_name(metrics.engine_of(&endpoint.labels)),
            )),
            Self::Gpus(_) | Self::Models => None,
        }
    }

    /// Reads a page of an endpoint into its record. What cannot be read stays as it was.
    pub fn extract<'a>(
        &'a self,
        (endpoint, aspect): (&EndpointSpec, Aspect),
        page: &[u8],
        now: Instant,
        scratch: &mut Scratch,
        record: &mut MetricsRecord,
    ) -> Extracted<'a> {
        match (self, aspect) {
            (Self::Metrics(metrics), Aspect::Engine(engine)) => {
                metrics.extract(engine, page, now, scratch, record)
            }
            (Self::Gpus(gpus), _) => gpus.extract(&endpoint.pod, page, record),
            (Self::Models, _) => models_data_extractor::extract(page, record),
            // No reader gives another's aspect.
            (Self::Metrics(_), Aspect::Whole) => Extracted::nothing(),
        }
    }
}
