//! Images of others' engines, in tables that never change: a well-lit path names one, so that no upgrade moves an
//! engine. Source: llm-d guides v0.8, `recipes/modelserver/components/images`.

use llmd_crds::Vendor;

use crate::field_error::{FieldError, Problem};

/// The default images under one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineImages {
    /// What a path names in `spec.images`.
    pub version: &'static str,
    vllm: Vllm,
    sglang: Sglang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vllm {
    nvidia: &'static str,
    amd: &'static str,
    google: &'static str,
    intel: &'static str,
    cpu: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sglang {
    nvidia: &'static str,
    amd: &'static str,
}

/// The table of a path that names none, for good: a newer one has to be named.
const FIRST: &EngineImages = &TABLES[0];

/// Every released table stays as it was; newer images come as a new table and a new version of the paths.
const TABLES: [EngineImages; 1] = [EngineImages {
    version: "v1",
    vllm: Vllm {
        nvidia: "docker.io/vllm/vllm-openai:v0.23.0",
        amd: "ghcr.io/llm-d/llm-d-rocm:v0.7.0",
        google: "docker.io/vllm/vllm-tpu:v0.22.0",
        intel: "ghcr.io/llm-d/llm-d-xpu:v0.7.0",
        cpu: "ghcr.io/llm-d/llm-d-cpu:v0.7.0",
    },
    sglang: Sglang {
        nvidia: "docker.io/lmsysorg/sglang:v0.5.13.post1",
        amd: "docker.io/lmsysorg/sglang:v0.5.13.post1-rocm720-mi30x",
    },
}];

impl EngineImages {
    /// The table that a path names in `field`.
    pub(crate) fn find(version: Option<&str>, field: &str) -> Result<&'static Self, FieldError> {
        let Some(version) = version else {
            return Ok(FIRST);
        };
        TABLES
            .iter()
            .find(|table| table.version == version)
            .ok_or_else(|| {
                let known = TABLES.map(|table| table.version);
                let message = format!("no such table of images; known: {}", known.join(", "));
                FieldError::new(field, Problem::NotFound, message)
                    .value(version)
                    .nearest(version, known)
            })
    }

    /// Image of vLLM for the accelerators of a vendor.
    pub(crate) fn vllm(&self, vendor: Vendor) -> &'static str {
        match vendor {
            Vendor::Nvidia => self.vllm.nvidia,
            Vendor::Amd => self.vllm.amd,
            Vendor::Google => self.vllm.google,
            Vendor::Intel => self.vllm.intel,
            Vendor::Cpu | Vendor::None => self.vllm.cpu,
        }
    }
}

impl EngineImages {
    /// Image of SGLang for the accelerators of a vendor; other vendors than these two have none.
    pub(crate) fn sglang(&self, vendor: Vendor) -> &'static str {
        match vendor {
            Vendor::Amd => self.sglang.amd,
            Vendor::Nvidia | Vendor::Intel | Vendor::Google | Vendor::Cpu | Vendor::None => {
                self.sglang.nvidia
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_table_keeps_the_first_and_an_unknown_one_is_named() {
        assert_eq!(EngineImages::find(None, "images").unwrap().version, "v1");
        assert_eq!(EngineImages::find(Some("v1"), "images").unwrap(), FIRST);
        let error = EngineImages::find(Some("v99"), "spec.images")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("spec.images") && error.contains("known: v1"),
            "{error}"
        );
    }
}
