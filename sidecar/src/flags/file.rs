//! Flags from YAML: `--configuration` and `--configuration-file`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use llmd_process::pflag::Flags;
use serde_yaml::Value;

use super::OptionError;

/// The flags that the YAML gives, if there is one.
pub(super) fn read(flags: &Flags) -> Result<Option<Vec<OsString>>, OptionError> {
    let (inline, path) = (flags.string("configuration"), flags.string("configuration-file"));
    let (flag, text) = match (inline.as_str(), path.as_str()) {
        ("", "") => return Ok(None),
        (inline, "") => ("configuration", inline.to_owned()),
        ("", path) => {
            let failed = |error: std::io::Error| wrong("configuration-file", &format!("{path}: {error}"));
            (
                "configuration-file",
                std::fs::read_to_string(path).map_err(failed)?,
            )
        }
        _ => {
            return Err(wrong(
                "configuration-file",
                "cannot be used together with --configuration: give one of them",
            ));
        }
    };
    let members: BTreeMap<String, Value> =
        serde_yaml::from_str(&text).map_err(|error| wrong(flag, &error.to_string()))?;
    let arguments = members.iter().map(|(name, value)| {
        let text = scalar(value)
            .ok_or_else(|| wrong(flag, &format!("{name}: give a text, number, flag or list")))?;
        Ok(format!("--{name}={text}").into())
    });
    arguments.collect::<Result<_, _>>().map(Some)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Sequence(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

fn wrong(flag: &'static str, cause: &str) -> OptionError {
    OptionError::Configuration {
        flag,
        cause: cause.to_owned(),
    }
}
