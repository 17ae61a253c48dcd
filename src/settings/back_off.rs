// SPDX-License-Identifier: Apache-2.0
//! The one rule for how long to wait before trying again.

use std::time::Duration;

/// Delays between repetitions: `min` first, then doubling up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackOff {
    /// First delay.
    pub min: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl BackOff {
    /// Delay after this many attempts, 1 or more.
    pub fn delay(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(30);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_by_doubling_up_to_the_longest() {
        let back_off = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(5) };
        let delays: Vec<_> = [1, 2, 3, 4, u32::MAX].map(|attempts| back_off.delay(attempts).as_secs()).into();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
    }
}
