// SPDX-License-Identifier: Apache-2.0
//! A value made from files, made again when one of them changes. Blocking.
//!
//! Files that can no longer be used do not take the value away: the last good one stays, the reason is logged once and
//! is kept for a status until the files are good again. Files are looked at when somebody asks for the value, at most
//! once a second; there is no task and no watch.

use std::{
    fmt::Display,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);

/// What changes when a file is written, replaced or given other permissions: device, inode, size, change time [s, ns].
type Stamp = (u64, u64, u64, i64, i64);

type Load<T, E> = Box<dyn Fn() -> Result<T, E> + Send + Sync>;

/// A value made from files.
pub struct Reloading<T, E> {
    paths: Vec<PathBuf>,
    load: Load<T, E>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// `None` for a file that is not there.
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
    failure: Option<String>,
}

impl<T, E: Display> Reloading<T, E> {
    /// Makes the value for the first time. `load` reads `paths` and nothing else.
    ///
    /// # Errors
    /// If `load` fails.
    pub fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
        now: Instant,
    ) -> Result<Self, E> {
        // Before the files are read: a change in between is seen at the next look.
        let stamps = stamps(&paths);
        let value = Arc::new(load()?);
        let state = Mutex::new(State { value, stamps, looked_at: now, failure: None });
        Ok(Self { paths, load: Box::new(load), state })
    }

    /// The value of the files as they are, or as they last were when they could be used.
    pub fn current(&self, now: Instant) -> Arc<T> {
        let mut state = self.state();
        if now.saturating_duration_since(state.looked_at) < INTERVAL {
            return Arc::clone(&state.value);
        }
        state.looked_at = now;
        let stamps = stamps(&self.paths);
        // What failed is tried again even if nothing has changed: there may have been too many open files.
        if stamps != state.stamps || state.failure.is_some() {
            state.stamps = stamps;
            match (self.load)() {
                Ok(value) => {
                    tracing::info!(files = ?self.paths, "changed, read again");
                    state.value = Arc::new(value);
                    state.failure = None;
                }
                Err(error) => {
                    let words = Some(error.to_string());
                    if state.failure != words {
                        tracing::warn!(%error, files = ?self.paths, "changed and cannot be used; what was read before stays");
                        state.failure = words;
                    }
                }
            }
        }
        Arc::clone(&state.value)
    }

    /// Why the files cannot be used since they were changed; `None` if they can.
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp =
        |path| fs::metadata(path).ok().map(|of| (of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec()));
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let read = {
            let path = path.clone();
            move || fs::read_to_string(&path).unwrap_or_default().trim().parse::<u32>()
        };
        let start = Instant::now();
        assert!(Reloading::new(vec![path.clone()], read.clone(), start).is_err());
        fs::write(&path, "1").unwrap();
        let number = Reloading::new(vec![path.clone()], read, start).unwrap();
        let after = |seconds| *number.current(start + Duration::from_secs(seconds));
        fs::write(&path, "22").unwrap();
        assert_eq!((*number.current(start), after(1)), (1, 22));
        fs::write(&path, "many").unwrap();
        assert_eq!(after(2), 22);
        assert!(number.failure().unwrap().contains("invalid digit"));
        fs::remove_file(&path).unwrap();
        assert_eq!(after(3), 22);
        // Replaced by renaming, as tools that renew certificates do.
        fs::write(dir.path().join("new"), "3").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!((after(4), number.failure()), (3, None));
    }
}
