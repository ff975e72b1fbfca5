//! A backend of HTTP/2 on the `h2` crate.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::{Value, json};

use super::{Io, State, default_body};
use crate::case::{Break, Headers, Reply};
use crate::client::h2::map_value;
use crate::text;

/// Serves streams until the proxy closes the connection.
pub(super) async fn serve(io: Io, state: Arc<State>, tls: Option<Value>) {
    let Ok(mut connection) = h2::server::handshake(io).await else {
        return;
    };
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let state = state.clone();
        let tls = tls.clone();
        streams.spawn(async move { stream(request, respond, &state, tls).await });
    }
}

async fn stream(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &State,
    tls: Option<Value>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut record = json!({
        "request": format!("{} {} HTTP/2", head.method, head.uri),
        "headers": map_value(&head.headers),
    });
    if let Some(tls) = tls {
        record["tls"] = tls;
    }
    let index = state.begin(record);
    let reply = state.reply(index, head.uri.path());
    if !reply.early {
        read_body(&mut body, state, index).await;
    }
    if reply.never {
        let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        state.note(
            index,
            "ended",
            reset.map(|r| format!("{r:?}")).unwrap_or_else(|e| e.to_string()).into(),
        );
        return None;
    }
    reply.delay.wait().await;
    if reply.reset == Some(Break::BeforeHead) {
        respond.send_reset(code(&reply));
        return None;
    }
    answer(respond, state, index, &reply).await
}

async fn read_body(body: &mut RecvStream, state: &State, index: usize) {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = body.flow_control().release_capacity(chunk.len());
                bytes.extend_from_slice(&chunk);
            }
            Err(error) => {
                state.note(index, "ended", crate::client::h2::error_text(&error).into());
                break;
            }
        }
    }
    if !bytes.is_empty() {
        state.note_body(index, &bytes);
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        state.note(index, "trailers", map_value(&trailers));
    }
}

async fn answer(mut respond: SendResponse<Bytes>, state: &State, index: usize, reply: &Reply) -> Option<()> {
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(reply.status.unwrap_or(200)).ok()?;
    *head.headers_mut() = map(&reply.headers);
    let bytes = match (&reply.body, &reply.body_hex) {
        _ if reply.echo => {
            let seen = state
                .seen
                .lock()
                .ok()?
                .get(index)?
                .get("body")
                .and_then(Value::as_str)
                .map(str::to_owned);
            seen.unwrap_or_default().into_bytes()
        }
        (Some(text), _) => text::to_bytes(text),
        (_, Some(hex)) => text::from_hex(hex),
        _ => default_body(state),
    };
    let trailers = map(&reply.trailers);
    let mut send = respond
        .send_response(head, bytes.is_empty() && trailers.is_empty())
        .ok()?;
    reply.body_delay.wait().await;
    if reply.reset == Some(Break::MidBody) {
        send.send_data(Bytes::from(bytes[..bytes.len() / 2].to_vec()), false)
            .ok()?;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        send.send_reset(code(reply));
        return None;
    }
    if !bytes.is_empty() {
        send.send_data(Bytes::from(bytes), trailers.is_empty()).ok()?;
    }
    if !trailers.is_empty() {
        send.send_trailers(trailers).ok()?;
    }
    Some(())
}

fn code(reply: &Reply) -> Reason {
    reply.reset_code.map_or(Reason::INTERNAL_ERROR, Reason::from)
}

/// The headers of a case.
pub(super) fn map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &headers.0 {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(&text::to_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}
