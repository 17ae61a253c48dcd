// SPDX-License-Identifier: Apache-2.0
//! Keeps the domains whose senders were authenticated in a file, one per line, so that they are still known after a
//! restart, when their mails may queue behind those of many silent domains.
//!
//! At most [`KNOWN`] domains are kept, and the file may be deleted at any time.
//!
//! It affects only the order in which mails are checked; [`super::intake`] applies it.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use record_log::replace_file;

use super::intake::KNOWN;

/// Longest domain name in bytes (RFC 1035 section 2.3.4).
const MAX_DOMAIN_BYTES: usize = 253;

/// Known domains, newest first.
#[derive(Debug)]
pub struct KnownDomains {
    path: PathBuf,
    domains: Mutex<VecDeque<String>>,
}

impl KnownDomains {
    /// Reads the file; a missing file means that no domain is known.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let text = String::from_utf8_lossy(&text);
        let domains = text.lines().filter(|line| is_domain(line)).take(KNOWN).map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), domains: Mutex::new(domains) })
    }

    /// All known domains, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.lock().iter().rev().cloned().collect()
    }

    /// Whether `domain` is already known, so that [`add`](Self::add) has nothing to write.
    pub fn knows(&self, domain: &str) -> bool {
        self.lock().iter().any(|known| known == domain)
    }

    /// Adds a domain whose sender was authenticated, and writes the file if the domain is new. Blocking.
    ///
    /// # Errors
    /// If the file cannot be written; the domain is then known only until the next restart.
    pub fn add(&self, domain: &str) -> io::Result<()> {
        let mut domains = self.lock();
        if !is_domain(domain) || domains.iter().any(|known| known == domain) {
            return Ok(());
        }
        domains.truncate(KNOWN - 1);
        domains.push_front(domain.to_owned());
        let text: String = domains.iter().flat_map(|domain| [domain.as_str(), "\n"]).collect();
        replace_file(&self.path, text.as_bytes())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_domain(text: &str) -> bool {
    (1..=MAX_DOMAIN_BYTES).contains(&text.len()) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_known_after_a_restart_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_domains");
        let known = KnownDomains::open(&path).unwrap();
        for domain in ["a.example", "b.example", "a.example", "", "c .example"] {
            known.add(domain).unwrap();
        }
        assert_eq!(KnownDomains::open(&path).unwrap().all(), ["a.example", "b.example"]);
        let many: String = (0..2 * KNOWN).map(|number| format!("{number}.example\n")).collect();
        fs::write(&path, format!("\u{0}\n\n{}\n{many}", "x".repeat(9999))).unwrap();
        let known = KnownDomains::open(&path).unwrap();
        assert_eq!(known.all().len(), KNOWN);
        known.add("new.example").unwrap();
        let known = KnownDomains::open(&path).unwrap();
        assert_eq!((known.all().len(), known.all().last().unwrap().as_str()), (KNOWN, "new.example"));
    }
}
