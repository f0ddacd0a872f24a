//! Gives each port of a pod a free loopback port and rewrites every place that carries it.
//!
//! The rule, for arguments and environment values alike:
//!
//! | What | Becomes |
//! |---|---|
//! | `--port=8000`, `--grpc-port 9002`, `PORT=8000`, `X_PORT=8000`: a flag or variable whose name is or ends in `port` | the local port |
//! | `tcp://*:5556`, `0.0.0.0:8000`, `kv@127.0.0.1:8000@m`: a wildcard or loopback host with a port of this pod | `127.0.0.1` and the local port |
//! | `--host=0.0.0.0`, `--host ::` | `--host=127.0.0.1` |
//!
//! A port flag with a number that is no container port gets a port of its own too, because two replicas on one
//! machine would collide on it. `0` and empty values stay.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// First port that is tried. Everything here stays below 32768, where Linux begins to hand out ports for
/// outgoing connections, so that a restarted engine finds its port free.
const FIRST: u16 = 20_000;
/// One past the last port that is tried.
const END: u16 = 32_000;

/// The port that is tried next. One for the whole process: two runs in it must not be given the same port while
/// neither has bound it yet.
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// Hands out loopback ports that are free and were not handed out before.
#[derive(Debug)]
pub struct PortAllocator {
    first: u16,
}

impl PortAllocator {
    /// An allocator whose search begins at a place derived from `seed`, so that several `up` on one machine
    /// rarely try the same ports.
    pub fn new(seed: u32) -> Self {
        let span = u32::from(END - FIRST);
        let offset = (seed.wrapping_mul(2_654_435_761) >> 8) % span;
        Self {
            first: FIRST + offset as u16,
        }
    }

    /// The next port on which a listener can be bound now; `None` when the whole range is taken.
    pub fn allocate(&self) -> Option<u16> {
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in FIRST..END {
            let port = next.unwrap_or(self.first);
            *next = Some(if port + 1 >= END { FIRST } else { port + 1 });
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(port);
            }
        }
        None
    }
}

/// Rendered port → local port, for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMap {
    ports: BTreeMap<u16, u16>,
}

impl PortMap {
    /// A map of the given pairs.
    pub fn new(pairs: impl IntoIterator<Item = (u16, u16)>) -> Self {
        Self {
            ports: pairs.into_iter().collect(),
        }
    }

    /// The local port for a rendered one.
    pub fn get(&self, rendered: u16) -> Option<u16> {
        self.ports.get(&rendered).copied()
    }

    /// Adds a pair.
    pub fn insert(&mut self, rendered: u16, local: u16) {
        self.ports.insert(rendered, local);
    }

    /// All pairs, by rendered port.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> {
        self.ports.iter().map(|(rendered, local)| (*rendered, *local))
    }

    /// The arguments with every port of this container in its local form.
    pub fn rewrite_args(&self, args: &[String]) -> Vec<String> {
        let mut out = Vec::with_capacity(args.len());
        let mut flag_before: Option<&str> = None;
        for arg in args {
            if let Some((flag, value)) = split_flag(arg) {
                out.push(format!("{flag}={}", self.rewrite_named(flag, value)));
                flag_before = None;
                continue;
            }
            if arg.starts_with('-') {
                out.push(arg.clone());
                flag_before = Some(arg);
                continue;
            }
            out.push(match flag_before.take() {
                Some(flag) => self.rewrite_named(flag, arg),
                None => self.rewrite_addresses(arg),
            });
        }
        out
    }

    /// A value that belongs to a flag or variable called `name`.
    pub fn rewrite_named(&self, name: &str, value: &str) -> String {
        if is_port_name(name) {
            return match value.parse().ok().and_then(|port: u16| self.get(port)) {
                Some(local) => local.to_string(),
                None => value.to_owned(),
            };
        }
        if is_host_name(name) && is_wildcard(value) {
            return Ipv4Addr::LOCALHOST.to_string();
        }
        self.rewrite_addresses(value)
    }

    /// Rewrites `HOST:PORT` where the host is this pod and the port one of this container's.
    fn rewrite_addresses(&self, value: &str) -> String {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(colon) = rest.find(':') {
            let (before, after) = (&rest[..colon], &rest[colon + 1..]);
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let local = after[..digits].parse().ok().and_then(|port| self.get(port));
            let host = LOCAL_HOSTS.iter().find(|host| ends_with_host(before, host));
            let (Some(local), Some(host)) = (local, host) else {
                out.push_str(&rest[..=colon]);
                rest = after;
                continue;
            };
            out.push_str(&before[..before.len() - host.len()]);
            out.push_str("127.0.0.1:");
            out.push_str(&local.to_string());
            rest = &after[digits..];
        }
        out.push_str(rest);
        out
    }
}

/// Hosts that mean "this pod".
const LOCAL_HOSTS: [&str; 6] = ["127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::1]", "*"];

