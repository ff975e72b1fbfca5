//! Client connections, plain and TLS.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::case::ClientTls;
use crate::certs::Certs;

/// A connection, plain or TLS, that can be reset.
pub enum Io {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Tunnel(Box<crate::tunnel::Tunnel>),
}

impl Io {
    /// Makes the coming drop a reset.
    pub fn arm_reset(&self) {
        let stream = match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
            Io::Tunnel(stream) => return stream.arm_reset(),
        };
        let _ = stream.set_zero_linger();
    }
}

super::delegate_io!(Io, Plain, Tls, Tunnel);

/// Connects to `port`; with TLS also says what was negotiated. `Err` is an outcome.
pub async fn connect(
    port: u16,
    tls: Option<&ClientTls>,
    h2: bool,
    certs: &Certs,
) -> Result<(Io, Option<Value>), Value> {
    let failed = |what: &str, e: &dyn std::fmt::Display| json!({ what: e.to_string() });
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|e| failed("connect_error", &e))?;
    let _ = stream.set_nodelay(true);
    let Some(spec) = tls else {
        return Ok((Io::Plain(stream), None));
    };
    let config = client_config(spec, h2, certs).map_err(|e| failed("harness_error", &e))?;
    let name = match &spec.sni {
        Some(sni) => ServerName::try_from(sni.clone()).map_err(|e| failed("harness_error", &e))?,
        None => ServerName::from(std::net::IpAddr::from([127, 0, 0, 1])),
    };
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|e| json!({"handshake": super::message::io_error(&e)}))?;
    let session = stream.get_ref().1;
    let served = session.peer_certificates().and_then(<[_]>::first);
    let about = json!({
        "version": session.protocol_version().map(|v| format!("{v:?}")),
        "alpn": session.alpn_protocol().map(crate::text::show),
        "certificate": served.and_then(|cert| name_of(cert, certs)),
    });
    Ok((Io::Tls(Box::new(stream)), Some(about)))
}

fn client_config(spec: &ClientTls, h2: bool, certs: &Certs) -> anyhow::Result<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // Clients without TLS 1.3 do not offer its suites; rustls would.
    if spec.version.as_deref() == Some("1.2") {
        provider.cipher_suites.retain(|suite| suite.tls13().is_none());
    }
    let provider = Arc::new(provider);
    let versions: &[&rustls::SupportedProtocolVersion] = match spec.version.as_deref() {
        Some("1.2") => &[&rustls::version::TLS12],
        Some("1.3") => &[&rustls::version::TLS13],
        _ => rustls::ALL_VERSIONS,
    };
    // Which certificate is served is part of the outcome, so none is refused here.
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll(provider)));
    let mut config = match &spec.cert {
        Some(name) => {
            let (chain, key) = certs.pair(name)?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match (&spec.alpn[..], h2) {
        ([], true) => vec![b"h2".to_vec()],
        (list, _) => list.iter().map(|p| p.clone().into_bytes()).collect(),
    };
    Ok(config)
}

/// The file name of a certificate this run made.
fn name_of(cert: &CertificateDer<'_>, certs: &Certs) -> Option<String> {
    for file in std::fs::read_dir(&certs.dir).ok()?.flatten() {
        let path = file.path();
        let name = path.file_stem()?.to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "pem")
            && certs
                .pair(&name)
                .is_ok_and(|(chain, _)| chain.first().is_some_and(|c| c == cert))
        {
            return Some(name);
        }
    }
    None
}

#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
