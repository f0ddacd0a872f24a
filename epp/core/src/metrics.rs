//! Registration of metrics under upstream's names, with their deprecated twins.

use llmd_epp_api::MetricsScope;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
};

/// Prefix of upstream's current names.
pub const PREFIX: &str = "llm_d_epp_";
/// Prefix of the deprecated twins of pool and scheduling metrics.
pub const TWIN_PREFIX: &str = "inference_extension_";
/// Buckets of plugin and scheduler durations, in seconds.
pub const DURATION_BUCKETS: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// A metric and, unless switched off, its deprecated twin.
#[derive(Clone, Debug)]
pub struct Twin<M> {
    /// Under the current name.
    pub current: M,
    /// Under the deprecated name.
    pub deprecated: Option<M>,
}

impl Twin<Histogram> {
    /// Observes in both.
    pub fn observe(&self, value: f64) {
        self.current.observe(value);
        if let Some(twin) = &self.deprecated {
            twin.observe(value);
        }
    }
}

impl Twin<HistogramVec> {
    /// One series of both; the twin has the first `twin_labels` of the labels.
    pub fn series(&self, labels: &[&str], twin_labels: usize) -> Twin<Histogram> {
        Twin {
            current: self.current.with_label_values(labels),
            deprecated: self
                .deprecated
                .as_ref()
                .map(|twin| twin.with_label_values(&labels[..twin_labels])),
        }
    }
}

impl Twin<IntCounter> {
    /// Counts in both.
    pub fn inc(&self) {
        self.current.inc();
        if let Some(twin) = &self.deprecated {
            twin.inc();
        }
    }
}

fn help(text: &str) -> String {
    format!("[ALPHA] {text}")
}

/// The help text of the deprecated twin of `current`, in upstream's words.
pub fn twin_help(current: &str, text: &str) -> String {
    format!("[ALPHA] [Deprecated: Use {current}] {text}")
}

/// A histogram `PREFIX + name`, and `TWIN_PREFIX + name` with `twin_labels`.
pub fn histogram(
    scope: &MetricsScope,
    name: &str,
    text: &str,
    labels: &[&str],
    twin_labels: &[&str],
    buckets: &[f64],
) -> Result<Twin<HistogramVec>, prometheus::Error> {
    let make = |name: String, help: String, labels: &[&str]| {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(options, labels)?;
        scope.registry.register(Box::new(metric.clone()))?;
        Ok::<_, prometheus::Error>(metric)
    };
    Ok(Twin {
        current: make(format!("{PREFIX}{name}"), help(text), labels)?,
        deprecated: scope
            .deprecated_twins
            .then(|| {
                let help = twin_help(&format!("{PREFIX}{name}"), text);
                make(format!("{TWIN_PREFIX}{name}"), help, twin_labels)
            })
            .transpose()?,
    })
}

/// A counter `PREFIX + name`, and `TWIN_PREFIX + name` with `twin_labels`.
pub fn counter(
    scope: &MetricsScope,
    name: &str,
    text: &str,
    labels: &[&str],
    twin_labels: &[&str],
) -> Result<Twin<IntCounterVec>, prometheus::Error> {
    let make = |name: String, help: String, labels: &[&str]| {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        scope.registry.register(Box::new(metric.clone()))?;
        Ok::<_, prometheus::Error>(metric)
    };
    Ok(Twin {
        current: make(format!("{PREFIX}{name}"), help(text), labels)?,
        deprecated: scope
            .deprecated_twins
            .then(|| {
                let help = twin_help(&format!("{PREFIX}{name}"), text);
                make(format!("{TWIN_PREFIX}{name}"), help, twin_labels)
            })
            .transpose()?,
    })
}

/// A gauge family without a twin.
pub fn gauge(
    scope: &MetricsScope,
    name: &str,
    text: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help(text)), labels)?;
    scope.registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// The deprecated twin of a gauge, without labels.
pub fn twin_gauge(scope: &MetricsScope, name: &str, text: &str) -> Result<Gauge, prometheus::Error> {
    let help = twin_help(&format!("{PREFIX}{name}"), text);
    let metric = Gauge::with_opts(Opts::new(format!("{TWIN_PREFIX}{name}"), help))?;
    scope.registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
