//! TCP checks: a connection can be made, or answers as expected.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::{
    config::core::v3::{
        health_check::{Payload, TcpHealthCheck as Proto, payload},
        proxy_protocol_config::Version,
    },
    data::core::v3::HealthCheckFailureType::Network,
};

use super::{
    HealthCheckConfig,
    client::Target,
    payload::{bytes, contains_in_order},
    raw::RawConnection,
    session::Verdict,
};
use crate::config::{BuildCx, ConfigResult};

/// `tcp_health_check`
pub struct TcpCheck {
    /// `proxy_protocol_config`
    header: &'static [u8],
    send: Vec<u8>,
    receive: Vec<Vec<u8>>,
}

/// Most bytes that are kept of an answer that does not match.
const MAX_ANSWER: usize = 1 << 20;

/// The header in front of each connection's bytes: it stands for no other connection.
const PROXY_V1: &[u8] = b"PROXY UNKNOWN\r\n";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

impl TcpCheck {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { send, receive, proxy_protocol_config }
        });
        // Envoy sends what is written as text alone.
        let send = send.filter(|s| matches!(&s.payload, Some(payload::Payload::Text(text)) if !text.is_empty()));
        let header = proxy_protocol_config.map(|config| match config.version() {
            Version::V1 => PROXY_V1,
            Version::V2 => PROXY_V2,
        });
        Ok(Self {
            header: header.unwrap_or_default(),
            send: cx.opt("send", send, bytes)?.unwrap_or_default(),
            receive: cx.each("receive", receive, |proto: Payload, cx| bytes(proto, cx))?,
        })
    }

    /// Checks once.
    pub async fn run(&self, target: &Target, config: &HealthCheckConfig, kept: &mut RawConnection) -> Verdict {
        let (mut stream, header): (_, &[u8]) = match kept.take() {
            Some(stream) => (stream, &[]),
            None => match target.connect(&[]).await {
                Ok(stream) => (stream, self.header),
                Err(_) => return Verdict::failed(Network),
            },
        };
        // That it could be made is all that is asked of the connection.
        if self.receive.is_empty() {
            return Verdict::Healthy { degraded: false };
        }
        let request = [header, &self.send].concat();
        if stream.write_all(&request).await.is_err() || stream.flush().await.is_err() {
            return Verdict::failed(Network);
        }
        let mut answer = Vec::new();
        while answer.len() < MAX_ANSWER {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return Verdict::failed(Network),
                Ok(_) if contains_in_order(&self.receive, &answer) => {
                    if config.reuse_connection {
                        kept.keep_watched(stream);
                    }
                    return Verdict::Healthy { degraded: false };
                }
                Ok(_) => {}
            }
        }
        Verdict::failed(Network)
    }
}
