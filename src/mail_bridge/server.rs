// SPDX-License-Identifier: Apache-2.0
//! The SMTP and LMTP servers: sockets, timers and limits around [`Session`]s.
//!
//! SMTP and LMTP each bound their open connections, in total and per address (421 beyond). Silence, dribbled bytes
//! and talk without a mail end a session with 421. A connection holds at most one mail and one buffer; all mails being
//! received share one budget of memory (452 beyond).
//!
//! On shutdown no more connections are accepted. A session between mails ends with 421; a mail under way may finish
//! within the drain time. A connection lost before the final dot leaves nothing behind.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mail::{AcceptedMail, MailId, Origin};
use smtp::session::{Ending, Incoming, Limits, Outcome, Progress, Protocol, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    budget::{Budget, Lease},
    consumers::Consumers,
    guests::Guests,
    journal::{Accepted, Journal, JournalError},
};

/// Size of one read from a connection, bytes.
const BUFFER_BYTES: usize = 16 * 1024;
/// A whole command or mail may take this many times the session timeout, however steadily bytes arrive.
const SLOW_FACTOR: u32 = 4;
/// After the last reply, the client's remaining bytes are read and dropped, up to this long and this many, so that a
/// TCP reset does not destroy the reply.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
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
#[derive(Debug)]
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
    /// Counters to update.
    pub counters: Arc<Counters>,
    /// Decides whose a mail is.
    pub consumers: Arc<Consumers>,
    /// Memory for mails that are being received.
    pub(super) budget: Arc<Budget>,
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
    protocol: Protocol,
    settings: Arc<Settings>,
    journal: Journal,
    mut shutdown: watch::Receiver<bool>,
) -> bool {
    let mut sessions = JoinSet::new();
    let guests = Guests::new(settings.max_connections, settings.max_connections_per_address);
    let session_shutdown = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => match accepted {
                // A dual-stack listener reports IPv4 clients with mapped addresses, which SPF does not understand.
                Ok((stream, peer)) => match guests.admit(peer.ip().to_canonical()) {
                    Ok(guest) => {
                        let connection = Connection {
                            stream,
                            lease: settings.budget.lease(),
                            settings: Arc::clone(&settings),
                            journal: journal.clone(),
                            shutdown: session_shutdown.clone(),
                        };
                        sessions.spawn(async move {
                            // All of the guest moves in here, not only its address: its place is taken until the end.
                            let guest = guest;
                            let _open = connection.settings.counters.open(protocol);
                            if let Err(error) = connection.serve(protocol, guest.address).await {
                                tracing::debug!(%error, ?protocol, "connection lost");
                            }
                        });
                    }
                    Err(reason) => refuse(&stream, &settings, reason),
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

fn refuse(stream: &TcpStream, settings: &Settings, reason: &str) {
    settings.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
    // The send buffer of a new connection has room for this; if not, the close says enough.
    let _ = stream.try_write(format!("421 4.3.2 {} {reason}\r\n", settings.hostname).as_bytes());
}

struct Connection {
    stream: TcpStream,
    lease: Lease,
    settings: Arc<Settings>,
    journal: Journal,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(mut self, protocol: Protocol, peer: IpAddr) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let hostname = Arc::clone(&self.settings.hostname);
        let mut session = Session::new(protocol, peer, hostname, self.settings.limits);
        let mut buffer = vec![0; BUFFER_BYTES];
        let slow = self.settings.session_timeout.saturating_mul(SLOW_FACTOR);
        let mut progress_by = (session.steps(), Instant::now() + slow);
        let mut mail_by = (session.texts(), Instant::now() + self.settings.mail_timeout);
        self.write(&mut session).await?;
        loop {
            let mail_due = (!session.in_mail()).then_some(mail_by.1);
            let read = match self.read(&mut buffer, progress_by.1, mail_due).await {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(Interruption::Lost(error)) => return Err(error),
                Err(Interruption::End(ending)) => {
                    session.end(ending);
                    return self.close(&mut session).await;
                }
            };
            let mut input = buffer.get(..read).unwrap_or_default();
            session.set_room(self.journal.room().is_ok());
            loop {
                match session.receive(&mut input) {
                    Progress::More => {
                        // The mail before it, if there was one, is on disk.
                        if !self.lease.hold(session.held_bytes()) {
                            session.no_memory();
                            self.lease.hold(session.held_bytes());
                        }
                        break;
                    }
                    Progress::Close => return self.close(&mut session).await,
                    Progress::Mail(mail) => {
                        self.write(&mut session).await?;
                        session.conclude(self.take(protocol, *mail).await);
                    }
                }
            }
            self.write(&mut session).await?;
            if session.steps() != progress_by.0 {
                progress_by = (session.steps(), Instant::now() + slow);
            }
            if session.in_mail() || session.texts() != mail_by.0 {
                mail_by = (session.texts(), Instant::now() + self.settings.mail_timeout);
            }
        }
    }

    async fn read(
        &mut self,
        buffer: &mut [u8],
        progress_by: Instant,
        mail_due: Option<Instant>,
    ) -> Result<usize, Interruption> {
        let silent = progress_by.min(Instant::now() + self.settings.session_timeout);
        let (deadline, ending) = match mail_due {
            Some(due) if due < silent => (due, Ending::NoMail),
            _ => (silent, Ending::Timeout),
        };
        let read = timeout_at(deadline, self.stream.read(buffer));
        tokio::select! {
            biased;
            () = stopped(&mut self.shutdown), if mail_due.is_some() => Err(Interruption::End(Ending::Shutdown)),
            result = read => match result {
                Ok(result) => result.map_err(Interruption::Lost),
                Err(_) => Err(Interruption::End(ending)),
            },
        }
    }

    async fn write(&mut self, session: &mut Session) -> io::Result<()> {
        // Figures go before replies, so that a client with a reply can rely on them.
        self.settings.counters.deferred.fetch_add(session.take_turned_away(), Ordering::Relaxed);
        let output = session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        timeout(self.settings.session_timeout, self.stream.write_all(&output))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn take(&self, protocol: Protocol, Incoming { envelope, data }: Incoming) -> Outcome {
        let id = MailId::of(&data);
        let counters = &self.settings.counters;
        let origin = match protocol {
            Protocol::Smtp => Origin::Smtp(envelope),
            Protocol::Lmtp => Origin::Lmtp(envelope),
        };
        let consumers = self.settings.consumers.of(&origin);
        let mail = AcceptedMail { id, received_at: SystemTime::now(), origin, consumers, data };
        match self.journal.accept(mail).await {
            Ok(accepted) => {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                tracing::info!(mail_id = %id, known = accepted == Accepted::Known, "mail journaled");
                Outcome::Stored(id)
            }
            Err(error) => {
                counters.deferred.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(mail_id = %id, %error, "mail not journaled");
                match error {
                    JournalError::NoRoom(_) => Outcome::NoRoom,
                    JournalError::ForOthers => Outcome::ForOthers,
                    _ => Outcome::TryAgain,
                }
            }
        }
    }

    async fn close(mut self, session: &mut Session) -> io::Result<()> {
        self.write(session).await?;
        self.stream.shutdown().await?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = LINGER_BYTES;
        let _ = timeout(LINGER, async {
            while let Ok(read @ 1..) = self.stream.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        })
        .await;
        Ok(())
    }
}

enum Interruption {
    Lost(io::Error),
    End(Ending),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_that_panics_is_no_longer_counted_as_open() {
        let counters = Arc::new(Counters::default());
        let open = counters.open(Protocol::Smtp);
        assert_eq!(counters.smtp_connections.load(Ordering::Relaxed), 1);
        let session = tokio::spawn(async move {
            let _open = open;
            panic!("on purpose");
        });
        assert!(session.await.unwrap_err().is_panic());
        assert_eq!(counters.smtp_connections.load(Ordering::Relaxed), 0);
    }
}
