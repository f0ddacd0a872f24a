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

/// Flags that are refused when they are given a value other than their default.
const UNSUPPORTED: [(&str, &str); 2] = [
    (
        "metrics-client-ca-file",
        "the metrics port is plain HTTP; leave the flag out",
    ),
    (
        "metrics-cert-dir",
        "the metrics port is plain HTTP; leave the flag out",
    ),
];

pub(super) fn refuse_unsupported(flags: &Flags) -> Result<(), OptionError> {
    if let Some(name) = METRIC_FLAGS.into_iter().find(|name| flags.is_set(name)) {
        return Err(OptionError::MetricFlag(name));
    }
    match UNSUPPORTED
        .into_iter()
        .find(|(flag, _)| !flags.string(flag).is_empty())
    {
        Some((flag, fix)) => Err(OptionError::Unsupported { flag, fix }),
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
