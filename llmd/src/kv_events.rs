//! `llmd kv-events`: what engines publish about their KV caches, a line of JSON per event.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use http::{Method, Request, Uri};
use llmd_kv::events::{self, Batch};
use llmd_proxy::{Caller, Limits, TargetProtocol};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use zeromq::{Socket, SocketRecv, SubSocket, ZmqMessage};

use crate::exit::Failure;
use crate::output;

/// Longest that an engine may take to accept a connection or to describe itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an engine's description.
const LONGEST: usize = 1 << 20;
/// Batches that wait to be printed; publishers wait beyond them.
const WAITING: usize = 1024;

/// `llmd kv-events`.
#[derive(Debug, Args)]
pub(crate) struct KvEventsArgs {
    /// Where an engine publishes, `tcp://HOST:PORT`, or the URL of an engine that says so itself (SGLang's
    /// `/server_info`)
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<String>,
    /// Only topics that begin with this
    #[arg(long, default_value = "")]
    topic: String,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// A message of a publisher.
struct Published {
    from: String,
    topic: String,
    sequence: u64,
    payload: Vec<u8>,
}

/// Prints what is published until there were enough events or the process is stopped.
pub(crate) async fn run(args: KvEventsArgs) -> Result<(), Failure> {
    let mut endpoints = Vec::new();
    for endpoint in &args.endpoints {
        if endpoint.starts_with("tcp://") {
            endpoints.push(endpoint.clone());
        } else {
            endpoints.extend(described(endpoint).await?);
        }
    }
    let (sender, mut published) = mpsc::channel(WAITING);
    for endpoint in endpoints {
        let socket = tokio::time::timeout(PATIENCE, subscribe(&endpoint, &args.topic)).await;
        let failed = |why: &dyn std::fmt::Display| Failure::runtime(format!("{endpoint}: {why}"));
        let socket =
            socket.map_err(|_| failed(&format!("nobody accepted a connection within {PATIENCE:?}")))?;
        let socket = socket.map_err(|error| failed(&error))?;
        tokio::spawn(receive(socket, endpoint, sender.clone()));
    }
    drop(sender);
    let (mut last, mut left) = (HashMap::new(), args.count.unwrap_or(u64::MAX));
    while let Some(message) = published.recv().await {
        for line in lines(&message, &mut last) {
            output::print(&format!("{line}\n"))?;
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
    }
    Err(Failure::runtime("no publisher is left"))
}

async fn subscribe(endpoint: &str, topic: &str) -> Result<SubSocket, zeromq::ZmqError> {
    let mut socket = SubSocket::new();
    socket.connect(endpoint).await?;
    socket.subscribe(topic).await?;
    Ok(socket)
}

async fn receive(mut socket: SubSocket, from: String, published: mpsc::Sender<Published>) {
    loop {
        match socket.recv().await {
            Ok(message) => {
                let Some(message) = frames(&from, &message) else {
                    anstream::eprintln!("{from}: a message that is not topic, sequence and payload");
                    continue;
                };
                if published.send(message).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                anstream::eprintln!("{from}: {error}");
                return;
            }
        }
    }
}

/// Topic, sequence number (8 bytes, big-endian), payload.
fn frames(from: &str, message: &ZmqMessage) -> Option<Published> {
    let (topic, sequence, payload) = (message.get(0)?, message.get(1)?, message.get(2)?);
    Some(Published {
        from: from.to_owned(),
        topic: String::from_utf8_lossy(topic).into_owned(),
        sequence: u64::from_be_bytes(sequence.as_ref().try_into().ok()?),
        payload: payload.to_vec(),
    })
}

/// The events of a message, with how many messages before it were missed.
fn lines(message: &Published, last: &mut HashMap<(String, String), u64>) -> Vec<Value> {
    let key = (message.from.clone(), message.topic.clone());
    let before = last.insert(key, message.sequence);
    let missed = before.map_or(0, |before| {
        message.sequence.saturating_sub(before.saturating_add(1))
    });
    let head =
        json!({"from": message.from, "topic": message.topic, "sequence": message.sequence, "missed": missed});
    let joined = |rest: Value| {
        let mut line = head.clone();
        if let (Some(line), Value::Object(rest)) = (line.as_object_mut(), rest) {
            line.extend(rest);
        }
        line
    };
    match events::decode(&message.payload) {
        Ok(Batch { at, rank, events }) => events
            .into_iter()
            .map(|event| {
                let event = event.map_or_else(
                    |error| json!({"type": "Error", "problem": error.to_string()}),
                    |event| json!(event),
                );
                let mut line = joined(event);
                line["at"] = json!(at);
                line["rank"] = json!(rank);
                line
            })
            .collect(),
        Err(error) => vec![joined(json!({"type": "Error", "problem": error.to_string()}))],
    }
}

/// Where an engine says that it publishes, a port for each rank.
async fn described(url: &str) -> Result<Vec<String>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("{url}: {why}; give tcp://HOST:PORT or http://HOST:PORT"))
    };
    let parsed: Uri = url.parse().map_err(|error| wrong(&error))?;
    let host = parsed.host().ok_or_else(|| wrong(&"it has no host"))?.to_owned();
    if parsed.scheme_str() != Some("http") {
        return Err(wrong(&"it is neither tcp:// nor http://"));
    }
    let port = parsed.port_u16().unwrap_or(80);
    let failed = |why: &dyn std::fmt::Display| Failure::runtime(format!("{url}/server_info: {why}"));
    let address = format!("{host}:{port}");
    let mut addresses = tokio::net::lookup_host(&address)
        .await
        .map_err(|error| failed(&error))?;
    let target = addresses
        .next()
        .ok_or_else(|| failed(&"the name has no address"))?;
    let request = Request::builder()
        .method(Method::GET)
        .uri("/server_info")
        .header("host", &address)
        .body(())
        .map_err(|error| failed(&error))?;
    let limits = Limits::default();
    let caller = Caller::new(limits, TargetProtocol::default());
    let (head, ()) = request.into_parts();
    let answer = tokio::time::timeout(PATIENCE, caller.call(target, &head, Vec::new(), LONGEST)).await;
    let answer = answer.map_err(|_| failed(&format!("no answer within {PATIENCE:?}")))?;
    let answer = answer.map_err(|error| failed(&error))?;
    let said = String::from_utf8_lossy(answer.body()).into_owned();
    endpoints(&said, &host).map_err(|why| failed(&why))
}

