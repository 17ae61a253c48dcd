// SPDX-License-Identifier: Apache-2.0
//! The whole graph: the five nodes with embedded defaults, a sender's domain, a receiving mail server, an observer.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use mail::{MailId, Role};
use ros::topics::{self, TopicFacts};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    domain::Domain,
    dovecot::{Dovecot, PASSWORD},
    node::Node,
    observer::Observer,
    sign::SignedDomain,
    smtp::{Client, Sink},
    wait_for,
};

pub const SENDER_DOMAIN: &str = "dispatch.example";
/// The address that [`Posthorn::start`] registers as operator.
pub const SENDER: &str = "dana@dispatch.example";
/// A domain whose SPF record lists this host, but where posthorn knows no sender.
pub const STRANGER_DOMAIN: &str = "stranger.example";
/// The address that mails to posthorn are sent to.
pub const POSTHORN: &str = "posthorn@fleet.example";
/// The person who gets the mails that chatbot cannot interpret.
pub const HUMAN: &str = "operator@fleet.example";

/// A running graph and everything around it; all of it ends on drop.
pub struct Posthorn {
    pub mail_bridge: Node,
    pub authenticator: Node,
    pub chatbot: Node,
    pub vehicle_router: Node,
    pub fleet_simulator: Node,
    pub observer: Observer,
    pub sink: Sink,
    pub sender: SignedDomain,
    pub smtp: SocketAddr,
    pub domain: Domain,
    state: TempDir,
}

impl Posthorn {
    /// Starts everything, observes `topics`, and registers [`SENDER`] as operator. Returns once mails are answered.
    pub fn start(topics: &[TopicFacts], authenticator: &[(&str, &str)]) -> Self {
        let mut posthorn = Unready::start(topics, authenticator).0;
        posthorn.register(SENDER, Role::Operator);
        posthorn.wait_for_vehicles();
        posthorn
    }

    /// Registers a sender through the authenticator's service; retries while the chain is being opened.
    pub fn register(&mut self, address: &str, role: Role) {
        let token = self.registry_token();
        let request = json!({ "address": address, "role": role as u8, "token": token });
        wait_for("the chain is connected", || {
            let answer = self.observer.call(topics::REGISTER_SENDER.facts, &request);
            match answer["message"].as_str() {
                _ if answer["success"] == true => Some(()),
                Some(message) if message.contains("not connected yet") => None,
                _ => panic!("register_sender: {answer}"),
            }
        });
    }

    /// The token for the registry's services; waits until the authenticator has created it.
    pub fn registry_token(&self) -> String {
        let file = self.authenticator_state().join("registry.token");
        wait_for("the registry's token", || {
            Some(fs::read_to_string(&file).ok()?.trim().to_owned()).filter(|token| !token.is_empty())
        })
    }

    /// Waits until vehicle_router has received every kind of reading from every vehicle.
    pub fn wait_for_vehicles(&mut self) {
        let stamps = ["position_stamp", "battery_stamp", "odometry_stamp"];
        wait_for("every vehicle is heard", || {
            let answer = self.observer.call(topics::GET_STATE.facts, &json!({ "vehicle": "" }));
            let states = answer["states"].as_array().expect("states");
            let heard = |state: &Value| stamps.iter().all(|stamp| state[stamp]["sec"] != 0);
            (!states.is_empty() && states.iter().all(heard)).then_some(())
        });
    }

    /// Starts mail_bridge again on the same journal.
    pub fn restart_mail_bridge(&mut self) {
        let journal = self.state.path().join("mail_bridge").display().to_string();
        self.mail_bridge = start_mail_bridge(&self.domain, &journal, self.sink.address, &[]);
        self.find_smtp();
    }

    /// Ends mail_bridge and starts it again on the same journal; it reads the INBOX of [`POSTHORN`] on this server.
    pub fn read_mailbox(&mut self, server: &Dovecot) {
        let status = self.mail_bridge.terminate();
        assert!(status.success(), "{status} after SIGTERM:\n{}", self.mail_bridge.log());
        let password = self.state.path().join("mailbox.password");
        fs::write(&password, PASSWORD).expect("password");
        fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).expect("password");
        let journal = self.state.path().join("mail_bridge").display().to_string();
        let (port, authority) = (server.tls_port.to_string(), server.certificate().display().to_string());
        let mailbox = [
            ("imap.accounts", "[\"fleet\"]"),
            ("imap.fleet.host", "localhost"),
            ("imap.fleet.port", &port),
            ("imap.fleet.ca_path", &authority),
            ("imap.fleet.user", POSTHORN),
            ("imap.fleet.password_path", &password.display().to_string()),
            ("imap.fleet.first_sync", "all"),
            ("imap.fleet.when_settled", "flag"),
        ];
        self.mail_bridge = start_mail_bridge(&self.domain, &journal, self.sink.address, &mailbox);
        self.find_smtp();
    }

    /// Starts authenticator again on the same state.
    pub fn restart_authenticator(&mut self, more: &[(&str, &str)]) {
        self.authenticator = start_authenticator(&self.domain, self.state.path(), more);
    }

    /// Kills chatbot and starts it again on the same state.
    pub fn restart_chatbot(&mut self, more: &[(&str, &str)]) {
        self.chatbot.kill();
        self.chatbot = start_chatbot(&self.domain, self.state.path(), more);
    }

    /// Starts new vehicles in place of the current ones.
    pub fn restart_fleet_simulator(&mut self, more: &[(&str, &str)]) {
        self.fleet_simulator.kill();
        self.fleet_simulator = Node::start("fleet_simulator", &self.domain, more);
    }

    fn find_smtp(&mut self) {
        let address = self.mail_bridge.wait_for_log("listening address=");
        self.smtp = address.parse().expect("address");
    }

    /// Submits a mail, asserts that it is accepted, and returns its id.
    pub fn accept(&self, mail_from: &str, data: &[u8]) -> MailId {
        let reply = Client::connect(self.smtp).send(mail_from, POSTHORN, data);
        assert!(reply.starts_with("250"), "{reply}");
        MailId::of(data)
    }

    /// A signed question from [`SENDER`], with a Message-ID made from `tag`.
    pub fn question(&self, tag: &str, subject: &str, text: &str) -> Vec<u8> {
        self.sender.sign(&message(tag, subject, text))
    }

    /// The authenticator's state directory: evidence, keys, the embedded chain.
    pub fn authenticator_state(&self) -> PathBuf {
        self.state.path().join("authenticator")
    }

    /// All nodes, in a fixed order.
    pub fn nodes(&mut self) -> [&mut Node; 5] {
        [
            &mut self.mail_bridge,
            &mut self.authenticator,
            &mut self.chatbot,
            &mut self.vehicle_router,
            &mut self.fleet_simulator,
        ]
    }
}

