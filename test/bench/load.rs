// SPDX-License-Identifier: Apache-2.0
//! Generates load and checks the answers: submits questions by SMTP, on a schedule or in a closed loop, and waits for
//! the answers at the sink. Count and time are bounded.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use testbed::{
    PATIENCE,
    posthorn::POSTHORN,
    sign::SignedDomain,
    smtp::{Client, Delivered, Sink},
};

/// Connections of an open loop: far more than are ever busy at once, so that a slow 250 does not delay the schedule.
const OPEN_CONNECTIONS: usize = 16;
/// How long to wait, after the last answer, for one too many.
const QUIET: Duration = Duration::from_secs(1);
/// Vehicles that the questions are about.
const VEHICLES: [&str; 3] = ["truck_1", "truck_2", "truck_3"];

/// How mails are submitted.
#[derive(Clone, Copy)]
pub enum Load {
    /// Each mail at its scheduled time, `rate` per second, no matter what became of earlier ones.
    Open { rate: u32 },
    /// Each connection sends the next mail once the previous one is answered; after `limit` it sends no more.
    Closed { connections: usize, limit: Duration },
}

/// One benchmark case.
pub struct Case {
    pub name: &'static str,
    pub load: Load,
    /// Maximum number of mails.
    pub mails: usize,
}

/// A signed question and what its answer must match.
pub struct Question {
    pub data: Vec<u8>,
    message_id: String,
    from: &'static str,
    vehicle: &'static str,
}

/// Questions that cycle through the senders and the vehicles; `tag` makes their Message-IDs unique.
pub fn questions(count: usize, tag: &str, senders: &[&'static str], domain: &SignedDomain) -> Vec<Question> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_secs()).expect("seconds");
    let date = mail_builder::headers::date::Date::new(now).to_rfc822();
    let question = |n: usize| {
        let (from, vehicle) = (senders[n % senders.len()], VEHICLES[n % VEHICLES.len()]);
        let message_id = format!("<{tag}-{n}@{}>", domain.domain);
        let message = format!(
            "From: <{from}>\r\nTo: <{POSTHORN}>\r\nSubject: Question {n}\r\nDate: {date}\r\n\
             Message-ID: {message_id}\r\n\r\nHello,\r\nwhere is {vehicle}?\r\n"
        );
        Question { data: domain.sign(&message), message_id, from, vehicle }
    };
    (0..count).map(question).collect()
}

/// The timestamps of one mail.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// When it was due to be sent.
    due: Instant,
    /// When its 250 was read.
    accepted: Instant,
    /// When the final dot of its answer was read.
    answered: Instant,
}

/// The timestamps of one case's mails, each answered once.
pub struct Measured(Vec<Times>);

impl Measured {
    /// Number of mails sent: the first this many of the questions.
    pub fn mails(&self) -> usize {
        self.0.len()
    }

    /// Answers per second while mails were being sent. A mail that is stuck after the last one shows in the latency,
    /// not here.
    pub fn rate(&self) -> f64 {
        let first = self.0.iter().map(|times| times.due).min().expect("mails");
        let last = self.0.iter().map(|times| times.accepted).max().expect("mails");
        let answered = self.0.iter().filter(|times| times.answered <= last).count();
        answered as f64 / (last - first).as_secs_f64()
    }

    /// Times from the 250 to the answer [ms], ascending; 0 if the answer was read before the 250.
    pub fn latencies(&self) -> Vec<f64> {
        self.sorted(|times| times.answered.saturating_duration_since(times.accepted))
    }

    /// Times from when a mail was due to its answer [ms], ascending. Includes the wait for the 250 and for a late
    /// sender.
    pub fn since_due(&self) -> Vec<f64> {
        self.sorted(|times| times.answered.saturating_duration_since(times.due))
    }

