// SPDX-License-Identifier: Apache-2.0
//! The bridge's statuses on `/diagnostics`. Pure.

use std::collections::BTreeMap;

use health::{Level, Status};

/// This many failures in a row are not the fault of one mail: they point to the smart host or the network.
const FAILURES: u32 = 3;

/// The journal's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// Number of files.
    pub segments: usize,
    /// Total size of the files, bytes.
    pub bytes: u64,
    /// Number of unsettled mails.
    pub unsettled: usize,
    /// Bytes of torn tails that were cut at start.
    pub torn_bytes: u64,
    /// Why the last write failed; `None` if it did not.
    pub failed: Option<String>,
    /// Why no mails are taken; `None` while the disk has room.
    pub full: Option<String>,
    /// Why no more segments are deleted; `None` if nothing prevents it.
    pub stuck: Option<String>,
}

/// The figures of the servers and the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Open SMTP connections.
    pub smtp_connections: usize,
    /// Open LMTP connections.
    pub lmtp_connections: usize,
    /// Bound on each of the two.
    pub max_connections: usize,
    /// Mails answered with 250 since start.
    pub accepted: u64,
    /// Mails answered with 451 or 452 since start, at their end or, with 452, at MAIL already.
    pub deferred: u64,
    /// Connections refused since start.
    pub refused_connections: u64,
    /// Connections refused since start because `allowed_clients` does not name them, and those of load balancers that
    /// were dropped for want of a header.
    pub refused_clients: u64,
    /// Whether anybody subscribes to the mails.
    pub subscribers: bool,
    /// Mails that hold room in the window: being published, or published recently and not settled.
    pub in_flight: usize,
    /// Total size of those mails, bytes.
    pub in_flight_bytes: u64,
    /// Number of unsettled mails that wait for each consumer.
    pub waiting: BTreeMap<String, usize>,
}

/// The outbox's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Mails still to be sent.
    pub pending: usize,
    /// Mails delivered since start.
    pub delivered: u64,
    /// Mails that failed for good since start.
    pub failed: u64,
    /// Failures since the last delivery: attempts that failed for now or for good, and probes.
    pub failures_in_a_row: u32,
    /// Why the first smart host is away; `None` if it is not.
    pub away: Option<String>,
    /// Whether another smart host takes the mails meanwhile.
    pub falls_back: bool,
}

/// The figures of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Why the files of the certificate cannot be used since they were changed; `None` if they can.
    pub failure: Option<String>,
    /// Handshakes since start that failed or took too long.
    pub failed_handshakes: u64,
}

/// The figures of AUTH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Why the file of accounts cannot be used since it was changed; `None` if it can.
    pub failure: Option<String>,
    /// Credentials since start that were wrong.
    pub rejected: u64,
}

/// All figures of the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The journal.
    pub journal: Journal,
    /// The servers and the window.
    pub intake: Intake,
    /// The outbox.
    pub outbox: Outbox,
    /// TLS; `None` without a certificate.
    pub tls: Option<Tls>,
    /// AUTH; `None` without accounts.
    pub users: Option<Users>,
}

/// Turns the figures into one status for each part that can fail.
pub fn status(state: &State) -> Vec<Status> {
    let mut all = vec![journal(&state.journal), intake(state), outbox(&state.outbox)];
    all.extend(state.tls.as_ref().map(tls));
    all.extend(state.users.as_ref().map(users));
    all
}

fn journal(state: &Journal) -> Status {
    let (level, message) = match &state.failed {
        Some(reason) => (Level::Error, format!("cannot write, tries again with the next request: {reason}")),
        None if let Some(reason) = &state.full => (Level::Error, format!("takes no mail: {reason}")),
        None if let Some(reason) = &state.stuck => {
            (Level::Warn, format!("keeps old segments until restart: {reason}"))
        }
        None if state.torn_bytes > 0 => (
            Level::Warn,
            "a torn tail was cut at start; it is in the .torn file, unless the disk was full".to_owned(),
        ),
        None => (Level::Ok, "durable".to_owned()),
    };
    Status::new("journal", level, message)
        .gauge("segments", state.segments)
        .gauge("bytes", state.bytes)
        .gauge("unsettled", state.unsettled)
        .gauge("torn_bytes", state.torn_bytes)
}

