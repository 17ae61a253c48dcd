//! SIGINT and SIGTERM: the first asks the node to drain, a later one ends the process at once.
//!
//! A thread of its own takes them, so that they are heard before there is a runtime and when its workers are blocked. The
//! end at once is `_exit`: `exit` would run the destructors of C++ while the middleware's threads use what they destroy.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals as Received,
    low_level,
};
use tokio::sync::watch;

use super::lock;

/// Signals this close together are one request: Ctrl-C reaches a node from the terminal, and again from `ros2 launch`.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// How long a line in the log may take.
const LOG_PATIENCE: Duration = Duration::from_millis(200);

/// When the node is to end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns when SIGINT or SIGTERM was received; at once if it was before.
    pub async fn requested(&mut self) {
        // An error means that nobody is left to ask for the end: it has come.
        let _ = self.0.wait_for(|&requested| requested).await;
    }
}

/// The process's signals, from [`Signals::take`] to its end.
pub(super) struct Signals {
    shutdown: Shutdown,
    /// Held while a signal is acted on; true when the process ends by itself.
    ending: Arc<Mutex<bool>>,
}

impl Signals {
    /// From now on signals do not kill the process.
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

    /// The process ends by itself: a signal that comes now changes nothing, also not the log, which is being destroyed.
    pub(super) fn release(self) {
        *lock(&self.ending) = true;
    }
}

/// Writes to the log, and goes on without it if it hangs, as when nobody reads standard error any more.
fn in_time(log: impl FnOnce() + Send + 'static) {
    let (written, wait) = mpsc::channel();
    std::thread::spawn(move || {
        log();
        // Nobody waits any more.
        let _ = written.send(());
    });
    let _ = wait.recv_timeout(LOG_PATIENCE);
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
