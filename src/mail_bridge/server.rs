// SPDX-License-Identifier: Apache-2.0
//! The SMTP and LMTP servers: sockets, timers and limits around sessions.
//!
//! A client is admitted by its address, which a load balancer that is named may tell (`visit`). SMTP and LMTP each
//! bound their open connections, in total and per address (421 beyond). Silence, dribbled bytes and talk without a
//! mail end a session with 421, and a slow TLS handshake without a word. A connection holds at most one mail and one
//! buffer; all mails being received share one budget of memory (452 beyond).
//!
//! On shutdown no more connections are accepted. A session between mails ends with 421; a mail under way may finish
//! within the drain time. A connection lost before the final dot leaves nothing behind.

mod connection;
mod proxy_header;
mod visit;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mail::AddressPattern;
use smtp::session::{Limits, Protocol};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    budget::Budget, consumers::Consumers, guests::Guests, journal::Journal, networks::Networks, users::Users,
};
use visit::Visit;

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
    /// Connections refused with 554, because `allowed_clients` does not name them, and those of load balancers that
    /// were dropped for want of a header.
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
    /// Load balancers, whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_from: Networks,
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
    let visits = Visit { door, settings: Arc::clone(&settings), journal, shutdown: shutdown.clone() };
    // Connections of load balancers without their header yet; nobody's place is taken by then.
    let headers = Arc::new(Semaphore::new(settings.max_connections));
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // A dual-stack listener reports IPv4 clients with mapped addresses, which SPF does not understand.
                    let address = peer.ip().to_canonical();
                    let visit = visits.clone();
                    if settings.proxy_protocol_from.contains(address) {
                        if let Ok(waiting) = Arc::clone(&headers).try_acquire_owned() {
                            sessions.spawn(visit.behind_balancer(stream, address, waiting));
                        } else {
                            settings.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
                        }
                    } else if let Some(guest) = visit.admit(&stream, address) {
                        sessions.spawn(visit.serve(stream, guest, address.is_loopback()));
                    }
                }
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

#[cfg(test)]
mod tests;
