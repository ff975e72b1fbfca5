//! ORIGINAL_DST: hosts that nobody uses any more go after a while.

use std::sync::Arc;

use tokio::{sync::oneshot, time::MissedTickBehavior};

use crate::{
    server::ServerContext,
    upstream::{Cluster, OriginalDst},
};

/// Cleans up until the sender is dropped.
pub(super) fn start(
    options: Arc<OriginalDst>,
    cluster: Arc<Cluster>,
    server: &Arc<ServerContext>,
) -> oneshot::Sender<()> {
    let (stop, mut stopped) = oneshot::channel();
    server.mailboxes.run_on_control(move |worker| {
        let server = worker.server.clone();
        tokio::task::spawn_local(async move {
            let mut ticks = tokio::time::interval(options.cleanup_interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    _ = ticks.tick() => options.clean_up(&cluster, &server),
                }
            }
        });
    });
    stop
}