/// SGLang's description of itself.
#[derive(Deserialize)]
struct ServerInfo {
    kv_events: Option<KvEvents>,
}

#[derive(Deserialize)]
struct KvEvents {
    publisher: Option<String>,
    endpoint_host: Option<String>,
    endpoint_port_base: Option<u16>,
    dp_size: Option<u16>,
}

/// An endpoint for each rank; an engine that listens everywhere is where it was asked.
fn endpoints(said: &str, asked: &str) -> Result<Vec<String>, String> {
    let info: ServerInfo = serde_json::from_str(said).map_err(|error| error.to_string())?;
    let events = info
        .kv_events
        .filter(|events| events.publisher.as_deref() != Some("null"));
    let events = events.ok_or("the engine publishes no KV events: start it with --kv-events-config")?;
    let port = events
        .endpoint_port_base
        .ok_or("kv_events names no endpoint_port_base")?;
    let host = events
        .endpoint_host
        .filter(|host| !matches!(host.as_str(), "*" | "0.0.0.0" | "::" | ""))
        .unwrap_or_else(|| asked.to_owned());
    let ranks = events.dp_size.unwrap_or(1).max(1);
    let ports = (0..ranks).map(|rank| port.checked_add(rank));
    let ports: Option<Vec<u16>> = ports.collect();
    let ports = ports.ok_or("the port of the last rank would be above 65535")?;
    Ok(ports
        .into_iter()
        .map(|port| format!("tcp://{host}:{port}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As SGLang's document has it; no SGLang was asked.
    #[test]
    fn an_engine_that_describes_itself_is_found_with_all_ranks() {
        let said = r#"{"version":"0.5.23","kv_events":{"publisher":"zmq","endpoint_host":"*","endpoint_port_base":5557,
            "topic":"kv","block_size":64,"dp_size":2,"load_endpoint_port_base":null,"replay_endpoint_port_base":null}}"#;
        assert_eq!(
            endpoints(said, "pod").unwrap(),
            ["tcp://pod:5557", "tcp://pod:5558"]
        );
        let other = said
            .replace("\"*\"", "\"10.0.0.9\"")
            .replace("\"dp_size\":2,", "");
        assert_eq!(endpoints(&other, "pod").unwrap(), ["tcp://10.0.0.9:5557"]);
        for silent in ["{}", r#"{"kv_events":{"publisher":"null"}}"#] {
            assert!(
                endpoints(silent, "pod")
                    .unwrap_err()
                    .contains("--kv-events-config")
            );
        }
        assert!(
            endpoints(&said.replace("5557", "65535"), "pod")
                .unwrap_err()
                .contains("65535")
        );
        assert!(endpoints("no", "pod").is_err());
    }

    #[test]
    fn missed_messages_are_counted_for_each_publisher() {
        let mut last = HashMap::new();
        let mut missed = |from: &str, sequence| {
            let message = Published {
                from: from.to_owned(),
                topic: String::new(),
                sequence,
                payload: b"no batch".to_vec(),
            };
            lines(&message, &mut last)[0]["missed"].as_u64().unwrap()
        };
        let seen = [
            missed("a", 4),
            missed("a", 5),
            missed("b", 0),
            missed("a", 9),
            missed("a", 0),
        ];
        assert_eq!(seen, [0, 0, 0, 3, 0]);
    }
}
