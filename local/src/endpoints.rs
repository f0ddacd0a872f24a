//! The endpoints file of upstream's file discovery, written atomically with ready pods only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::LocalError;
use crate::translate::volumes::write_private;

/// One entry of the file (llm-d-router `file-discovery`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Unique name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// IPv4 literal.
    pub address: String,
    /// Decimal port, a string in the format.
    pub port: String,
    /// Labels that filters and the metrics extractor read.
    pub labels: BTreeMap<String, String>,
}

/// Writes the file whenever its content changes.
#[derive(Debug)]
pub struct EndpointsFile {
    path: PathBuf,
    written: Option<Vec<Endpoint>>,
}

impl EndpointsFile {
    /// A file at `path`, not yet written.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content in one rename, so that the router never reads half a file. Returns whether anything
    /// changed.
    pub fn publish(&mut self, endpoints: Vec<Endpoint>) -> Result<bool, LocalError> {
        if self.written.as_ref() == Some(&endpoints) {
            return Ok(false);
        }
        let fresh = self.path.with_extension("new");
        write_private(&fresh, &text(&endpoints))?;
        std::fs::rename(&fresh, &self.path).map_err(|source| LocalError::File {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        self.written = Some(endpoints);
        Ok(true)
    }
}

/// JSON is YAML, and needs no quoting rules: one entry per line keeps the file readable.
fn text(endpoints: &[Endpoint]) -> String {
    let mut out = String::from("{\"endpoints\": [\n");
    for (index, endpoint) in endpoints.iter().enumerate() {
        let comma = if index + 1 < endpoints.len() { "," } else { "" };
        let _ = writeln!(
            out,
            "  {}{comma}",
            serde_json::to_string(endpoint).unwrap_or_default()
        );
    }
    out.push_str("]}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> Endpoint {
        Endpoint {
            name: name.into(),
            namespace: "default".into(),
            address: "127.0.0.1".into(),
            port: "21000".into(),
            labels: BTreeMap::from([("llm-d.ai/role".into(), "decode".into())]),
        }
    }

    #[test]
    fn the_file_is_upstreams_format_and_written_only_on_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EndpointsFile::new(dir.path().join("endpoints.yaml"));
        assert!(file.publish(vec![]).unwrap(), "an empty file comes first");
        assert!(file.publish(vec![endpoint("a"), endpoint("b")]).unwrap());
        assert!(!file.publish(vec![endpoint("a"), endpoint("b")]).unwrap());
        let read: serde_yaml::Value =
            serde_yaml::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!(read["endpoints"][1]["name"], "b");
        assert_eq!(read["endpoints"][1]["port"], "21000");
        assert_eq!(read["endpoints"][0]["labels"]["llm-d.ai/role"], "decode");
    }
}