/// A graph that has its SMTP port and is connected to its observer; nothing else has been waited for.
pub struct Unready(pub Posthorn);

impl Unready {
    /// Starts everything, observes `topics`, and gives the authenticator further parameters.
    pub fn start(topics: &[TopicFacts], authenticator: &[(&str, &str)]) -> Self {
        let (domain, state, sink) = (Domain::take(), tempfile::tempdir().expect("scratch"), Sink::start());
        let sender = SignedDomain::new(SENDER_DOMAIN, "s1");
        let zone =
            format!("{}$ORIGIN {STRANGER_DOMAIN}.\n@ TXT \"v=spf1 ip4:127.0.0.1 -all\"\n", sender.zone());
        fs::write(state.path().join("zone"), zone).expect("zone");
        let journal = state.path().join("mail_bridge").display().to_string();
        let mut posthorn = Posthorn {
            fleet_simulator: Node::start("fleet_simulator", &domain, &[]),
            vehicle_router: Node::start("vehicle_router", &domain, &[]),
            chatbot: start_chatbot(&domain, state.path(), &[]),
            authenticator: start_authenticator(&domain, state.path(), authenticator),
            mail_bridge: start_mail_bridge(&domain, &journal, sink.address, &[]),
            observer: Observer::start(&domain, topics),
            sink,
            sender,
            smtp: SocketAddr::from(([127, 0, 0, 1], 0)),
            domain,
            state,
        };
        posthorn.find_smtp();
        posthorn.observer.wait_until_matched();
        Self(posthorn)
    }
}

fn start_chatbot(domain: &Domain, state: &Path, more: &[(&str, &str)]) -> Node {
    let memory = state.join("chatbot").display().to_string();
    let own = [("human_mailbox", HUMAN), ("from_address", POSTHORN), ("state_directory", memory.as_str())];
    Node::start("chatbot", domain, &own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

fn start_authenticator(domain: &Domain, state: &Path, more: &[(&str, &str)]) -> Node {
    let path = |name: &str| state.join(name).display().to_string();
    let (zone, directory) = (path("zone"), path("authenticator"));
    let mut parameters = vec![("state_directory", directory.as_str())];
    if !more.iter().any(|(name, _)| *name == "dns_servers") {
        parameters.push(("dns_zone_file", &zone));
    }
    // One batch per mail, so that each mail is anchored at once.
    if !more.iter().any(|(name, _)| *name == "batch_max_age_s") {
        parameters.push(("batch_max_age_s", "0.1"));
    }
    parameters.extend(more);
    Node::start("authenticator", domain, &parameters)
}

fn start_mail_bridge(domain: &Domain, journal: &str, sink: SocketAddr, more: &[(&str, &str)]) -> Node {
    let smarthost = format!("\"{sink}\"");
    let own = [
        ("smtp_listen", "\"127.0.0.1:0\""),
        ("lmtp_listen", "\"\""),
        // All clients of the testbed share one address.
        ("max_connections_per_address", "64"),
        ("journal_directory", journal),
        ("smarthost", &smarthost),
    ];
    Node::start("mail_bridge", domain, &own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

/// An unsigned mail from [`SENDER`] to posthorn.
pub fn message(tag: &str, subject: &str, text: &str) -> String {
    message_of(tag, subject, text, Duration::ZERO)
}

/// The same mail, dated `age` ago.
pub fn message_of(tag: &str, subject: &str, text: &str, age: Duration) -> String {
    let date = mail_date(age);
    format!(
        "From: Dana <{SENDER}>\r\nTo: posthorn <{POSTHORN}>\r\nSubject: {subject}\r\nDate: {date}\r\n\
         Message-ID: <{tag}@{SENDER_DOMAIN}>\r\n\r\n{text}\r\n"
    )
}

/// The time `age` ago in the format of RFC 5322 section 3.3.
fn mail_date(age: Duration) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970") - age;
    mail_builder::headers::date::Date::new(i64::try_from(now.as_secs()).expect("seconds")).to_rfc822()
}

/// Whether a `LedgerReceipt` proves the verdict on this mail.
pub fn is_receipt_of(id: MailId) -> impl Fn(&Value) -> bool {
    move |receipt| {
        let entry = &receipt["entry"];
        entry["kind"] == "mail_verdict" && id_of(&entry["subject"]) == id
    }
}

/// Parses the mail id in a message of the graph.
pub fn id_of(text: &Value) -> MailId {
    text.as_str().expect("text").parse().expect("64 hex digits")
}
