//! One TLS 1.3 handshake, one request, close; again and again.
//!
//! The client offers X25519 and AES-128-GCM first, as browsers and Go do, so that every proxy does
//! the same cryptographic work.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Latencies, print_all};

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
    /// Handshakes at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Use the session tickets that the server gives.
    #[arg(long)]
    resume: bool,
}

/// Prints what it saw as JSON.
pub async fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let tasks: Vec<_> = (0..options.connections)
        .map(|_| {
            // A session store per task, so that no ticket is waited for.
            let config = client_config(options.resume)?;
            Ok(tokio::task::spawn_local(again_and_again(
                config,
                options.port,
                end,
                options.resume,
            )))
        })
        .collect::<Result<_>>()?;
    print_all(start, tasks).await
}

/// A client that trusts any certificate, because what is measured is the server. Its own is still to be said.
pub fn trusting_client() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnyone)))
}

/// The client of HTTP/1.1 over TLS, without a certificate.
pub fn client_config(resume: bool) -> Result<Arc<ClientConfig>> {
    let mut config = trusting_client()?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = if resume {
        Resumption::in_memory_sessions(8)
    } else {
        Resumption::disabled()
    };
    Ok(Arc::new(config))
}

async fn again_and_again(config: Arc<ClientConfig>, port: u16, end: Instant, resume: bool) -> Latencies {
    let connector = TlsConnector::from(config);
    let mut latencies = Vec::new();
    let mut errors = 0;
    let mut first = true;
    while Instant::now() < end {
        let start = Instant::now();
        match one(&connector, port).await {
            // The first handshake has no ticket yet; every later one must have used one.
            Ok(resumed) if resumed == resume || first => {
                latencies.push(start.elapsed().as_micros() as u32);
            }
            _ => errors += 1,
        }
        first = false;
    }
    (latencies, errors)
}

async fn one(connector: &TlsConnector, port: u16) -> Result<bool> {
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    tcp.set_nodelay(true)?;
    let mut tls = connector.connect(ServerName::try_from("bench.example")?, tcp).await?;
    tls.write_all(b"GET / HTTP/1.1\r\nhost: bench.example\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match tls.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            // A proxy that closes without close_notify has still answered in full.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    let good = answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\n");
    good.then_some(()).context("not a good answer")?;
    Ok(tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
}

#[derive(Debug)]
struct TrustAnyone;

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