    fn sorted(&self, of: impl Fn(&Times) -> Duration) -> Vec<f64> {
        let mut all: Vec<_> = self.0.iter().map(|times| of(times).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// Sends `questions` to `smtp` and checks the answers at `sink`. A closed loop that reaches its limit sends only the
/// first ones.
pub fn run(load: Load, questions: &[Question], smtp: SocketAddr, sink: &Sink) -> Measured {
    let connections = match load {
        Load::Open { .. } => OPEN_CONNECTIONS,
        Load::Closed { connections, .. } => connections,
    };
    let clients: Vec<_> = (0..connections).map(|_| Client::connect(smtp)).collect();
    let (answers, answered): (Vec<_>, Vec<_>) = questions.iter().map(|_| channel()).unzip();
    let answered: Vec<_> = answered.into_iter().map(Some).collect();
    let next = AtomicUsize::new(0);
    let start = Instant::now() + Duration::from_millis(50);
    let answered = std::sync::Mutex::new(answered);

    let mut sent: Vec<(usize, Instant, Instant)> = Vec::new();
    let mut collected = Vec::new();
    thread::scope(|scope| {
        let (next, answered) = (&next, &answered);
        let senders: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut sent = Vec::new();
                    loop {
                        if let Load::Closed { limit, .. } = load
                            && start.elapsed() > limit
                        {
                            break;
                        }
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(question) = questions.get(n) else { break };
                        let due = match load {
                            Load::Open { rate } => {
                                start + Duration::from_secs(1) * u32::try_from(n).expect("few") / rate
                            }
                            Load::Closed { .. } => start.max(Instant::now()),
                        };
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        let reply = client.send(question.from, POSTHORN, &question.data);
                        assert!(reply.starts_with("250"), "{reply}");
                        sent.push((n, due, Instant::now()));
                        if let Load::Closed { .. } = load {
                            let mine: Receiver<()> =
                                answered.lock().expect("answers")[n].take().expect("one sender");
                            mine.recv_timeout(PATIENCE)
                                .unwrap_or_else(|_| panic!("mail {n} is not answered"));
                        }
                    }
                    sent
                })
            })
            .collect();
        collected =
            collect(questions, &answers, sink, || senders.iter().all(|sender| sender.is_finished()), next);
        sent = senders.into_iter().flat_map(|sender| sender.join().expect("a sender failed")).collect();
    });
    let times = sent.into_iter().map(|(n, due, accepted)| Times {
        due,
        accepted,
        answered: collected[n].unwrap_or_else(|| panic!("mail {n} is not answered")),
    });
    Measured(times.collect())
}

/// Collects answers until everything sent is answered and nothing more arrives.
fn collect(
    questions: &[Question],
    answers: &[Sender<()>],
    sink: &Sink,
    finished: impl Fn() -> bool,
    next: &AtomicUsize,
) -> Vec<Option<Instant>> {
    let by_id: HashMap<_, _> =
        questions.iter().enumerate().map(|(n, it)| (it.message_id.as_str(), n)).collect();
    let mut collected = vec![None; questions.len()];
    let (mut count, mut last) = (0, Instant::now());
    loop {
        let sent = next.load(Ordering::Relaxed).min(questions.len());
        let complete = finished() && count == sent;
        match sink.wait(if complete { QUIET } else { Duration::from_millis(20) }) {
            Some(answer) => {
                let n = check(&answer, questions, &by_id);
                assert!(collected[n].is_none(), "answered twice: {answer:?}");
                collected[n] = Some(answer.at);
                count += 1;
                last = Instant::now();
                // Nobody waits for this in an open loop.
                let _ = answers[n].send(());
            }
            None if complete => return collected,
            None => assert!(last.elapsed() < PATIENCE, "{} of {sent} mails are lost", sent - count),
        }
    }
}

/// Checks an answer and returns the index of its question.
fn check(answer: &Delivered, questions: &[Question], by_id: &HashMap<&str, usize>) -> usize {
    let n = answer.header("In-Reply-To").and_then(|id| by_id.get(id.trim()));
    let n = *n.unwrap_or_else(|| panic!("an answer to none of these questions: {answer:?}"));
    assert_eq!(answer.rcpt_to, [questions[n].from], "{answer:?}");
    assert!(answer.text().starts_with(questions[n].vehicle), "{answer:?}");
    n
}
