//! What a node's proxy (ztunnel) sends a waypoint: CONNECT streams over HTTP/2 with mutual TLS, and in each of them
//! HTTP/1.1 requests with a token, one at a time.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use clap::Args;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Latencies, handshake, print_all};
use crate::backend::SMALL_BODY;

/// The address of the service: it is what the tunnels ask for, and nothing listens on it.
pub const SERVICE: &str = "240.0.0.1:80";

/// More bytes than an answer has.
const LIMIT: usize = 4096;

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Tunnels in each of them.
    #[arg(long, default_value_t = 8)]
    tunnels: usize,
    /// The client's certificate and key, PEM.
    #[arg(long)]
    identity: PathBuf,
    /// A file with the token that each request carries.
    #[arg(long)]
    token: PathBuf,
}

/// Prints what it saw as JSON.
pub async fn run(options: Options) -> Result<()> {
    let mut config = handshake::trusting_client()?.with_client_auth_cert(
        CertificateDer::pem_file_iter(&options.identity)?.collect::<Result<_, _>>()?,
        PrivateKeyDer::from_pem_file(&options.identity)?,
    )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let token = std::fs::read_to_string(&options.token)?;
    let request = Bytes::from(format!(
        "GET / HTTP/1.1\r\nhost: bench.example\r\nauthorization: Bearer {token}\r\n\r\n"
    ));
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(connect(&connector, options.port).await?);
    }
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let tunnels = connections
        .iter()
        .flat_map(|connection| std::iter::repeat_n(connection, options.tunnels))
        .map(|connection| tokio::task::spawn_local(again_and_again(connection.clone(), request.clone(), end)))
        .collect();
    print_all(start, tunnels).await
}

async fn connect(connector: &TlsConnector, port: u16) -> Result<SendRequest<Bytes>> {
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    tcp.set_nodelay(true)?;
    let tls = connector.connect(ServerName::try_from("bench.example")?, tcp).await?;
    let (sender, connection) = h2::client::handshake(tls).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn again_and_again(connection: SendRequest<Bytes>, request: Bytes, end: Instant) -> Latencies {
    let mut latencies = Vec::new();
    let broken = through_a_tunnel(connection, request, end, &mut latencies)
        .await
        .is_err();
    (latencies, u64::from(broken))
}

async fn through_a_tunnel(
    connection: SendRequest<Bytes>,
    request: Bytes,
    end: Instant,
    latencies: &mut Vec<u32>,
) -> Result<()> {
    let (mut up, mut down) = open(connection).await?;
    let mut now = Instant::now();
    while now < end {
        up.send_data(request.clone(), false)?;
        answer(&mut down).await?;
        let then = std::mem::replace(&mut now, Instant::now());
        latencies.push((now - then).as_micros() as u32);
    }
    up.send_data(Bytes::new(), true)?;
    Ok(())
}

async fn open(connection: SendRequest<Bytes>) -> Result<(SendStream<Bytes>, RecvStream)> {
    let head = Request::builder().method(Method::CONNECT).uri(SERVICE).body(())?;
    let (response, up) = connection.ready().await?.send_request(head, false)?;
    let response = response.await?;
    if response.status() != StatusCode::OK {
        bail!("the tunnel is answered {}", response.status());
    }
    Ok((up, response.into_body()))
}

/// Reads to the end of the one body that the backend sends.
async fn answer(down: &mut RecvStream) -> Result<()> {
    let mut answer = BytesMut::new();
    while !answer.ends_with(SMALL_BODY) {
        if answer.len() > LIMIT {
            bail!("not the backend's answer: {}", String::from_utf8_lossy(&answer));
        }
        let some = down.data().await.context("the tunnel is closed")??;
        down.flow_control().release_capacity(some.len())?;
        answer.extend_from_slice(&some);
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("not a good answer: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
