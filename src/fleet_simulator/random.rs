//! Random numbers from a seed: splitmix64 (Steele, Lea, Flood 2014), ten lines that never change, where a dependency's
//! generator may with its version, and recorded demos with it.

/// A generator. Not for secrets.
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

    /// Evenly from `first` up to `last`.
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
        // First outputs of the reference implementation for seed 1234567.
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
