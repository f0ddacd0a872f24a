//! Dependencies between crates go one way (design, "Rules of the house", 1).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use crate::cargo::{Metadata, Node};

/// Each crate of the house with the crates of the house it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("llmd-openai", &[]),
    ("llmd-process", &[]),
    ("llmd-crds", &[]),
    ("llmd-epp-api", &["llmd-openai"]),
    ("llmd-kv", &["llmd-epp-api"]),
    ("llmd-epp-core", &["llmd-epp-api", "llmd-kv", "llmd-openai"]),
    ("llmd-proxy", &["llmd-openai", "llmd-process"]),
    (
        "llmd-epp",
        &[
            "llmd-epp-core",
            "llmd-epp-api",
            "llmd-openai",
            "llmd-proxy",
            "llmd-process",
            "llmd-crds",
        ],
    ),
    ("llmd-sim", &["llmd-openai", "llmd-proxy", "llmd-process"]),
    ("llmd-render", &["llmd-crds", "llmd-epp-core"]),
    ("llmd-local", &["llmd-render", "llmd-process"]),
    (
        "llmd",
        &[
            "llmd-crds",
            "llmd-epp",
            "llmd-local",
            "llmd-process",
            "llmd-render",
            "llmd-sim",
        ],
    ),
    (
        "llmd-e2e",
        &[
            "llmd-epp",
            "llmd-epp-core",
            "llmd-epp-api",
            "llmd-openai",
            "llmd-process",
            "llmd-render",
            "llmd-sim",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that may not reach the network, a Kubernetes client or a runtime, however indirectly.
const PURE: [&str; 6] = [
    "llmd-openai",
    "llmd-crds",
    "llmd-epp-api",
    "llmd-kv",
    "llmd-epp-core",
    "llmd-render",
];

/// What a pure crate may never have in its graph.
const IMPURE: [&str; 9] = [
    "tokio",
    "hyper",
    "tonic",
    "axum",
    "kube-client",
    "kube-runtime",
    "reqwest",
    "mio",
    "socket2",
];

pub(crate) fn check(metadata: &Metadata) -> anyhow::Result<()> {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (names[node.id.as_str()], node))
        .collect();
    let members: BTreeSet<&str> = metadata
        .workspace_members
        .iter()
        .map(|id| names[id.as_str()])
        .collect();
    let mut wrong = Vec::new();
    for member in &members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == member) else {
            wrong.push(format!(
                "{member} is not in the table of xtask/src/lint/arrows.rs"
            ));
            continue;
        };
        for target in direct(nodes[member], &names) {
            if members.contains(target) && !allowed.contains(&target) {
                wrong.push(format!("{member} → {target} is not an allowed arrow"));
            }
        }
    }
    for pure in PURE {
        for path in paths_to_impure(pure, &nodes, &names) {
            wrong.push(format!("{pure} must stay pure, but: {path}"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Ordinary dependencies; tests and build scripts may use what they like.
fn direct<'a>(node: &Node, names: &BTreeMap<&str, &'a str>) -> Vec<&'a str> {
    node.deps
        .iter()
        .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
        .map(|dependency| names[dependency.pkg.as_str()])
        .collect()
}

fn paths_to_impure(root: &str, nodes: &BTreeMap<&str, &Node>, names: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut open = vec![vec![root.to_owned()]];
    while let Some(path) = open.pop() {
        let Some(last) = path.last().cloned() else {
            continue;
        };
        if IMPURE.contains(&last.as_str()) {
            found.push(path.join(" → "));
            continue;
        }
        for next in nodes
            .get(last.as_str())
            .map(|node| direct(node, names))
            .unwrap_or_default()
        {
            if seen.insert(next.to_owned()) {
                open.push(path.iter().cloned().chain([next.to_owned()]).collect());
            }
        }
    }
    found
}
