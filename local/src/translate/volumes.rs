//! Puts a pod's volumes into a private directory and rewrites the paths that lead to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PodSpec, Volume, VolumeMount};

use crate::error::LocalError;

/// Where the volumes of a pod come from.
#[derive(Debug)]
pub struct VolumeSource<'a> {
    /// Pod name, also the directory's name.
    pub pod: &'a str,
    /// Private directory of the run.
    pub root: &'a Path,
    /// Rendered ConfigMaps by name.
    pub config_maps: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// Directories that stand for claims.
    pub claims: &'a BTreeMap<String, PathBuf>,
}

/// Mount path in the container → directory on this machine, longest path first.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    pairs: Vec<(String, PathBuf)>,
}

/// What a volume becomes on this machine.
enum Backing<'a> {
    Empty,
    Files(Vec<(&'a str, &'a str)>),
    Existing(PathBuf),
}

/// Checks that every volume of `spec` has a counterpart, without touching the disk.
pub fn check(spec: &PodSpec, source: &VolumeSource<'_>) -> Result<(), LocalError> {
    for volume in spec.volumes.iter().flatten() {
        backing(volume, source)?;
    }
    Ok(())
}

/// Creates the volumes of one container's mounts and returns where they are.
pub fn materialise(
    spec: &PodSpec,
    mounts: &[VolumeMount],
    source: &VolumeSource<'_>,
) -> Result<Mounts, LocalError> {
    let mut pairs = Vec::new();
    for mount in mounts {
        let volume = spec
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == mount.name);
        let Some(volume) = volume else {
            return Err(unsupported(
                source,
                &mount.name,
                "a mount without a volume of that name",
            ));
        };
        let shared_memory = volume
            .empty_dir
            .as_ref()
            .is_some_and(|dir| dir.medium.as_deref() == Some("Memory"));
        if shared_memory && mount.mount_path == "/dev/shm" {
            continue; // the machine's own /dev/shm serves
        }
        let dir = match backing(volume, source)? {
            Backing::Existing(path) => path,
            Backing::Empty => create(source, &volume.name)?,
            Backing::Files(files) => {
                let dir = create(source, &volume.name)?;
                for (name, content) in files {
                    write_private(&dir.join(name), content)?;
                }
                dir
            }
        };
        let dir = match mount.sub_path.as_deref() {
            Some(sub) if !sub.is_empty() => dir.join(sub),
            _ => dir,
        };
        pairs.push((mount.mount_path.trim_end_matches('/').to_owned(), dir));
    }
    pairs.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    Ok(Mounts { pairs })
}

fn backing<'a>(volume: &'a Volume, source: &VolumeSource<'a>) -> Result<Backing<'a>, LocalError> {
    if volume.empty_dir.is_some() {
        return Ok(Backing::Empty);
    }
    if let Some(reference) = &volume.config_map {
        let Some(data) = source.config_maps.get(&reference.name) else {
            let what = format!(
                "ConfigMap `{}`, which is not among the rendered objects",
                reference.name
            );
            return Err(unsupported(source, &volume.name, &what));
        };
        let files = match &reference.items {
            Some(items) => items
                .iter()
                .filter_map(|item| {
                    data.get(&item.key)
                        .map(|text| (item.path.as_str(), text.as_str()))
                })
                .collect(),
            None => data
                .iter()
                .map(|(key, text)| (key.as_str(), text.as_str()))
                .collect(),
        };
        return Ok(Backing::Files(files));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let path = source
            .claims
            .get(&claim.claim_name)
            .ok_or_else(|| LocalError::MissingClaim {
                claim: claim.claim_name.clone(),
            })?;
        if !path.is_dir() {
            return Err(LocalError::NoSuchDirectory {
                claim: claim.claim_name.clone(),
                path: path.clone(),
            });
        }
        return Ok(Backing::Existing(path.clone()));
    }
    if let Some(host) = &volume.host_path {
        return Ok(Backing::Existing(PathBuf::from(&host.path)));
    }
    Err(unsupported(
        source,
        &volume.name,
        "a volume that is no emptyDir, configMap, hostPath or claim",
    ))
}

