// SPDX-License-Identifier: Apache-2.0
//! The parameters of the mail bridge: the only home of their defaults, and the rules between them. Pure.

mod access;
mod sending;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mail::EmailAddress;
use settings::{
    BackOff, DRAIN_TIMEOUT,
    Default::{Bool, Double, Int, Text, Texts},
    Group, ParamError, Rule, Spec, Values, drain_timeout, spec,
};
use smtp::session::Limits;

use super::{
    consumers::Consumers,
    imap::accounts::{self as imap, Account},
    window::Room,
};
pub use access::{Access, Certificate};
pub use sending::{Dkim, Login, Security, Sending, host_and_port};

/// Upper limit of `max_message_bytes`, bytes. The journal bounds its records by this and not by the parameter, so
/// that lowering the parameter does not make old mails unreadable.
pub const MESSAGE_BYTES: i64 = 128 * 1024 * 1024;

/// Default of `journal_reserve_bytes`.
pub const JOURNAL_RESERVE_BYTES: i64 = 128 * 1024 * 1024;

/// Every parameter of the node: name, default, range, unit, description.
#[rustfmt::skip]
pub const SPECS: &[Spec] = &[
    spec("smtp_listen", Text("127.0.0.1:2525"), Rule::Any, "", "Address and port of the SMTP server; port 0 takes a free one, empty turns it off."),
    spec("lmtp_listen", Text("127.0.0.1:2424"), Rule::Any, "", "Address and port of the LMTP server; port 0 takes a free one, empty turns it off."),
    spec("smtps_listen", Text(""), Rule::Any, "", "Address and port of the SMTP server with TLS from the first byte; empty turns it off. It needs tls_certificate_path, and shares max_connections with smtp_listen."),
    spec("tls_certificate_path", Text(""), Rule::Any, "", "Certificate and those between it and its authority (PEM), for STARTTLS on SMTP and LMTP and for smtps_listen; empty: no TLS. Read again when it changes."),
    spec("tls_key_path", Text(""), Rule::Any, "", "Private key of the certificate (PEM); others may have no access to the file. Read again when it changes."),
    spec("require_tls", Bool(false), Rule::Any, "", "MAIL is refused with 530 without TLS, except from this host."),
    spec("auth_users_path", Text(""), Rule::Any, "", "File of the accounts of own devices, for AUTH on SMTP: a line each, name:hash, the hash argon2id in PHC format; others may have no access to the file. AUTH is offered over TLS and to this host. Empty: no AUTH. Read again when it changes."),
    spec("require_auth", Bool(false), Rule::Any, "", "MAIL on SMTP is refused with 530 without AUTH, also from this host. Not for a server that receives mails of strangers."),
    spec("allowed_clients", Texts(&[]), Rule::Any, "", "Addresses and networks, like 192.0.2.0/24, of the clients that may connect to SMTP and LMTP; others are refused with 554. Empty: all, but then LMTP, which believes its client, must listen on loopback."),
    spec("proxy_protocol_from", Texts(&[]), Rule::Any, "", "Addresses and networks of load balancers, which name their clients in a header of the PROXY protocol, version 2, on SMTP and LMTP. Without one their connections are dropped; headers of others are never read."),
    spec("accepted_recipients", Texts(&[]), Rule::Any, "", "Patterns of the recipients that SMTP and LMTP accept, like *@fleet.example or reqs+*@fleet.example, where * is any text; others are refused with 550. <postmaster> is always accepted. Empty: all."),
    spec("recipient_delimiter", Text(""), Rule::Any, "", "What separates an extension from the name in a recipient: with + reqs+7@fleet.example fits what reqs@fleet.example fits, in accepted_recipients and consumers. Empty: there are no extensions."),
    spec("hostname", Text("localhost"), Rule::NotEmpty, "", "Name that the bridge gives in greetings, EHLO and Message-IDs."),
    spec("max_message_bytes", Int(10 * 1024 * 1024), Rule::IntRange(1024, MESSAGE_BYTES), "B", "Larger mails are refused with 552."),
    spec("max_recipients", Int(100), Rule::IntRange(1, 1000), "", "Further recipients of a mail are refused with 452."),
    spec("max_received_headers", Int(50), Rule::IntRange(1, 1000), "", "A mail with more Received fields loops and is refused with 554."),
    spec("max_connections", Int(64), Rule::IntRange(1, 10_000), "", "Further connections, to SMTP and to LMTP each, are refused with 421."),
    spec("max_receiving_bytes", Int(256 * 1024 * 1024), Rule::IntRange(2048, 64 * 1024 * 1024 * 1024), "B", "Memory for mails that are being received, over all connections; at least twice max_message_bytes. Half of it is divided among the connections; a mail that needs more than its share, and finds no room in the other half, gets 452."),
    spec("max_connections_per_address", Int(32), Rule::IntRange(1, 10_000), "", "Further connections from one address, or one IPv6 /64, to SMTP and to LMTP each, are refused with 421, as those of an address that has as many as are free; not so where this is max_connections. Postfix makes 20 to one host unless told otherwise."),
    spec("max_session_errors", Int(10), Rule::IntRange(1, 1000), "", "Refused commands and refused mails after which a session is ended with 421."),
    spec("max_session_mails", Int(10_000), Rule::IntRange(1, 1_000_000), "", "Mails before a session is ended with 421."),
    spec("session_timeout_s", Double(300.0), Rule::DoubleRange(0.1, 3600.0), "s", "A session that sends nothing for so long, or no whole command or mail for four times as long, is ended with 421."),
    spec("session_mail_timeout_s", Double(300.0), Rule::DoubleRange(0.1, 86_400.0), "s", "A session in which no mail's text begins for so long, whatever else it says, is ended with 421."),
    drain_timeout(10.0),
    spec("journal_directory", Text(""), Rule::Any, "", "Directory of the journal, created if missing; empty: posthorn/<namespace>/mail_bridge in the user's state directory."),
    spec("journal_segment_bytes", Int(64 * 1024 * 1024), Rule::IntRange(4096, 1024 * 1024 * 1024), "B", "A file of the journal is followed by a new one at this size."),
    spec("journal_keep_segments", Int(4), Rule::IntRange(1, 10_000), "", "Files of the journal kept for get_raw although all in them is settled."),
    spec("journal_remembered", Int(100_000), Rule::IntRange(0, 10_000_000), "", "Mails and answers whose file is gone but whose identity is remembered, so that a repetition is seen."),
    spec("journal_reserve_bytes", Int(JOURNAL_RESERVE_BYTES), Rule::IntRange(0, 1 << 50), "B", "Free space of the journal's disk under which mails are refused with 452; it is kept for settlements and outbound mails."),
    spec("consumers", Texts(&["chatbot"]), Rule::Any, "", "Who must dispose of a mail before it is settled: name for mails with a recipient that no pattern fits, name=pattern for those with a recipient that fits, like requirements=reqs@fleet.example or lab=*@lab.example, and name=* for all."),
    spec("max_in_flight", Int(128), Rule::IntRange(1, 10_000), "", "Mails published for the first time and not yet settled, at most, each until redelivery_min_s; as many again that are published again."),
    spec("max_in_flight_bytes", Int(64 * 1024 * 1024), Rule::IntRange(1024, 16 * 1024 * 1024 * 1024), "B", "Size of the mails published and not yet settled, at most; half of it for those published again. A mail larger than its half goes when it is alone."),
    spec("max_class_share", Double(0.25), Rule::DoubleRange(0.01, 1.0), "", "Part of max_in_flight and of its bytes that mails of one From domain from one peer may hold. One peer may hold twice as much, or half of all if that is more. What is left is for others."),
    spec("redelivery_min_s", Double(10.0), Rule::DoubleRange(0.01, 86_400.0), "s", "A mail not settled is published again after this; doubles each time."),
    spec("redelivery_max_s", Double(600.0), Rule::DoubleRange(0.01, 86_400.0), "s", "Longest time between two publications of a mail."),
    spec("smarthost", Text("127.0.0.1:25"), Rule::NotEmpty, "", "Host and port of the SMTP server that outbound mails are handed to."),
    spec("smarthost_fallbacks", Texts(&[]), Rule::NotEmpty, "", "Further smart hosts, host and port, tried in this order while those before are away; once one of those is back, it is used again. All share smarthost_security, smarthost_ca_path, name and password."),
    spec("smarthost_security", Text("opportunistic"), Rule::OneOf(&["none", "opportunistic", "starttls", "tls"]), "", "TLS to the smart host. opportunistic: STARTTLS if it is offered, whatever the certificate, in clear if there is no TLS; starttls: required, with a certificate that is trusted; tls: the same from the first byte (port 465)."),
    spec("smarthost_ca_path", Text(""), Rule::Any, "", "File of the certificate authorities (PEM) to trust for starttls and tls instead of those of this host."),
    spec("smarthost_user", Text(""), Rule::Any, "", "Name to log in to the smart host with, by AUTH PLAIN or LOGIN; empty: no AUTH. It needs smarthost_security starttls or tls unless the smart host is this host."),
    spec("smarthost_password_path", Text(""), Rule::Any, "", "File whose first line is the password; others may have no access to it. Read at each connection."),
    spec("smarthost_timeout_s", Double(60.0), Rule::DoubleRange(0.1, 3600.0), "s", "Time for the smart host to accept a connection, for each 64 KiB of a mail and for each of its replies; for the one to a whole mail at least 600 s."),
    spec("smarthost_connections", Int(4), Rule::IntRange(1, 64), "", "Mails handed to the smart host at once, once it has taken one."),
    spec("smarthost_probe_s", Double(10.0), Rule::DoubleRange(0.01, 3600.0), "s", "A smart host that is away is connected to so often while mails wait, without a mail; when it is back they go out."),
    spec("sender_address", Text(""), Rule::Any, "", "From of outbound mails that name none; empty: posthorn@ and the hostname."),
    spec("dkim_selector", Text(""), Rule::Any, "", "Outbound mails get a DKIM signature whose public key is published at <dkim_selector>._domainkey.<dkim_domain>; empty: no signature. It needs dkim_domain and dkim_key_path."),
    spec("dkim_domain", Text(""), Rule::Any, "", "Domain that signs: that of sender_address, or one above it."),
    spec("dkim_key_path", Text(""), Rule::Any, "", "Private key (PEM): RSA of 2048 to 4096 bits in PKCS#8 or PKCS#1, or Ed25519 in PKCS#8; others may have no access to the file. Read at start."),
    spec("retry_min_s", Double(60.0), Rule::DoubleRange(0.01, 86_400.0), "s", "An outbound mail that failed for now is sent again after this; doubles each time."),
    spec("retry_max_s", Double(3600.0), Rule::DoubleRange(0.01, 86_400.0), "s", "Longest time between two attempts of an outbound mail."),
    spec("retry_give_up_h", Double(72.0), Rule::DoubleRange(0.0, 8760.0), "h", "An outbound mail older than this fails for good at its next failed attempt."),
    imap::SHARED[0],
    imap::SHARED[1],
    imap::SHARED[2],
];

