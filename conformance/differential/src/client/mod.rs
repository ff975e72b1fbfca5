//! Sends the requests of a case and gathers the responses.

pub mod connect;
pub mod h1;
pub mod h2;
pub mod hbone;
pub mod message;
pub mod udp;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::case::{Request, RequestFields};
use crate::certs::Certs;
use crate::distribution;
use crate::frames::Peer;
use crate::proxy;
use crate::substitute::Scope;
use crate::text;
use crate::upstream::Backend;

/// No exchange takes longer; one that does is an outcome of its own.
const LIMIT: Duration = Duration::from_secs(8);

/// The same of a request that is sent many times, and of one that is held until another was seen.
const LONG_LIMIT: Duration = Duration::from_secs(60);

/// Reading and writing of an enum of streams.
macro_rules! delegate_io {
    ($name:ident, $($variant:ident),+) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => std::pin::Pin::new(s).poll_read(cx, buf)),+ }
            }
        }
        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => std::pin::Pin::new(s).poll_write(cx, buf)),+ }
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => std::pin::Pin::new(s).poll_flush(cx)),+ }
            }
            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => std::pin::Pin::new(s).poll_shutdown(cx)),+ }
            }
        }
    };
}
pub(crate) use delegate_io;

/// Where requests go and what they may refer to.
pub struct Target {
    pub scope: Scope,
    pub certs: Arc<Certs>,
    pub backends: BTreeMap<String, Backend>,
}

impl Target {
    /// Puts files in place below `{{dir}}`: name to content.
    fn write(&self, files: &BTreeMap<String, String>) -> Result<()> {
        for (name, content) in files {
            replace_file(&self.scope.dir.join(name), content).with_context(|| name.clone())?;
        }
        Ok(())
    }
}

enum Connection {
    H1(h1::Connection),
    H2(h2::Connection),
    Udp(udp::Socket),
}

/// The connections that requests of a case share by name.
#[derive(Default)]
struct Kept {
    connections: HashMap<String, Connection>,
    outers: hbone::Outers,
}

/// Sends `requests` in order (background ones beside the others) and returns their outcomes in order.
pub async fn send_all(requests: &[Request], target: &Arc<Target>) -> Vec<Value> {
    let mut kept = Kept::default();
    let mut pending = Vec::new();
    for request in requests {
        for _ in 0..request.repeat.unwrap_or(1) {
            if request.background {
                let (request, target) = (request.clone(), target.clone());
                let mut kept = Kept {
                    outers: kept.outers.clone(),
                    ..Kept::default()
                };
                pending.push(tokio::spawn(async move { send(&request, &target, &mut kept).await }));
            } else {
                let outcome = send(request, target, &mut kept).await;
                pending.push(tokio::spawn(async move { outcome }));
            }
        }
    }
    let mut outcomes = Vec::new();
    for task in pending {
        outcomes.push(task.await.unwrap_or_else(|e| json!({"harness_error": e.to_string()})));
    }
    outcomes
}

/// Sends `request` so many times over one connection, one after the other, and returns the answers.
pub async fn repeat(request: &RequestFields, times: usize, target: &Target) -> Vec<Value> {
    let mut kept = Kept::default();
    let mut answers = Vec::with_capacity(times);
    for _ in 0..times {
        answers.push(exchange(request, target, &mut kept).await);
    }
    answers
}

async fn send(request: &RequestFields, target: &Arc<Target>, kept: &mut Kept) -> Value {
    let outcome = async {
        if let Err(error) = wait_seen(&request.when_seen, &target.backends).await {
            return json!({"harness_error": error.to_string()});
        }
        if let Err(error) = target.write(&request.write) {
            return json!({"harness_error": error.to_string()});
        }
        for (name, value) in &request.when_stat {
            if let Err(error) = proxy::wait_stat(target.scope.admin, name, *value).await {
                return json!({"harness_error": format!("{name}: {error}")});
            }
        }
        for (name, value) in &request.when_gauge {
            if let Err(error) = proxy::wait_gauge(target.scope.admin, name, *value).await {
                return json!({"harness_error": format!("{name}: {error}")});
            }
        }
        if let Some(distribution) = &request.distribution {
            return distribution::draw(&distribution.0, request, target).await;
        }
        let exchange = exchange(request, target, kept);
        if let Some(seconds) = request.cancel_after {
            let limit = Duration::from_secs_f64(seconds);
            return tokio::time::timeout(limit, exchange)
                .await
                .unwrap_or_else(|_| json!("given up"));
        }
        if !request.cancel_when_seen.is_empty() {
            return tokio::select! {
                outcome = exchange => outcome,
                _ = wait_seen(&request.cancel_when_seen, &target.backends) => json!("given up"),
            };
        }
        exchange.await
    };
    let limit = match request.distribution.is_some() || !request.cancel_when_seen.is_empty() {
        true => LONG_LIMIT,
        false => LIMIT,
    };
    tokio::time::timeout(limit, outcome)
        .await
        .unwrap_or_else(|_| json!({"no_response": "timed out"}))
}

