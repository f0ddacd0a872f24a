//! `llmd paths`: the well-lit paths that are compiled in.

use llmd_render::builtin_paths;
use serde_json::json;

use crate::exit::Failure;
use crate::output::{self, Format};

/// Lists them.
pub(crate) fn list(format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        let paths: Vec<_> = builtin_paths()
            .iter()
            .map(|path| {
                json!({
                    "name": path.metadata.name,
                    "version": path.spec.version,
                    "description": path.spec.description,
                })
            })
            .collect();
        return output::print_value(&paths, format);
    }
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec()];
    for path in builtin_paths() {
        rows.push(vec![
            path.metadata.name.clone().unwrap_or_default(),
            path.spec.version.clone(),
            path.spec.description.clone().unwrap_or_default(),
        ]);
    }
    output::print(&output::columns(&rows))
}

/// Prints the newest version of one.
pub(crate) fn show(name: &str, format: Format) -> Result<(), Failure> {
    let (path, _) = llmd_render::find_path(Some(name), None, &[]).map_err(Failure::usage)?;
    output::print_value(path, format)
}
