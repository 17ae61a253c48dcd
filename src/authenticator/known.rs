//! The domains of senders that were authenticated, in a file of one a line: what makes them known after a restart, when
//! their mails may come behind those of many silent domains.
//!
//! The file decides whose turn is when and nothing else; it may be deleted at any time.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::intake::KNOWN;

/// Longest domain, bytes (RFC 1035 section 2.3.4).
const MAX_DOMAIN_BYTES: usize = 253;

/// Known domains, the latest first.
#[derive(Debug)]
pub struct KnownDomains {
    path: PathBuf,
    domains: Mutex<VecDeque<String>>,
}

impl KnownDomains {
    /// Reads the file; none if it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let text = String::from_utf8_lossy(&text);
        let domains = text.lines().filter(|line| is_domain(line)).take(KNOWN).map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), domains: Mutex::new(domains) })
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<String> {
        self.lock().iter().rev().cloned().collect()
    }

    /// Whether [`add`](Self::add) has nothing to write.
    pub fn knows(&self, domain: &str) -> bool {
        self.lock().iter().any(|known| known == domain)
    }

    /// A sender of `domain` was authenticated. The file is written if that is new. Blocking.
    ///
    /// # Errors
    /// If it cannot be written; the domain is known until the next restart.
    pub fn add(&self, domain: &str) -> io::Result<()> {
        let mut domains = self.lock();
        if !is_domain(domain) || domains.iter().any(|known| known == domain) {
            return Ok(());
        }
        domains.truncate(KNOWN - 1);
        domains.push_front(domain.to_owned());
        let text: String = domains.iter().flat_map(|domain| [domain.as_str(), "\n"]).collect();
        let draft = self.path.with_extension("tmp");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.path)
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