fn unsupported(source: &VolumeSource<'_>, volume: &str, what: &str) -> LocalError {
    LocalError::Unsupported {
        object: format!("pod `{}`", source.pod),
        what: format!("volume `{volume}`: {what}"),
    }
}

fn create(source: &VolumeSource<'_>, volume: &str) -> Result<PathBuf, LocalError> {
    let dir = source.root.join("pods").join(source.pod).join(volume);
    fs::create_dir_all(&dir).map_err(|cause| LocalError::File {
        action: "create",
        path: dir.clone(),
        source: cause,
    })?;
    Ok(dir)
}

/// Writes a file that only the user may read.
pub fn write_private(path: &Path, content: &str) -> Result<(), LocalError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let open = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    open.and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|source| LocalError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
}

impl Mounts {
    /// Rewrites a path, or the value of a `--flag=path`, that lies under a mount.
    pub fn rewrite(&self, text: &str) -> String {
        let (head, value) = match text.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => (&text[..=flag.len()], value),
            _ => ("", text),
        };
        for (mount, dir) in &self.pairs {
            let Some(rest) = value.strip_prefix(mount.as_str()) else {
                continue;
            };
            if rest.is_empty() || rest.starts_with('/') {
                return format!("{head}{}{rest}", dir.display());
            }
        }
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource,
    };

    use super::*;

    fn mount(name: &str, path: &str) -> VolumeMount {
        VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            ..Default::default()
        }
    }

    fn spec() -> PodSpec {
        PodSpec {
            volumes: Some(vec![
                Volume {
                    name: "config".into(),
                    config_map: Some(ConfigMapVolumeSource {
                        name: "x-epp".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                Volume {
                    name: "cache".into(),
                    empty_dir: Some(EmptyDirVolumeSource::default()),
                    ..Default::default()
                },
                Volume {
                    name: "shm".into(),
                    empty_dir: Some(EmptyDirVolumeSource {
                        medium: Some("Memory".into()),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            ]),
            ..Default::default()
        }
    }

    #[test]
    fn config_maps_become_private_files_and_paths_lead_to_them() {
        let root = tempfile::tempdir().unwrap();
        let data = BTreeMap::from([("config.yaml".to_owned(), "a: 1\n".to_owned())]);
        let config_maps = BTreeMap::from([("x-epp".to_owned(), data)]);
        let source = VolumeSource {
            pod: "x-epp-0",
            root: root.path(),
            config_maps: &config_maps,
            claims: &BTreeMap::new(),
        };
        let mounts = [
            mount("config", "/config"),
            mount("cache", "/config/cache"),
            mount("shm", "/dev/shm"),
        ];
        let mounts = materialise(&spec(), &mounts, &source).unwrap();
        let argument = mounts.rewrite("--config-file=/config/config.yaml");
        let path = argument.strip_prefix("--config-file=").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "a: 1\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            mounts.rewrite("/config/cache/x").ends_with("/x-epp-0/cache/x"),
            "the longest mount wins"
        );
        for untouched in [
            "--name=/configuration",
            "/configx",
            "relative/config",
            "/dev/shm/x",
            "--config",
        ] {
            assert_eq!(mounts.rewrite(untouched), untouched);
        }
    }

    #[test]
    fn a_claim_needs_a_directory() {
        let claim = Volume {
            name: "model".into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: "weights".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = PodSpec {
            volumes: Some(vec![claim]),
            ..Default::default()
        };
        let root = tempfile::tempdir().unwrap();
        let none = BTreeMap::new();
        let given = BTreeMap::from([("weights".to_owned(), root.path().to_owned())]);
        let config_maps = BTreeMap::new();
        let source = |claims| VolumeSource {
            pod: "p",
            root: root.path(),
            config_maps: &config_maps,
            claims,
        };
        let error = check(&spec, &source(&none)).unwrap_err().to_string();
        assert!(error.contains("--claim weights=DIRECTORY"), "{error}");
        check(&spec, &source(&given)).unwrap();
        let mounts = materialise(&spec, &[mount("model", "/model-cache")], &source(&given)).unwrap();
        assert_eq!(
            mounts.rewrite("/model-cache/q/w"),
            format!("{}/q/w", root.path().display())
        );
    }
}
