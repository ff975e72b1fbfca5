//! The client's end of HBONE: a connection of mutual TLS and HTTP/2 whose streams are CONNECT tunnels.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use serde_json::{Value, json};

use super::Target;
use super::connect::{self, Io};
use super::h2::{error_text, map, map_value};
use crate::case::{ClientTls, TunnelFields};
use crate::tunnel::Tunnel;

/// The connections that tunnels of a case share, by name.
#[expect(
    clippy::disallowed_types,
    reason = "a test's client: who opens a connection lets the others wait"
)]
pub type Outers = Arc<tokio::sync::Mutex<HashMap<String, Arc<Outer>>>>;

/// A connection that carries tunnels.
pub struct Outer {
    send: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Outer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a tunnel, over the named connection if there is one. With it comes what the proxy answered; `Err` is an outcome.
pub async fn open(tunnel: &TunnelFields, port: u16, target: &Target, outers: &Outers) -> Result<(Io, Value), Value> {
    let outer = match &tunnel.connection {
        Some(name) => {
            let mut outers = outers.lock().await;
            match outers.get(name) {
                Some(outer) => outer.clone(),
                None => {
                    let outer = connect(tunnel, port, target).await?;
                    outers.insert(name.clone(), outer.clone());
                    outer
                }
            }
        }
        None => connect(tunnel, port, target).await?,
    };
    let failed = |error: String| json!({"tunnel": {"no_response": error}});
    let mut head = http::Request::new(());
    *head.method_mut() = http::Method::CONNECT;
    *head.uri_mut() = tunnel.authority.parse().map_err(|_| failed("bad authority".into()))?;
    *head.headers_mut() = map(&tunnel.headers);
    let mut send = outer
        .send
        .clone()
        .ready()
        .await
        .map_err(|_| failed("not let in".into()))?;
    let (response, stream) = send.send_request(head, false).map_err(|e| failed(error_text(&e)))?;
    let response = response.await.map_err(|e| match e.is_io() {
        true => failed("not let in".into()),
        false => failed(error_text(&e)),
    })?;
    let (head, mut body) = response.into_parts();
    let mut about = json!({"status": head.status.as_u16(), "headers": map_value(&head.headers)});
    if head.status.is_success() {
        let io = Tunnel::new(stream, body, Some(Box::new(outer)));
        return Ok((Io::Tunnel(Box::new(io)), about));
    }
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    about["body"] = crate::text::show(&bytes).into();
    about["refused"] = true.into();
    Err(about)
}

async fn connect(tunnel: &TunnelFields, port: u16, target: &Target) -> Result<Arc<Outer>, Value> {
    let tls = ClientTls {
        cert: match tunnel.cert.as_deref() {
            Some("") => None,
            Some(name) => Some(name.to_owned()),
            None => Some("client".to_owned()),
        },
        alpn: vec!["h2".to_owned()],
        ..ClientTls::default()
    };
    let (io, _) = connect::connect(port, Some(&tls), true, &target.certs).await?;
    // With TLS 1.3 a client learns afterwards that it was not let in: by an alert or a reset, as the race goes.
    let refused = |_| json!({"tunnel": {"no_response": "not let in"}});
    let (send, connection) = h2::client::handshake(io).await.map_err(refused)?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Arc::new(Outer { send, driver }))
}
