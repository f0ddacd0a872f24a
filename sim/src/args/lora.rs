//! LoRA adapters on the command line.

/// A LoRA adapter as vLLM's `--lora-modules` takes it: JSON with `name`, or `name=path`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct LoraModule {
    /// Model name that clients use.
    pub name: String,
    /// Where the weights would be; only reported by `/v1/models`.
    #[serde(default)]
    pub path: String,
}

impl std::str::FromStr for LoraModule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let module = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| format!("not JSON with `name` and `path`: {error}"))?
        } else {
            let (name, path) = text
                .split_once('=')
                .ok_or("expected `name=path` or JSON with `name` and `path`")?;
            Self {
                name: name.into(),
                path: path.into(),
            }
        };
        if module.name.is_empty() {
            Err("the adapter's name is empty".into())
        } else {
            Ok(module)
        }
    }
}
