// SPDX-License-Identifier: Apache-2.0
//! Domains whose DNS does not answer, and how long they delay a registered sender.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use authenticator::{
    core::{Core, Input, Job, Limits, Outcome},
    desk::{Desk, Work},
    dns::Dns,
    silence::Waits,
    verdict::RegistryAnswer,
    verify::{Policy, verify},
};
use mail::{AcceptedMail, AuthResult::*, Envelope, MailId, Origin, Role};
use testbed::{dns::NameServer, sign::SignedDomain};
use tokio::sync::mpsc;

use super::scene::{MAIL, SENDING_HOST, Scene, assert_results};

fn waits(timeout_ms: u64, silence_s: u64) -> Waits {
    Waits { timeout: Duration::from_millis(timeout_ms), silence: Duration::from_secs(silence_s) }
}

fn mail(data: Vec<u8>) -> AcceptedMail {
    let envelope = Envelope {
        peer: [127, 0, 0, 1].into(),
        helo: String::new(),
        mail_from: String::new(),
        rcpt_to: Vec::new(),
    };
    let origin = Origin::Smtp(envelope);
    AcceptedMail { id: MailId::of(&data), received_at: UNIX_EPOCH, origin, consumers: Vec::new(), data }
}

/// Verifies mails and tells when a mail of a proven sender would be published. Registry and disk answer at once.
struct Bench {
    dns: Dns,
    policy: Policy,
    proven: mpsc::UnboundedSender<Instant>,
}

impl Work for Bench {
    async fn run(&self, job: Job) -> Outcome {
        match job {
            Job::Check(mail) => {
                let now = SystemTime::now();
                let checked = verify(&self.dns, &self.policy, &mail.origin, &mail.data, now).await;
                Outcome::Checked(Box::new(checked))
            }
            Job::AskRegistry(_) => Outcome::Registered(RegistryAnswer::active(Role::Observer)),
            Job::Record { codes, .. } => Outcome::Evidenced(codes),
            Job::Publish(_, verdict) => {
                if verdict.authenticated {
                    self.proven.send(Instant::now()).unwrap();
                }
                Outcome::Published
            }
        }
    }

    fn remember(&self, _: String) {}
}

/// Mails that the sender sends in each run.
const QUESTIONS: usize = 8;

/// Median delay of the sender's mails while about `flood` mails from `domains` domains whose DNS does not answer arrive
/// between them. The sender was authenticated once before.
fn delay(flood: usize, domains: usize) -> Duration {
    let scene = Scene::new();
    let server = NameServer::start(&scene.zone, &["silent.test"]);
    let dns = Dns::servers(&[server.address], waits(5000, 30)).unwrap();
    let (proven, mut proofs) = mpsc::unbounded_channel();
    let bench = Bench { dns, policy: scene.policy.clone(), proven };
    let limits = Limits {
        max_in_flight: 64,
        dns_patience: Duration::from_secs(900),
        registry_patience: Duration::from_secs(60),
    };
    let question =
        |number: usize| mail(scene.domain.sign(&MAIL.replace("<1@", &format!("<question{number}@"))));
    let strangers: Vec<_> =
        (0..domains).map(|number| SignedDomain::new(&format!("d{number}-silent.test"), "s1")).collect();
    let stranger = |number: usize| {
        let stranger = &strangers[number % domains];
        let text = MAIL.replace("example.org", &stranger.domain).replace("<1@", &format!("<{number}@"));
        mail(stranger.sign(&text))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let desk = Desk::new(Core::new(limits, &[]), bench);
        desk.step(Input::ChainConnected);
        let mut delays = Vec::new();
        for number in 0..=QUESTIONS {
            let question = question(number);
            let asked = Instant::now();
            desk.step(Input::delivered(question));
            delays.push(proofs.recv().await.unwrap() - asked);
            for part in 0..flood / QUESTIONS {
                desk.step(Input::delivered(stranger(number * flood / QUESTIONS + part)));
            }
        }
        // The first mail only made the sender known.
        delays.remove(0);
        delays.sort();
        delays[QUESTIONS / 2]
    })
}

/// Tests running in parallel can make this slower, never faster, so one run within the bound is enough.
const RUNS: usize = 5;

#[test]
fn four_hundred_mails_of_silent_domains_delay_no_known_sender_by_50_ms() {
    for domains in [1, 400] {
        let mut runs = Vec::new();
        let is_kept = (0..RUNS).any(|_| {
            let (alone, behind) = (delay(0, 1), delay(400, domains));
            println!("alone {alone:?}; behind 400 mails of {domains} silent domains {behind:?}");
            runs.push((alone, behind));
            behind < alone + Duration::from_millis(50)
        });
        assert!(is_kept, "alone, and behind 400 mails of {domains} silent domains: {runs:?}");
    }
}

#[test]
fn a_silent_domain_is_waited_for_once_and_asked_again_later() {
    let scene = Scene::new();
    let server = NameServer::start(&scene.zone, &["example.org"]);
    let signed = scene.domain.sign(MAIL);
    let dns = Dns::servers(&[server.address], waits(200, 3600)).unwrap();
    assert_results(&scene.check_with(&dns, &signed), TempError, TempError, TempError);
    let asked = server.unanswered();
    assert!(asked > 0);
    let began = Instant::now();
    assert_results(&scene.check_with(&dns, &signed), TempError, TempError, TempError);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(server.unanswered(), asked, "nothing was asked");
    // Without a memory for silence, a server that comes back is used at once.
    server.answer_all();
    let dns = Dns::servers(&[server.address], waits(2000, 0)).unwrap();
    assert_results(&scene.check_with(&dns, &signed), Fail, Pass, Pass);
}

/// Whoever forges a mail chooses which other domains in it have their DNS asked.
#[test]
fn a_silent_domain_in_a_forged_mail_makes_it_no_mail_that_might_be_true() {
    let mut scene = Scene::new();
    let mallory = SignedDomain::new("silent.test", "s1");
    let server = NameServer::start(&scene.zone, &["silent.test"]);
    let dns = Dns::servers(&[server.address], waits(2000, 30)).unwrap();
    scene.mail_from = "mallory@silent.test".into();
    scene.peer = SENDING_HOST;
    let checked = scene.check_with(&dns, mallory.sign(MAIL));
    assert_results(&checked, Unknown, Neutral, Fail);
    assert_eq!(server.unanswered(), 0);
}
