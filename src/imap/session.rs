// SPDX-License-Identifier: Apache-2.0
//! A session with a server: from connecting to the commands that reading a mailbox takes.

use std::{
    fmt,
    num::NonZeroU32,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use io_imap::{
    codec::{CommandCodec, fragmentizer::Fragmentizer},
    coroutine::{ImapCoroutine, ImapCoroutineState, ImapYield},
    rfc2177::idle::{ImapIdle, ImapIdleOptions, ImapIdleYield},
    rfc3501::{
        examine::{ImapMailboxExamine, ImapMailboxExamineOptions},
        list::ImapMailboxList,
        login::{ImapLogin, ImapLoginOptions},
        logout::ImapLogout,
        select::{ImapMailboxSelect, ImapMailboxSelectOptions},
        status::ImapMailboxStatus,
        store::{ImapMessageStore, ImapMessageStoreOptions},
    },
    rfc6851::r#move::{ImapMessageMove, ImapMessageMoveOptions},
    sasl::{
        auth_plain::{ImapAuthPlain, ImapAuthPlainOptions},
        auth_xoauth2::{ImapAuthXoauth2, ImapAuthXoauth2Options},
    },
    send::ImapSend,
    session::{ImapSessionOpen, ImapSessionOpenOptions, ImapSessionOpenYield, ImapSessionTransport},
    types::{
        IntoStatic,
        auth::AuthMechanism,
        command::{Command, CommandBody, SelectParameter},
        core::{TagGenerator, Vec1},
        datetime::NaiveDate,
        error::ValidationError,
        flag::{Flag, FlagNameAttribute, StoreType},
        mailbox::{ListMailbox, Mailbox},
        response::{Capability, Data, StatusKind, Tagged},
        search::SearchKey,
        sequence::SequenceSet,
        status::{StatusDataItem, StatusDataItemName},
    },
};
use io_sasl::mechanism::Sasl;
use tls::client::ConnectError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    ImapError,
    error::{clipped, login_error},
};

/// Size of one read, bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Bounds on answers, bytes: while logging in; to a command; to a search, which is the numbers of 3 million messages.
const OPENING_BYTES: usize = 256 * 1024;
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
const SEARCH_BYTES: usize = 32 * 1024 * 1024;
/// An answer may take this many times the patience with a silence, however steadily its bytes come.
const SLOW_FACTOR: u32 = 10;

/// How a connection is kept from being read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte on, usually at port 993.
    Tls,
    /// TLS by STARTTLS, usually at port 143. It is never left out because the server does not offer it.
    StartTls,
    /// None. Only for a server on this host.
    Plaintext,
}

/// A server, and how to reach it.
#[derive(Clone)]
pub struct Server {
    /// Name, as in its certificate, or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether to encrypt, and from when on.
    pub security: Security,
    /// Whose certificate to trust.
    pub tls: tls::client::Client,
    /// Bound on connecting and on each silence.
    pub patience: Duration,
}

/// What proves who we are. Never printed.
#[derive(Clone)]
pub enum Credentials {
    /// By PLAIN (RFC 4616) or, where the server does not offer that, LOGIN (RFC 3501 section 6.2.3).
    Password(String),
    /// An OAuth 2.0 access token, by XOAUTH2.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Token(_) => "Token",
        })
    }
}

/// What not every server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Tells of new messages by itself (RFC 2177).
    Idle,
    /// Counts changes to a folder (RFC 7162).
    CondStore,
    /// Moves messages in one step (RFC 6851).
    Move,
}

/// How a folder is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By EXAMINE: nothing there can change.
    Read,
    /// By SELECT.
    Write,
}

/// A folder by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Name, decoded.
    pub name: String,
    /// Whether it can have messages.
    pub has_messages: bool,
}

/// How many messages a folder has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderCounts {
    /// All of them.
    pub messages: u32,
    /// Those that nobody has read.
    pub unseen: u32,
}

/// What a server says of a folder that it opens (RFC 3501 section 6.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Number of messages.
    pub messages: u32,
    /// If it changes, all UIDs have.
    pub uid_validity: u32,
    /// The UID that the next message will have; `None` if the server does not say.
    pub uid_next: Option<u32>,
    /// Number of the last change to the folder; `None` without CONDSTORE.
    pub changes: Option<u64>,
}

