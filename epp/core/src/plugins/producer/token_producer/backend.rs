//! `token-producer`'s parameters of the render backend.

use std::sync::Arc;
use std::time::Duration;

use llmd_epp_api::{BuildError, RenderBackend};
use serde::Deserialize;

use crate::config::GoDuration;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Vllm {
    url: String,
    timeout: GoDuration,
    mm_timeout: GoDuration,
}

impl Default for Vllm {
    fn default() -> Self {
        Self {
            url: "http://localhost:8000".to_owned(),
            timeout: GoDuration(Duration::from_secs(5)),
            mm_timeout: GoDuration(Duration::from_secs(30)),
        }
    }
}

impl Vllm {
    pub(super) fn resolve(self, model: &str) -> Result<Arc<RenderBackend>, BuildError> {
        let Self {
            url,
            timeout: GoDuration(timeout),
            mm_timeout: GoDuration(media_timeout),
        } = self;
        let url = url.trim().trim_end_matches('/');
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
            let reason = "must be http://host:port; engines render over plain HTTP";
            return Err(BuildError::value("vllm.url", reason));
        }
        for (field, value) in [("vllm.timeout", timeout), ("vllm.mmTimeout", media_timeout)] {
            if value.is_zero() {
                return Err(BuildError::value(field, "must be greater than 0"));
            }
        }
        if model.is_empty() {
            let reason = "must name the model that vLLM renders for";
            return Err(BuildError::value("modelName", reason));
        }
        Ok(Arc::new(RenderBackend {
            url: url.into(),
            model: model.into(),
            timeout,
            media_timeout,
        }))
    }
}