/// Parameters that repeat for each name in a list.
pub const GROUPS: &[Group] = &[imap::ACCOUNTS];

/// All parameters, each valid and valid together.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Address of the SMTP server; `None` turns it off.
    pub smtp_listen: Option<SocketAddr>,
    /// Address of the LMTP server; `None` turns it off.
    pub lmtp_listen: Option<SocketAddr>,
    /// Who may hand in mails, and how.
    pub access: Access,
    /// Host name in greetings, EHLO and Message-IDs.
    pub hostname: String,
    /// Bounds on a session.
    pub limits: Limits,
    /// Largest number of open connections, for each server.
    pub max_connections: usize,
    /// Largest number of open connections from one address, for each server.
    pub max_connections_per_address: usize,
    /// Memory for mails that are being received, bytes.
    pub max_receiving_bytes: usize,
    /// Silence after which a session ends.
    pub session_timeout: Duration,
    /// Talk without a mail after which a session ends.
    pub mail_timeout: Duration,
    /// Bound on each half of the drain, first intake and then outbox: half of `drain_timeout_s`.
    pub drain_timeout: Duration,
    /// Directory of the journal.
    pub journal_directory: PathBuf,
    /// Size at which a journal file is closed, bytes.
    pub journal_segment_bytes: u64,
    /// Number of settled journal files that are kept.
    pub journal_keep_segments: usize,
    /// Number of identities remembered after their journal file is deleted.
    pub journal_remembered: usize,
    /// Free space of the journal's disk that mails must leave, bytes.
    pub journal_reserve_bytes: u64,
    /// Who must dispose of a mail before it is settled.
    pub consumers: Consumers,
    /// Room for mails published for the first time; those published again have as much.
    pub room: Room,
    /// Delays before an unsettled mail is published again.
    pub redelivery: BackOff,
    /// To which smart hosts mails are handed, and how.
    pub sending: Sending,
    /// Bound on connecting to the smart host and on each of its replies.
    pub smarthost_timeout: Duration,
    /// Number of mails handed to the smart host in parallel.
    pub smarthost_connections: usize,
    /// Interval between probes while the smart host is away.
    pub smarthost_probe: Duration,
    /// From address of outbound mails that name none.
    pub sender_address: EmailAddress,
    /// Delays before an outbound mail is tried again.
    pub retry: BackOff,
    /// Age from which an outbound mail fails for good at its next failed attempt.
    pub retry_give_up: Duration,
    /// Mailboxes to read by IMAP.
    pub imap_accounts: Vec<Account>,
    /// Connections to one IMAP server at once.
    pub imap_connections_per_server: usize,
    /// Unsettled mails at which no more are fetched.
    pub imap_max_unsettled: usize,
}