async fn exchange(request: &RequestFields, target: &Target, kept: &mut Kept) -> Value {
    if !request.frames.is_empty() {
        return play(request, target, &kept.outers).await;
    }
    let existing = request
        .connection
        .as_ref()
        .and_then(|name| kept.connections.remove(name));
    let (mut connection, tunnel) = match existing {
        Some(connection) => (connection, None),
        None => match open(request, target, &kept.outers).await {
            Ok(opened) => opened,
            Err(outcome) => return outcome,
        },
    };
    let mut outcome = match &mut connection {
        Connection::H1(c) if request.steps.is_empty() => c.request(request).await,
        Connection::H1(c) => c.play(&request.steps, target).await,
        Connection::H2(c) => c.request(request).await,
        Connection::Udp(c) => c.play(&request.udp, target).await,
    };
    if let Some(tunnel) = tunnel {
        outcome["tunnel"] = tunnel;
    }
    if let Some(name) = &request.connection {
        kept.connections.insert(name.clone(), connection);
    }
    outcome
}

/// A scripted HTTP/2 connection.
async fn play(request: &RequestFields, target: &Target, outers: &hbone::Outers) -> Value {
    let (io, _, tunnel) = match reach(request, target, outers).await {
        Ok(reached) => reached,
        Err(outcome) => return outcome,
    };
    let mut outcome = play_on(io, request, target).await;
    if let Some(tunnel) = tunnel {
        outcome["tunnel"] = tunnel;
    }
    outcome
}

async fn play_on(io: connect::Io, request: &RequestFields, target: &Target) -> Value {
    let mut peer = Peer::new(io, false, &request.frames).await;
    for step in &request.frames {
        if step.close {
            return peer.outcome();
        }
        if let Err(error) = target.write(&step.write) {
            return json!({"harness_error": error.to_string()});
        }
        if let Some(path) = &step.admin
            && let Err(error) = proxy::post(target.scope.admin, path).await
        {
            return json!({"harness_error": error.to_string()});
        }
        peer.play(step, 0).await;
        if let Err(error) = wait_seen(&step.seen, &target.backends).await {
            return json!({"harness_error": error.to_string()});
        }
        for (name, value) in &step.stat {
            if let Err(error) = proxy::wait_stat(target.scope.admin, name, *value).await {
                return json!({"harness_error": format!("{name}: {error}")});
            }
        }
        for (name, value) in &step.gauge {
            if let Err(error) = proxy::wait_gauge(target.scope.admin, name, *value).await {
                return json!({"harness_error": format!("{name}: {error}")});
            }
        }
    }
    peer.settle().await;
    peer.outcome()
}

/// Where a request goes.
fn port(request: &RequestFields, target: &Target) -> u16 {
    match &request.port {
        Some(port) => port.as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
        None if request.admin => target.scope.admin,
        None => target.scope.port,
    }
}

/// A new connection and, of one through a tunnel, what was answered to CONNECT.
async fn open(
    request: &RequestFields,
    target: &Target,
    outers: &hbone::Outers,
) -> Result<(Connection, Option<Value>), Value> {
    if !request.udp.is_empty() {
        let socket = udp::Socket::open(request, port(request, target)).await?;
        return Ok((Connection::Udp(socket), None));
    }
    let (io, about, tunnel) = reach(request, target, outers).await?;
    let connection = if request.h2 {
        Connection::H2(h2::Connection::new(io, about).await?)
    } else {
        Connection::H1(h1::Connection::new(io, about))
    };
    Ok((connection, tunnel))
}

/// A stream to the proxy, what TLS came to, and what was answered to CONNECT.
async fn reach(
    request: &RequestFields,
    target: &Target,
    outers: &hbone::Outers,
) -> Result<(connect::Io, Option<Value>, Option<Value>), Value> {
    let port = port(request, target);
    if let Some(tunnel) = &request.tunnel {
        let (io, answer) = hbone::open(tunnel, port, target, outers).await?;
        return Ok((io, None, Some(answer)));
    }
    let (io, about) = connect::connect(port, request.tls.as_ref(), request.h2, &target.certs).await?;
    Ok((io, about, None))
}

/// Waits until each named upstream has seen so many requests.
pub async fn wait_seen(seen: &BTreeMap<String, usize>, backends: &BTreeMap<String, Backend>) -> Result<()> {
    for (name, n) in seen {
        let backend = backends.get(name).with_context(|| format!("no upstream {name:?}"))?;
        backend.state.wait_begun(*n).await?;
    }
    Ok(())
}

/// Puts a file in place at once, as control planes must for a proxy that watches for moves.
fn replace_file(path: &std::path::Path, content: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, content)?;
    std::fs::rename(next, path)
}

/// What goes into `host` or `:authority`.
fn authority(request: &RequestFields) -> Option<&str> {
    match &request.host {
        None => Some("example.test"),
        Some(host) => host.as_deref(),
    }
}

fn body(request: &RequestFields) -> Option<Vec<u8>> {
    match (&request.body, &request.body_hex) {
        (Some(body), _) => Some(text::to_bytes(body)),
        (_, Some(hex)) => Some(text::from_hex(hex)),
        _ => None,
    }
}
