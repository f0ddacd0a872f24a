//! A family told a second time, under another name: computed from the first one when somebody asks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Sums the series of `source` over the labels that it leaves out. A counter, gauge or histogram that is told twice
/// costs whoever counts nothing more.
pub(super) struct Derived<C> {
    source: C,
    desc: Desc,
    /// Labels of the source with their names here, in the order of the latter.
    labels: Vec<(String, String)>,
}

impl<C: Collector> Derived<C> {
    /// The series of `source` under `name`, with those of its labels that `labels` names, each with its new name.
    pub(super) fn new(
        source: C,
        name: String,
        help: String,
        labels: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, prometheus::Error> {
        let mut labels: Vec<_> = labels.collect();
        labels.sort_by(|(_, a), (_, b)| a.cmp(b));
        let names = labels.iter().map(|(_, name)| name.clone()).collect();
        let desc = Desc::new(name, help, names, std::collections::HashMap::new())?;
        Ok(Self { source, desc, labels })
    }

    fn labels_of(&self, metric: &Metric) -> Vec<String> {
        let value = |name: &String| {
            let pair = metric.get_label().iter().find(|pair| pair.name() == name);
            pair.map(|pair| pair.value().to_owned()).unwrap_or_default()
        };
        self.labels.iter().map(|(name, _)| value(name)).collect()
    }

    fn pairs(&self, values: Vec<String>) -> Vec<LabelPair> {
        let names = self.labels.iter().map(|(_, name)| name);
        names
            .zip(values)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.clone());
                pair.set_value(value);
                pair
            })
            .collect()
    }
}

impl<C: Collector> Collector for Derived<C> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut derived = Vec::new();
        for mut source in self.source.collect() {
            let kind = source.get_field_type();
            let mut sums: BTreeMap<Vec<String>, Metric> = BTreeMap::new();
            for metric in source.take_metric() {
                match sums.entry(self.labels_of(&metric)) {
                    Entry::Vacant(entry) => {
                        entry.insert(metric);
                    }
                    Entry::Occupied(mut entry) => add(entry.get_mut(), &metric, kind),
                }
            }
            let metrics = sums.into_iter().map(|(values, mut metric)| {
                metric.set_label(self.pairs(values));
                metric
            });
            let mut family = MetricFamily::default();
            family.set_name(self.desc.fq_name.clone());
            family.set_help(self.desc.help.clone());
            family.set_field_type(kind);
            family.set_metric(metrics.collect());
            derived.push(family);
        }
        derived
    }
}

/// Adds one series to another one of the same kind and the same buckets.
fn add(sum: &mut Metric, more: &Metric, kind: MetricType) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + more.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => {
            let (a, b) = (sum.get_histogram(), more.get_histogram());
            let buckets = a.get_bucket().iter().zip(b.get_bucket()).map(|(a, b)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(a.upper_bound());
                bucket.set_cumulative_count(a.cumulative_count() + b.cumulative_count());
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_sample_count(a.get_sample_count() + b.get_sample_count());
            histogram.set_sample_sum(a.get_sample_sum() + b.get_sample_sum());
            histogram.set_bucket(buckets.collect());
            sum.set_histogram(histogram);
        }
        // Families of these kinds are never registered with a twin.
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

    use super::*;

    fn page(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .expect("encodes");
        String::from_utf8(text).expect("text")
    }

    fn same(names: &[&str]) -> impl Iterator<Item = (String, String)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), (*name).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn a_counter_is_summed_over_the_labels_left_out_and_labels_get_their_new_names() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("new", "n"), &["flow", "endpoint", "z"]).expect("family");
        let labels = [("endpoint", "pod"), ("z", "a")];
        let labels = labels
            .into_iter()
            .map(|(from, to)| (from.to_owned(), to.to_owned()));
        let derived = Derived::new(counter.clone(), "old".into(), "o".into(), labels).expect("family");
        registry.register(Box::new(derived)).expect("registers");
        assert_eq!(page(&registry), "");
        for (labels, count) in [(["f", "e", "1"], 2), (["g", "e", "1"], 3), (["g", "e", "2"], 4)] {
            counter.with_label_values(&labels).inc_by(count);
        }
        let wanted = "# HELP old o\n# TYPE old counter\n\
            old{a=\"1\",pod=\"e\"} 5\nold{a=\"2\",pod=\"e\"} 4\n";
        assert_eq!(page(&registry), wanted);
    }

    #[test]
    fn histograms_are_added_bucket_by_bucket() {
        let options = |name: &str| HistogramOpts::new(name, "h").buckets(vec![1.0, 2.0]);
        let source = HistogramVec::new(options("h"), &["model", "flow"]).expect("family");
        let direct = HistogramVec::new(options("h"), &["model"]).expect("family");
        for (model, flow, value) in [("m", "f", 0.5), ("m", "g", 1.5), ("m", "g", 9.0), ("n", "f", 2.0)] {
            source.with_label_values(&[model, flow]).observe(value);
            direct.with_label_values(&[model]).observe(value);
        }
        let told = |collector: Box<dyn Collector>| {
            let registry = Registry::new();
            registry.register(collector).expect("registers");
            page(&registry)
        };
        let derived = Derived::new(source, "h".into(), "h".into(), same(&["model"])).expect("family");
        assert_eq!(told(Box::new(derived)), told(Box::new(direct)));
    }
}
