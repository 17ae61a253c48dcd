//! A ROS domain that nobody else on this machine uses.

use std::fs::{File, TryLockError};

/// The highest domain whose ports are clear of those that Linux gives to clients.
const LAST: u8 = 101;

/// A ROS domain, held by a lock on a file for as long as this lives.
pub struct Domain {
    id: u8,
    _lock: File,
}

impl Domain {
    /// Takes a free one.
    pub fn take() -> Self {
        // Begin at a place of this process's own, so that two processes seldom try the same.
        let start = std::process::id() % u32::from(LAST);
        for offset in 0..u32::from(LAST) {
            let id = u8::try_from((start + offset) % u32::from(LAST) + 1).expect("at most 101");
            let path = std::env::temp_dir().join(format!("posthorn-domain-{id}.lock"));
            // Another user's, who may hold it.
            let Ok(file) = File::options().create(true).append(true).open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => return Self { id, _lock: file },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("{}: {error}", path.display()),
            }
        }
        panic!("all of the ROS domains 1 to {LAST} are taken");
    }

    /// The environment of processes in this domain.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("ROS_DOMAIN_ID", self.id.to_string()), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST".to_owned())]
    }
}
