// SPDX-License-Identifier: Apache-2.0
//! Chooses the smart host: the first in the order of the parameters that is not away. Pure.
//!
//! Hosts before the chosen one are probed, those behind it are not: nothing needs them. What runs on which host is
//! counted here; when a mail is due is left to the schedule.

use std::time::Duration;

use super::host::Host;

/// What an attempt reveals about the smart host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The dialogue ran to its end.
    Worked,
    /// The connection was lost before the whole mail was written.
    Away,
    /// In a dialogue about the mail the host said that it wants TLS or a login first.
    Unwilling,
    /// There was no session.
    Unreached,
    /// The same, because the host refused name and password.
    LoginRefused,
    /// The connection was lost after the whole mail was written.
    LostAfterData,
    /// The smart host was not contacted.
    None,
}

impl Contact {
    /// Whether the host cannot have taken the mail.
    pub(super) fn is_away(self) -> bool {
        self.has_broken() || self.is_unreached()
    }

    /// Whether a dialogue about the mail ended early, for which the mail may be the reason.
    pub(super) fn has_broken(self) -> bool {
        matches!(self, Self::Away | Self::Unwilling)
    }

    /// Whether there was no dialogue about the mail, so that the mail cannot be the reason.
    pub(super) fn is_unreached(self) -> bool {
        matches!(self, Self::Unreached | Self::LoginRefused)
    }
}

#[derive(Debug)]
struct Entry {
    host: Host,
    trying: usize,
    probing: bool,
    /// Why it was away when it was last found so.
    why: String,
}

/// The smart hosts, the preferred one first.
#[derive(Debug)]
pub struct Hosts {
    entries: Vec<Entry>,
}

impl Hosts {
    /// Hosts of which nothing is known.
    pub fn new(host: Host, count: usize) -> Self {
        let entry = || Entry { host, trying: 0, probing: false, why: String::new() };
        Self { entries: (0..count).map(|_| entry()).collect() }
    }

    /// The first host that is not away.
    pub fn chosen(&self) -> Option<usize> {
        self.entries.iter().position(|entry| entry.host.probe_due().is_none())
    }

    /// The same, if it may get another mail now.
    pub fn free(&self) -> Option<usize> {
        let is_free =
            |entry: &Entry| entry.trying.saturating_add(usize::from(entry.probing)) < entry.host.places();
        self.chosen().filter(|&chosen| self.entries.get(chosen).is_some_and(is_free))
    }

    /// Reports that an attempt begins.
    pub fn start(&mut self, host: usize) {
        if let Some(entry) = self.entries.get_mut(host) {
            entry.trying = entry.trying.saturating_add(1);
        }
    }

    /// Reports the end of an attempt and what it says about the host; `reply` says why there was no connection.
    pub fn ended(&mut self, host: usize, contact: Contact, reply: &str, now: Duration) {
        let Some(entry) = self.entries.get_mut(host) else { return };
        entry.trying = entry.trying.saturating_sub(1);
        match contact {
            Contact::Worked => entry.host.worked(),
            // What it said about a mail may name addresses.
            Contact::Away | Contact::LostAfterData => {
                entry.host.failed(now, false);
                "the connection was lost".clone_into(&mut entry.why);
            }
            Contact::Unwilling => {
                entry.host.failed(now, false);
                "it wants TLS or a login".clone_into(&mut entry.why);
            }
            Contact::Unreached | Contact::LoginRefused => {
                entry.host.failed(now, contact == Contact::LoginRefused);
                reply.clone_into(&mut entry.why);
            }
            Contact::None => {}
        }
    }

    /// The first host whose probe is due; reports that it begins.
    pub fn start_probe(&mut self, now: Duration) -> Option<usize> {
        let is_due = |entry: &Entry| !entry.probing && entry.host.probe_due().is_some_and(|due| due <= now);
        let away = self.before_chosen();
        let host = self.entries.iter().take(away).position(is_due)?;
        self.entries.get_mut(host)?.probing = true;
        Some(host)
    }

    /// When the next probe is due that is not under way.
    pub fn next_probe(&self) -> Option<Duration> {
        let waiting = self.entries.iter().take(self.before_chosen()).filter(|entry| !entry.probing);
        waiting.filter_map(|entry| entry.host.probe_due()).min()
    }

    /// Reports that a probe was greeted.
    pub fn greeted(&mut self, host: usize) {
        if let Some(entry) = self.entries.get_mut(host) {
            entry.probing = false;
            entry.host.greeted();
        }
    }

