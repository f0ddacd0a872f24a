//! `llmd crds`: the custom resource definitions.

use crate::exit::Failure;
use crate::output::{self, Format};

/// Prints all of them.
pub(crate) fn print(format: Format) -> Result<(), Failure> {
    match format {
        Format::Yaml => output::print(&llmd_crds::yaml()),
        Format::Json => output::print_value(&llmd_crds::all(), format),
        Format::Table => {
            let mut rows = vec![
                ["NAME", "KIND", "SCOPE", "SHORT NAMES"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            for crd in llmd_crds::all() {
                let names = &crd.spec.names;
                rows.push(vec![
                    crd.metadata.name.clone().unwrap_or_default(),
                    names.kind.clone(),
                    crd.spec.scope.clone(),
                    names.short_names.clone().unwrap_or_default().join(","),
                ]);
            }
            output::print(&output::columns(&rows))
        }
    }
}
