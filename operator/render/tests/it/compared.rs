//! A pod of a guide and ours, field by field in both directions: what differs without a row fails, and so does a row
//! that nothing needs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// A field that is not as in the guide, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pointer: &'static str,
    how: How,
    #[allow(dead_code, reason = "read by people, and printed when the row fails")]
    why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Ours, as JSON or as the text itself.
    Changed(&'static str),
    Added,
    Removed,
}

impl Row {
    pub(crate) const fn changed(pointer: &'static str, ours: &'static str, why: &'static str) -> Self {
        let how = How::Changed(ours);
        Self { pointer, how, why }
    }

    pub(crate) const fn added(pointer: &'static str, why: &'static str) -> Self {
        let how = How::Added;
        Self { pointer, how, why }
    }

    pub(crate) const fn removed(pointer: &'static str, why: &'static str) -> Self {
        let how = How::Removed;
        Self { pointer, how, why }
    }

    pub(crate) fn is(&self, pointer: &str) -> bool {
        self.pointer == pointer
    }

    fn covers(&self, pointer: &str) -> bool {
        let rest = pointer.strip_prefix(self.pointer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// `guide` and `ours` are pod specs; the guide's lists are written as maps, as [`keyed`] makes of ours.
pub(crate) fn both_ways(guide: &Value, ours: &Value, rows: &[Row]) {
    let mut found = BTreeMap::new();
    leaves("", &keyed(ours), &mut found);
    let mut wanted = BTreeMap::new();
    leaves("", guide, &mut wanted);
    let pointers: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for pointer in pointers {
        let (theirs, ours) = (wanted.get(pointer), found.get(pointer));
        if theirs == ours {
            continue;
        }
        let row = rows.iter().position(|row| {
            row.covers(pointer)
                && match row.how {
                    How::Added => theirs.is_none(),
                    How::Removed => ours.is_none(),
                    How::Changed(value) => {
                        theirs.is_some()
                            && ours.is_some_and(|ours| match ours {
                                Value::String(text) => text == value.trim_matches('"'),
                                other => {
                                    serde_json::from_str(value).is_ok_and(|value: Value| value == *other)
                                }
                            })
                    }
                }
        });
        match row {
            Some(row) => {
                used.insert(row);
            }
            None => wrong.push(format!("{pointer}: guide {theirs:?}, ours {ours:?}")),
        }
    }
    let idle = rows.iter().enumerate().filter(|(index, _)| !used.contains(index));
    wrong.extend(idle.map(|(_, row)| format!("{row:?} explains nothing")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lists as maps: arguments by flag, variables, ports and volumes by name, mounts by path.
fn keyed(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for kind in ["containers", "initContainers"] {
        for container in pod[kind].as_array_mut().into_iter().flatten() {
            let of = |name: &str| container[name].as_array().cloned().unwrap_or_default();
            let flags = arguments(&of("args"));
            let env = by(&of("env"), "name", |one| match &one["value"] {
                Value::Null => one["valueFrom"].clone(),
                value => value.clone(),
            });
            let ports = by(&of("ports"), "name", |one| one["containerPort"].clone());
            let mounts = by(&of("volumeMounts"), "mountPath", |one| one["name"].clone());
            for (name, map) in [
                ("args", flags),
                ("env", env),
                ("ports", ports),
                ("volumeMounts", mounts),
            ] {
                container[name] = map;
            }
        }
    }
    pod["volumes"] = by(
        &pod["volumes"].as_array().cloned().unwrap_or_default(),
        "name",
        |one| {
            let mut one = one.as_object().unwrap().clone();
            one.remove("name");
            one.into_iter().next().unwrap().1
        },
    );
    pod
}

/// `--flag=value`, `--flag value...` and bare words.
fn arguments(args: &[Value]) -> Value {
    let mut flags = Map::new();
    let mut open: Option<String> = None;
    for argument in args.iter().filter_map(Value::as_str) {
        match (argument.split_once('='), &open) {
            (Some((flag, value)), _) if flag.starts_with("--") => {
                flags.insert(flag.to_owned(), value.into());
                open = None;
            }
            (_, Some(flag)) if !argument.starts_with("--") => {
                let before = flags[flag].as_str().unwrap().to_owned();
                flags.insert(flag.clone(), format!("{before} {argument}").trim().into());
            }
            _ => {
                flags.insert(argument.to_owned(), "".into());
                open = (argument == "--served-model-name").then(|| argument.to_owned());
            }
        }
    }
    Value::Object(flags)
}

fn by(list: &[Value], key: &str, value: impl Fn(&Value) -> Value) -> Value {
    let pairs = list
        .iter()
        .map(|one| (one[key].as_str().unwrap().to_owned(), value(one)));
    Value::Object(pairs.collect())
}

fn leaves(pointer: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        // a volume without settings is still a volume
        Value::Object(members) if !(members.is_empty() && pointer.starts_with("/volumes/")) => {
            for (key, child) in members {
                leaves(&format!("{pointer}/{}", escaped(key)), child, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, child) in items.iter().enumerate() {
                leaves(&format!("{pointer}/{index}"), child, found);
            }
        }
        Value::Null => {}
        _ => {
            found.insert(pointer.to_owned(), value.clone());
        }
    }
}
