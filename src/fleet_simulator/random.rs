// SPDX-License-Identifier: Apache-2.0
//! Generates random numbers from a seed, by splitmix64 (Steele, Lea, Flood 2014).
//!
//! The sequence never changes. That is why these ten lines are here: a dependency may change its generator with a
//! version, and recorded demos would change with it.

/// A splitmix64 generator. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number uniformly distributed from `first` up to `last`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
    pub fn between(&mut self, first: f64, last: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        first + (last - first) * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        // The reference implementation's first outputs for seed 1234567.
        let mut random = SplitMix64::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn stays_between_its_bounds() {
        let mut random = SplitMix64::new(0);
        assert!((0..1000).all(|_| (-2.0..5.0).contains(&random.between(-2.0, 5.0))));
    }
}
