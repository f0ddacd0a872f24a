//! What engines publish about their caches, and under which name: routers look for the port that they know.

use serde::Deserialize;

use super::Resolver;
use crate::names::ENGINE_PORT;
use crate::validated::{ValidatedModel, ValidatedPool};

const FLAG: &str = "kv-events-config";

/// The part of the engines' configuration that routers depend on.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    topic: String,
}

impl Resolver<'_> {
    /// Topics are `kv@<address>:<port>@<model>` by llm-d's convention; others are their author's business.
    pub(super) fn kv_events(&mut self, model: &ValidatedModel, pools: &[ValidatedPool]) {
        for pool in pools {
            let Some(text) = pool.engine.args.get(FLAG) else {
                continue;
            };
            let config: Config = match serde_json::from_str(text) {
                Ok(config) => config,
                Err(error) => {
                    let message =
                        format!("{FLAG} is not JSON ({error}): write {{\"publisher\": \"zmq\", …}}");
                    self.refuse_pool(pool, "engine.args", &message);
                    continue;
                }
            };
            let parts: Vec<&str> = config.topic.split('@').collect();
            let ["kv", pod, served] = parts[..] else {
                continue;
            };
            let port: Option<i32> = pod.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            if let Some(port) = port.filter(|port| *port != ENGINE_PORT) {
                let message = format!(
                    "{FLAG}: the topic names port {port}, but routers know the engine by {ENGINE_PORT}, so that its blocks would \
                     be nobody's: write kv@$(POD_IP):{ENGINE_PORT}@{}",
                    model.name()
                );
                self.refuse_pool(pool, "engine.args", &message);
            }
            if served != model.name() {
                let message = format!(
                    "{FLAG}: the topic names the model {served:?}, which is served as {0:?}: write kv@$(POD_IP):{ENGINE_PORT}@{0}",
                    model.name()
                );
                self.refuse_pool(pool, "engine.args", &message);
            }
        }
    }
}
