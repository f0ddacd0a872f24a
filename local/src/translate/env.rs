//! Resolves a container's rendered environment as the kubelet would, with the user's own variables in the place
//! of Secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;

use crate::error::LocalError;

/// What the downward API and the references of one container resolve to.
#[derive(Debug)]
pub struct EnvSource<'a> {
    /// Pod name.
    pub pod: &'a str,
    /// Namespace of the rendered objects.
    pub namespace: &'a str,
    /// Pod labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Service account, for `spec.serviceAccountName`.
    pub service_account: &'a str,
    /// Rendered ConfigMaps by name.
    pub config_maps: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// The user's environment.
    pub user: &'a BTreeMap<String, String>,
    /// Container, for messages.
    pub container: &'a str,
}

/// Resolves `vars` in order; `$(NAME)` may refer to earlier ones, as in Kubernetes.
pub fn resolve(vars: &[EnvVar], source: &EnvSource<'_>) -> Result<Vec<(String, String)>, LocalError> {
    let mut resolved: Vec<(String, String)> = Vec::with_capacity(vars.len());
    for var in vars {
        if let Some(value) = resolve_one(var, source, &resolved)? {
            resolved.push((var.name.clone(), value));
        }
    }
    Ok(resolved)
}

fn resolve_one(
    var: &EnvVar,
    source: &EnvSource<'_>,
    before: &[(String, String)],
) -> Result<Option<String>, LocalError> {
    let Some(from) = &var.value_from else {
        return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), before)));
    };
    if let Some(field) = &from.field_ref {
        return field_value(&field.field_path, source)
            .map(Some)
            .ok_or_else(|| unsupported(source, &var.name, &format!("fieldRef `{}`", field.field_path)));
    }
    if let Some(secret) = &from.secret_key_ref {
        return match source.user.get(&var.name) {
            Some(value) => Ok(Some(value.clone())),
            None if secret.optional == Some(true) => Ok(None),
            None => Err(LocalError::MissingSecret {
                container: source.container.to_owned(),
                variable: var.name.clone(),
                secret: secret.name.clone(),
                key: secret.key.clone(),
            }),
        };
    }
    if let Some(reference) = &from.config_map_key_ref {
        let value = source
            .config_maps
            .get(&reference.name)
            .and_then(|data| data.get(&reference.key));
        return match value {
            Some(value) => Ok(Some(value.clone())),
            None if reference.optional == Some(true) => Ok(None),
            None => Err(unsupported(
                source,
                &var.name,
                &format!(
                    "configMapKeyRef `{}/{}`, which is not among the rendered objects",
                    reference.name, reference.key
                ),
            )),
        };
    }
    Err(unsupported(source, &var.name, "resourceFieldRef"))
}

fn unsupported(source: &EnvSource<'_>, variable: &str, what: &str) -> LocalError {
    LocalError::Unsupported {
        object: format!("container `{}`", source.container),
        what: format!("env `{variable}` from {what}"),
    }
}

fn field_value(path: &str, source: &EnvSource<'_>) -> Option<String> {
    let label = path
        .strip_prefix("metadata.labels['")
        .and_then(|rest| rest.strip_suffix("']"));
    if let Some(label) = label {
        return Some(source.labels.get(label).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => source.pod.to_owned(),
        "metadata.namespace" => source.namespace.to_owned(),
        "spec.serviceAccountName" => source.service_account.to_owned(),
        "spec.nodeName" => "localhost".to_owned(),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => "127.0.0.1".to_owned(),
        _ => return None,
    })
}

/// Replaces `$(NAME)` by the value of an earlier variable; unknown names stay and `$$(` is an escaped `$(`, as
/// Kubernetes has it for `env`, `command` and `args`.
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        let value = name.and_then(|(name, after)| {
            known
                .iter()
                .rev()
                .find(|(key, _)| key == name)
                .map(|(_, value)| (value, after))
        });
        if let Some((value, after)) = value {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EnvVarSource, ObjectFieldSelector, SecretKeySelector};

    use super::*;

    fn with_source<T>(user: &[(&str, &str)], run: impl FnOnce(&EnvSource<'_>) -> T) -> T {
        let user = user
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let labels = BTreeMap::from([("llm-d.ai/role".to_owned(), "decode".to_owned())]);
        run(&EnvSource {
            pod: "x-decode-0",
            namespace: "default",
            labels: &labels,
            service_account: "x",
            config_maps: &BTreeMap::new(),
            user: &user,
            container: "modelserver",
        })
    }

    fn field(name: &str, path: &str) -> EnvVar {
        EnvVar {
            name: name.into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: path.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn secret(name: &str, optional: bool) -> EnvVar {
        EnvVar {
            name: name.into(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: "llm-d-hf-token".into(),
                    key: "HF_TOKEN".into(),
                    optional: Some(optional),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_downward_api_names_this_pod_on_loopback() {
        let vars = [
            field("POD_IP", "status.podIP"),
            field("POD_NAME", "metadata.name"),
            field("NAMESPACE", "metadata.namespace"),
            field("ROLE", "metadata.labels['llm-d.ai/role']"),
            EnvVar {
                name: "TOPIC".into(),
                value: Some("kv@$(POD_IP)@$(UNKNOWN)@$$(POD_IP)".into()),
                ..Default::default()
            },
        ];
        let resolved = with_source(&[], |source| resolve(&vars, source)).unwrap();
        let values: Vec<&str> = resolved.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            values,
            [
                "127.0.0.1",
                "x-decode-0",
                "default",
                "decode",
                "kv@127.0.0.1@$(UNKNOWN)@$(POD_IP)"
            ]
        );
    }

    #[test]
    fn a_secret_comes_from_the_users_variable_of_the_same_name() {
        let resolved = with_source(&[("HF_TOKEN", "t0k")], |source| {
            resolve(&[secret("HF_TOKEN", false)], source)
        });
        assert_eq!(resolved.unwrap(), [("HF_TOKEN".to_owned(), "t0k".to_owned())]);
    }

    #[test]
    fn a_missing_secret_says_which_variable_to_set() {
        let error = with_source(&[], |source| resolve(&[secret("HF_TOKEN", false)], source)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("llm-d-hf-token") && text.contains("export HF_TOKEN="),
            "{text}"
        );
        let optional = with_source(&[], |source| resolve(&[secret("HF_TOKEN", true)], source));
        assert_eq!(optional.unwrap(), []);
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error =
            with_source(&[], |source| resolve(&[field("X", "status.startTime")], source)).unwrap_err();
        assert!(error.to_string().contains("status.startTime"), "{error}");
    }
}
