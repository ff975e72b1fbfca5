//! Scripted backends inside the harness. Each remembers what it saw, which is part of the outcome:
//! a proxy is judged by both of its ends.

mod dns;
mod frames;
mod h1;
mod h2;
mod hbone;
mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::case::{Break, Reply, Upstream, UpstreamProtocol};
use crate::certs::Certs;
use crate::{ports, spans};

/// How long anything waits for a backend to see something.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backend that runs until it is dropped.
pub struct Backend {
    pub port: u16,
    pub state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What a backend answers and what it saw.
pub struct State {
    name: String,
    spec: Upstream,
    seen: Mutex<Vec<Value>>,
    tunnels: Mutex<Vec<Value>>,
    /// Requests (HTTP) or connections (TCP) begun.
    begun: watch::Sender<usize>,
    connections: watch::Sender<usize>,
}

/// A port that is taken, or kept free for a backend that refuses.
pub struct Bound {
    pub port: u16,
    listener: Option<TcpListener>,
    /// The same port for datagrams, for backends that need it.
    datagrams: Option<UdpSocket>,
}

/// Binds the ports of all backends of a case. What is served there may depend on them, so serving comes second.
pub async fn bind_all(specs: &BTreeMap<String, Upstream>) -> Result<BTreeMap<String, Bound>> {
    let mut bound: BTreeMap<String, Bound> = BTreeMap::new();
    let (independent, like_others): (Vec<_>, Vec<_>) = specs.iter().partition(|(_, s)| s.same_port.is_none());
    for (name, spec) in independent.into_iter().chain(like_others) {
        let port = match &spec.same_port {
            Some(other) => bound.get(other).with_context(|| format!("no upstream {other}"))?.port,
            None => 0,
        };
        bound.insert(name.clone(), bind(spec, port).await?);
    }
    Ok(bound)
}

async fn bind(spec: &Upstream, port: u16) -> Result<Bound> {
    if spec.refused {
        return Ok(Bound {
            port: if port == 0 { ports::free()? } else { port },
            listener: None,
            datagrams: None,
        });
    }
    let ip: IpAddr = spec.ip.as_deref().unwrap_or("127.0.0.1").parse()?;
    if spec.protocol == UpstreamProtocol::Udp {
        let datagrams = UdpSocket::bind((ip, port)).await?;
        return Ok(Bound {
            port: datagrams.local_addr()?.port(),
            listener: None,
            datagrams: Some(datagrams),
        });
    }
    if spec.protocol != UpstreamProtocol::Dns {
        let listener = TcpListener::bind((ip, port)).await?;
        return Ok(Bound {
            port: listener.local_addr()?.port(),
            listener: Some(listener),
            datagrams: None,
        });
    }
    // Both kinds of port must be free under one number.
    loop {
        let datagrams = UdpSocket::bind((ip, 0)).await?;
        let port = datagrams.local_addr()?.port();
        if let Ok(listener) = TcpListener::bind((ip, port)).await {
            return Ok(Bound {
                port,
                listener: Some(listener),
                datagrams: Some(datagrams),
            });
        }
    }
}

impl Backend {
    /// Serves a bound port as `spec` says.
    pub fn start(bound: Bound, name: &str, spec: &Upstream, certs: &Certs) -> Result<Backend> {
        let state = Arc::new(State {
            name: name.to_owned(),
            spec: spec.clone(),
            seen: Mutex::default(),
            tunnels: Mutex::default(),
            begun: watch::channel(0).0,
            connections: watch::channel(0).0,
        });
        let tls = spec
            .tls
            .as_deref()
            .map(|name| acceptor(name, spec, certs))
            .transpose()?;
        let task = match (bound.listener, bound.datagrams) {
            (Some(tcp), Some(udp)) => Some(tokio::spawn(dns::serve(udp, tcp, state.clone()))),
            (Some(listener), None) => Some(tokio::spawn(accept(listener, state.clone(), tls))),
            (None, Some(udp)) => Some(tokio::spawn(udp::serve(udp, state.clone()))),
            (None, None) => None,
        };
        Ok(Backend {
            port: bound.port,
            state,
            task,
        })
    }
}

impl State {
    /// Waits until `n` requests (connections, for TCP) have begun.
    pub async fn wait_begun(&self, n: usize) -> Result<()> {
        let mut watch = self.begun.subscribe();
        let seen = tokio::time::timeout(PATIENCE, watch.wait_for(|begun| *begun >= n)).await;
        seen.with_context(|| format!("upstream {} never saw {n} requests", self.name))??;
        Ok(())
    }

