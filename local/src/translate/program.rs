//! Finds the program that a container's image and command stand for on this machine.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use crate::error::LocalError;

/// Names under which the `llmd` binary selects a role, which are also the names of its images.
const OWN_NAMES: [&str; 2] = ["llmd", "llmd-epp"];

/// What a container runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Executable.
    pub path: PathBuf,
    /// `argv[0]`: the role for our own binary.
    pub argv0: String,
    /// The leading arguments that came from `command`.
    pub leading: Vec<String>,
    /// Whether it is our own binary, which ends by itself when its parent dies.
    pub own: bool,
    /// Flags that carry a container port when the rendered arguments do not name it: default port → flag.
    pub default_ports: &'static [(u16, &'static str)],
    /// The flag that selects the address to listen on, added when the arguments do not have it.
    pub host_flag: Option<&'static str>,
}

/// Resolves the program of `container`; `search` is the user's `PATH`.
pub fn resolve(
    container: &Container,
    workload: &str,
    own_executable: &Path,
    search: Option<&std::ffi::OsStr>,
) -> Result<Program, LocalError> {
    let image = container.image.as_deref().unwrap_or_default();
    let command = container.command.as_deref().unwrap_or_default();
    let name = match command.first() {
        Some(first) => basename(first),
        None => image_name(image),
    };
    let leading: Vec<String> = command.iter().skip(1).cloned().collect();
    if OWN_NAMES.contains(&name) {
        let first = leading
            .first()
            .or_else(|| container.args.as_ref().and_then(|args| args.first()));
        let epp = name == "llmd-epp" || first.is_some_and(|verb| verb == "epp");
        return Ok(Program {
            path: own_executable.to_owned(),
            argv0: name.to_owned(),
            leading,
            own: true,
            default_ports: if epp { EPP_PORTS } else { ENGINE_PORTS },
            host_flag: if epp { None } else { Some("--host") },
        });
    }
    let Some(first) = command.first() else {
        return Err(LocalError::UnknownImage {
            workload: workload.to_owned(),
            image: image.to_owned(),
        });
    };
    let path = find(first, search).ok_or_else(|| LocalError::MissingProgram {
        workload: workload.to_owned(),
        program: first.clone(),
        fix: install_hint(name),
    })?;
    Ok(Program {
        path,
        argv0: first.clone(),
        leading,
        own: false,
        default_ports: ENGINE_PORTS,
        host_flag: (name == "vllm" || name.starts_with("python")).then_some("--host"),
    })
}

/// Port flags of `llmd epp`, with upstream's defaults.
const EPP_PORTS: &[(u16, &str)] = &[
    (9002, "--grpc-port"),
    (9003, "--grpc-health-port"),
    (9090, "--metrics-port"),
    (8081, "--proxy-port"),
];

/// Every engine we render takes `--port`, 8000 unless said otherwise.
const ENGINE_PORTS: &[(u16, &str)] = &[(8000, "--port")];

fn install_hint(name: &str) -> &'static str {
    match name {
        "vllm" => {
            "install it with `pip install vllm` (or activate the virtual environment that has it), or use \
             `engine.type: Simulator`"
        }
        _ => "install it, or use `engine.type: Simulator`",
    }
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `registry:5000/group/name:tag@digest` → `name`.
fn image_name(image: &str) -> &str {
    let name = basename(image);
    name.split(['@', ':']).next().unwrap_or(name)
}

fn find(program: &str, search: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    if program.contains('/') {
        return is_executable(Path::new(program)).then(|| PathBuf::from(program));
    }
    std::env::split_paths(search?)
        .map(|dir| dir.join(program))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(image: &str, command: &[&str], args: &[&str]) -> Container {
        let list =
            |items: &[&str]| (!items.is_empty()).then(|| items.iter().map(ToString::to_string).collect());
        Container {
            name: "c".into(),
            image: Some(image.into()),
            command: list(command),
            args: list(args),
            ..Default::default()
        }
    }

    #[test]
    fn our_images_run_this_binary_under_their_role_name() {
        let own = Path::new("/opt/llmd");
        let epp = resolve(
            &container("ghcr.io:5000/x/llmd-epp:v1@sha256:ab", &[], &[]),
            "w",
            own,
            None,
        )
        .unwrap();
        assert_eq!(
            (epp.argv0.as_str(), epp.path.as_path(), epp.own),
            ("llmd-epp", own, true)
        );
        assert_eq!(epp.default_ports, EPP_PORTS);
        let sim = resolve(
            &container("x/llmd:v1", &[], &["sim", "--port=8000"]),
            "w",
            own,
            None,
        )
        .unwrap();
        assert_eq!((sim.argv0.as_str(), sim.default_ports), ("llmd", ENGINE_PORTS));
        let by_command = resolve(&container("x/other", &["/llmd", "sim"], &[]), "w", own, None).unwrap();
        assert_eq!(
            (by_command.argv0.as_str(), by_command.leading),
            ("llmd", vec!["sim".to_owned()])
        );
    }

    #[test]
    fn a_missing_vllm_says_how_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let container = container("vllm/vllm-openai:v0.23.0", &["vllm", "serve"], &["m"]);
        let error = resolve(
            &container,
            "deployment/x",
            Path::new("/l"),
            Some(empty.path().as_os_str()),
        )
        .unwrap_err();
        assert!(error.to_string().contains("pip install vllm"), "{error}");
    }

    #[test]
    fn an_installed_vllm_is_found_on_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vllm");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let container = container("vllm/vllm-openai:v0.23.0", &["vllm", "serve"], &["m"]);
        let search = Some(dir.path().as_os_str());
        assert!(
            resolve(&container, "w", Path::new("/l"), search).is_err(),
            "not executable yet"
        );
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = resolve(&container, "w", Path::new("/l"), search).unwrap();
        assert_eq!((program.path, program.own), (path, false));
        assert_eq!(program.leading, ["serve"]);
    }

    #[test]
    fn a_foreign_image_without_a_command_is_refused_by_name() {
        let error = resolve(
            &container("docker.io/envoyproxy/envoy:v1.33.2", &[], &[]),
            "w",
            Path::new("/l"),
            None,
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("envoyproxy/envoy:v1.33.2")
        );
    }
}
