//! Turns one replica of a workload into the processes of one pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe as RenderedProbe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::env::{self, EnvSource};
use super::plan::{Plan, Workload};
use super::ports::{self, PortAllocator, PortMap};
use super::program::{self, Program};
use super::volumes::{self, Mounts, VolumeSource};
use crate::error::LocalError;
use crate::gpus;
use crate::probe::{Action, Probe, Probes};

/// What the machine offers to the pods of a run.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The llmd binary.
    pub executable: PathBuf,
    /// Private directory of the run.
    pub dir: PathBuf,
    /// The user's environment.
    pub env: BTreeMap<String, String>,
    /// Directories that stand for claims.
    pub claims: BTreeMap<String, PathBuf>,
}

/// One process to run.
#[derive(Clone, Debug)]
pub struct ContainerPlan {
    /// Container name.
    pub name: String,
    /// Executable.
    pub program: Program,
    /// Arguments in their local form.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Rendered port → local port.
    pub ports: PortMap,
    /// Probes on local ports.
    pub probes: Probes,
}

/// One pod to run.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Pod name, `<workload>-<number>`.
    pub name: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Processes.
    pub containers: Vec<ContainerPlan>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl PodPlan {
    /// The local port for a rendered one, whichever container has it.
    pub fn port(&self, rendered: u16) -> Option<u16> {
        self.containers
            .iter()
            .find_map(|container| container.ports.get(rendered))
    }
}

/// Variables of the user that our own roles see; engines see all of them, because a `vllm` in a virtual
/// environment needs them.
const PASSED_TO_OWN: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "NO_COLOR",
    "LLMD_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
];

/// Checks everything about `workload` that can be checked without starting it: programs, environment, volumes,
/// probes.
pub fn check(workload: &Workload, plan: &Plan, machine: &Machine) -> Result<(), LocalError> {
    let allocate = |_: u16| Some(1);
    let spec = workload.spec();
    let source = VolumeSource {
        pod: &workload.name,
        root: &machine.dir,
        config_maps: &plan.config_maps,
        claims: &machine.claims,
    };
    volumes::check(spec, &source)?;
    for container in &spec.containers {
        container_plan(
            workload,
            container,
            &workload.name,
            plan,
            machine,
            &allocate,
            &Mounts::default(),
            &[],
        )?;
    }
    Ok(())
}

/// Builds the pod `name` of `workload`: allocates ports, writes volumes, translates.
pub fn build(
    workload: &Workload,
    name: &str,
    plan: &Plan,
    machine: &Machine,
    allocator: &PortAllocator,
    devices: &[u32],
) -> Result<PodPlan, LocalError> {
    let spec = workload.spec();
    let source = VolumeSource {
        pod: name,
        root: &machine.dir,
        config_maps: &plan.config_maps,
        claims: &machine.claims,
    };
    let allocate = |rendered: u16| {
        plan.fixed_port(workload, rendered)
            .or_else(|| allocator.allocate())
    };
    let mut containers = Vec::with_capacity(spec.containers.len());
    for container in &spec.containers {
        let mounts = volumes::materialise(
            spec,
            container.volume_mounts.as_deref().unwrap_or_default(),
            &source,
        )?;
        containers.push(container_plan(
            workload, container, name, plan, machine, &allocate, &mounts, devices,
        )?);
    }
    Ok(PodPlan {
        name: name.to_owned(),
        labels: workload.labels().clone(),
        containers,
        grace: Duration::from_secs(
            spec.termination_grace_period_seconds
                .unwrap_or(30)
                .max(0)
                .unsigned_abs(),
        ),
    })
}

#[allow(clippy::too_many_arguments)] // one call per container; a struct for it would only rename the list
fn container_plan(
    workload: &Workload,
    container: &Container,
    pod: &str,
    plan: &Plan,
    machine: &Machine,
    allocate: &dyn Fn(u16) -> Option<u16>,
    mounts: &Mounts,
    devices: &[u32],
) -> Result<ContainerPlan, LocalError> {
    let search = machine.env.get("PATH").map(std::ffi::OsStr::new);
    let program = program::resolve(container, &workload.reference(), &machine.executable, search)?;
    let source = EnvSource {
        pod,
        namespace: &plan.namespace,
        labels: workload.labels(),
        service_account: workload
            .spec()
            .service_account_name
            .as_deref()
            .unwrap_or("default"),
        config_maps: &plan.config_maps,
        user: &machine.env,
        container: &container.name,
    };
    if container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty())
    {
        return Err(LocalError::Unsupported {
            object: workload.reference(),
            what: "envFrom".to_owned(),
        });
    }
    let rendered_env = env::resolve(container.env.as_deref().unwrap_or_default(), &source)?;
    let mut args: Vec<String> = program
        .leading
        .iter()
        .chain(container.args.iter().flatten())
        .map(|arg| env::expand(arg, &rendered_env))
        .collect();
    let declared = container.ports.as_deref().unwrap_or_default();
    let declared: Vec<u16> = declared
        .iter()
        .filter_map(|port| u16::try_from(port.container_port).ok())
        .collect();
    name_silent_ports(workload, container, &program, &declared, &rendered_env, &mut args)?;

    let mut ports = PortMap::default();
    for rendered in declared
        .iter()
        .copied()
        .chain(ports::port_values(&args, &rendered_env))
    {
        if ports.get(rendered).is_none() {
            ports.insert(rendered, allocate(rendered).ok_or(LocalError::NoFreePort)?);
        }
    }
    let args = ports
        .rewrite_args(&args)
        .iter()
        .map(|arg| mounts.rewrite(arg))
        .collect();
    let probes = Probes {
        startup: probe(workload, container, container.startup_probe.as_ref(), &ports)?,
        readiness: probe(workload, container, container.readiness_probe.as_ref(), &ports)?,
        liveness: probe(workload, container, container.liveness_probe.as_ref(), &ports)?,
    };
    let mut env: BTreeMap<String, String> = inherited(&machine.env, program.own);
    if !devices.is_empty() {
        env.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus::visible_devices(devices));
    }
    for (name, value) in &rendered_env {
        env.insert(name.clone(), mounts.rewrite(&ports.rewrite_named(name, value)));
    }
    Ok(ContainerPlan {
        name: container.name.clone(),
        program,
        args,
        env: env.into_iter().collect(),
        ports,
        probes,
    })
}

