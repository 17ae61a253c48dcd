// SPDX-License-Identifier: Apache-2.0
//! A session with a server: connecting, logging in, and how each command is run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use io_imap::{
    codec::fragmentizer::Fragmentizer,
    coroutine::{ImapCoroutine, ImapCoroutineState, ImapYield},
    rfc3501::{
        login::{ImapLogin, ImapLoginOptions},
        logout::ImapLogout,
    },
    sasl::{
        auth_plain::{ImapAuthPlain, ImapAuthPlainOptions},
        auth_xoauth2::{ImapAuthXoauth2, ImapAuthXoauth2Options},
    },
    session::{ImapSessionOpen, ImapSessionOpenOptions, ImapSessionOpenYield, ImapSessionTransport},
    types::{auth::AuthMechanism, response::Capability},
};
use io_sasl::mechanism::Sasl;
use tls::client::ConnectError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    account::{Credentials, Extension, Security, Server},
    budget::Budget,
    commands::SEARCH_BYTES,
    error::{ImapError, login_error},
};

/// Size of one read, bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Bounds on answers, bytes: while logging in, and to a command.
const OPENING_BYTES: usize = 256 * 1024;
pub(crate) const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// An answer may take this many times the patience with a silence, however steadily its bytes come.
const SLOW_FACTOR: u32 = 10;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A session in which somebody is logged in.
pub struct Session {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) fragmentizer: Fragmentizer,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) patience: Duration,
    capabilities: Vec<Capability<'static>>,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// If there is no server, it cannot be trusted, or it does not let us in.
    pub async fn open(server: &Server, user: &str, credentials: &Credentials) -> Result<Self, ImapError> {
        let mut session = Self::connect(server).await?;
        session.log_in(user, credentials).await?;
        Ok(session)
    }

    async fn connect(server: &Server) -> Result<Self, ImapError> {
        let (host, port) = (server.host.clone(), server.port);
        let transport = ImapSessionTransport::Tcp { host: host.clone(), port };
        let starttls = server.security == Security::StartTls;
        let options = ImapSessionOpenOptions { starttls, ..ImapSessionOpenOptions::default() };
        let nobody: Option<Sasl> = None;
        let mut opening = ImapSessionOpen::new(transport, nobody, options);
        let stream = within(server.patience, dial(server)).await?;
        let stream: Box<dyn Stream> = match server.security {
            Security::Tls => Box::new(within(server.patience, encrypt(server, stream)).await?),
            Security::StartTls | Security::Plaintext => Box::new(stream),
        };
        let mut session = Self {
            stream,
            fragmentizer: new_fragmentizer(),
            buffer: vec![0; READ_BYTES].into(),
            patience: server.patience,
            capabilities: Vec::new(),
        };
        let (mut read, mut budget) = (None, session.budget(OPENING_BYTES));
        loop {
            let bytes = read.take().map(|read| session.buffer.get(..read).unwrap_or_default());
            match step(&mut opening, &mut session.fragmentizer, bytes)? {
                ImapCoroutineState::Complete(opened) => {
                    session.capabilities = opened?.capability;
                    return Ok(session);
                }
                ImapCoroutineState::Yielded(asked) => match asked {
                    ImapSessionOpenYield::WantsTcpConnect { .. } => {}
                    ImapSessionOpenYield::WantsTlsUpgrade => {
                        let plain = std::mem::replace(&mut session.stream, Box::new(tokio::io::empty()));
                        let encrypted = within(server.patience, encrypt(server, plain)).await;
                        session.stream = Box::new(encrypted.map_err(no_starttls)?);
                    }
                    ImapSessionOpenYield::WantsRead => read = Some(session.read(&mut budget).await?),
                    ImapSessionOpenYield::WantsWrite(bytes) => session.write(&bytes).await?,
                    other => return Err(ImapError::Protocol(format!("{other:?}"))),
                },
            }
        }
    }

    async fn log_in(&mut self, user: &str, credentials: &Credentials) -> Result<(), ImapError> {
        let offers = |mechanism: &AuthMechanism<'static>| {
            self.capabilities.iter().any(|one| matches!(one, Capability::Auth(other) if other == mechanism))
        };
        let initial_request = self.capabilities.contains(&Capability::SaslIr);
        let ensure_capabilities = true;
        let capabilities = match credentials {
            Credentials::Password(password) if offers(&AuthMechanism::Plain) => {
                let options = ImapAuthPlainOptions { initial_request, ensure_capabilities, auto_id: None };
                let nobody_else: Option<&str> = None;
                let plain = ImapAuthPlain::new(nobody_else, user, password, options);
                self.run_within(plain, OPENING_BYTES).await
            }
            Credentials::Password(_) if self.capabilities.contains(&Capability::LoginDisabled) => {
                Err(ImapError::NoWay("a password"))
            }
            Credentials::Password(password) => {
                let options = ImapLoginOptions { ensure_capabilities, auto_id: None };
                let login = ImapLogin::new(user, password, options)
                    .map_err(|error| ImapError::Refused(error.to_string()))?;
                self.run_within(login, OPENING_BYTES).await
            }
            Credentials::Token(token) if offers(&AuthMechanism::XOAuth2) => {
                let options = ImapAuthXoauth2Options { initial_request, ensure_capabilities, auto_id: None };
                self.run_within(ImapAuthXoauth2::new(user, token, options), OPENING_BYTES).await
            }
            Credentials::Token(_) => Err(ImapError::NoWay("a token (XOAUTH2)")),
        };
        self.capabilities = capabilities.map_err(login_error)?;
        Ok(())
    }

    /// Whether the server can do more than every server can.
    pub fn has(&self, extension: Extension) -> bool {
        self.capabilities.iter().any(|one| {
            matches!(
                (extension, one),
                (Extension::Idle, Capability::Idle)
                    | (Extension::CondStore, Capability::CondStore | Capability::QResync)
                    | (Extension::Move, Capability::Move)
            )
        })
    }

    /// Says goodbye; whether the server heard it does not matter.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(2), async {
            let mut logout = ImapLogout::new();
            let (mut read, mut budget) = (None, self.budget(OPENING_BYTES));
            loop {
                let bytes = read.take().map(|read| self.buffer.get(..read).unwrap_or_default());
                match step(&mut logout, &mut self.fragmentizer, bytes)? {
                    ImapCoroutineState::Yielded(ImapYield::WantsWrite(bytes)) => self.write(&bytes).await?,
                    ImapCoroutineState::Yielded(ImapYield::WantsRead) => {
                        read = Some(self.read(&mut budget).await?)
                    }
                    ImapCoroutineState::Complete(_) => return Ok::<_, ImapError>(()),
                }
            }
        })
        .await;
    }

    /// Runs a command to its end.
    pub(crate) async fn run<C, T, E>(&mut self, command: C) -> Result<T, ImapError>
    where
        C: ImapCoroutine<Yield = ImapYield, Return = Result<T, E>>,
        ImapError: From<E>,
    {
        self.run_within(command, ANSWER_BYTES).await
    }

    /// The same, with a bound on the answer in bytes.
    pub(crate) async fn run_within<C, T, E>(&mut self, mut command: C, bytes: usize) -> Result<T, ImapError>
    where
        C: ImapCoroutine<Yield = ImapYield, Return = Result<T, E>>,
        ImapError: From<E>,
    {
        let (mut read, mut budget) = (None, self.budget(bytes));
        loop {
            let bytes = read.take().map(|read| self.buffer.get(..read).unwrap_or_default());
            match step(&mut command, &mut self.fragmentizer, bytes)? {
                ImapCoroutineState::Complete(result) => return Ok(result?),
                ImapCoroutineState::Yielded(ImapYield::WantsRead) => {
                    read = Some(self.read(&mut budget).await?)
                }
                ImapCoroutineState::Yielded(ImapYield::WantsWrite(bytes)) => self.write(&bytes).await?,
            }
        }
    }

    /// Reads some bytes into the buffer.
    pub(crate) async fn read(&mut self, budget: &mut Budget) -> Result<usize, ImapError> {
        let silent_at = Instant::now() + self.patience;
        let read = timeout_at(silent_at.min(budget.until), self.stream.read(&mut self.buffer)).await;
        let late =
            |_| if silent_at < budget.until { ImapError::Silent(self.patience) } else { ImapError::Slow };
        let read = read.map_err(late)??;
        budget.take(read)
    }

    /// What an answer of so many bytes may cost, from now on.
    pub(crate) fn budget(&self, bytes: usize) -> Budget {
        Budget { taken: 0, bytes, until: Instant::now() + self.patience.saturating_mul(SLOW_FACTOR) }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ImapError> {
        let written = timeout(self.patience, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        Ok(written.await.map_err(|_| ImapError::Silent(self.patience))??)
    }
}

/// Takes a command one step further. io-imap asserts, in places, that a server keeps to the protocol: one that does not must
/// not end more than its own session.
pub(crate) fn step<C: ImapCoroutine>(
    command: &mut C,
    fragmentizer: &mut Fragmentizer,
    bytes: Option<&[u8]>,
) -> Result<ImapCoroutineState<C::Yield, C::Return>, ImapError> {
    // Neither is used again after a panic.
    catch_unwind(AssertUnwindSafe(|| command.resume(fragmentizer, bytes)))
        .map_err(|_| ImapError::Protocol("its answer cannot be read at all".to_owned()))
}

/// A server that refuses STARTTLS goes on without TLS, which fails as a handshake.
fn no_starttls(error: ImapError) -> ImapError {
    match error {
        ImapError::Tls(ConnectError::Handshake { host, .. }) => ImapError::Protocol(format!(
            "{host} does not begin TLS after STARTTLS: perhaps it does not offer it"
        )),
        other => other,
    }
}

fn new_fragmentizer() -> Fragmentizer {
    Fragmentizer::new(u32::try_from(SEARCH_BYTES).unwrap_or(u32::MAX))
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, ImapError>>,
) -> Result<T, ImapError> {
    timeout(patience, work).await.map_err(|_| ImapError::Silent(patience))?
}

async fn dial(server: &Server) -> Result<TcpStream, ImapError> {
    let failed = |source| ImapError::Connect { address: format!("{}:{}", server.host, server.port), source };
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(failed)?;
    // Commands are small: with Nagle's algorithm each would take another 40 ms.
    stream.set_nodelay(true).map_err(failed)?;
    if server.security == Security::Plaintext
        && !stream.peer_addr().map_err(failed)?.ip().to_canonical().is_loopback()
    {
        return Err(ImapError::Name {
            what: "without TLS the server",
            value: server.host.clone(),
            why: "must be on this host".to_owned(),
        });
    }
    Ok(stream)
}

async fn encrypt<S: Stream>(server: &Server, stream: S) -> Result<impl Stream + use<S>, ImapError> {
    Ok(server.tls.connect(&server.host, stream).await?)
}
