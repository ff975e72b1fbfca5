//! A backend of plain bytes: its steps, or an echo.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Io, State};
use crate::case::Step;
use crate::text;

/// Plays the steps of the case; without any, sends back what comes until the peer is done.
pub(super) async fn serve(mut io: Io, state: &State, tls: Option<Value>) {
    let index = state.begin(json!({ "tls": tls }));
    let mut received = Vec::new();
    if state.spec.tcp.is_empty() {
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..n]);
            state.note(index, "bytes", text::show(&received).into());
            if io.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    }
    for step in &state.spec.tcp {
        match step {
            Step::Send(s) => {
                let _ = io.write_all(&text::to_bytes(s)).await;
            }
            Step::Read(n) => {
                let mut chunk = vec![0; *n];
                let got = io.read_exact(&mut chunk).await;
                received.extend_from_slice(if got.is_ok() { &chunk } else { b"(closed)" });
            }
            Step::ReadToEnd | Step::Await(_) => {
                let _ = io.read_to_end(&mut received).await;
            }
            Step::Pause(seconds) => tokio::time::sleep(std::time::Duration::from_secs_f64(*seconds)).await,
            Step::Seen(_) | Step::Write(_) | Step::Admin(_) | Step::Stat(_) | Step::Gauge(_) => {}
            Step::HalfClose => {
                let _ = io.shutdown().await;
            }
            Step::Close => return,
            Step::Reset => {
                io.arm_reset();
                return;
            }
        }
        state.note(index, "bytes", text::show(&received).into());
    }
    // The peer decides when it is over.
    let _ = io.shutdown().await;
    let _ = io.read_to_end(&mut received).await;
    state.note(index, "bytes", text::show(&received).into());
}