impl Params {
    /// Reads the parameters. The journal is in `state_directory` unless `journal_directory` is set.
    ///
    /// # Errors
    /// The first broken rule, with parameter and value.
    pub fn load(values: &Values, state_directory: &Path) -> Result<Self, ParamError> {
        let directory = values.text("journal_directory")?;
        let hostname = hostname(values)?;
        let sender_address = sender_address(values, &hostname)?;
        let params = Self {
            smtp_listen: values.listen("smtp_listen")?,
            lmtp_listen: values.listen("lmtp_listen")?,
            access: Access::load(values)?,
            limits: Limits {
                message_bytes: values.count("max_message_bytes")?,
                recipients: values.count("max_recipients")?,
                received_headers: values.count("max_received_headers")?,
                errors: values.count("max_session_errors")?,
                mails: values.count("max_session_mails")?,
            },
            max_connections: values.count("max_connections")?,
            max_connections_per_address: values.count("max_connections_per_address")?,
            max_receiving_bytes: values.count("max_receiving_bytes")?,
            session_timeout: values.seconds("session_timeout_s")?,
            mail_timeout: values.seconds("session_mail_timeout_s")?,
            drain_timeout: values.seconds(DRAIN_TIMEOUT)? / 2,
            journal_directory: if directory.is_empty() {
                state_directory.to_owned()
            } else {
                PathBuf::from(directory)
            },
            journal_segment_bytes: values.count("journal_segment_bytes")?,
            journal_keep_segments: values.count("journal_keep_segments")?,
            journal_remembered: values.count("journal_remembered")?,
            journal_reserve_bytes: values.count("journal_reserve_bytes")?,
            consumers: Consumers::parse(&values.texts("consumers")?, access::delimiter(values)?).map_err(
                |invalid| ParamError::rule("consumers", format!("{:?}", invalid.entry), invalid.rule),
            )?,
            room: Room {
                mails: values.count("max_in_flight")?,
                bytes: values.count::<u64>("max_in_flight_bytes")? / 2,
                share: millionths(values.double("max_class_share")?),
            },
            redelivery: BackOff {
                min: values.seconds("redelivery_min_s")?,
                max: values.seconds("redelivery_max_s")?,
            },
            sending: Sending::load(values, &sender_address)?,
            smarthost_timeout: values.seconds("smarthost_timeout_s")?,
            smarthost_connections: values.count("smarthost_connections")?,
            smarthost_probe: values.seconds("smarthost_probe_s")?,
            sender_address,
            retry: BackOff { min: values.seconds("retry_min_s")?, max: values.seconds("retry_max_s")? },
            retry_give_up: Duration::from_secs_f64(
                values.double("retry_give_up_h")?.clamp(0.0, 8760.0) * 3600.0,
            ),
            imap_accounts: Account::all(values)?,
            imap_connections_per_server: values.count("imap_connections_per_server")?,
            imap_max_unsettled: values.count("imap_max_unsettled")?,
            hostname,
        };
        params.validate()?;
        Ok(params)
    }

