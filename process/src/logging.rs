//! Log lines on standard error: text for people, JSON for collectors.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event (`--zap-encoder json`).
    Json,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug)]
pub struct Logging {
    /// Shape of a line.
    pub format: Format,
    /// Least severe level that is printed.
    pub level: LevelFilter,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: LevelFilter::INFO,
        }
    }
}

/// Go verbosity (`-v=N`) as a level. llm-d-router logs decisions from 3, details from 4 and data
/// at 5; 2 is its default.
pub fn level_of_verbosity(verbosity: i64) -> LevelFilter {
    match verbosity {
        ..=2 => LevelFilter::INFO,
        3..=4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// Installs the process's subscriber. `extra` is the layer that exports spans, if any.
/// The variable `LLMD_LOG` (directives of `tracing-subscriber`) overrides the level.
pub fn init(logging: Logging, extra: Option<Box<dyn Layer<Registry> + Send + Sync>>) {
    // Dependencies speak from `warn` on: their debug lines drown ours. The Kubernetes client calls each
    // failed connection an error before we say once what it means.
    let own = format!(
        "warn,kube_client::client::builder=off,{}",
        crate_directives(logging.level)
    );
    let filter = EnvFilter::try_from_env("LLMD_LOG").unwrap_or_else(|_| EnvFilter::new(own));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<_> + Send + Sync> = match logging.format {
        Format::Text => Box::new(
            lines
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_filter(filter),
        ),
        Format::Json => Box::new(lines.json().with_filter(filter)),
    };
    // A second call (tests in one process) keeps the first subscriber.
    let _ = Registry::default().with(extra).with(lines).try_init();
}

fn crate_directives(level: LevelFilter) -> String {
    let level = level.to_string().to_lowercase();
    [
        "llmd",
        "llmd_epp",
        "llmd_epp_core",
        "llmd_kv",
        "llmd_lease",
        "llmd_local",
        "llmd_operator",
        "llmd_process",
        "llmd_proxy",
        "llmd_sim",
    ]
    .map(|name| format!("{name}={level}"))
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_follows_upstreams_levels() {
        assert_eq!(
            [0, 2, 3, 4, 5, 9].map(level_of_verbosity),
            [
                LevelFilter::INFO,
                LevelFilter::INFO,
                LevelFilter::DEBUG,
                LevelFilter::DEBUG,
                LevelFilter::TRACE,
                LevelFilter::TRACE
            ]
        );
    }
}
