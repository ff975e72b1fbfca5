//! `connection_balance_config.exact_balance`: whichever worker accepts a connection hands it to the one that has the
//! fewest of its address.

use std::sync::{Arc, Mutex, PoisonError};

/// How many connections of an address each worker has.
#[derive(Debug)]
pub struct ExactBalance {
    /// A lock and not one atomic each: the choice and the count must be one step for the spread to be exact. It is held
    /// for a few comparisons, once a connection.
    open: Mutex<Box<[u64]>>,
}

/// A connection that counts as its worker's.
#[derive(Debug)]
pub struct Balanced {
    balance: Arc<ExactBalance>,
    /// The worker that is to serve it.
    pub worker: usize,
}

impl ExactBalance {
    /// Nobody has a connection yet.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(vec![0; workers.max(1)].into()),
        })
    }

    /// The worker with the fewest connections, of several the first. This one is counted until the answer is dropped.
    pub fn pick(self: &Arc<Self>) -> Balanced {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fewest = open.iter_mut().enumerate().min_by_key(|(_, n)| **n);
        let worker = fewest.map_or(0, |(worker, n)| {
            *n += 1;
            worker
        });
        Balanced {
            balance: self.clone(),
            worker,
        }
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        let mut open = self.balance.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = open.get_mut(self.worker) {
            *n = n.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_with_the_fewest_is_next() {
        let balance = ExactBalance::new(3);
        let mut taken: Vec<_> = (0..7).map(|_| balance.pick()).collect();
        let workers: Vec<_> = taken.iter().map(|b| b.worker).collect();
        assert_eq!(workers, [0, 1, 2, 0, 1, 2, 0]);
        taken.retain(|b| b.worker != 1);
        let next: Vec<_> = [(); 3].map(|()| balance.pick()).into_iter().map(|b| b.worker).collect();
        assert_eq!(next, [1, 1, 1], "all of them stay open until they are dropped");
    }
}