    fn validate(&self) -> Result<(), ParamError> {
        let listens = [
            ("smtp_listen", self.smtp_listen),
            ("smtps_listen", self.access.smtps_listen),
            ("lmtp_listen", self.lmtp_listen),
        ]
        .map(|(name, listen)| listen.map(|listen| (name, listen)));
        let mut others: Vec<(&str, SocketAddr)> = Vec::new();
        for (name, listen) in listens.into_iter().flatten() {
            if let Some(place) = self.sending.smarthosts.iter().position(|host| *host == listen.to_string()) {
                let rule = format!("another address than {name}, else answers come back as mails");
                let smarthost = if place == 0 { "smarthost" } else { "smarthost_fallbacks" };
                return Err(ParamError::rule(smarthost, listen, rule));
            }
            let same = others.iter().find(|(_, other)| *other == listen && listen.port() != 0);
            if let Some((other, _)) = same {
                return Err(ParamError::rule(name, listen, format!("another address than {other}")));
            }
            others.push((name, listen));
        }
        if self.max_receiving_bytes / 2 < self.limits.message_bytes {
            let rule = format!("at least twice max_message_bytes = {}", self.limits.message_bytes);
            return Err(ParamError::rule("max_receiving_bytes", self.max_receiving_bytes, rule));
        }
        if self.redelivery.min > self.redelivery.max {
            let rule = format!("at least redelivery_min_s = {}", self.redelivery.min.as_secs_f64());
            return Err(ParamError::rule("redelivery_max_s", self.redelivery.max.as_secs_f64(), rule));
        }
        if self.retry.min > self.retry.max {
            let rule = format!("at least retry_min_s = {}", self.retry.min.as_secs_f64());
            return Err(ParamError::rule("retry_max_s", self.retry.max.as_secs_f64(), rule));
        }
        Ok(())
    }
}

