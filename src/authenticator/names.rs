// SPDX-License-Identifier: Apache-2.0
//! Keeps the names of the senders that were registered or revoked here, in a file with one on each line, so that people
//! can be shown names in place of the digests that the chain has.
//!
//! Nothing depends on it: a name that is lost is shown as its digest.
//!
//! [`super::registry`] knows what the chain has of each.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use record_log::replace_file;

use crate::sender::SenderName;

/// The names, and their file.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    /// As [`SenderName`] writes them.
    all: Mutex<BTreeSet<String>>,
    /// Held while the file is written, so that it never goes back to an earlier state.
    writing: Mutex<()>,
}

impl Names {
    /// Reads the file; one that is missing or cannot be read has no names, and a line that is no name counts as none.
    /// Blocking.
    pub fn open(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "senders are listed without their names");
            }
            String::new()
        });
        let names = text.lines().filter_map(|line| Some(SenderName::parse(line).ok()?.to_string()));
        Self { path: path.to_owned(), all: Mutex::new(names.collect()), writing: Mutex::default() }
    }

    /// Adds a name and writes the file. Blocking.
    pub fn add(&self, name: &SenderName) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            if !all.insert(name.to_string()) {
                return;
            }
            all.iter().map(|name| format!("{name}\n")).collect()
        };
        if let Err(error) = replace_file(&self.path, text.as_bytes()) {
            tracing::warn!(%error, path = %self.path.display(), "a sender will be listed without its name");
            // The next request about it tries again.
            self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&name.to_string());
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<SenderName> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|name| SenderName::parse(name).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_a_broken_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("senders");
        let names = Names::open(&path);
        for name in ["@dispatch.example", "Dana@dispatch.example", "dana@Dispatch.example"] {
            names.add(&SenderName::parse(name).unwrap());
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "@dispatch.example\ndana@dispatch.example\n");
        fs::write(&path, format!("nobody\n{text}")).unwrap();
        assert_eq!(Names::open(&path).all(), names.all());
        assert_eq!(Names::open(dir.path()).all(), []);
    }
}
