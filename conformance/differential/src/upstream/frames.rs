//! A backend that speaks HTTP/2 frame by frame.

use serde_json::json;

use super::{Io, State};
use crate::frames::Peer;

/// Plays the script, and then reads what the proxy has to say until it closes.
pub(super) async fn serve(io: Io, state: &State) {
    let script = &state.spec.frames;
    let mut peer = Peer::new(io, true, script).await;
    let index = state.begin(json!({}));
    for step in script {
        if step.close {
            return;
        }
        peer.play(step, 0).await;
        state.note(index, "connection", peer.outcome());
    }
    while peer.read().await {
        state.note(index, "connection", peer.outcome());
    }
}