fn is_graphic(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hostname(values: &Values) -> Result<String, ParamError> {
    let hostname = values.text("hostname")?;
    if is_graphic(&hostname) && hostname.len() <= 255 {
        Ok(hostname)
    } else {
        Err(ParamError::rule("hostname", hostname, "a host name of at most 255 bytes, ASCII"))
    }
}

/// The From of mails that name none. ASCII only, so that it goes through a smart host without SMTPUTF8.
fn sender_address(values: &Values, hostname: &str) -> Result<EmailAddress, ParamError> {
    let text = values.text("sender_address")?;
    let text = if text.is_empty() { format!("posthorn@{hostname}") } else { text };
    EmailAddress::parse_ascii(&text).map_err(|error| {
        let rule = format!("an address, local-part@domain: {error}");
        ParamError::rule("sender_address", format!("{text:?}"), rule)
    })
}

/// Converts a share to the millionths that the window counts in.
fn millionths(share: f64) -> u64 {
    // Exact, because the parameter's range is 0.01 to 1.
    Duration::from_secs_f64(share.clamp(0.0, 1.0)).as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use settings::{Value, resolve};

    fn load(overrides: &[(&str, &str)]) -> Result<Params, ParamError> {
        let overrides = overrides
            .iter()
            .map(|&(name, value)| {
                let value = value.parse().map_or_else(|_| Value::Text(value.to_owned()), Value::Double);
                (name.to_owned(), value)
            })
            .collect::<BTreeMap<_, _>>();
        Params::load(&resolve(SPECS, overrides)?, Path::new("/state"))
    }

    #[test]
    fn defaults_are_valid_bind_to_loopback_and_keep_their_own_rules() {
        let params = load(&[]).unwrap();
        assert!(params.smtp_listen.unwrap().ip().is_loopback());
        assert_eq!(params.journal_directory, Path::new("/state"));
        assert_eq!(&*params.sender_address, "posthorn@localhost");
        for spec in SPECS {
            let value = BTreeMap::from([(spec.name.to_owned(), spec.default.value())]);
            assert!(resolve(SPECS, value).is_ok(), "{}", spec.name);
        }
    }

    #[test]
    fn names_parameter_value_and_rule() {
        for (overrides, error) in [
            (
                &[("smtp_listen", "localhost")][..],
                "parameter 'smtp_listen' = localhost: must be an IP address and port like 127.0.0.1:2525",
            ),
            (&[("smarthost", "mail")], "parameter 'smarthost' = mail: must be host:port"),
            (
                &[("smarthost", "127.0.0.1:2525")],
                "parameter 'smarthost' = 127.0.0.1:2525: must be another address than smtp_listen, else answers come back as mails",
            ),
            (
                &[("lmtp_listen", "127.0.0.1:2525")],
                "parameter 'lmtp_listen' = 127.0.0.1:2525: must be another address than smtp_listen",
            ),
            (
                &[("redelivery_max_s", "1")],
                "parameter 'redelivery_max_s' = 1: must be at least redelivery_min_s = 10",
            ),
            (
                &[("hostname", "a b")],
                "parameter 'hostname' = a b: must be a host name of at most 255 bytes, ASCII",
            ),
            (
                &[("sender_address", "robot")],
                "parameter 'sender_address' = \"robot\": must be an address, local-part@domain: it needs exactly one at sign",
            ),
        ] {
            assert_eq!(load(overrides).unwrap_err().to_string(), error);
        }
    }
}
