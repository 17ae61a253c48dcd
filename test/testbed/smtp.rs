// SPDX-License-Identifier: Apache-2.0
//! Both ends of SMTP, small and blocking: a client that submits mails and a server that takes what posthorn sends.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A client's session with an SMTP server.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and says EHLO.
    pub fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut client = Self(BufReader::new(stream));
        client.expect("220");
        client.say("EHLO client.example", "250");
        client
    }

    /// Sends a mail and returns the reply to the final dot.
    pub fn send(&mut self, mail_from: &str, rcpt_to: &str, data: &[u8]) -> String {
        self.begin(mail_from, rcpt_to);
        self.0.get_mut().write_all(&stuffed(data)).expect("write");
        self.reply()
    }

    /// Starts a mail, but does not send its text yet.
    pub fn begin(&mut self, mail_from: &str, rcpt_to: &str) {
        self.say(&format!("MAIL FROM:<{mail_from}>"), "250");
        self.say(&format!("RCPT TO:<{rcpt_to}>"), "250");
        self.say("DATA", "354");
    }

    fn say(&mut self, line: &str, code: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("write");
        self.expect(code);
    }

    fn expect(&mut self, code: &str) {
        let reply = self.reply();
        assert!(reply.starts_with(code), "{reply:?} is not {code}");
    }

    /// The last line of the next reply.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("reply");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }
}

/// Encodes a mail for DATA: doubles leading dots and appends the final dot.
fn stuffed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// A mail that the sink received.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub mail_from: String,
    pub rcpt_to: Vec<String>,
    pub data: String,
    /// When the final dot was read.
    pub at: Instant,
}

impl Delivered {
    /// The value of a header field that is not folded.
    pub fn header(&self, name: &str) -> Option<&str> {
        let section = self.data.split("\r\n\r\n").next()?;
        let mut fields = section.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body, with quoted-printable's soft line ends and `=XX` decoded.
    pub fn text(&self) -> String {
        let body = self.data.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        mail_parser::MessageParser::default()
            .parse(self.data.as_bytes())
            .and_then(|message| message.body_text(0).map(|text| text.into_owned()))
            .unwrap_or_else(|| body.to_owned())
    }
}

/// A mail server that accepts everything.
pub struct Sink {
    pub address: SocketAddr,
    delivered: Mutex<Receiver<Delivered>>,
    held: Arc<Held>,
}

/// Whether replies to mails are being withheld.
#[derive(Default)]
struct Held(Mutex<bool>, Condvar);

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let (sender, delivered) = channel();
        let held = Arc::new(Held::default());
        let shared = Arc::clone(&held);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, held) = (sender.clone(), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &sender, &held));
            }
        });
        Self { address, delivered: Mutex::new(delivered), held }
    }

    /// While `hold` is true, mails are received but their replies wait.
    pub fn hold(&self, hold: bool) {
        *self.held.0.lock().expect("held") = hold;
        self.held.1.notify_all();
    }

    /// The next mail; panics if none arrives within [`PATIENCE`].
    pub fn next(&self) -> Delivered {
        let next = self.delivered.lock().expect("sink").recv_timeout(PATIENCE);
        next.unwrap_or_else(|_| panic!("no mail was delivered within {PATIENCE:?}"))
    }

    /// The next mail, if one arrives within `patience`.
    pub fn wait(&self, patience: Duration) -> Option<Delivered> {
        self.delivered.lock().expect("sink").recv_timeout(patience).ok()
    }

    /// The mails that were received and not yet taken.
    pub fn rest(&self) -> Vec<Delivered> {
        self.delivered.lock().expect("sink").try_iter().collect()
    }
}

/// Serves one session; it ends when the client goes away.
fn serve(stream: TcpStream, delivered: &Sender<Delivered>, held: &Held) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(stream);
    let mut mail = (String::new(), Vec::new());
    lines.get_mut().write_all(b"220 sink.example ESMTP\r\n").ok()?;
    loop {
        let line = read_line(&mut lines)?;
        let command = line.to_ascii_uppercase();
        let path = || Some(line[line.find('<')? + 1..line.find('>')?].to_owned());
        let reply = if command.starts_with("DATA") {
            lines.get_mut().write_all(b"354 go on\r\n").ok()?;
            let mut data = String::new();
            loop {
                let line = read_line(&mut lines)?;
                match line.strip_prefix('.') {
                    Some("") => break,
                    Some(rest) => data += rest,
                    None => data += &line,
                }
                data += "\r\n";
            }
            let (mail_from, rcpt_to) = std::mem::take(&mut mail);
            delivered.send(Delivered { mail_from, rcpt_to, data, at: Instant::now() }).ok()?;
            drop(held.1.wait_while(held.0.lock().expect("held"), |held| *held).expect("held"));
            "250 2.0.0 taken"
        } else if command.starts_with("MAIL") {
            mail = (path()?, Vec::new());
            "250 2.1.0 sender"
        } else if command.starts_with("RCPT") {
            mail.1.push(path()?);
            "250 2.1.5 recipient"
        } else if command.starts_with("QUIT") {
            "221 2.0.0 bye"
        } else {
            "250 sink.example"
        };
        lines.get_mut().write_all(format!("{reply}\r\n").as_bytes()).ok()?;
    }
}

fn read_line(lines: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    lines.read_until(b'\n', &mut line).ok().filter(|&read| read > 0)?;
    Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}
