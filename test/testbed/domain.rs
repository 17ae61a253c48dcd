// SPDX-License-Identifier: Apache-2.0
//! Reserves a ROS domain that no other test on this machine uses.

use std::fs::{File, TryLockError};

/// The highest domain whose ports do not overlap Linux's ephemeral ports.
const LAST: u8 = 101;

/// A ROS domain, reserved by a file lock until this is dropped.
pub struct Domain {
    id: u8,
    _lock: File,
}

impl Domain {
    /// Reserves a free domain.
    pub fn take() -> Self {
        // Start at an offset that depends on the process, so that two processes rarely try the same domain.
        let start = std::process::id() % u32::from(LAST);
        for offset in 0..u32::from(LAST) {
            let id = u8::try_from((start + offset) % u32::from(LAST) + 1).expect("at most 101");
            let path = std::env::temp_dir().join(format!("posthorn-domain-{id}.lock"));
            // The file belongs to another user, who may hold the lock.
            let Ok(file) = File::options().create(true).append(true).open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => return Self { id, _lock: file },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("{}: {error}", path.display()),
            }
        }
        panic!("all of the ROS domains 1 to {LAST} are taken");
    }

    /// Environment variables that put a process into this domain.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("ROS_DOMAIN_ID", self.id.to_string()), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST".to_owned())]
    }
}
