//! Earliest deadline first: weighted round robin that spreads evenly instead of in bursts.

use std::{cmp::Ordering, collections::BinaryHeap};

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Ties go to who was added first.
    order: u64,
    index: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// The heap gives its greatest first; the earliest is wanted.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

/// A queue of indices. A weight counts when its index is put back.
#[derive(Debug, Default)]
pub struct Edf {
    now: f64,
    order: u64,
    heap: BinaryHeap<Entry>,
}

impl Edf {
    /// A queue of `weights`, by index, somewhere in its cycle, as after any number of picks: whoever makes queues of the
    /// same weights does not begin with the same index every time. Those of weight 0 are left out.
    pub fn starting_anywhere(weights: impl IntoIterator<Item = f64>, random: &mut fastrand::Rng) -> Self {
        let weights: Vec<f64> = weights.into_iter().collect();
        let lightest = weights
            .iter()
            .copied()
            .filter(|w| *w > 0.0)
            .fold(f64::INFINITY, f64::min);
        // Long enough for every phase of the weights against each other that is worth telling apart.
        let now = random.f64() * 1024.0 / lightest;
        let mut edf = Self::default();
        for (index, weight) in weights.into_iter().enumerate().filter(|(_, w)| *w > 0.0) {
            let deadline = ((now * weight).floor() + 1.0) / weight;
            edf.push(index, deadline - now);
        }
        edf
    }

    fn add(&mut self, index: usize, weight: f64) {
        if weight > 0.0 {
            self.push(index, self.now + 1.0 / weight);
        }
    }

    fn push(&mut self, index: usize, deadline: f64) {
        self.heap.push(Entry {
            deadline,
            order: self.order,
            index,
        });
        self.order += 1;
    }

    /// The next index, put back with the weight it has now.
    pub fn pick(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let next = self.heap.pop()?;
        self.now = next.deadline;
        self.add(next.index, weight(next.index).max(f64::MIN_POSITIVE));
        Some(next.index)
    }
}
