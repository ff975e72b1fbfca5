//! Gathering entries until there are enough of them, or they are old enough: what loggers over the network share.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

/// The least time between two flushes, whatever the configuration says.
const SHORTEST: Duration = Duration::from_millis(1);

/// When entries are handed on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `buffer_flush_interval`, from the first entry on.
    pub interval: Duration,
    /// `buffer_size_bytes`
    pub bytes: usize,
}

/// Runs until the queue's other end is gone, and hands on what is left.
pub async fn gather<E>(
    mut entries: mpsc::Receiver<E>,
    limits: Limits,
    size: impl Fn(&E) -> usize,
    mut flush: impl FnMut(Vec<E>),
) {
    let mut batch: Vec<E> = Vec::new();
    let mut bytes = 0;
    let mut since: Option<Instant> = None;
    loop {
        // The time runs from the first entry, so that an idle log wakes nobody.
        let due = since.map(|t| t + limits.interval.max(SHORTEST));
        let timer = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let last = tokio::select! {
            entry = entries.recv() => match entry {
                Some(entry) => {
                    bytes += size(&entry);
                    batch.push(entry);
                    since.get_or_insert_with(Instant::now);
                    if bytes < limits.bytes {
                        continue;
                    }
                    false
                }
                None => true,
            },
            () = timer => false,
        };
        if !batch.is_empty() {
            flush(std::mem::take(&mut batch));
        }
        if last {
            return;
        }
        bytes = 0;
        since = None;
    }
}
