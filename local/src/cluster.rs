//! Keeps the pods of a plan running: starts, replaces, drains and publishes the ready ones.

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::{Container, Context};
use crate::endpoints::{Endpoint, EndpointsFile};
use crate::error::LocalError;
use crate::events::{Events, Level};
use crate::gpus::{GpuError, Gpus};
use crate::probe::Prober;
use crate::reconcile::{Seen, Step, Wanted, next_steps};
use crate::routing;
use crate::translate::plan::{Plan, Workload};
use crate::translate::ports::PortAllocator;
use crate::translate::{self, pod::Machine};

use pod::Pod;
pub use pod::PodStatus;

/// Wait before a pod that could not be built is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Longest wait until the router stops picking a pod that leaves.
const UNROUTE_DEADLINE: Duration = Duration::from_secs(2);

/// Time between two looks at what still runs through the router.
const IDLE_LOOK: Duration = Duration::from_millis(20);

/// Longest drain when the whole run ends; a single pod that leaves gets its rendered grace period.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// The pods of one run.
#[derive(Clone, Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    context: Context,
    allocator: PortAllocator,
    gpus: Mutex<Gpus>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    file: Mutex<EndpointsFile>,
    /// Endpoints that no pod stands behind: attached engines.
    attached: Vec<Endpoint>,
    desired: watch::Sender<Option<Arc<Plan>>>,
    tasks: TaskTracker,
}