fn intake(state: &State) -> Status {
    let intake = &state.intake;
    let (level, message) = if state.journal.failed.is_some() {
        (Level::Error, "answers 451: the journal has failed")
    } else if state.journal.full.is_some() {
        (Level::Error, "answers 452: the journal's disk is full")
    } else if intake.smtp_connections >= intake.max_connections {
        (Level::Warn, "all connections of SMTP in use, more are refused with 421")
    } else if intake.lmtp_connections >= intake.max_connections {
        (Level::Warn, "all connections of LMTP in use, more are refused with 421")
    } else if !intake.subscribers && state.journal.unsettled > 0 {
        (Level::Warn, "mails wait in the journal: nobody subscribes to them")
    } else {
        (Level::Ok, "accepting")
    };
    let status = Status::new("intake", level, message)
        .gauge("smtp_connections", intake.smtp_connections)
        .gauge("lmtp_connections", intake.lmtp_connections)
        .counter("accepted", intake.accepted)
        .counter("deferred", intake.deferred)
        .counter("refused_connections", intake.refused_connections)
        .counter("refused_clients", intake.refused_clients)
        .gauge("in_flight", intake.in_flight)
        .gauge("in_flight_bytes", intake.in_flight_bytes);
    let waiting = |status: Status, (name, mails): (&String, &usize)| {
        status.gauge(format!("waiting_for_{name}"), *mails)
    };
    intake.waiting.iter().fold(status, waiting)
}

fn outbox(state: &Outbox) -> Status {
    let why = state.away.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let (level, message) = match state.failures_in_a_row {
        0 if state.falls_back => {
            (Level::Warn, format!("sending by another smart host, the first is away{why}"))
        }
        0 => (Level::Ok, "sending".to_owned()),
        failures if failures < FAILURES => (Level::Warn, format!("the last mail was not delivered{why}")),
        _ => (Level::Error, format!("no mail is delivered: the smart host is away or refuses them{why}")),
    };
    Status::new("outbox", level, message)
        .gauge("pending", state.pending)
        .counter("delivered", state.delivered)
        .counter("failed", state.failed)
        .gauge("failures_in_a_row", state.failures_in_a_row)
}

fn tls(state: &Tls) -> Status {
    let (level, message) = match &state.failure {
        Some(reason) => (Level::Error, format!("goes on with the certificate of before: {reason}")),
        None => (Level::Ok, "the certificate is in use".to_owned()),
    };
    Status::new("tls", level, message).counter("failed_handshakes", state.failed_handshakes)
}

fn users(state: &Users) -> Status {
    let (level, message) = match &state.failure {
        Some(reason) => (Level::Error, format!("goes on with the accounts of before: {reason}")),
        None => (Level::Ok, "the accounts are in use".to_owned()),
    };
    Status::new("auth", level, message).counter("rejected", state.rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(change: impl Fn(&mut State)) -> Vec<Level> {
        let mut state = State::default();
        state.intake.max_connections = 2;
        change(&mut state);
        status(&state).iter().map(|status| status.level).collect()
    }

    #[test]
    fn tells_what_is_wrong() {
        assert_eq!(levels(|_| {}), [Level::Ok; 3]);
        assert_eq!(
            levels(|state| state.journal.failed = Some("disk full".into())),
            [Level::Error, Level::Error, Level::Ok]
        );
        assert_eq!(
            levels(|state| state.journal.full = Some("no room".into())),
            [Level::Error, Level::Error, Level::Ok]
        );
        assert_eq!(
            levels(|state| state.journal.stuck = Some("damaged".into())),
            [Level::Warn, Level::Ok, Level::Ok]
        );
        assert_eq!(levels(|state| state.intake.smtp_connections = 2), [Level::Ok, Level::Warn, Level::Ok]);
        assert_eq!(levels(|state| state.intake.lmtp_connections = 2), [Level::Ok, Level::Warn, Level::Ok]);
        assert_eq!(levels(|state| state.journal.unsettled = 1), [Level::Ok, Level::Warn, Level::Ok]);
        assert_eq!(levels(|state| state.tls = Some(Tls::default())), [Level::Ok; 4]);
        let broken = Tls { failure: Some("no certificate in it".into()), failed_handshakes: 0 };
        assert_eq!(
            levels(|state| state.tls = Some(broken.clone())),
            [Level::Ok, Level::Ok, Level::Ok, Level::Error]
        );
        let broken = Users { failure: Some("no account in it".into()), rejected: 0 };
        assert_eq!(
            levels(|state| state.users = Some(broken.clone())),
            [Level::Ok, Level::Ok, Level::Ok, Level::Error]
        );
        for (failures, level) in [(1, Level::Warn), (2, Level::Warn), (3, Level::Error), (99, Level::Error)] {
            assert_eq!(
                levels(|state| state.outbox.failures_in_a_row = failures),
                [Level::Ok, Level::Ok, level]
            );
        }
    }

    #[test]
    fn tells_why_the_smart_host_is_away() {
        let status = |failures_in_a_row, falls_back| {
            let away = Some("login refused: 535 wrong".to_owned());
            outbox(&Outbox { failures_in_a_row, away, falls_back, ..Outbox::default() })
        };
        let falls_back = status(0, true);
        assert_eq!(falls_back.level, Level::Warn);
        assert_eq!(
            falls_back.message,
            "sending by another smart host, the first is away: login refused: 535 wrong"
        );
        assert!(status(9, false).message.ends_with("or refuses them: login refused: 535 wrong"));
    }
}
