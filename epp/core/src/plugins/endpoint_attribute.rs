//! Numbers that the data layer reads from endpoints, by the names that configurations use.

use llmd_epp_api::{BuildContext, BuildError, Snapshot};

/// The extractor that reads engines' metrics; made by default.
const DEFAULT_PRODUCER: &str = "core-metrics-extractor";

/// One number of each endpoint (upstream's scalar endpoint attributes).
#[derive(Debug)]
pub(crate) enum EndpointAttribute {
    Waiting,
    Running,
    KvUsage,
    /// By the key of a custom metric.
    Custom(Box<str>),
}

impl EndpointAttribute {
    /// `attribute` as the parameter `field` names it, read by the extractor `producer`.
    pub(crate) fn new(
        context: &BuildContext<'_>,
        field: &str,
        attribute: &str,
        producer: Option<&str>,
    ) -> Result<Self, BuildError> {
        if attribute.is_empty() {
            return Err(BuildError::value(field, "must name an attribute"));
        }
        let producer = producer
            .filter(|name| !name.is_empty())
            .unwrap_or(DEFAULT_PRODUCER);
        if producer != DEFAULT_PRODUCER && !context.state.declared.contains(producer) {
            return Err(BuildError::UnknownInstance {
                field: "producer".to_owned(),
                name: producer.to_owned(),
            });
        }
        Ok(match attribute {
            "WaitingQueueSize" => Self::Waiting,
            "RunningRequestsSize" => Self::Running,
            "KVCacheUsagePercent" => Self::KvUsage,
            key => Self::Custom(key.into()),
        })
    }

    /// The number of endpoint `index`; `None` where nobody has read it.
    pub(crate) fn of(&self, snapshot: &Snapshot, index: u32) -> Option<f64> {
        let index = index as usize;
        snapshot.updated[index]?;
        match self {
            Self::Waiting => Some(f64::from(snapshot.waiting[index])),
            Self::Running => Some(f64::from(snapshot.running[index])),
            Self::KvUsage => Some(snapshot.kv_usage[index]),
            Self::Custom(key) => {
                let mut known = snapshot.records[index].custom.iter();
                known.find(|(name, _)| **name == **key).map(|(_, value)| *value)
            }
        }
    }
}
