//! A port that is asked for early and opened late.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::RunError;

/// Connections that wait for being accepted.
const BACKLOG: u32 = 1024;

/// Bound, not listening: a port that somebody else serves is an error already, and who connects is refused.
pub(super) struct Port {
    flag: &'static str,
    number: u16,
    pub(super) socket: TcpSocket,
}

impl Port {
    /// Takes `number` on `address`, or on every address of the host; 0 for a free port.
    pub(super) fn take(flag: &'static str, address: Option<IpAddr>, number: u16) -> Result<Self, RunError> {
        let bound = match address {
            Some(address) => bind(SocketAddr::new(address, number)),
            // One dual-stack socket, as Go's ":port"; hosts without IPv6 get IPv4.
            None => match bind((Ipv6Addr::UNSPECIFIED, number).into()) {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    bind((Ipv4Addr::UNSPECIFIED, number).into())
                }
                bound => bound,
            },
        };
        let named = |source| RunError::Port {
            flag,
            port: number,
            source,
        };
        Ok(Self {
            flag,
            number,
            socket: bound.map_err(named)?,
        })
    }

    /// Listens from now on.
    pub(super) fn open(self) -> Result<TcpListener, RunError> {
        let Self { flag, number, socket } = self;
        let named = |source| RunError::Port {
            flag,
            port: number,
            source,
        };
        let listener = socket.listen(BACKLOG).map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        tracing::info!(%address, "listening for --{flag}");
        Ok(listener)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // A restart does not wait for connections of its predecessor that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
