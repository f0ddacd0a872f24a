//! `llmd up`: loads, runs, shows and follows edits until it is told to stop.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::attach;
use crate::cluster::Cluster;
use crate::endpoints::EndpointsFile;
use crate::error::LocalError;
use crate::events::{Event, Events, Level};
use crate::gpus::Gpus;
use crate::probe::Prober;
use crate::routing::{self, RoutedEndpoint};
use crate::source::{self, InputError, Service, Source};
use crate::translate::plan::{Plan, RouterSettings};
use crate::translate::pod::Machine;
use crate::translate::volumes::write_private;
use crate::view::{Output, Ready, Screen, rows};
use crate::watch;

/// Time between two looks at the router's endpoints.
const LOOK: Duration = Duration::from_millis(250);

/// Time between two looks until the service answers for the first time.
const FIRST_LOOK: Duration = Duration::from_millis(20);

/// Restarts after which a router that was never ready is given up.
const ROUTER_TRIES: u32 = 3;

/// What `llmd up` was asked for.
#[derive(Debug)]
pub struct Options {
    /// What to run.
    pub source: Source,
    /// Address for clients.
    pub bind: IpAddr,
    /// Port for clients; 0 takes a free one.
    pub port: u16,
    /// Key that clients must send.
    pub api_key: Option<String>,
    /// Directories that stand for claims.
    pub claims: BTreeMap<String, PathBuf>,
    /// How to show it.
    pub output: Output,
    /// The llmd binary.
    pub executable: PathBuf,
    /// The user's environment.
    pub env: BTreeMap<String, String>,
}

