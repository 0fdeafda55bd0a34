//! Randomness from a seed: the same seed draws the same.

use std::time::Duration;

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Of this seed, apart from others of the same seed by its purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a of the purpose.
        let salt = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mut dice = Dice(seed ^ salt);
        dice.draw();
        dice
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end.max(1) as u64).unwrap_or(0)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        f64::from((self.draw() >> 32) as u32) / f64::from(u32::MAX)
    }

    /// Whether something happens that has this chance, from 0 to 1.
    pub fn happens(&mut self, chance: f64) -> bool {
        self.share() < chance
    }

    /// Between two times.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.share())
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

/// Numbers from 0 of which the n-th is drawn in proportion to 1/(n+1).
#[derive(Debug, Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// So many numbers.
    #[must_use]
    pub fn of(count: usize) -> Self {
        let sums = (1..=count.max(1)).scan(0.0, |sum, n| {
            *sum += 1.0 / n as f64;
            Some(*sum)
        });
        Zipf(sums.collect())
    }

    /// Draws one.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let all = self.0.last().copied().unwrap_or(1.0);
        let wanted = dice.share() * all;
        self.0.partition_point(|sum| *sum < wanted).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_small_numbers_come_more_often() {
        let draw = |seed| {
            let mut dice = Dice::new(seed, "test");
            let zipf = Zipf::of(500);
            (0..1_000).map(|_| zipf.draw(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let drawn = draw(1);
        let of = |n| drawn.iter().filter(|one| **one == n).count();
        assert!(of(0) > of(10) && drawn.iter().all(|n| *n < 500));
    }
}