/// Why [`Session::idle`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The server tells of messages.
    News,
    /// Nothing for as long as was asked for.
    Time,
    /// The caller's own reason.
    Called,
}

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

    /// Lists all folders.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn folders(&mut self) -> Result<Vec<Folder>, ImapError> {
        let all = ListMailbox::try_from("*").map_err(|error| ImapError::Protocol(error.to_string()))?;
        let listed = self.run(ImapMailboxList::new(folder("")?, all)).await?;
        let folder = |(name, _, attributes): (_, _, Vec<FlagNameAttribute<'_>>)| Folder {
            name: folder_name(&name),
            has_messages: !attributes.contains(&FlagNameAttribute::Noselect),
        };
        Ok(listed.into_iter().map(folder).collect())
    }

    /// Counts the messages of a folder without opening it.
    ///
    /// # Errors
    /// If there is no such folder or the server does not answer as it should.
    pub async fn count(&mut self, name: &str) -> Result<FolderCounts, ImapError> {
        const ITEMS: [StatusDataItemName; 2] = [StatusDataItemName::Messages, StatusDataItemName::Unseen];
        let items = self.run(ImapMailboxStatus::new(folder(name)?, ITEMS.to_vec())).await?;
        let mut counts = FolderCounts::default();
        for item in items {
            match item {
                StatusDataItem::Messages(messages) => counts.messages = messages,
                StatusDataItem::Unseen(unseen) => counts.unseen = unseen,
                _ => {}
            }
        }
        Ok(counts)
    }

    /// Opens a folder; the commands after it are about its messages. Opening it again asks what is new.
    ///
    /// # Errors
    /// If there is no such folder, it cannot be opened, or its messages have no lasting UIDs.
    pub async fn open_folder(&mut self, name: &str, access: Access) -> Result<Opened, ImapError> {
        let counts = self.has(Extension::CondStore).then_some(SelectParameter::CondStore);
        let (name, parameters) = (folder(name)?, Vec::from_iter(counts));
        let opened = match access {
            Access::Read => {
                self.run(ImapMailboxExamine::new(name, ImapMailboxExamineOptions { parameters })).await?
            }
            Access::Write => {
                self.run(ImapMailboxSelect::new(name, ImapMailboxSelectOptions { parameters })).await?
            }
        };
        let Some(uid_validity) = opened.uid_validity else {
            return Err(ImapError::Protocol("the folder has no UIDVALIDITY".to_owned()));
        };
        Ok(Opened {
            messages: opened.exists.unwrap_or(0),
            uid_validity: uid_validity.get(),
            uid_next: opened.uid_next.map(NonZeroU32::get),
            changes: opened.highest_mod_seq,
        })
    }

    /// UIDs of messages from `first` on, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_from(&mut self, first: u32) -> Result<Vec<u32>, ImapError> {
        let mut found = self.search(vec![SearchKey::SequenceSet(uids(first..=u32::MAX)?)]).await?;
        // "first:*" has the last message even if its UID is lower (RFC 3501 section 6.4.8).
        found.retain(|uid| *uid >= first);
        Ok(found)
    }

    /// UIDs of messages from `first` on that are larger than this, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_larger(&mut self, first: u32, bytes: usize) -> Result<Vec<u32>, ImapError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.search(vec![SearchKey::SequenceSet(uids(first..=u32::MAX)?), SearchKey::Larger(bytes)]).await
    }

    /// UIDs of messages that arrived on this day (of the server's clock) or later, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_since(&mut self, year: i32, month: u32, day: u32) -> Result<Vec<u32>, ImapError> {
        let date =
            chrono::NaiveDate::from_ymd_opt(year, month, day).and_then(|date| NaiveDate::try_from(date).ok());
        let Some(date) = date else {
            return Err(ImapError::Protocol(format!("{year}-{month}-{day} is no date")));
        };
        self.search(vec![SearchKey::Since(date)]).await
    }

    /// UIDs of messages up to `last` that do not have this flag, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_without(&mut self, flag: &str, last: u32) -> Result<Vec<u32>, ImapError> {
        let without = match parsed_flag(flag)? {
            Flag::Answered => SearchKey::Unanswered,
            Flag::Deleted => SearchKey::Undeleted,
            Flag::Draft => SearchKey::Undraft,
            Flag::Flagged => SearchKey::Unflagged,
            Flag::Seen => SearchKey::Unseen,
            Flag::Keyword(keyword) => SearchKey::Unkeyword(keyword),
            Flag::Extension(_) => return Err(no_flag(flag, "a flag that can be searched for")),
        };
        self.search(vec![SearchKey::SequenceSet(uids(1..=last)?), without]).await
    }

    async fn search(&mut self, all_of: Vec<SearchKey<'static>>) -> Result<Vec<u32>, ImapError> {
        let criteria = Vec1::try_from(all_of)
            .map_err(|error: ValidationError| ImapError::Protocol(error.to_string()))?;
        // io-imap's own command keeps only the last line of an answer in several.
        let body = CommandBody::Search { charset: None, criteria, uid: true };
        let command = Command { tag: TagGenerator::new().generate(), body };
        let answer = self.run_within(ImapSend::new(CommandCodec::new(), command), SEARCH_BYTES).await?;
        if let Some(bye) = answer.bye {
            return Err(ImapError::Ended(clipped(bye.text.as_ref())));
        }
        let Some(Tagged { body, .. }) = answer.tagged else {
            return Err(ImapError::Protocol("no end of the answer to SEARCH".to_owned()));
        };
        if body.kind != StatusKind::Ok {
            return Err(ImapError::No(clipped(body.text.as_ref())));
        }
        let numbers = |data| if let Data::Search(uids, _) = data { uids } else { Vec::new() };
        let found = answer.data.into_iter().flat_map(numbers).map(NonZeroU32::get);
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Gives these messages a flag. Those that are gone are left out by the server.
    ///
    /// # Errors
    /// If the server refuses or does not answer as it should.
    pub async fn flag(&mut self, of: &[u32], flag: &str) -> Result<(), ImapError> {
        let options = ImapMessageStoreOptions { uid: true };
        let flags = vec![parsed_flag(flag)?];
        self.run(ImapMessageStore::new(listed(of)?, StoreType::Add, flags, options)).await.map(drop)
    }

    /// Moves these messages to another folder. Those that are gone are left out by the server.
    ///
    /// # Errors
    /// If there is no such folder or the server does not answer as it should.
    pub async fn move_to(&mut self, of: &[u32], name: &str) -> Result<(), ImapError> {
        let options = ImapMessageMoveOptions { uid: true };
        self.run(ImapMessageMove::new(listed(of)?, folder(name)?, options)).await.map(drop)
    }

    /// Waits, by IDLE (RFC 2177), until the server tells of messages, `limit` has passed, or `called` is ready.
    ///
    /// # Errors
    /// If the server does not know IDLE or the connection is lost.
    pub async fn idle(
        &mut self,
        limit: Duration,
        called: impl Future<Output = ()>,
    ) -> Result<Wake, ImapError> {
        let done = Arc::new(AtomicBool::new(false));
        let mut idling = ImapIdle::new(Arc::clone(&done), ImapIdleOptions::default());
        let until = Instant::now() + limit;
        let mut called = std::pin::pin!(called);
        let (mut read, mut wake, mut budget) = (None, None, self.budget(ANSWER_BYTES));
        budget.until += limit;
        loop {
            let bytes = read.take().map(|read| self.buffer.get(..read).unwrap_or_default());
            match step(&mut idling, &mut self.fragmentizer, bytes)? {
                ImapCoroutineState::Complete(ended) => {
                    ended?;
                    return Ok(wake.unwrap_or(Wake::Time));
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsWrite(bytes)) => self.write(&bytes).await?,
                ImapCoroutineState::Yielded(ImapIdleYield::Event(event)) => {
                    // What was said so far takes no more memory.
                    budget.taken = 0;
                    if event.data.iter().any(|data| matches!(data, Data::Exists(_))) {
                        wake = Some(Wake::News);
                    }
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsRead) if wake.is_some() => {
                    read = Some(self.read(&mut budget).await?);
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsRead) => {
                    read = tokio::select! {
                        some = self.stream.read(&mut self.buffer) => Some(budget.take(some?)?),
                        () = sleep_until(until) => { wake = Some(Wake::Time); None }
                        () = called.as_mut() => { wake = Some(Wake::Called); None }
                    };
                }
            }
            done.store(wake.is_some(), Ordering::SeqCst);
        }
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
    async fn run<C, T, E>(&mut self, command: C) -> Result<T, ImapError>
    where
        C: ImapCoroutine<Yield = ImapYield, Return = Result<T, E>>,
        ImapError: From<E>,
    {
        self.run_within(command, ANSWER_BYTES).await
    }

    /// The same, with a bound on the answer in bytes.
    async fn run_within<C, T, E>(&mut self, mut command: C, bytes: usize) -> Result<T, ImapError>
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

/// What a server may say in answer to one command, and until when.
pub(crate) struct Budget {
    taken: usize,
    bytes: usize,
    until: Instant,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<usize, ImapError> {
        if bytes == 0 {
            return Err(ImapError::Closed);
        }
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.bytes { Err(ImapError::TooMuch(self.bytes)) } else { Ok(bytes) }
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

fn folder(name: &str) -> Result<Mailbox<'static>, ImapError> {
    Mailbox::try_from(name.as_bytes().to_vec()).map_err(|error| ImapError::Name {
        what: "folder",
        value: name.to_owned(),
        why: error.to_string(),
    })
}

fn folder_name(folder: &Mailbox<'_>) -> String {
    match folder {
        Mailbox::Inbox => "INBOX".to_owned(),
        Mailbox::Other(name) => String::from_utf8_lossy(name.as_ref()).into_owned(),
    }
}

fn parsed_flag(flag: &str) -> Result<Flag<'static>, ImapError> {
    Flag::try_from(flag)
        .map(IntoStatic::into_static)
        .map_err(|_| no_flag(flag, "a keyword, or \\Seen, \\Flagged, \\Answered or \\Deleted"))
}

fn no_flag(flag: &str, rule: &str) -> ImapError {
    ImapError::Name { what: "flag", value: flag.to_owned(), why: format!("must be {rule}") }
}

pub(crate) fn uids(range: RangeInclusive<u32>) -> Result<SequenceSet, ImapError> {
    let text = match *range.end() {
        u32::MAX => format!("{}:*", range.start()),
        end => format!("{}:{end}", range.start()),
    };
    SequenceSet::try_from(text.as_str()).map_err(|error| ImapError::Protocol(format!("{text}: {error}")))
}

fn listed(of: &[u32]) -> Result<SequenceSet, ImapError> {
    let uids: Vec<_> = of.iter().filter_map(|uid| NonZeroU32::new(*uid)).collect();
    SequenceSet::try_from(uids).map_err(|error| ImapError::Protocol(error.to_string()))
}
