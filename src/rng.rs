//! Chance for jitter and sampling, from one seed where a test wants it repeatable.

use crate::sync::lock;
use jiff::Timestamp;
use std::sync::{Arc, Mutex};

/// A shared source of chance; not for secrets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    stream: Arc<Mutex<fastrand::Rng>>,
}

impl Rng {
    pub fn system() -> Self {
        Self::seeded(fastrand::u64(..))
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, stream: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }

    /// A number from 0 up to (not including) 1: the jitter of the pure rules.
    pub fn jitter(&self) -> f64 {
        lock(&self.stream).f64()
    }

    /// The same, but fixed by what it is for and when: in whatever order concurrent tasks ask, a seed gives each
    /// of them the same answer.
    pub fn jitter_of(&self, what: &str, at: Timestamp) -> f64 {
        // FNV-1a: short, and enough to tell names and instants apart.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.seed;
        for byte in what.bytes().chain(at.as_millisecond().to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        fastrand::Rng::with_seed(hash).f64()
    }

    pub fn bits(&self) -> u64 {
        lock(&self.stream).u64(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_for_fixes_the_jitter_not_the_order_of_asking() {
        let at = Timestamp::constant(1_795_000_000, 0);
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        let first = a.jitter_of("openai:batch_1", at);
        a.jitter();
        assert_eq!(first.to_bits(), b.jitter_of("openai:batch_1", at).to_bits());
        assert_ne!(first.to_bits(), b.jitter_of("openai:batch_2", at).to_bits());
        assert!((0.0..1.0).contains(&first));
    }
}