/// Why `llmd up` ended.
#[derive(Debug, Error)]
pub enum UpError {
    /// The input is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The machine cannot run it.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// Runs until SIGINT or SIGTERM.
pub async fn up(options: Options) -> Result<(), UpError> {
    if !options.bind.is_loopback() && options.api_key.is_none() {
        return Err(LocalError::KeyRequired {
            bind: options.bind.to_string(),
        }
        .into());
    }
    let stop = CancellationToken::new();
    let now = CancellationToken::new();
    listen_for_signals(stop.clone(), now.clone())?;

    let (events, mut received) = Events::channel();
    let (service, attached) = load(&options.source, &events).await?;
    let port = claim_port(options.bind, options.port)?;
    let dir = private_dir()?;
    let settings = RouterSettings {
        endpoints_file: dir.path().join("endpoints.yaml"),
        bind: options.bind,
        port,
        api_key_file: key_file(dir.path(), options.api_key.as_deref())?,
    };
    if !options.bind.is_loopback() {
        events.note(
            Level::Warning,
            format!(
                "{} is reachable from the network; clients need the key",
                options.bind
            ),
        );
    }
    let plan = Plan::build(&service.objects, &settings)?;
    let gpus = if plan.gpus().0 > 0 {
        Gpus::detect(options.env.get("CUDA_VISIBLE_DEVICES").map(String::as_str)).await
    } else {
        Gpus::default()
    };
    let machine = Machine {
        executable: options.executable.clone(),
        dir: dir.path().to_owned(),
        env: options.env.clone(),
        claims: options.claims.clone(),
    };
    let file = EndpointsFile::new(settings.endpoints_file.clone());
    let cluster = Cluster::new(machine, gpus, file, attached, events.clone());
    cluster.apply(plan)?;

    let mut run = Run {
        cluster: cluster.clone(),
        prober: Prober::default(),
        screen: Screen::new(options.output),
        events,
        settings,
        announced: None,
        model: service.model,
        key: options.api_key.is_some(),
    };
    let keeper = {
        let (cluster, stop) = (cluster.clone(), stop.clone());
        tokio::spawn(async move { cluster.run(&stop).await })
    };
    let result = run.follow(&options.source, &mut received, &stop).await;
    stop.cancel();
    run.say(&mut received, "stopping; press Ctrl-C again to stop at once");
    let _ = keeper.await; // so that nothing starts while everything stops
    cluster.shut_down(&now).await;
    run.drain(&mut received);
    run.screen.close();
    result
}

struct Run {
    cluster: Cluster,
    prober: Prober,
    screen: Screen,
    events: Events,
    settings: RouterSettings,
    announced: Option<Instant>,
    model: String,
    key: bool,
}

impl Run {
    /// Shows events and applies edits until `stop`.
    async fn follow(
        &mut self,
        source: &Source,
        received: &mut mpsc::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Result<(), UpError> {
        let (edited, mut edits) = mpsc::channel(1);
        let _watcher = match source {
            Source::File(path) => Some(watch::watch(path, edited)?),
            Source::BuiltIn | Source::Text(_) | Source::Engines(_) => None,
        };
        let mut look = tokio::time::interval(FIRST_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(event) = received.recv() => self.screen.event(event),
                Some(()) = edits.recv() => self.apply_edit(source).await,
                _ = look.tick() => {
                    if self.look().await? {
                        look = tokio::time::interval(LOOK);
                        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
            }
        }
    }

    /// Refreshes the table; `true` the first time the service answers.
    async fn look(&mut self) -> Result<bool, UpError> {
        let pods = self.cluster.pods();
        let routed = self.routed().await;
        if self.announced.is_none() {
            let router = pods.iter().find(|pod| pod.router);
            if let Some(router) = router.filter(|router| router.restarts >= ROUTER_TRIES) {
                return Err(LocalError::Router(router.message.clone()).into());
            }
        }
        let router_ready = pods.iter().any(|pod| pod.router && pod.ready);
        self.screen.rows(rows(&pods, &routed));
        if self.announced.is_some() || !router_ready || routed.is_empty() {
            return Ok(false);
        }
        self.announced = Some(Instant::now());
        let address = SocketAddr::new(reachable(self.settings.bind), self.settings.port);
        self.screen.ready(&Ready {
            url: format!("http://{address}/v1"),
            model: self.model.clone(),
            engines: routed.len(),
            key: self.key,
        });
        Ok(true)
    }

    async fn routed(&self) -> Vec<RoutedEndpoint> {
        match self.cluster.router_port(routing::METRICS_PORT) {
            Some(port) => routing::endpoints(&self.prober, port).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Applies the edited file; what is wrong with it is said and changes nothing.
    async fn apply_edit(&mut self, source: &Source) {
        let loaded = load(source, &self.events).await;
        let applied = loaded.and_then(|(service, _)| {
            let plan = Plan::build(&service.objects, &self.settings)?;
            self.cluster.apply(plan)?;
            Ok(service.model)
        });
        match applied {
            Ok(model) => {
                self.model = model;
                self.events.note(Level::Info, "the edited file is applied");
            }
            Err(error) => {
                self.events.note(
                    Level::Error,
                    format!("the edited file is not applied, the service runs on: {error}"),
                );
            }
        }
    }

    fn say(&mut self, received: &mut mpsc::Receiver<Event>, text: &str) {
        self.events.note(Level::Info, text);
        self.drain(received);
    }

    fn drain(&mut self, received: &mut mpsc::Receiver<Event>) {
        while let Ok(event) = received.try_recv() {
            self.screen.event(event);
        }
    }
}

/// Loads the service; attached engines come with their endpoints.
async fn load(
    source: &Source,
    events: &Events,
) -> Result<(Service, Vec<crate::endpoints::Endpoint>), UpError> {
    let Source::Engines(urls) = source else {
        let service = source::load(source)?;
        for note in &service.notes {
            events.note(Level::Info, note.clone());
        }
        return Ok((service, Vec::new()));
    };
    let engines = attach::attach(&Prober::default(), urls).await?;
    for engine in &engines {
        events.note(Level::Info, engine.describe());
    }
    if attach::models_differ(&engines) {
        let models = attach::models(&engines).join(", ");
        events.note(
            Level::Info,
            format!("engines serve different models ({models}): requests go by their model"),
        );
    }
    let service = source::router_only(&attach::router_config(&engines), &attach::models(&engines))?;
    let endpoints = attach::endpoints(&engines, &service.objects.namespace);
    Ok((service, endpoints))
}

/// Checks that clients can be served on `bind:port` before anything starts.
fn claim_port(bind: IpAddr, port: u16) -> Result<u16, LocalError> {
    let address = SocketAddr::new(bind, port);
    let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => LocalError::AddressInUse {
            address: address.to_string(),
            suggestion: free_port(bind, port),
        },
        _ => LocalError::Bind {
            address: address.to_string(),
            source,
        },
    })?;
    let local = listener.local_addr().map_err(|source| LocalError::Bind {
        address: address.to_string(),
        source,
    })?;
    Ok(local.port())
}

fn free_port(bind: IpAddr, taken: u16) -> u16 {
    let next = (taken.saturating_add(1)..=taken.saturating_add(200))
        .find(|port| TcpListener::bind((bind, *port)).is_ok());
    next.unwrap_or(0)
}

/// The address to show for a wildcard bind.
fn reachable(bind: IpAddr) -> IpAddr {
    if bind.is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        bind
    }
}

fn private_dir() -> Result<tempfile::TempDir, LocalError> {
    tempfile::Builder::new()
        .prefix(crate::parent::DIR_PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .map_err(|source| LocalError::File {
            action: "create",
            path: std::env::temp_dir(),
            source,
        })
}

fn key_file(dir: &Path, key: Option<&str>) -> Result<Option<PathBuf>, LocalError> {
    let Some(key) = key else { return Ok(None) };
    let path = dir.join("api-key");
    write_private(&path, key)?;
    Ok(Some(path))
}

/// The first signal asks for an orderly end, the second one for an immediate one.
fn listen_for_signals(stop: CancellationToken, now: CancellationToken) -> Result<(), LocalError> {
    use tokio::signal::unix::{SignalKind, signal};
    let register = |kind| {
        signal(kind).map_err(|source| LocalError::Spawn {
            what: "signal handling".to_owned(),
            source,
        })
    };
    let (mut interrupt, mut terminate) = (
        register(SignalKind::interrupt())?,
        register(SignalKind::terminate())?,
    );
    tokio::spawn(async move {
        for token in [stop, now] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}

/// The user's environment as UTF-8; other variables cannot stand in rendered objects either.
pub fn user_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The running binary. Linux's name for it stays right when the file is rebuilt meanwhile.
pub fn own_executable() -> PathBuf {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() {
        linux.to_owned()
    } else {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("llmd"))
    }
}
