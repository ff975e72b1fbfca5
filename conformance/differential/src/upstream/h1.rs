//! A backend of HTTP/1.1, written out by hand: it must be able to say anything, right or wrong.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Io, State, default_body};
use crate::case::{Break, Reply};
use crate::client::message::{Framing, Reader, headers_value};
use crate::text;

/// Serves requests until one side ends the connection.
pub(super) async fn serve(mut io: Io, state: &State, tls: Option<Value>) {
    let mut reader = Reader::default();
    loop {
        let Ok(Some(head)) = reader.head(&mut io).await else {
            return;
        };
        let mut words = head.first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (method, path) = (method.to_owned(), path.to_owned());
        let mut record = json!({
            "request": head.first,
            "headers": headers_value(&head.headers),
        });
        if let Some(tls) = &tls {
            record["tls"] = tls.clone();
        }
        let index = state.begin(record);
        let reply = state.reply(index, &path);
        if !reply.early && !read_body(&mut io, &mut reader, &head.framing_of_request(), state, index).await {
            return;
        }
        if reply.never {
            // Hold on until the proxy gives up.
            let _ = reader.wait_end(&mut io).await;
            return;
        }
        reply.delay.wait().await;
        if !answer(&mut io, state, index, &method, &reply).await {
            return;
        }
        if reply.early && !read_body(&mut io, &mut reader, &head.framing_of_request(), state, index).await {
            return;
        }
        if head.is_upgrade() && reply.status == Some(101) {
            echo(io, reader.take(), state, index).await;
            return;
        }
    }
}

async fn read_body(io: &mut Io, reader: &mut Reader, framing: &Framing, state: &State, index: usize) -> bool {
    let body = reader.body(io, framing).await;
    if !body.bytes.is_empty() {
        state.note_body(index, &body.bytes);
    }
    if !body.trailers.is_empty() {
        state.note(index, "trailers", headers_value(&body.trailers));
    }
    if let Some(broken) = &body.broken {
        state.note(index, "ended", broken.clone().into());
    }
    body.broken.is_none()
}

/// Writes the answer; false when the connection is over.
async fn answer(io: &mut Io, state: &State, index: usize, method: &str, reply: &Reply) -> bool {
    let ends_at = |at: Break, io: &Io| {
        if reply.reset == Some(at) {
            io.arm_reset();
        }
        reply.reset == Some(at) || reply.close == Some(at)
    };
    if ends_at(Break::BeforeHead, io) {
        return false;
    }
    let raw = match &reply.raw {
        Some(raw) => text::to_bytes(raw),
        None => {
            let head = head(reply, &body(state, index, reply), method);
            if reply.reset == Some(Break::MidHead) || reply.close == Some(Break::MidHead) {
                head[..head.len() / 2].to_vec()
            } else {
                head
            }
        }
    };
    for status in &reply.informational {
        let _ = io
            .write_all(format!("HTTP/1.1 {status} Informational\r\n\r\n").as_bytes())
            .await;
    }
    if io.write_all(&raw).await.is_err() {
        return false;
    }
    if ends_at(Break::MidHead, io) {
        return false;
    }
    if reply.raw.is_none() && method != "HEAD" {
        reply.body_delay.wait().await;
        let body = body(state, index, reply);
        let cut = if reply.reset == Some(Break::MidBody) || reply.close == Some(Break::MidBody) {
            &body[..body.len() / 2]
        } else {
            &body[..]
        };
        if write_body(io, reply, cut, cut.len() == body.len()).await.is_err() || ends_at(Break::MidBody, io) {
            // What was written must reach the proxy before the reset overtakes it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            return false;
        }
    }
    !reply.close_after
}

fn chunked(reply: &Reply) -> bool {
    reply.chunked || !reply.trailers.0.is_empty()
}

fn bodiless(reply: &Reply) -> bool {
    matches!(reply.status, Some(101 | 204 | 304))
}

fn head(reply: &Reply, body: &[u8], method: &str) -> Vec<u8> {
    let status = reply.status.unwrap_or(200);
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in &reply.headers.0 {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has = |name: &str| reply.headers.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let until_close = reply.close_after && method != "HEAD";
    if chunked(reply) {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if !(bodiless(reply) || has("content-length") || until_close) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    text::to_bytes(&head)
}

fn body(state: &State, index: usize, reply: &Reply) -> Vec<u8> {
    if bodiless(reply) {
        return Vec::new();
    }
    if reply.echo {
        let seen = state
            .seen
            .lock()
            .ok()
            .and_then(|s| Some(s.get(index)?.get("body")?.as_str()?.to_owned()));
        return seen.unwrap_or_default().into_bytes();
    }
    match (&reply.body, &reply.body_hex) {
        (Some(text), _) => text::to_bytes(text),
        (_, Some(hex)) => text::from_hex(hex),
        _ => default_body(state),
    }
}

async fn write_body(io: &mut Io, reply: &Reply, body: &[u8], whole: bool) -> std::io::Result<()> {
    if !chunked(reply) {
        return io.write_all(body).await;
    }
    if !body.is_empty() {
        io.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
        io.write_all(body).await?;
        io.write_all(b"\r\n").await?;
    }
    if whole {
        let mut end = String::from("0\r\n");
        for (name, value) in &reply.trailers.0 {
            end.push_str(&format!("{name}: {value}\r\n"));
        }
        end.push_str("\r\n");
        io.write_all(end.as_bytes()).await?;
    }
    Ok(())
}

/// After an upgrade: sends everything back.
async fn echo(mut io: Io, first: Vec<u8>, state: &State, index: usize) {
    use tokio::io::AsyncReadExt;
    let mut received = first.clone();
    let _ = io.write_all(&first).await;
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = io.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..n]);
        state.note(index, "upgraded_bytes", text::show(&received).into());
        let _ = io.write_all(&buffer[..n]).await;
    }
}
