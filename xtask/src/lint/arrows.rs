//! Dependencies between crates go one way (design, "Rules of the house", 1).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use crate::cargo::{Metadata, Node, cargo, output};

/// Each crate of the house with the crates of the house it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("llmd-openai", &[]),
    ("llmd-process", &[]),
    ("llmd-crds", &[]),
    ("llmd-epp-api", &["llmd-openai"]),
    ("llmd-kv", &["llmd-epp-api"]),
    ("llmd-epp-core", &["llmd-epp-api", "llmd-kv", "llmd-openai"]),
    ("llmd-lease", &[]),
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
            "llmd-lease",
        ],
    ),
    ("llmd-sidecar", &["llmd-openai", "llmd-proxy", "llmd-process"]),
    ("llmd-sim", &["llmd-openai", "llmd-proxy", "llmd-process"]),
    ("llmd-wva-plan", &[]),
    ("llmd-render", &["llmd-crds", "llmd-epp-core"]),
    (
        "llmd-operator",
        &["llmd-crds", "llmd-lease", "llmd-render", "llmd-process"],
    ),
    ("llmd-local", &["llmd-render", "llmd-process"]),
    (
        "llmd",
        &[
            "llmd-crds",
            "llmd-epp",
            "llmd-kv",
            "llmd-local",
            "llmd-operator",
            "llmd-process",
            "llmd-proxy",
            "llmd-render",
            "llmd-sidecar",
            "llmd-sim",
            "llmd-wva-plan",
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
            "llmd-e2e-cluster",
        ],
    ),
    ("llmd-e2e-cluster", &["llmd-crds"]),
    // A black box: it must not share a line with the picker that it judges.
    ("llmd-epp-conformance", &[]),
    ("xtask", &[]),
];

/// Crates that may not reach the network, a Kubernetes client or a runtime, however indirectly.
const PURE: [&str; 7] = [
    "llmd-openai",
    "llmd-crds",
    "llmd-epp-api",
    "llmd-kv",
    "llmd-epp-core",
    "llmd-render",
    "llmd-wva-plan",
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
        wrong.extend(
            impure_dependencies(pure)?
                .into_iter()
                .map(|found| format!("{pure} must stay pure, but its graph holds {found}; see `cargo tree -p {pure} -e normal -i {found}`")),
        );
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

/// What a pure crate drags in when it is built by itself. Not from `cargo metadata`: that graph has the
/// features of the whole workspace, where `kube` has a client because the shells ask for one.
fn impure_dependencies(pure: &str) -> anyhow::Result<BTreeSet<&'static str>> {
    let tree = output(cargo(&[
        "tree",
        "--locked",
        "--package",
        pure,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{lib}",
    ]))?;
    let crates: BTreeSet<String> = tree.lines().map(|name| name.replace('_', "-")).collect();
    Ok(IMPURE
        .into_iter()
        .filter(|impure| crates.contains(*impure))
        .collect())
}
