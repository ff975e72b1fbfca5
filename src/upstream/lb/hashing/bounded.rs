//! `hash_balance_factor`: a host that has more than its share of the requests in flight passes them on.
//!
//! Whom to, is a shuffle of the others that depends on nothing but the hash: the same key finds the same way again.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::WeightedHosts;
use crate::upstream::Host;

/// The bound of one table.
#[derive(Debug)]
pub struct Bounded {
    /// Percent of a host's even share.
    factor: u32,
}

impl Bounded {
    /// A bound of `factor` percent.
    pub fn new(factor: u32) -> Self {
        Self { factor }
    }

    /// `index`, or another one of `hosts` if that is overloaded; the least overloaded if all are. `all` share the load.
    pub fn choose<'h>(
        &self,
        hosts: &WeightedHosts,
        index: usize,
        hash: u64,
        all: impl Iterator<Item = &'h Arc<Host>>,
    ) -> usize {
        let active: u64 = all.map(|host| active(host)).sum();
        let slots = (active
            .saturating_add(1)
            .saturating_mul(self.factor.into())
            .saturating_add(99)
            / 100) as f64;
        let load = |index: usize| {
            let own = hosts.host(index).map_or(0, |host| self::active(host));
            own as f64 / (slots * hosts.share(index)).ceil().max(1.0)
        };
        let (mut best, mut least) = (index, load(index));
        if least <= 1.0 {
            return index;
        }
        let mut random = MersenneTwister::new(hash as u32);
        let mut others: Vec<usize> = (0..hosts.len()).collect();
        for i in 0..others.len() {
            let left = (others.len() - i) as u32;
            others.swap(i, i + random.below(left) as usize);
            let other = others[i];
            if other == index {
                continue;
            }
            let load = load(other);
            if load <= 1.0 {
                return other;
            }
            if load < least {
                (best, least) = (other, load);
            }
        }
        best
    }
}

fn active(host: &Host) -> u64 {
    host.stats.rq_active.load(Relaxed)
}

/// MT19937, whose sequence decides who comes next.
struct MersenneTwister {
    state: [u32; Self::SIZE],
    at: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [seed; Self::SIZE];
        for i in 1..Self::SIZE {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        Self { state, at: Self::SIZE }
    }

    fn next(&mut self) -> u32 {
        if self.at == Self::SIZE {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..Self::SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % Self::SIZE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + Self::SHIFT) % Self::SIZE] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }

    /// Evenly below `end`, which is not 0.
    fn below(&mut self, end: u32) -> u32 {
        let width = (1_u64 << 32) / u64::from(end.max(1));
        loop {
            // At most 32 bits over a width of at least 1.
            let x = u64::from(self.next()) / width;
            if x < u64::from(end) {
                return x as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The 10,000th number of the standard's default seed, which its specification gives.
    #[test]
    fn the_sequence_is_the_standards() {
        let mut random = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| random.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