/// What a program gets of the user's environment. Our own settings stay here: the router's API key is
/// none of an engine's business.
fn inherited(user: &BTreeMap<String, String>, own: bool) -> BTreeMap<String, String> {
    let keep = |name: &str| {
        if own {
            PASSED_TO_OWN.contains(&name) || name.starts_with("OTEL_")
        } else {
            !name.starts_with("LLMD_")
        }
    };
    user.iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Adds the flags that the program would otherwise take defaults for: the address, and each container port that
/// no flag or variable names.
fn name_silent_ports(
    workload: &Workload,
    container: &Container,
    program: &Program,
    declared: &[u16],
    env: &[(String, String)],
    args: &mut Vec<String>,
) -> Result<(), LocalError> {
    for port in declared {
        let text = port.to_string();
        let named = args
            .iter()
            .chain(env.iter().map(|(_, value)| value))
            .any(|value| mentions(value, &text));
        if named {
            continue;
        }
        let default = program
            .default_ports
            .iter()
            .find(|(default, flag)| default == port && !ports::has_flag(args, flag));
        let Some((_, flag)) = default else {
            return Err(LocalError::UnmovablePort {
                workload: workload.reference(),
                container: container.name.clone(),
                port: *port,
            });
        };
        args.push(format!("{flag}={port}"));
    }
    if let Some(flag) = program.host_flag
        && !ports::has_flag(args, flag)
    {
        args.push(format!("{flag}=127.0.0.1"));
    }
    Ok(())
}

/// Whether `number` stands in `text` as a whole number.
fn mentions(text: &str, number: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits == number)
}

fn probe(
    workload: &Workload,
    container: &Container,
    rendered: Option<&RenderedProbe>,
    ports: &PortMap,
) -> Result<Option<Probe>, LocalError> {
    let Some(rendered) = rendered else { return Ok(None) };
    let refuse = |what: String| LocalError::Unsupported {
        object: workload.reference(),
        what,
    };
    let local = |port: &IntOrString| {
        let number = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .and_then(|port| u16::try_from(port.container_port).ok()),
        };
        number.and_then(|number| ports.get(number)).ok_or_else(|| {
            refuse(format!(
                "a probe of container `{}` on a port it does not have",
                container.name
            ))
        })
    };
    let action = if let Some(http) = &rendered.http_get {
        if http
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        {
            return Err(refuse("an https probe".to_owned()));
        }
        Action::Http {
            port: local(&http.port)?,
            path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
        }
    } else if let Some(grpc) = &rendered.grpc {
        Action::Grpc {
            port: local(&IntOrString::Int(grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        }
    } else if let Some(tcp) = &rendered.tcp_socket {
        Action::Tcp {
            port: local(&tcp.port)?,
        }
    } else {
        return Err(refuse("an exec probe".to_owned()));
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(
            value
                .and_then(|value| u64::try_from(value).ok())
                .unwrap_or(default),
        )
    };
    Ok(Some(Probe {
        action,
        initial_delay: seconds(rendered.initial_delay_seconds, 0),
        period: seconds(rendered.period_seconds, 10).max(Duration::from_secs(1)),
        timeout: seconds(rendered.timeout_seconds, 1).max(Duration::from_secs(1)),
        failure_threshold: rendered
            .failure_threshold
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(3)
            .max(1),
    }))
}

/// The directory of a pod's volumes, to be removed with it.
pub fn volume_dir(machine: &Machine, pod: &str) -> PathBuf {
    Path::new(&machine.dir).join("pods").join(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_get_the_users_environment_without_our_settings() {
        let user: BTreeMap<String, String> = ["PATH", "HF_HOME", "LLMD_API_KEY", "OTEL_SERVICE_NAME"]
            .map(|name| (name.to_owned(), "x".to_owned()))
            .into();
        let names = |own| inherited(&user, own).into_keys().collect::<Vec<_>>();
        assert_eq!(names(false), ["HF_HOME", "OTEL_SERVICE_NAME", "PATH"]);
        assert!(!names(true).contains(&"LLMD_API_KEY".to_owned()));
    }
}
