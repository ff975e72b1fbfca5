//! Gathering finished spans, a batch for each worker, and handing them to the worker's own client.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::SpanData;
use crate::{
    config::BuildCx,
    runtime::Key,
    server::{Worker, WorkerMsg},
};

/// The least time between two flushes, whatever the runtime says.
const SHORTEST: Duration = Duration::from_millis(1);

/// When spans are handed on, by the runtime as it is then.
#[derive(Debug, Clone)]
pub struct Batching {
    /// `tracing.<tracer>.min_flush_spans`; 5.
    min_flush_spans: Key,
    /// `tracing.<tracer>.flush_interval_ms`; 5 s.
    flush_interval: Key,
}

impl Batching {
    /// Reads the keys below `prefix`.
    pub fn new(prefix: &str, cx: &BuildCx<'_>) -> Self {
        let key = |name: &str| cx.server.runtime.key(&format!("{prefix}{name}"));
        Self {
            min_flush_spans: key("min_flush_spans"),
            flush_interval: key("flush_interval_ms"),
        }
    }
}

/// Who sends batches, on the worker they are of.
pub trait Export: Send + Sync + 'static {
    /// The flush timer of a worker ran out.
    fn timer_flushed(&self);
    /// Sends a batch; it must not wait.
    fn send(self: Arc<Self>, worker: &Rc<Worker>, spans: Vec<SpanData>);
}

/// The queues of all workers. The tasks behind them end with it, and hand on what is left.
pub struct Reporter(Vec<mpsc::Sender<SpanData>>);

impl Reporter {
    /// Starts a task on each worker that carries traffic; each holds at most `limit` spans that wait.
    pub fn start(export: Arc<dyn Export>, batching: Batching, limit: usize, cx: &BuildCx<'_>) -> Self {
        let server = cx.server;
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..server.concurrency {
            let (sender, receiver) = mpsc::channel(limit.max(1));
            senders.push(sender);
            receivers.push(Some(receiver));
        }
        server.mailboxes.to_traffic(|id| {
            let receiver = receivers.get_mut(id).and_then(Option::take);
            let (export, batching) = (export.clone(), batching.clone());
            WorkerMsg::Run(Box::new(move |worker| {
                if let Some(receiver) = receiver {
                    tokio::task::spawn_local(run(worker.clone(), receiver, export, batching));
                }
            }))
        });
        Self(senders)
    }

    /// Takes a span of this worker; false when there is no room for it.
    pub fn report(&self, span: SpanData, worker: usize) -> bool {
        self.0.get(worker).is_some_and(|queue| queue.try_send(span).is_ok())
    }
}

async fn run(worker: Rc<Worker>, mut spans: mpsc::Receiver<SpanData>, export: Arc<dyn Export>, batching: Batching) {
    let mut batch = Vec::new();
    let interval = || Duration::from_millis(batching.flush_interval.integer(5000)).max(SHORTEST);
    let mut period = interval();
    let mut timer = ticker(period);
    loop {
        let last = tokio::select! {
            span = spans.recv() => match span {
                Some(span) => {
                    batch.push(span);
                    if (batch.len() as u64) < batching.min_flush_spans.integer(5) {
                        continue;
                    }
                    false
                }
                None => true,
            },
            _ = timer.tick() => {
                export.timer_flushed();
                if interval() != period {
                    period = interval();
                    timer = ticker(period);
                }
                false
            }
        };
        if !batch.is_empty() {
            export.clone().send(&worker, std::mem::take(&mut batch));
        }
        if last {
            return;
        }
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}
