// SPDX-License-Identifier: Apache-2.0
//! Remembers which domains' DNS did not answer lately, so that mails do not wait for them again and again. Pure.
//!
//! While it is remembered, a silent domain costs one wait per kind of question, and no other domain is affected. DKIM
//! is the exception: all keys of a mail are one question, so a silent signing domain costs one wait for each distinct
//! set of signing domains; these are all of the author's organisation. A wrong entry delays a domain's mails no longer
//! than it is remembered, and an answer removes it.
//!
//! The caller runs the queries, reports their outcome and passes in the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Maximum number of questions to remember; when full, the one that would expire first makes room.
const REMEMBERED: usize = 4096;

/// Time limits for DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Time limit for all answers that one method needs.
    pub timeout: Duration,
    /// Longest time for which a domain that did not answer is not asked again.
    pub silence: Duration,
}

/// Kind of question. One kind may go unanswered while others are answered: SPF also queries domains of other
/// organisations, and keys are often hosted by a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The SPF record of a domain and everything it includes.
    Spf,
    /// DKIM keys of the signing domains.
    Dkim,
    /// The DMARC policy of a domain.
    Dmarc,
}

/// Questions that got no answer.
#[derive(Debug)]
pub struct Silence {
    longest: Duration,
    domains: HashMap<(Question, String), Quiet>,
}

#[derive(Clone, Copy, Debug)]
struct Quiet {
    until: Instant,
    lasts: Duration,
}

impl Silence {
    /// Remembers each question for at most `longest`, and the first time for a tenth of that: one lost packet does
    /// not make a domain silent, and the mail that it delayed is delivered again soon. With zero, nothing is
    /// remembered.
    pub fn new(longest: Duration) -> Self {
        Self { longest, domains: HashMap::new() }
    }

    /// Whether to skip this question because it got no answer lately.
    pub fn covers(&self, question: Question, domain: &str, now: Instant) -> bool {
        self.domains.get(&key(question, domain)).is_some_and(|quiet| now < quiet.until)
    }

    /// Notes whether a question that was asked got an answer.
    pub fn note(&mut self, question: Question, domain: &str, answered: bool, now: Instant) {
        let key = key(question, domain);
        let before = self.domains.remove(&key);
        if answered || self.longest.is_zero() {
            return;
        }
        if self.domains.len() >= REMEMBERED {
            self.domains.retain(|_, quiet| now < quiet.until);
        }
        if self.domains.len() >= REMEMBERED {
            let first = self.domains.iter().min_by_key(|(_, quiet)| quiet.until).map(|(key, _)| key.clone());
            first.and_then(|key| self.domains.remove(&key));
        }
        let lasts = before.map_or(self.longest / 10, |before| (before.lasts * 2).min(self.longest));
        self.domains.insert(key, Quiet { until: now + lasts, lasts });
    }
}

fn key(question: Question, domain: &str) -> (Question, String) {
    (question, domain.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn a_silent_domain_is_not_asked_again_until_its_time_is_over_and_others_are() {
        let (mut silence, now) = (Silence::new(LONGEST), Instant::now());
        silence.note(Question::Dkim, "Evil.Example.", false, now);
        assert!(silence.covers(Question::Dkim, "evil.example", now + LONGEST / 20));
        assert!(!silence.covers(Question::Dkim, "evil.example", now + LONGEST / 10));
        assert!(!silence.covers(Question::Dmarc, "evil.example", now));
        assert!(!silence.covers(Question::Dkim, "example", now));
        let mut none = Silence::new(Duration::ZERO);
        none.note(Question::Dkim, "evil.example", false, now);
        assert!(!none.covers(Question::Dkim, "evil.example", now));
    }

    #[test]
    fn silence_is_remembered_longer_each_time_and_forgotten_with_an_answer() {
        let (mut silence, mut now) = (Silence::new(LONGEST), Instant::now());
        let seconds = [3, 6, 12, 24, 30, 30].map(Duration::from_secs);
        for lasts in seconds {
            silence.note(Question::Spf, "evil.example", false, now);
            assert!(silence.covers(Question::Spf, "evil.example", now + lasts - Duration::from_millis(1)));
            now += lasts;
            assert!(!silence.covers(Question::Spf, "evil.example", now), "{lasts:?}");
        }
        silence.note(Question::Spf, "evil.example", true, now);
        silence.note(Question::Spf, "evil.example", false, now);
        assert!(!silence.covers(Question::Spf, "evil.example", now + LONGEST / 10));
    }

    #[test]
    fn any_number_of_silent_domains_takes_bounded_memory() {
        let (mut silence, start) = (Silence::new(LONGEST), Instant::now());
        for number in 0..REMEMBERED + 100 {
            let now = start + Duration::from_micros(number as u64);
            silence.note(Question::Spf, &format!("{number}.example"), false, now);
        }
        assert_eq!(silence.domains.len(), REMEMBERED);
        assert!(!silence.covers(Question::Spf, "0.example", start + LONGEST / 20));
        assert!(silence.covers(Question::Spf, &format!("{REMEMBERED}.example"), start + LONGEST / 20));
    }
}
