// SPDX-License-Identifier: Apache-2.0
//! One connection: a [`Session`] on a stream, with its timers, its memory and the journal.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use mail::{AcceptedMail, MailId, Origin};
use smtp::session::{
    Access, AuthOutcome, Credentials, Ending, Incoming, Outcome, Progress, Protocol, Session, Tls,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{Settings, stopped};
use crate::{
    budget::Lease,
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
/// Longest TLS handshake, if the session timeout is longer.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// A stream of bytes, encrypted or not.
trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// Where a client connected from, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) protocol: Protocol,
    pub(super) address: IpAddr,
    /// Whether TLS begins before the greeting.
    pub(super) implicit_tls: bool,
    /// Whether the client is on this host.
    pub(super) local: bool,
}

pub(super) struct Connection {
    stream: Box<dyn Io>,
    lease: Lease,
    settings: Arc<Settings>,
    journal: Journal,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    pub(super) fn new(
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        settings: Arc<Settings>,
        journal: Journal,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { stream: Box::new(stream), lease: settings.budget.lease(), settings, journal, shutdown }
    }

    pub(super) async fn serve(mut self, client: Client) -> io::Result<()> {
        if client.implicit_tls {
            self.start_tls().await?;
        }
        let mut session = self.session(client);
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
                    Progress::StartTls => {
                        self.write(&mut session).await?;
                        self.start_tls().await?;
                        session.tls_started();
                    }
                    Progress::Credentials(given) => {
                        self.write(&mut session).await?;
                        session.conclude_auth(self.check(given, client.address).await);
                    }
                    Progress::Mail(mail) => {
                        self.write(&mut session).await?;
                        session.conclude(self.take(client.protocol, *mail).await);
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

    fn session(&self, client: Client) -> Session {
        let settings = &self.settings;
        let hostname = Arc::clone(&settings.hostname);
        let tls = match (&settings.tls, client.implicit_tls) {
            (None, _) => Tls::Unavailable,
            (Some(_), false) => Tls::Offered,
            (Some(_), true) => Tls::Active,
        };
        // Submission is SMTP's; who speaks LMTP is named by allowed_clients.
        let is_smtp = client.protocol == Protocol::Smtp;
        let access = Access {
            tls,
            local: client.local,
            require_tls: settings.require_tls,
            auth: is_smtp && settings.users.is_some(),
            require_auth: is_smtp && settings.require_auth,
            recipients: Arc::clone(&settings.accepted_recipients),
        };
        Session::new(client.protocol, client.address, hostname, settings.limits).with_access(access)
    }

    /// Replaces the stream by an encrypted one.
    async fn start_tls(&mut self) -> io::Result<()> {
        let Some(tls) = &self.settings.tls else { return Err(io::ErrorKind::Unsupported.into()) };
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let handshake = timeout(HANDSHAKE.min(self.settings.session_timeout), tls.accept(plain));
        let started = tokio::select! {
            biased;
            () = stopped(&mut self.shutdown) => return Err(io::ErrorKind::Interrupted.into()),
            done = handshake => done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        if started.is_err() {
            self.settings.counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        }
        self.stream = Box::new(started?);
        Ok(())
    }

    async fn check(&mut self, given: Credentials, address: IpAddr) -> AuthOutcome {
        let Some(users) = &self.settings.users else { return AuthOutcome::TryAgain };
        tokio::select! {
            biased;
            () = stopped(&mut self.shutdown) => AuthOutcome::TryAgain,
            outcome = users.check(given, address) => outcome,
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
        let write = async {
            self.stream.write_all(&output).await?;
            // TLS keeps what does not fit into the socket.
            self.stream.flush().await
        };
        timeout(self.settings.session_timeout, write)
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
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = LINGER_BYTES;
        let _ = timeout(LINGER, async {
            self.stream.shutdown().await?;
            while let Ok(read @ 1..) = self.stream.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        })
        .await;
        Ok(())
    }
}

enum Interruption {
    Lost(io::Error),
    End(Ending),
}
