//! Flags that this build does not obey: refused by name, or reported where they cannot mean anything.

use llmd_process::pflag::Flags;

use super::OptionError;

const METRIC_FLAGS: [&str; 5] = [
    "total-queued-requests-metric",
    "total-running-requests-metric",
    "kv-cache-usage-percentage-metric",
    "lora-info-metric",
    "cache-info-metric",
];

pub(super) fn refuse_removed(flags: &Flags) -> Result<(), OptionError> {
    match METRIC_FLAGS.into_iter().find(|name| flags.is_set(name)) {
        Some(name) => Err(OptionError::MetricFlag(name)),
        None => Ok(()),
    }
}

/// What to tell about flags that were given and change nothing.
pub(super) fn notes(flags: &Flags) -> Vec<String> {
    let mut notes = Vec::new();
    if flags.is_set("enable-pprof") && flags.bool("enable-pprof") {
        notes.push("--enable-pprof has no effect: there are no Go profiles in this build".to_owned());
    }
    for name in ["zap-stacktrace-level", "zap-time-encoding"] {
        if flags.is_set(name) {
            notes.push(format!("--{name} has no effect in this build"));
        }
    }
    if flags.bool("enable-cert-reload") && flags.string("cert-path").is_empty() {
        notes.push("--enable-cert-reload has no effect without --cert-path".to_owned());
    }
    notes
}
