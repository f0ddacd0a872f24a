//! Registration of metrics under upstream's names, with their deprecated twins.

mod derived;

use llmd_epp_api::MetricsScope;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

use derived::Derived;

/// Prefix of upstream's current names.
pub const PREFIX: &str = "llm_d_epp_";
/// Prefix of the deprecated twins of pool and scheduling metrics.
pub const TWIN_PREFIX: &str = "inference_extension_";
/// Buckets of plugin and scheduler durations, in seconds.
pub const DURATION_BUCKETS: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// What a family is called, and its deprecated twin.
///
/// The twin is computed from the family when metrics are gathered: counting in it costs nothing.
#[derive(Clone, Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a str,
    labels: &'a [&'a str],
    twin: Option<DeprecatedTwin<'a>>,
}

#[derive(Clone, Debug)]
struct DeprecatedTwin<'a> {
    name: String,
    labels: &'a [&'a str],
    renamed: &'a [(&'a str, &'a str)],
}

impl<'a> Family<'a> {
    /// The family `PREFIX + name` with `labels`; `text` is its help without upstream's marks.
    pub fn new(name: &'a str, text: &'a str, labels: &'a [&'a str]) -> Self {
        Self {
            name,
            text,
            labels,
            twin: None,
        }
    }

    /// Also told as `prefix + name`, summed to those of its labels that `labels` names.
    #[must_use]
    pub fn twin(mut self, prefix: &str, name: &str, labels: &'a [&'a str]) -> Self {
        self.twin = Some(DeprecatedTwin {
            name: format!("{prefix}{name}"),
            labels,
            renamed: &[],
        });
        self
    }

    /// Labels that have another name in the twin: the family's name, the twin's.
    #[must_use]
    pub fn renaming(mut self, renamed: &'a [(&'a str, &'a str)]) -> Self {
        if let Some(twin) = &mut self.twin {
            twin.renamed = renamed;
        }
        self
    }

    /// Registers it as a histogram with these upper bounds.
    pub fn histogram(
        &self,
        scope: &MetricsScope,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(self.options()).buckets(buckets.to_vec());
        self.register(scope, HistogramVec::new(options, self.labels)?)
    }

    /// Registers it as a counter.
    pub fn counter(&self, scope: &MetricsScope) -> Result<IntCounterVec, prometheus::Error> {
        self.register(scope, IntCounterVec::new(self.options(), self.labels)?)
    }

    /// Registers it as a gauge; the twin is the sum of the series that it does not tell apart.
    pub fn gauge(&self, scope: &MetricsScope) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(scope, IntGaugeVec::new(self.options(), self.labels)?)
    }

    fn options(&self) -> Opts {
        Opts::new(format!("{PREFIX}{}", self.name), help(self.text))
    }

    fn register<C>(&self, scope: &MetricsScope, family: C) -> Result<C, prometheus::Error>
    where
        C: Collector + Clone + 'static,
    {
        scope.registry.register(Box::new(family.clone()))?;
        if let Some(twin) = self.twin.as_ref().filter(|_| scope.deprecated_twins) {
            let labels = twin.labels.iter().map(|label| {
                let renamed = twin.renamed.iter().find(|(name, _)| name == label);
                let name = renamed.map_or(*label, |(_, name)| *name);
                ((*label).to_owned(), name.to_owned())
            });
            let help = twin_help(&format!("{PREFIX}{}", self.name), self.text);
            let derived = Derived::new(family.clone(), twin.name.clone(), help, labels)?;
            scope.registry.register(Box::new(derived))?;
        }
        Ok(family)
    }
}

fn help(text: &str) -> String {
    format!("[ALPHA] {text}")
}

/// The help text of the deprecated twin of `current`, in upstream's words.
pub fn twin_help(current: &str, text: &str) -> String {
    format!("[ALPHA] [Deprecated: Use {current}] {text}")
}
