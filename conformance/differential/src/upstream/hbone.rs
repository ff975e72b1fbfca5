//! The backend's end of HBONE: accepts CONNECT over HTTP/2 and serves the bytes within as any other connection.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Response;
use serde_json::{Value, json};

use super::{Io, State, h2 as http2};
use crate::case::{Break, Reply};
use crate::client::h2::map_value;
use crate::tunnel::Tunnel;

/// Serves tunnels until the proxy closes the connection.
pub(super) async fn serve(io: Io, state: Arc<State>, tls: Option<Value>) {
    let Ok(mut connection) = h2::server::handshake(io).await else {
        return;
    };
    // Tunnels end with their connection.
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let mut record = json!({
            "connect": request.uri().to_string(),
            "method": request.method().to_string(),
            "headers": map_value(request.headers()),
        });
        if let Some(tls) = &tls {
            record["tls"] = tls.clone();
        }
        let index = state.begin_tunnel(record);
        let reply = state.connect_reply(index);
        let (body, state) = (request.into_body(), state.clone());
        if reply.close_after {
            // GOAWAY: what runs may end, nothing new begins.
            connection.graceful_shutdown();
        }
        streams.spawn(async move { stream(body, respond, state, index, reply).await });
    }
}

async fn stream(
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    state: Arc<State>,
    index: usize,
    reply: Reply,
) -> Option<()> {
    if reply.never {
        let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        let how = reset.map(|r| format!("{r:?}")).unwrap_or_else(|e| e.to_string());
        state.note_tunnel(index, "ended", how.into());
        return None;
    }
    reply.delay.wait().await;
    if reply.reset == Some(Break::BeforeHead) {
        respond.send_reset(reply.reset_code.map_or(Reason::INTERNAL_ERROR, Reason::from));
        return None;
    }
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(reply.status.unwrap_or(200)).ok()?;
    *head.headers_mut() = http2::map(&reply.headers);
    if !head.status().is_success() {
        let text = reply.body.clone().unwrap_or_default();
        let mut send = respond.send_response(head, text.is_empty()).ok()?;
        if !text.is_empty() {
            send.send_data(Bytes::from(text), true).ok()?;
        }
        return None;
    }
    let send = respond.send_response(head, false).ok()?;
    let io = Io::Tunnel(Box::new(Tunnel::new(send, body, None)));
    super::inner(io, state, Some(json!({"tunnel": index}))).await;
    Some(())
}
