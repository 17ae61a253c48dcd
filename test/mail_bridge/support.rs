// SPDX-License-Identifier: Apache-2.0
//! Fixtures: a bridge in a scratch directory, a line-by-line SMTP client, and a smart host that follows a script.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mail::{Action, DeliveryState, Disposition, MailId, OutboundKind, OutboundMail};
use mail_bridge::{
    bridge::{Bridge, BridgeError, Streams},
    journal::JournalError,
    params::{GROUPS, Params, SPECS},
};
use settings::{Value, resolve_groups};
use testbed::free_port;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

/// Nothing here takes this long, so a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("waited in vain")
}

pub fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

pub fn params(directory: &Path, overrides: &[(&str, Value)]) -> Params {
    let mut values: BTreeMap<String, Value> = [
        ("smtp_listen", text("127.0.0.1:0")),
        ("lmtp_listen", text("127.0.0.1:0")),
        ("journal_directory", text(directory.display())),
        ("retry_min_s", Value::Double(0.02)),
        ("smarthost", text("127.0.0.1:1")),
        ("smarthost_probe_s", Value::Double(0.02)),
        ("drain_timeout_s", Value::Double(5.0)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    values.extend(overrides.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Params::load(&resolve_groups(SPECS, GROUPS, values).unwrap(), Path::new("/nowhere")).unwrap()
}

/// Starts a bridge; waits while a killed predecessor still holds the journal.
pub async fn start(directory: &Path, overrides: &[(&str, Value)]) -> (Bridge, Streams) {
    soon(async {
        loop {
            match Bridge::start(params(directory, overrides)).await {
                Ok(started) => return started,
                Err(BridgeError::Journal(JournalError::Locked { .. })) => tokio::task::yield_now().await,
                // The log of a folder that a task of the predecessor still writes.
                Err(BridgeError::Imap(error)) if error.to_string().contains("in use by another process") => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// Starts a bridge that has one subscriber, so it publishes.
pub async fn start_publishing(directory: &Path, overrides: &[(&str, Value)]) -> (Bridge, Streams) {
    let started = start(directory, overrides).await;
    started.0.handle().set_subscribers(1);
    started
}

pub fn disposition(mail_id: MailId, action: Action) -> Disposition {
    Disposition { mail_id, consumer: "chatbot".to_owned(), action, reason: "test".to_owned() }
}

pub fn answer(answers: MailId, kind: OutboundKind) -> OutboundMail {
    OutboundMail {
        answers: Some(answers),
        kind,
        message_id: format!("{}.{kind:?}@bridge.test", &answers.to_string()[..8]),
        from: String::new(),
        to: vec!["ada@x.test".to_owned()],
        reply_to: Vec::new(),
        urgent: false,
        subject: "Re: where is vehicle 7".to_owned(),
        in_reply_to: "question@x.test".to_owned(),
        text: "at the depot\n.\n".to_owned(),
        authentication_results: String::new(),
    }
}

/// An SMTP client driven line by line.
pub struct Talk(BufReader<TcpStream>);

impl Talk {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut talk = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        talk.expect("220").await;
        talk
    }

    /// Wraps a connection from which nothing has been read yet.
    pub fn over(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Connects and returns the first reply, whatever it is.
    pub async fn knock(address: SocketAddr) -> (Self, String) {
        let mut talk = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        let reply = talk.reply().await;
        (talk, reply)
    }

    pub async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// The last line of the next reply; empty if the connection was closed.
    pub async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            soon(self.0.read_line(&mut line)).await.unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// What has arrived, without consuming it.
    pub async fn peek(&mut self) -> String {
        String::from_utf8(self.0.fill_buf().await.unwrap().to_vec()).unwrap()
    }

    pub async fn expect(&mut self, code: &str) {
        let reply = self.reply().await;
        assert!(reply.starts_with(code), "expected {code}, got {reply:?}");
    }

    pub async fn say(&mut self, line: &str, code: &str) {
        self.send(&format!("{line}\r\n")).await;
        self.expect(code).await;
    }

    /// Starts a mail: everything up to the go-ahead for DATA.
    pub async fn begin(&mut self, hello: &str) {
        self.say(hello, "250").await;
        self.begin_next().await;
    }

    pub async fn begin_next(&mut self) {
        self.say("MAIL FROM:<ada@x.test>", "250").await;
        self.say("RCPT TO:<fleet@bridge.test>", "250").await;
        self.say("DATA", "354").await;
    }

    pub async fn rest(&mut self) -> String {
        let mut rest = String::new();
        soon(self.0.read_to_string(&mut rest)).await.unwrap();
        rest
    }
}

/// Sends one mail by SMTP. `data` MUST already be dot-stuffed and end with CRLF.
pub async fn deliver(bridge: &Bridge, data: &str) -> MailId {
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.begin("EHLO client.test").await;
    talk.send(&format!("{data}.\r\n")).await;
    talk.expect("250").await;
    MailId::of(data.as_bytes())
}

/// An address where nobody listens yet.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// States and attempts of the next `count` deliveries.
pub async fn states(streams: &mut Streams, count: usize) -> Vec<(DeliveryState, u32)> {
    let mut states = Vec::new();
    while states.len() < count {
        let delivery = soon(streams.deliveries.recv()).await.unwrap();
        states.push((delivery.state, delivery.attempts));
    }
    states
}

/// The smart host takes the mail and replies a second later.
pub const LATE: &str = "250 2.0.0 late";
/// The smart host takes the mail and withholds its reply until [`Script::release`] is notified.
pub const HELD: &str = "250 2.0.0 held";
/// The smart host takes the mail and closes the connection without a reply.
pub const GONE: &str = "250 2.0.0 gone";

/// A mail that the smart host took.
#[derive(Debug)]
pub struct Taken {
    pub mail_from: String,
    pub rcpt_to: Vec<String>,
    pub data: String,
}

/// A smart host. It takes its replies to RCPT and to the final dot from the scripts, and replies 250 once they are used
/// up. [`LATE`], [`HELD`] and [`GONE`] are special replies to the final dot; all three take the mail.
#[derive(Clone, Default)]
pub struct Script {
    pub rcpt: Arc<Mutex<VecDeque<&'static str>>>,
    pub data: Arc<Mutex<VecDeque<&'static str>>>,
    pub connections: Arc<AtomicUsize>,
    pub release: Arc<Notify>,
    pub ignores_quit: bool,
}

impl Script {
    pub fn new(rcpt: &[&'static str], data: &[&'static str]) -> Self {
        let script = |replies: &[&'static str]| Arc::new(Mutex::new(replies.iter().copied().collect()));
        Self { rcpt: script(rcpt), data: script(data), ..Self::default() }
    }

    /// Serves on a free port until the runtime ends.
    pub async fn serve(self) -> (SocketAddr, mpsc::UnboundedReceiver<Taken>) {
        self.serve_at("127.0.0.1:0".parse().unwrap()).await
    }

    /// Serves at `address` until the runtime ends.
    pub async fn serve_at(self, address: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<Taken>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, mails) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                self.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(session(stream, self.clone(), taken.clone()));
            }
        });
        (address, mails)
    }
}

fn next(script: &Mutex<VecDeque<&'static str>>) -> &'static str {
    script.lock().unwrap().pop_front().unwrap_or("250 2.0.0 ok")
}

async fn session(stream: TcpStream, script: Script, taken: mpsc::UnboundedSender<Taken>) {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220-sink\r\n220 sink ready\r\n").await.unwrap();
    let (mut mail_from, mut rcpt_to) = (String::new(), Vec::new());
    let path = |line: &str| line[line.find('<').unwrap() + 1..line.find('>').unwrap()].to_owned();
    let mut line = String::new();
    while matches!(stream.read_line(&mut line).await, Ok(1..)) {
        let reply = match &line[..4] {
            "EHLO" => "250-sink\r\n250-8BITMIME\r\n250 PIPELINING",
            "MAIL" => {
                mail_from = path(&line);
                rcpt_to.clear();
                "250 ok"
            }
            "RCPT" => {
                let reply = next(&script.rcpt);
                if reply.starts_with("250") {
                    rcpt_to.push(path(&line));
                }
                reply
            }
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.unwrap();
                let mut data = String::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap() == 0 {
                        return;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    data.push_str(line.strip_prefix('.').unwrap_or(&line));
                }
                let reply = next(&script.data);
                if reply.starts_with("250") {
                    let mail = Taken { mail_from: mail_from.clone(), rcpt_to: rcpt_to.clone(), data };
                    taken.send(mail).unwrap();
                }
                match reply {
                    LATE => tokio::time::sleep(Duration::from_secs(1)).await,
                    HELD => script.release.notified().await,
                    GONE => return,
                    _ => {}
                }
                reply
            }
            "QUIT" if script.ignores_quit => std::future::pending().await,
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        line.clear();
    }
}
