// SPDX-License-Identifier: Apache-2.0
//! Handles SIGINT and SIGTERM: the first asks the node to drain, a second one 500 ms or more later ends the process.
//!
//! A separate thread receives them, so they are handled before the tokio runtime exists and while its workers are
//! blocked. The second signal calls `_exit`: `exit` would run C++ destructors while the middleware's threads still use
//! the objects they destroy.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals as Received,
    low_level,
};
use tokio::sync::watch;

use super::{ends_within, lock};

/// Signals within this time of the first count as the same request: one Ctrl-C reaches a node from the terminal and
/// again from `ros2 launch`.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// How long to wait for a log line to be written.
const LOG_PATIENCE: Duration = Duration::from_millis(200);

/// Tells a node when it has been asked to shut down.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns once SIGINT or SIGTERM has been received; immediately if that has already happened.
    pub async fn requested(&mut self) {
        // The sender is gone, so no request can arrive any more: treat that as a request.
        let _ = self.0.wait_for(|&requested| requested).await;
    }
}

/// The process's signal handling, from [`Signals::take`] until the process exits.
pub(super) struct Signals {
    shutdown: Shutdown,
    /// Locked while a signal is handled; true once the process is exiting on its own.
    ending: Arc<Mutex<bool>>,
}

impl Signals {
    /// Starts handling signals; from here on they no longer kill the process.
    pub(super) fn take() -> io::Result<Self> {
        let mut received = Received::new([SIGINT, SIGTERM])?;
        let (requested, shutdown) = watch::channel(false);
        let ending = Arc::new(Mutex::new(false));
        let own_end = Arc::clone(&ending);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut first = None;
            for signal in received.forever() {
                let ending = lock(&own_end);
                if *ending {
                    return;
                }
                match answer(&mut first, Instant::now()) {
                    Answer::Drain => {
                        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                        in_time(move || tracing::info!("{name}: draining"));
                        let _ = requested.send(true);
                    }
                    Answer::Same => {}
                    Answer::End => {
                        in_time(|| tracing::error!("second signal: not drained"));
                        low_level::exit(1);
                    }
                }
            }
        })?;
        Ok(Self { shutdown: Shutdown(shutdown), ending })
    }

    pub(super) fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Call when the process exits on its own: later signals are ignored and no longer touch the log, which is being
    /// destroyed.
    pub(super) fn release(self) {
        *lock(&self.ending) = true;
    }
}

/// Writes to the log, but goes on without it if that blocks, for example because nobody reads stderr any more.
pub(super) fn in_time(log: impl FnOnce() + Send + 'static) {
    ends_within(LOG_PATIENCE, log);
}

#[derive(Debug, PartialEq)]
enum Answer {
    Drain,
    Same,
    End,
}

fn answer(first: &mut Option<Instant>, now: Instant) -> Answer {
    match first {
        None => {
            *first = Some(now);
            Answer::Drain
        }
        Some(first) if now.duration_since(*first) < ONE_REQUEST => Answer::Same,
        Some(_) => Answer::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ctrl_c_is_one_request_however_many_pass_it_on() {
        let (mut first, now) = (None, Instant::now());
        assert_eq!(answer(&mut first, now), Answer::Drain);
        assert_eq!(answer(&mut first, now + Duration::from_millis(4)), Answer::Same);
        assert_eq!(answer(&mut first, now + Duration::from_millis(499)), Answer::Same);
        assert_eq!(answer(&mut first, now + ONE_REQUEST), Answer::End);
    }
}