impl Cluster {
    /// An empty cluster; `attached` endpoints are always in the file.
    pub fn new(
        machine: Machine,
        gpus: Gpus,
        file: EndpointsFile,
        attached: Vec<Endpoint>,
        events: Events,
    ) -> Self {
        let context = Context {
            events,
            prober: Prober::default(),
            changed: Arc::new(Notify::new()),
            executable: machine.executable.clone(),
            dir: machine.dir.clone(),
        };
        let inner = Inner {
            context,
            allocator: PortAllocator::new(std::process::id()),
            gpus: Mutex::new(gpus),
            pods: Mutex::default(),
            file: Mutex::new(file),
            attached,
            desired: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            machine,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Checks `plan` as a whole and makes it the wanted one. On an error nothing changes.
    pub fn apply(&self, plan: Plan) -> Result<(), LocalError> {
        if let Some(running) = self.inner.plan().filter(|running| running.router != plan.router) {
            return Err(LocalError::Renamed {
                from: running.router.clone(),
                to: plan.router,
            });
        }
        for workload in &plan.workloads {
            translate::pod::check(workload, &plan, &self.inner.machine)?;
        }
        let (asked, what) = plan.gpus();
        let present = lock(&self.inner.gpus).present();
        if asked > present {
            return Err(LocalError::Gpus(GpuError::TooMany { what, asked, present }));
        }
        self.inner.publish()?; // the router reads the file at its start
        self.inner.desired.send_replace(Some(Arc::new(plan)));
        Ok(())
    }

    /// Acts on every change until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut desired = self.inner.desired.subscribe();
        loop {
            let retry = self.inner.reconcile();
            tokio::select! {
                () = self.inner.context.changed.notified() => {}
                changed = desired.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if retry => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The pods, by name.
    pub fn pods(&self) -> Vec<PodStatus> {
        let router = self
            .inner
            .plan()
            .map(|plan| plan.router.clone())
            .unwrap_or_default();
        lock(&self.inner.pods)
            .values()
            .map(|pod| pod::status(pod, &router))
            .collect()
    }

    /// Local port of the router for a rendered one, while a router pod exists.
    pub fn router_port(&self, rendered: u16) -> Option<u16> {
        self.inner.router_port(rendered)
    }

    /// Stops everything: the router first, so that streams end before their engines do. `now` cuts it short.
    pub async fn shut_down(&self, now: &CancellationToken) {
        let inner = &self.inner;
        let plan = inner.plan();
        let is_router = |pod: &Arc<Pod>| plan.as_ref().is_some_and(|plan| plan.router == pod.workload);
        let (routers, engines): (Vec<_>, Vec<_>) = lock(&inner.pods).values().cloned().partition(is_router);
        for (group, is_router) in [(routers, true), (engines, false)] {
            for pod in &group {
                pod.stopping.cancel();
            }
            let gone = async {
                for pod in &group {
                    if is_router {
                        inner.stop_router(pod).await;
                    } else {
                        pod.stop.cancel();
                    }
                }
                for pod in &group {
                    inner.wait_gone(&pod.plan.name).await;
                }
            };
            tokio::select! {
                () = gone => {}
                () = tokio::time::sleep(QUIT_GRACE) => inner.kill_pods(&group).await,
                () = now.cancelled() => inner.kill_pods(&group).await,
            }
        }
        inner.tasks.close();
        inner.tasks.wait().await;
    }
}

impl Inner {
    fn plan(&self) -> Option<Arc<Plan>> {
        self.desired.borrow().clone()
    }

    /// Takes the steps that are due; returns whether one failed and must be tried again.
    fn reconcile(self: &Arc<Self>) -> bool {
        let Some(plan) = self.plan() else { return false };
        let mut retry = false;
        let mut leaving = Vec::new();
        let mut workloads: BTreeSet<String> = plan
            .workloads
            .iter()
            .map(|workload| workload.name.clone())
            .collect();
        workloads.extend(lock(&self.pods).values().map(|pod| pod.workload.clone()));
        for name in workloads {
            let workload = plan.workload(&name);
            for step in next_steps(self.wanted(workload), &self.seen(&name, workload)) {
                match (step, workload) {
                    (Step::Start(count), Some(workload)) => {
                        for _ in 0..count {
                            retry |= !self.start(&plan, workload);
                        }
                    }
                    (Step::Stop(pod), _) => leaving.extend(lock(&self.pods).get(&pod).cloned()),
                    (Step::Start(_), None) => {}
                }
            }
        }
        for pod in &leaving {
            pod.stopping.cancel();
        }
        if let Err(error) = self.publish() {
            self.context.events.note(Level::Error, error.to_string());
            retry = true;
        }
        for pod in leaving {
            self.context
                .events
                .note(Level::Info, format!("{} drains and stops", pod.plan.name));
            let inner = Arc::clone(self);
            let is_router = pod.workload == plan.router;
            self.tasks.spawn(async move {
                if is_router {
                    inner.stop_router(&pod).await;
                } else {
                    inner.wait_unrouted(&pod).await;
                    pod.stop.cancel();
                }
            });
        }
        retry
    }

    fn wanted(&self, workload: Option<&Workload>) -> Wanted {
        let free = lock(&self.gpus).free();
        Wanted {
            replicas: workload.map_or(0, |workload| workload.replicas),
            recreate: workload.is_some_and(|workload| workload.recreate),
            room_for_surge: workload.is_some_and(|workload| workload.gpus <= free),
        }
    }

    fn seen(&self, workload: &str, wanted: Option<&Workload>) -> Vec<Seen> {
        let pods = lock(&self.pods);
        let of_workload = pods.values().filter(|pod| pod.workload == workload);
        let mut seen: Vec<(usize, Seen)> = of_workload
            .map(|pod| {
                let number = pod
                    .plan
                    .name
                    .rsplit('-')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0);
                let seen = Seen {
                    name: pod.plan.name.clone(),
                    current: wanted.is_some_and(|wanted| wanted.hash == pod.hash),
                    ready: pod.ready(),
                    stopping: pod.stopping.is_cancelled(),
                };
                (number, seen)
            })
            .collect();
        seen.sort_by_key(|(number, _)| *number);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    /// Starts one pod; `false` when it must be tried again later.
    fn start(self: &Arc<Self>, plan: &Arc<Plan>, workload: &Workload) -> bool {
        let Some(devices) = lock(&self.gpus).take(workload.gpus) else {
            return true; // a pod that leaves will give its devices back and wake the loop
        };
        let name = {
            let pods = lock(&self.pods);
            let free = (0..=pods.len())
                .map(|number| format!("{}-{number}", workload.name))
                .find(|name| !pods.contains_key(name));
            free.unwrap_or_default()
        };
        let built = translate::pod::build(workload, &name, plan, &self.machine, &self.allocator, &devices);
        let pod_plan = match built {
            Ok(pod_plan) => pod_plan,
            Err(error) => {
                lock(&self.gpus).give_back(&devices);
                self.context.events.note(Level::Error, error.to_string());
                return false;
            }
        };
        let several = pod_plan.containers.len() > 1;
        let containers: Vec<Arc<Container>> = pod_plan
            .containers
            .iter()
            .map(|container| {
                let source = if several {
                    format!("{name}/{}", container.name)
                } else {
                    name.clone()
                };
                let context = self.context.clone();
                Arc::new(Container::new(
                    container.clone(),
                    source.into(),
                    pod_plan.grace,
                    context,
                ))
            })
            .collect();
        let pod = Arc::new(Pod {
            plan: pod_plan,
            workload: workload.name.clone(),
            hash: workload.hash,
            devices,
            containers,
            stopping: CancellationToken::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        });
        lock(&self.pods).insert(name, Arc::clone(&pod));
        let inner = Arc::clone(self);
        self.tasks.spawn(async move { inner.attend(pod).await });
        true
    }

    /// Runs a pod's containers until they are stopped, then forgets the pod.
    async fn attend(self: Arc<Self>, pod: Arc<Pod>) {
        let runs = TaskTracker::new();
        for container in &pod.containers {
            let (container, stop, kill) = (Arc::clone(container), pod.stop.clone(), pod.kill.clone());
            runs.spawn(async move { container.run(&stop, &kill).await });
        }
        runs.close();
        runs.wait().await;
        lock(&self.gpus).give_back(&pod.devices);
        let _ = std::fs::remove_dir_all(translate::pod::volume_dir(&self.machine, &pod.plan.name)); // the run's directory goes anyway
        lock(&self.pods).remove(&pod.plan.name);
        self.context.changed.notify_one();
    }

    /// Stops a router: it would wait out its whole drain time, which nobody needs once no request is in flight.
    async fn stop_router(&self, pod: &Pod) {
        let port = pod.plan.port(routing::METRICS_PORT);
        pod.stop.cancel();
        while let Some(port) = port {
            let listed = routing::endpoints(&self.context.prober, port)
                .await
                .unwrap_or_default();
            if listed.iter().all(|endpoint| endpoint.in_flight_requests == 0) {
                break;
            }
            tokio::time::sleep(IDLE_LOOK).await;
        }
        pod.kill.cancel();
    }

    /// Waits until the router no longer lists the pod, so that no new request reaches it.
    async fn wait_unrouted(&self, pod: &Pod) {
        let gone = async {
            while let Some(port) = self.router_port(routing::METRICS_PORT) {
                let listed = routing::endpoints(&self.context.prober, port).await;
                if !listed.is_ok_and(|listed| {
                    listed
                        .iter()
                        .any(|endpoint| pod::is_endpoint_of(&endpoint.name, &pod.plan.name))
                }) {
                    return;
                }
                tokio::time::sleep(IDLE_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(UNROUTE_DEADLINE, gone).await;
    }

    fn router_port(&self, rendered: u16) -> Option<u16> {
        let plan = self.plan()?;
        let pods = lock(&self.pods);
        pods.values()
            .filter(|pod| pod.workload == plan.router)
            .find_map(|pod| pod.plan.port(rendered))
    }

    /// Writes the endpoints of all ready pods.
    fn publish(&self) -> Result<(), LocalError> {
        let mut endpoints = self.attached.clone();
        if let Some(plan) = self.plan() {
            for pod in lock(&self.pods)
                .values()
                .filter(|pod| pod.workload != plan.router && pod.ready())
            {
                endpoints.extend(pod::endpoints(&pod.plan, &plan));
            }
        }
        lock(&self.file).publish(endpoints).map(drop)
    }

    async fn wait_gone(&self, name: &str) {
        while lock(&self.pods).contains_key(name) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn kill_pods(&self, pods: &[Arc<Pod>]) {
        for pod in pods {
            pod.stop.cancel();
            pod.kill.cancel();
        }
        for pod in pods {
            self.wait_gone(&pod.plan.name).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