/// Whether `text` ends in `host` as a whole word.
fn ends_with_host(text: &str, host: &str) -> bool {
    text.strip_suffix(host)
        .is_some_and(|head| !head.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-'))
}

/// `--flag=value` cut at the first `=`.
fn split_flag(arg: &str) -> Option<(&str, &str)> {
    if !arg.starts_with('-') {
        return None;
    }
    arg.split_once('=')
}

/// Port numbers in flags and variables of a port's name: those the container needs beside its `containerPorts`.
pub fn port_values<'a>(args: &'a [String], env: &'a [(String, String)]) -> Vec<u16> {
    let mut found = Vec::new();
    let mut note = |name: &str, value: &str| {
        if let (true, Ok(port @ 1..)) = (is_port_name(name), value.parse::<u16>()) {
            found.push(port);
        }
    };
    let mut flag_before: Option<&str> = None;
    for arg in args {
        if let Some((flag, value)) = split_flag(arg) {
            note(flag, value);
            flag_before = None;
        } else if arg.starts_with('-') {
            flag_before = Some(arg);
        } else if let Some(flag) = flag_before.take() {
            note(flag, arg);
        }
    }
    for (name, value) in env {
        note(name, value);
    }
    found
}

/// Whether `args` sets `flag`, in either spelling.
pub fn has_flag(args: &[String], flag: &str) -> bool {
    args.iter()
        .any(|arg| arg == flag || arg.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
}

fn is_port_name(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    name == "port" || name.ends_with("-port") || name.ends_with("_port")
}

/// `--proxy-bind-address` is not meant: clients connect there, and the router has the user's address in it.
fn is_host_name(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    name == "host"
        || name == "bind-address"
        || (name.ends_with("-bind-address") && name != "proxy-bind-address")
}

fn is_wildcard(value: &str) -> bool {
    matches!(value, "0.0.0.0" | "::" | "[::]" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<String> {
        args.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_spelling_of_a_port_is_rewritten_and_nothing_else() {
        let map = PortMap::new([(8000, 21_000), (9002, 21_001), (5556, 21_002)]);
        let table: &[(&[&str], &[&str])] = &[
            (&["--port=8000"], &["--port=21000"]),
            (&["--port", "8000"], &["--port", "21000"]),
            (&["-port", "8000"], &["-port", "21000"]),
            (&["--grpc-port=9002"], &["--grpc-port=21001"]),
            (&["--max-model-len=8000"], &["--max-model-len=8000"]),
            (&["--max-model-len", "8000"], &["--max-model-len", "8000"]),
            (&["--report=8000"], &["--report=8000"]),
            (&["--port=0"], &["--port=0"]),
            (&["8000"], &["8000"]),
            (&["--host=0.0.0.0"], &["--host=127.0.0.1"]),
            (&["--host", "::"], &["--host", "127.0.0.1"]),
            (
                &["--admin-bind-address=0.0.0.0"],
                &["--admin-bind-address=127.0.0.1"],
            ),
            (
                &["--proxy-bind-address=0.0.0.0"],
                &["--proxy-bind-address=0.0.0.0"],
            ),
            (&["--host=10.0.0.7"], &["--host=10.0.0.7"]),
            (&["--listen=:8000"], &["--listen=:8000"]),
            (&["--listen=0.0.0.0:8000"], &["--listen=127.0.0.1:21000"]),
            (
                &["--url=http://localhost:8000/v1"],
                &["--url=http://127.0.0.1:21000/v1"],
            ),
            (
                &["--url=http://example.com:8000/v1"],
                &["--url=http://example.com:8000/v1"],
            ),
            (
                &["--url=http://notlocalhost:8000"],
                &["--url=http://notlocalhost:8000"],
            ),
            (
                &["--kv-events-config={\"endpoint\":\"tcp://*:5556\",\"topic\":\"kv@127.0.0.1:8000@m\"}"],
                &[
                    "--kv-events-config={\"endpoint\":\"tcp://127.0.0.1:21002\",\"topic\":\"kv@127.0.0.1:21000@m\"}",
                ],
            ),
            (&["--x=127.0.0.1:80001"], &["--x=127.0.0.1:80001"]),
        ];
        for (rendered, local) in table {
            assert_eq!(
                map.rewrite_args(&strings(rendered)),
                strings(local),
                "{rendered:?}"
            );
        }
    }

    #[test]
    fn environment_names_follow_the_same_rule() {
        let map = PortMap::new([(8000, 21_000), (5600, 21_001)]);
        assert_eq!(map.rewrite_named("PORT", "8000"), "21000");
        assert_eq!(map.rewrite_named("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600"), "21001");
        assert_eq!(map.rewrite_named("MAX_TOKENS", "8000"), "8000");
        assert_eq!(
            map.rewrite_named("BASE_URL", "http://127.0.0.1:8000"),
            "http://127.0.0.1:21000"
        );
    }

    #[test]
    fn ports_that_only_a_flag_names_are_found() {
        let args = strings(&[
            "serve",
            "--port=8000",
            "--rpc-port",
            "5555",
            "--len=7",
            "--z-port=0",
        ]);
        let env = vec![
            ("A_PORT".to_owned(), "5600".to_owned()),
            ("B".to_owned(), "1".to_owned()),
        ];
        assert_eq!(port_values(&args, &env), [8000, 5555, 5600]);
    }

    #[test]
    fn allocated_ports_differ_and_are_below_the_ephemeral_range() {
        let allocator = PortAllocator::new(7);
        let ports: std::collections::BTreeSet<u16> = (0..50).filter_map(|_| allocator.allocate()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| (FIRST..END).contains(port)));
    }

    #[test]
    fn a_taken_port_is_not_handed_out() {
        let allocator = PortAllocator::new(9);
        let port = allocator.allocate().unwrap();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1));
        let next = allocator.allocate().unwrap();
        assert!(held.is_err() || next != port + 1);
    }
}