    /// Everything it saw, in order.
    pub fn outcome(&self) -> Value {
        let mut seen = self.seen.lock().map(|s| s.clone()).unwrap_or_default();
        if self.spec.protocol == UpstreamProtocol::Dns {
            // Names are resolved again and again, however long the case takes.
            seen.sort_by_key(Value::to_string);
            seen.dedup();
        }
        if let Some(header) = &self.spec.values_per_connection {
            return json!({"values_per_connection": values_per_connection(&seen, header)});
        }
        if self.spec.hbone {
            let tunnels = self.tunnels.lock().map(|t| t.clone()).unwrap_or_default();
            let connections = self.spec.count_connections.then(|| *self.connections.borrow());
            json!({"tunnels": tunnels, "requests": seen, "connections": connections})
        } else if self.spec.count_connections {
            json!({"connections": *self.connections.borrow(), "requests": seen})
        } else if seen.iter().any(|r| r.get("spans").is_some()) {
            spans::gather(seen)
        } else {
            json!({"requests": seen})
        }
    }

    /// Everything it saw since the last time.
    pub fn drain(&self) -> Vec<Value> {
        self.seen
            .lock()
            .map(|mut s| std::mem::take(&mut *s))
            .unwrap_or_default()
    }

    /// Notes a beginning and says which it is, from 0.
    fn begin(&self, record: Value) -> usize {
        let index = match self.seen.lock() {
            Ok(mut seen) => {
                seen.push(record);
                seen.len() - 1
            }
            Err(_) => 0,
        };
        self.begun.send_modify(|n| *n += 1);
        index
    }

    fn note(&self, index: usize, key: &str, value: Value) {
        if let Ok(mut seen) = self.seen.lock()
            && let Some(Value::Object(record)) = seen.get_mut(index)
        {
            record.insert(key.to_owned(), value);
        }
    }

    /// The body of request number `index`: text, or the spans in it.
    fn note_body(&self, index: usize, bytes: &[u8]) {
        let line = |s: std::sync::MutexGuard<'_, Vec<Value>>| Some(s.get(index)?.get("request")?.as_str()?.to_owned());
        let line = self.seen.lock().ok().and_then(line).unwrap_or_default();
        match spans::decode(line.split(' ').nth(1).unwrap_or_default(), bytes) {
            Some(spans) => self.note(index, "spans", spans),
            None => self.note(index, "body", crate::text::show(bytes).into()),
        }
    }

    /// Notes a CONNECT and says which it is, from 0.
    fn begin_tunnel(&self, record: Value) -> usize {
        self.tunnels.lock().map_or(0, |mut tunnels| {
            tunnels.push(record);
            tunnels.len() - 1
        })
    }

    fn note_tunnel(&self, index: usize, key: &str, value: Value) {
        if let Ok(mut tunnels) = self.tunnels.lock()
            && let Some(Value::Object(record)) = tunnels.get_mut(index)
        {
            record.insert(key.to_owned(), value);
        }
    }

    /// The answer to CONNECT number `index`.
    fn connect_reply(&self, index: usize) -> Reply {
        let all = &self.spec.connects;
        all.get(index).or(all.last()).cloned().unwrap_or_default()
    }

    /// The answer to request number `index`.
    fn reply(&self, index: usize, path: &str) -> Reply {
        let path = path.split('?').next().unwrap_or(path);
        if let Some(reply) = self.spec.paths.get(path) {
            return reply.clone();
        }
        if let Some(reply) = &self.spec.reply {
            return reply.clone();
        }
        self.spec
            .replies
            .get(index)
            .or(self.spec.replies.last())
            .cloned()
            .unwrap_or_default()
    }

