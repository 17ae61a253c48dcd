// SPDX-License-Identifier: Apache-2.0
//! A connection from its acceptance to its session: who it is from, and whether it is admitted.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use super::{
    Door, Settings,
    connection::{Client, Connection},
    proxy_header::{self, Behind},
    stopped,
};
use crate::{guests::Guest, journal::Journal};

/// Time that a load balancer has for its header.
const HEADER: Duration = Duration::from_secs(10);

/// What a connection needs of the server that accepted it.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) door: Door,
    pub(super) settings: Arc<Settings>,
    pub(super) journal: Journal,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Visit {
    /// Admits a client at this address, or tells it why not and counts it.
    pub(super) fn admit(&self, stream: &TcpStream, address: IpAddr) -> Option<Guest> {
        let (settings, counters) = (&self.settings, &self.settings.counters);
        if !settings.allowed_clients.is_empty() && !settings.allowed_clients.contains(address) {
            counters.refused_clients.fetch_add(1, Ordering::Relaxed);
            self.refuse(stream, "554 5.7.1", "your address may not connect");
            return None;
        }
        match self.door.guests.admit(address) {
            Ok(guest) => Some(guest),
            Err(reason) => {
                counters.refused_connections.fetch_add(1, Ordering::Relaxed);
                self.refuse(stream, "421 4.3.2", reason);
                None
            }
        }
    }

    fn refuse(&self, stream: &TcpStream, code: &str, reason: &str) {
        // Who waits for TLS could not read it.
        if !self.door.implicit_tls {
            // The send buffer of a new connection has room for this; if not, the close says enough.
            let _ = stream.try_write(format!("{code} {} {reason}\r\n", self.settings.hostname).as_bytes());
        }
    }

    /// Reads the header of the load balancer at `address`, and serves the client that it names. Holds `waiting` until
    /// the header is read.
    pub(super) async fn behind_balancer(
        mut self,
        mut stream: TcpStream,
        address: IpAddr,
        waiting: OwnedSemaphorePermit,
    ) {
        let header = timeout(HEADER.min(self.settings.session_timeout), proxy_header::read(&mut stream));
        let header = tokio::select! {
            biased;
            () = stopped(&mut self.shutdown) => return,
            header = header => header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        drop(waiting);
        let (address, local) = match header {
            Ok(Behind::Client(client)) => (client, false),
            Ok(Behind::Somebody) => (address, false),
            Ok(Behind::Nobody) => (address, address.is_loopback()),
            Err(error) => {
                self.settings.counters.refused_clients.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, balancer = %address, "connection without a header of the PROXY protocol dropped");
                return;
            }
        };
        if let Some(guest) = self.admit(&stream, address) {
            self.serve(stream, guest, local).await;
        }
    }

    /// Serves a client; its place is taken until the end.
    pub(super) async fn serve(self, stream: TcpStream, guest: Guest, local: bool) {
        let Door { protocol, implicit_tls, .. } = self.door;
        let client = Client { protocol, address: guest.address, implicit_tls, local };
        let _open = self.settings.counters.open(protocol);
        let served = match stream.set_nodelay(true) {
            Ok(()) => Connection::new(stream, self.settings, self.journal, self.shutdown).serve(client).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%error, ?protocol, "connection lost");
        }
    }
}
