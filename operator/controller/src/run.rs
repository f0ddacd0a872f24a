//! `llmd operator`: from the command line to running controllers.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::StreamExt;
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::controller::{Config, Controller, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store};
use llmd_crds::LLMDeployment;
use llmd_process::pflag::FlagError;
use llmd_process::{admin, logging, signals};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use crate::capabilities::Capabilities;
use crate::context::{Context, Shared};
use crate::dereference::References;
use crate::flags::{OptionError, Options, flag_set};
use crate::metrics::Metrics;
use crate::rbac::LEASE;
use crate::reconcile::{failed, gone, reconcile};
use crate::scope::Scope;
use crate::stores::{self, Stores};
use crate::usage;

/// Exit status for a command line that cannot be obeyed, pflag's.
const USAGE: u8 = 2;
/// Reconciles at a time.
const CONCURRENCY: u16 = 16;
/// The API server is the slower side; each thread has a heap of its own.
const THREADS: usize = 2;
/// Events of one resource within this time make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often the served kinds are asked for.
const DISCOVERY: Duration = Duration::from_secs(60);
/// How long a first answer of the API server may take.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither in a pod nor with a kubeconfig.
    #[error("no cluster to talk to: {0}; run in a pod with a ServiceAccount, or set KUBECONFIG")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// Runtime or signals.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An address is taken or not ours.
    #[error("{flag} {address} cannot be bound: {source}")]
    Bind {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// Metrics collide.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// Another replica took over: going on would be two that act.
    #[error("the Lease {LEASE} was lost: another replica acts now")]
    LeaseLost,
}

/// Runs the role and returns its exit status: 2 for a command line that cannot be obeyed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(OptionError::Flag(FlagError::Help)) => {
            // Nobody reads a help text whose pipe is closed.
            let _ = write!(io::stdout(), "{}", flag_set().usage("operator"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}\n{}", flag_set().usage("operator"));
            return ExitCode::from(USAGE);
        }
    };
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        logging::init(options.logging, None);
        let shutdown = signals::shutdown_token()?;
        serve(options, kube::Config::infer().await?, shutdown).await
    })
}

/// Serves until `shutdown`, on the cluster of `config`.
///
/// # Errors
/// When an address cannot be bound, or the Lease is lost.
pub async fn serve(
    options: &Options,
    config: kube::Config,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let own_namespace = config.default_namespace.clone();
    let client = Client::try_from(config)?;
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let is_ready = Arc::new(AtomicBool::new(false));
    let stop = shutdown.child_token();
    let _stop_all = stop.clone().drop_guard();
    pages(options, registry, Arc::clone(&is_ready), &stop).await?;

    let identity =
        std::env::var("POD_NAME").unwrap_or_else(|_| format!("llmd-operator-{}", std::process::id()));
    // A replica that waits for the Lease is as ready as it can be.
    let version = tokio::time::timeout(FIRST_ANSWER, client.apiserver_version()).await;
    if let Ok(Ok(version)) = version {
        tracing::info!(version = version.git_version, "connected");
    }
    is_ready.store(true, Ordering::Relaxed);
    let leadership = options.leader_elect.then(|| {
        let namespace = options.lease_namespace.as_deref().unwrap_or(&own_namespace);
        let timings = llmd_lease::Timings::default();
        llmd_lease::start(client.clone(), namespace, LEASE, &identity, timings)
    });
    if let Some(leadership) = &leadership {
        tokio::select! {
            () = leadership.acquired() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    metrics.leader.set(1);
    let shared = Arc::new(Shared::new(client, options, metrics, &identity));
    let outcome = tokio::select! {
        () = act(&shared, options, &stop) => Ok(()),
        () = lost(leadership.as_ref()) => Err(RunError::LeaseLost),
    };
    if let (Ok(()), Some(leadership)) = (&outcome, leadership) {
        leadership.release().await;
    }
    outcome
}

async fn lost(leadership: Option<&llmd_lease::Leadership>) {
    match leadership {
        Some(leadership) => leadership.lost().await,
        None => std::future::pending().await,
    }
}

/// Metrics, liveness and readiness.
async fn pages(
    options: &Options,
    registry: Registry,
    is_ready: Arc<AtomicBool>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let bind = async |flag, address| {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|source| RunError::Bind {
            flag,
            address,
            source,
        })
    };
    let metrics = bind("--metrics-bind-address", options.metrics).await?;
    let health = bind("--health-probe-bind-address", options.health).await?;
    tracing::info!(metrics = %metrics.local_addr()?, health = %health.local_addr()?, "listening");
    let readyz = get(move || {
        let ready = is_ready.load(Ordering::Relaxed);
        std::future::ready(if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        })
    });
    let probes = Router::new().route("/readyz", readyz);
    tokio::spawn(admin::serve(metrics, registry, Router::new(), stop.clone()));
    tokio::spawn(admin::serve_pages(health, probes, stop.clone()));
    Ok(())
}