    fn breaks_at(&self, what: Break) -> (bool, bool) {
        let reply = self.spec.reply.as_ref();
        (
            reply.is_some_and(|r| r.reset == Some(what)),
            reply.is_some_and(|r| r.close == Some(what)),
        )
    }
}

/// The most values of a header on one connection. Records tell their connection, or their tunnel.
fn values_per_connection(seen: &[Value], header: &str) -> usize {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in seen {
        let connection = values.entry(record["tls"].to_string()).or_default();
        let text = match record.get("headers") {
            Some(headers) => headers[header].to_string(),
            // Of bytes, the first word.
            None => record["bytes"]
                .as_str()
                .and_then(|b| b.split(' ').next())
                .unwrap_or_default()
                .to_owned(),
        };
        connection.insert(text);
    }
    values.values().map(BTreeSet::len).max().unwrap_or(0)
}

/// The body of an answer that gives none.
fn default_body(state: &State) -> Vec<u8> {
    format!("{}\n", state.name).into_bytes()
}

fn acceptor(name: &str, spec: &Upstream, certs: &Certs) -> Result<TlsAcceptor> {
    let (chain, key) = certs.pair(name)?;
    let builder = rustls::ServerConfig::builder();
    let builder = if spec.mtls {
        let verifier = rustls::server::WebPkiClientVerifier::builder(certs.roots()?).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = match spec.protocol {
        _ if spec.hbone => vec![b"h2".to_vec()],
        UpstreamProtocol::H2 | UpstreamProtocol::Frames => vec![b"h2".to_vec()],
        _ => vec![b"http/1.1".to_vec()],
    };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, state: Arc<State>, tls: Option<TlsAcceptor>) {
    // Dropped with the accepting task, so that no connection outlives its case.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = *state.connections.borrow();
        state.connections.send_modify(|n| *n += 1);
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(stream, number, state.clone(), tls.clone()));
    }
}

async fn connection(stream: TcpStream, number: usize, state: Arc<State>, tls: Option<TlsAcceptor>) {
    let (reset, close) = state.breaks_at(Break::Connect);
    if reset || close {
        if reset {
            let _ = stream.set_zero_linger();
        }
        return;
    }
    let Some(tls) = tls else {
        let about = state.spec.number_connections().then(|| json!({"connection": number}));
        return serve(Io::Plain(stream), state, about).await;
    };
    match tls.accept(stream).await {
        Ok(stream) => {
            let session = stream.get_ref().1;
            let mut about = json!({
                "sni": session.server_name(),
                "alpn": session.alpn_protocol().map(crate::text::show),
                "client_certificate": session.peer_certificates().is_some(),
            });
            if state.spec.number_connections() {
                about["connection"] = number.into();
            }
            serve(Io::Tls(Box::new(stream)), state, Some(about)).await;
        }
        Err(error) => {
            state.begin(json!({"handshake": error.to_string()}));
        }
    }
}

async fn serve(io: Io, state: Arc<State>, tls: Option<Value>) {
    match state.spec.hbone {
        true => hbone::serve(io, state, tls).await,
        false => inner(io, state, tls).await,
    }
}

/// Speaks the backend's own protocol.
async fn inner(io: Io, state: Arc<State>, tls: Option<Value>) {
    match state.spec.protocol {
        UpstreamProtocol::H1 => h1::serve(io, &state, tls).await,
        UpstreamProtocol::H2 => h2::serve(io, state, tls).await,
        UpstreamProtocol::Frames => frames::serve(io, &state).await,
        UpstreamProtocol::Tcp => tcp::serve(io, &state, tls).await,
        // It has sockets of its own.
        UpstreamProtocol::Dns | UpstreamProtocol::Udp => {}
    }
}

/// A connection, plain or TLS, that can be reset.
enum Io {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Tunnel(Box<crate::tunnel::Tunnel>),
}

impl Io {
    /// Makes the coming drop a reset.
    fn arm_reset(&self) {
        let stream = match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
            Io::Tunnel(stream) => return stream.arm_reset(),
        };
        let _ = stream.set_zero_linger();
    }
}

crate::client::delegate_io!(Io, Plain, Tls, Tunnel);
