//! Which domains' DNS did not answer lately, so that nobody waits for them again and again. Pure.
//!
//! Guarantees that a silent domain costs one wait for each kind of question in the time it is remembered, and that
//! nothing is said of other domains. A wrong entry costs a domain that time and no more.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Domains that are remembered; beyond, the one that is forgotten first makes room.
const REMEMBERED: usize = 4096;

/// How long DNS is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// For all answers that one method needs.
    pub timeout: Duration,
    /// How long a domain whose DNS did not answer is not asked again.
    pub silence: Duration,
}

/// What was asked. One may be silent while the others answer: SPF asks the domains of other organisations too, and keys
/// often lie with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The SPF record of a domain, and all that it includes.
    Spf,
    /// A DKIM key of a domain.
    Dkim,
    /// The DMARC policy of a domain.
    Dmarc,
}

/// Domains that did not answer.
#[derive(Debug)]
pub struct Silence {
    lasts: Duration,
    until: HashMap<(Question, String), Instant>,
}

impl Silence {
    /// Remembers each for as long as `lasts`; zero: none.
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, until: HashMap::new() }
    }

    /// Whether the question is not worth asking now.
    pub fn covers(&self, question: Question, domain: &str, now: Instant) -> bool {
        self.until.get(&key(question, domain)).is_some_and(|&until| now < until)
    }

    /// The question was asked and not answered.
    pub fn note(&mut self, question: Question, domain: &str, now: Instant) {
        if self.until.len() >= REMEMBERED {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() >= REMEMBERED {
            let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            first.and_then(|key| self.until.remove(&key));
        }
        if !self.lasts.is_zero() {
            self.until.insert(key(question, domain), now + self.lasts);
        }
    }
}

fn key(question: Question, domain: &str) -> (Question, String) {
    (question, domain.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(30);

    #[test]
    fn a_silent_domain_is_not_asked_again_until_its_time_is_over_and_others_are() {
        let (mut silence, now) = (Silence::new(LASTS), Instant::now());
        silence.note(Question::Dkim, "Evil.Example.", now);
        assert!(silence.covers(Question::Dkim, "evil.example", now + LASTS / 2));
        assert!(!silence.covers(Question::Dkim, "evil.example", now + LASTS));
        assert!(!silence.covers(Question::Dmarc, "evil.example", now));
        assert!(!silence.covers(Question::Dkim, "example", now));
        let mut none = Silence::new(Duration::ZERO);
        none.note(Question::Dkim, "evil.example", now);
        assert!(!none.covers(Question::Dkim, "evil.example", now));
    }

    #[test]
    fn any_number_of_silent_domains_takes_bounded_memory() {
        let (mut silence, start) = (Silence::new(LASTS), Instant::now());
        for number in 0..REMEMBERED + 100 {
            let now = start + Duration::from_micros(number as u64);
            silence.note(Question::Spf, &format!("{number}.example"), now);
        }
        assert_eq!(silence.until.len(), REMEMBERED);
        assert!(!silence.covers(Question::Spf, "0.example", start + LASTS / 2));
        assert!(silence.covers(Question::Spf, &format!("{REMEMBERED}.example"), start + LASTS / 2));
    }
}
