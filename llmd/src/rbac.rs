//! `llmd rbac`: what the operator is allowed to do on a cluster.

use std::fmt::Write;

use llmd_operator::rbac::{Rule, Scope, rules};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Format};

/// The rules by scope, in the form that the chart reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    watched: Vec<&'static Rule>,
    engine_logs: Vec<&'static Rule>,
    cluster: Vec<&'static Rule>,
    own: Vec<&'static Rule>,
}

/// Prints the table.
pub(crate) fn print(format: Format) -> Result<(), Failure> {
    let of = |scope| rules(scope).collect::<Vec<_>>();
    let all = Rules {
        watched: of(Scope::Watched),
        engine_logs: of(Scope::EngineLogs),
        cluster: of(Scope::Cluster),
        own: of(Scope::Own),
    };
    if format != Format::Table {
        return output::print_value(&all, format);
    }
    let mut rows = vec![
        ["SCOPE", "GROUPS", "RESOURCES", "VERBS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (scope, rules) in [
        ("watched namespaces", all.watched),
        ("watched namespaces, with readEngineLogs", all.engine_logs),
        ("cluster", all.cluster),
        ("own namespace", all.own),
    ] {
        for rule in rules {
            let mut resources = rule.resources.join(",");
            if !rule.resource_names.is_empty() {
                let _ = write!(resources, " {}", rule.resource_names.join(",")); // a String takes everything
            }
            rows.push(vec![
                scope.to_owned(),
                rule.api_groups
                    .iter()
                    .map(|group| if group.is_empty() { "core" } else { group })
                    .collect::<Vec<_>>()
                    .join(","),
                resources,
                rule.verbs.join(","),
            ]);
        }
    }
    output::print(&output::columns(&rows))
}