    /// Reports that a probe failed.
    pub fn unanswered(&mut self, host: usize, reply: &str, login_refused: bool, now: Duration) {
        if let Some(entry) = self.entries.get_mut(host) {
            entry.probing = false;
            entry.host.failed(now, login_refused);
            reply.clone_into(&mut entry.why);
        }
    }

    /// Attempts and probes under way.
    pub fn under_way(&self) -> usize {
        let busy = |entry: &Entry| entry.trying.saturating_add(usize::from(entry.probing));
        self.entries.iter().map(busy).sum()
    }

    /// Whether all have been away for so many probes that mails may fail for their age.
    pub fn are_lost(&self) -> bool {
        self.entries.iter().all(|entry| entry.host.lost())
    }

    /// Why the first is away; `None` if it is not.
    pub fn why_away(&self) -> Option<String> {
        let first = self.entries.first().filter(|first| first.host.probe_due().is_some())?;
        Some(first.why.clone())
    }

    fn before_chosen(&self) -> usize {
        self.chosen().unwrap_or(self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PROBE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn says_why_the_first_is_away_but_not_what_was_said_about_a_mail() {
        let mut hosts = Hosts::new(Host::new(PROBE, 4), 2);
        assert_eq!(hosts.why_away(), None);
        hosts.ended(0, Contact::Away, "421 <ada@x.test> closing", at(0));
        assert_eq!(hosts.why_away().unwrap(), "the connection was lost");
        hosts.ended(0, Contact::Unwilling, "530 <ada@x.test> needs a login", at(10));
        assert_eq!(hosts.why_away().unwrap(), "it wants TLS or a login");
        hosts.unanswered(0, "535 wrong", true, at(10));
        assert_eq!(hosts.why_away().unwrap(), "535 wrong");
        hosts.greeted(0);
        assert_eq!(hosts.why_away(), None);
        hosts.ended(1, Contact::Unreached, "refused", at(20));
        assert_eq!(hosts.why_away(), None);
    }

    /// What is reported of a host.
    #[derive(Clone, Copy, Debug)]
    enum Report {
        Start,
        Ended(Contact),
        Probe,
        Greeted,
        Unanswered(bool),
    }

    fn reports() -> impl Strategy<Value = Vec<(usize, Report, u64)>> {
        let contacts = vec![
            Contact::Worked,
            Contact::Away,
            Contact::Unwilling,
            Contact::Unreached,
            Contact::LoginRefused,
            Contact::LostAfterData,
            Contact::None,
        ];
        let report = prop_oneof![
            Just(Report::Start),
            prop::sample::select(contacts).prop_map(Report::Ended),
            Just(Report::Probe),
            Just(Report::Greeted),
            any::<bool>().prop_map(Report::Unanswered),
        ];
        vec((0..5_usize, report, 0..20_u64), 0..100)
    }

    proptest! {
        #[test]
        fn mails_go_to_the_first_that_is_not_away_and_probes_to_those_before_it(
            count in 1..5_usize,
            reports in reports(),
        ) {
            let (mut hosts, mut now) = (Hosts::new(Host::new(PROBE, 4), count), at(0));
            for (host, report, pause) in reports {
                now += at(pause);
                match report {
                    Report::Start => hosts.start(host),
                    Report::Ended(contact) => hosts.ended(host, contact, "", now),
                    Report::Probe => {
                        let chosen = hosts.chosen();
                        let due = hosts.next_probe();
                        let probed = hosts.start_probe(now);
                        prop_assert_eq!(probed.is_some(), due.is_some_and(|due| due <= now));
                        prop_assert!(probed.is_none_or(|probed| probed < chosen.unwrap_or(count)));
                    }
                    Report::Greeted => hosts.greeted(host),
                    Report::Unanswered(refused) => hosts.unanswered(host, "", refused, now),
                }
                let is_away = |host: &Entry| host.host.probe_due().is_some();
                let chosen = hosts.chosen();
                prop_assert_eq!(chosen.is_none(), hosts.entries.iter().all(is_away));
                if let Some(chosen) = chosen {
                    prop_assert!(!is_away(&hosts.entries[chosen]));
                    prop_assert!(hosts.entries[..chosen].iter().all(is_away));
                }
                prop_assert!(hosts.free().is_none_or(|free| Some(free) == chosen));
                prop_assert_eq!(hosts.why_away().is_some(), chosen != Some(0));
            }
        }
    }
}
