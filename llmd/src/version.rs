//! `llmd version`.

use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Format};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    api_version: &'static str,
}

/// Prints the version of the binary and of the API it serves.
pub(crate) fn version(format: Format) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        api_version: "llmd.dev/v1alpha1",
    };
    match format {
        Format::Table => output::print(&format!("llmd {} ({})\n", version.version, version.api_version)),
        Format::Yaml | Format::Json => output::print_value(&version, format),
    }
}
