// SPDX-License-Identifier: Apache-2.0
//! The SMTP and LMTP servers: sockets, timers and limits around [`Session`]s.
//!
//! SMTP and LMTP each bound their open connections, in total and per address (421 beyond). Silence, dribbled bytes
//! and talk without a mail end a session with 421. A connection holds at most one mail and one buffer; all mails being
//! received share one budget of memory (452 beyond).
//!
//! On shutdown no more connections are accepted. A session between mails ends with 421; a mail under way may finish
//! within the drain time. A connection lost before the final dot leaves nothing behind.

mod connection;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mail::AddressPattern;
use smtp::session::{Limits, Protocol};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    budget::Budget,
    consumers::Consumers,
    guests::{Guest, Guests},
    journal::Journal,
    networks::Networks,
    users::Users,
};
use connection::{Client, Connection};

/// Pause after a failed accept, such as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (parameter '{parameter}'): {source}")]
pub struct ListenError {
    /// The address and port.
    pub address: SocketAddr,
    /// The parameter that set it.
    pub parameter: &'static str,
    /// The operating system's error.
    pub source: io::Error,
}

/// Counters of both servers, for `/diagnostics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open SMTP connections.
    pub smtp_connections: AtomicUsize,
    /// Open LMTP connections.
    pub lmtp_connections: AtomicUsize,
    /// Mails answered with 250, including repetitions of mails on disk.
    pub accepted: AtomicU64,
    /// Mails answered with 451 or 452, at their end or, with 452, at MAIL already.
    pub deferred: AtomicU64,
    /// Connections refused with 421.
    pub refused_connections: AtomicU64,
    /// Connections refused with 554: `allowed_clients` does not name them.
    pub refused_clients: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub failed_handshakes: AtomicU64,
}

impl Counters {
    fn connections(&self, protocol: Protocol) -> &AtomicUsize {
        match protocol {
            Protocol::Smtp => &self.smtp_connections,
            Protocol::Lmtp => &self.lmtp_connections,
        }
    }

    /// Counts a connection for as long as the returned value lives.
    fn open(self: &Arc<Self>, protocol: Protocol) -> Open {
        self.connections(protocol).fetch_add(1, Ordering::Relaxed);
        Open { counters: Arc::clone(self), protocol }
    }
}

/// An open connection; dropping it ends its count, also if the session panics.
struct Open {
    counters: Arc<Counters>,
    protocol: Protocol,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.connections(self.protocol).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Settings that the SMTP and LMTP servers share.
pub struct Settings {
    /// Host name in greetings and replies.
    pub hostname: Arc<str>,
    /// Bounds on a session.
    pub limits: Limits,
    /// Silence after which a session ends.
    pub session_timeout: Duration,
    /// How long mails under way may take to finish on shutdown.
    pub drain_timeout: Duration,
    /// How long a client may talk without beginning a mail.
    pub mail_timeout: Duration,
    /// Largest number of open connections, for each server.
    pub max_connections: usize,
    /// The same for one IPv4 address or one IPv6 network.
    pub max_connections_per_address: usize,
    /// Begins TLS; `None` without a certificate.
    pub tls: Option<Arc<tls::server::Server>>,
    /// Whether MAIL needs TLS, except from this host.
    pub require_tls: bool,
    /// Accounts of own devices, for SMTP; `None` without AUTH.
    pub users: Option<Arc<Users>>,
    /// Whether MAIL needs AUTH, on SMTP.
    pub require_auth: bool,
    /// Recipients that are accepted, besides `<postmaster>`; empty: all.
    pub accepted_recipients: Arc<[AddressPattern]>,
    /// Clients that may connect; empty: all.
    pub allowed_clients: Networks,
    /// Counters to update.
    pub counters: Arc<Counters>,
    /// Decides whose a mail is.
    pub consumers: Arc<Consumers>,
    /// Memory for mails that are being received.
    pub(super) budget: Arc<Budget>,
}

/// What a listener is for.
#[derive(Clone, Debug)]
pub struct Door {
    /// What its clients speak.
    pub protocol: Protocol,
    /// Whether TLS begins before the greeting.
    pub implicit_tls: bool,
    /// Bounds its connections, perhaps together with those of another door.
    pub(super) guests: Arc<Guests>,
}

/// Code and reason for which a connection is refused.
type Refusal = (&'static str, &'static str);

impl Door {
    /// Admits a client, or counts it as refused and returns why.
    fn admit(&self, settings: &Settings, address: IpAddr) -> Result<Guest, Refusal> {
        let counters = &settings.counters;
        if !settings.allowed_clients.is_empty() && !settings.allowed_clients.contains(address) {
            counters.refused_clients.fetch_add(1, Ordering::Relaxed);
            return Err(("554 5.7.1", "your address may not connect"));
        }
        self.guests.admit(address).map_err(|reason| {
            counters.refused_connections.fetch_add(1, Ordering::Relaxed);
            ("421 4.3.2", reason)
        })
    }
}

/// Listens on `address`, which came from `parameter`.
///
/// # Errors
/// If the address does not belong to this host or the port is in use.
pub async fn listen(address: SocketAddr, parameter: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, parameter, source })
}

/// Serves until `shutdown` is true and every session has ended. Returns false if the drain time was too short and
/// sessions were cut; their clients got no 250.
pub async fn run(
    listener: TcpListener,
    door: Door,
    settings: Arc<Settings>,
    journal: Journal,
    mut shutdown: watch::Receiver<bool>,
) -> bool {
    let mut sessions = JoinSet::new();
    let session_shutdown = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => match accepted {
                // A dual-stack listener reports IPv4 clients with mapped addresses, which SPF does not understand.
                Ok((stream, peer)) => match door.admit(&settings, peer.ip().to_canonical()) {
                    Ok(guest) => {
                        let client = Client {
                            protocol: door.protocol,
                            address: guest.address,
                            implicit_tls: door.implicit_tls,
                            local: guest.address.is_loopback(),
                        };
                        let (settings, journal) = (Arc::clone(&settings), journal.clone());
                        let shutdown = session_shutdown.clone();
                        sessions.spawn(async move {
                            // All of the guest moves in here, not only its address: its place is taken until the end.
                            let _guest = guest;
                            let _open = settings.counters.open(client.protocol);
                            let served = match stream.set_nodelay(true) {
                                Ok(()) => Connection::new(stream, settings, journal, shutdown).serve(client).await,
                                Err(error) => Err(error),
                            };
                            if let Err(error) = served {
                                tracing::debug!(%error, protocol = ?client.protocol, "connection lost");
                            }
                        });
                    }
                    Err(reason) => refuse(&stream, &settings, &door, reason),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            // Reap sessions as they end.
            Some(_) = sessions.join_next() => {}
        }
    }
    drop(listener);
    let drained =
        timeout(settings.drain_timeout, async { while sessions.join_next().await.is_some() {} }).await;
    sessions.shutdown().await;
    drained.is_ok()
}

/// Returns when `shutdown` is true or its sender is dropped.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Tells a client that it is refused, unless it waits for TLS.
fn refuse(stream: &TcpStream, settings: &Settings, door: &Door, (code, reason): Refusal) {
    if !door.implicit_tls {
        // The send buffer of a new connection has room for this; if not, the close says enough.
        let _ = stream.try_write(format!("{code} {} {reason}\r\n", settings.hostname).as_bytes());
    }
}

#[cfg(test)]
mod tests;