/// Acts until `stop`; begins anew when the set of served kinds changes.
async fn act(shared: &Arc<Shared>, options: &Options, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let served = match Capabilities::discover(&shared.client).await {
            Ok(served) => served,
            Err(error) => {
                tracing::warn!(%error, "the API server does not say what it serves; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(FIRST_ANSWER) => continue,
                }
            }
        };
        tracing::info!(?served, "acting");
        let round = stop.child_token();
        tokio::join!(
            control(shared, options, served, &round),
            until_changed(&shared.client, served, &round)
        );
    }
}

/// Ends the round when another set of kinds is served.
async fn until_changed(client: &Client, served: Capabilities, round: &CancellationToken) {
    loop {
        tokio::select! {
            () = round.cancelled() => return,
            () = tokio::time::sleep(DISCOVERY) => {}
        }
        if let Ok(now) = Capabilities::discover(client).await
            && now != served
        {
            tracing::info!(before = ?served, ?now, "the set of served kinds changed");
            round.cancel();
        }
    }
}

/// One controller per scope, and the counting of users.
async fn control(shared: &Arc<Shared>, options: &Options, served: Capabilities, round: &CancellationToken) {
    let (references, changes) = References::watch(&shared.client);
    let mut changes = Box::pin(changes);
    let references = Arc::new(references);
    let (tell, told) = watch::channel(0_u64);
    let mut tasks = JoinSet::new();
    let counter = Arc::clone(shared);
    tasks.spawn(until(round.clone(), async move {
        while changes.next().await.is_some() {
            tell.send_modify(|changes| *changes += 1);
            counter.usage.notify_one();
        }
    }));
    let scopes: Vec<Scope> = if options.namespaces.is_empty() {
        vec![Scope::Cluster]
    } else {
        options.namespaces.iter().cloned().map(Scope::Namespace).collect()
    };
    let mut resources = Vec::new();
    for scope in scopes {
        let (stores, triggers) = Stores::watch(&shared.client, &scope, served);
        let context = Context {
            shared: Arc::clone(shared),
            stores,
            references: Arc::clone(&references),
            served,
        };
        let (store, running) = controller(&scope, context, triggers, told.clone(), round.clone());
        resources.push(store);
        tasks.spawn(running);
    }
    tasks.spawn(usage::run(
        Arc::clone(shared),
        references,
        resources,
        round.clone(),
    ));
    while tasks.join_next().await.is_some() {}
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn controller(
    scope: &Scope,
    context: Context,
    triggers: crate::stores::Triggers,
    references: watch::Receiver<u64>,
    round: CancellationToken,
) -> (Store<DynamicObject>, impl Future<Output = ()> + Send + 'static) {
    let resource = ApiResource::erase::<LLMDeployment>(&());
    // Untyped: one resource that cannot be read must not stop the others.
    let api = scope.dynamic_api::<DynamicObject>(&context.shared.client, &resource);
    let of = resource.clone();
    let config = Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
    let (store, written) = stores::resources(api, &resource);
    let controller = Controller::for_stream_with(written, store.clone(), resource)
        .with_config(config)
        .reconcile_on(
            triggers.map(move |(namespace, name)| ObjectRef::new_with(&name, of.clone()).within(&namespace)),
        )
        .reconcile_all_on(WatchStream::from_changes(references).map(|_| ()))
        .graceful_shutdown_on(round.cancelled_owned());
    let context = Arc::new(context);
    let running = controller
        .run(reconcile, failed, Arc::clone(&context))
        .for_each(move |outcome| {
            match outcome {
                Err(ControllerError::ObjectNotFound(reference)) => {
                    gone(&reference, &context);
                }
                Err(ControllerError::QueueError(error)) => {
                    tracing::warn!(%error, "the watch of LLMDeployments broke off");
                }
                Err(_) | Ok(_) => {}
            }
            std::future::ready(())
        });
    (store, running)
}
