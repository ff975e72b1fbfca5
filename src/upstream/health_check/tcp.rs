//! TCP checks: a connection can be made, or answers as expected.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::{
    config::core::v3::health_check::{Payload, TcpHealthCheck as Proto, payload},
    data::core::v3::HealthCheckFailureType::Network,
};

use super::{
    HealthCheckConfig,
    client::Target,
    payload::{bytes, contains_in_order},
    session::Verdict,
};
use crate::{
    config::{BuildCx, ConfigResult},
    net::Stream,
};

/// `tcp_health_check`
pub struct TcpCheck {
    send: Vec<u8>,
    receive: Vec<Vec<u8>>,
}

/// Most bytes that are kept of an answer that does not match.
const MAX_ANSWER: usize = 1 << 20;

/// A connection that was kept, and what came over it.
#[derive(Default)]
pub struct TcpConnection(Option<Stream>);

impl TcpCheck {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { send, receive }
            rejected { proxy_protocol_config: "a PROXY protocol header in front of health checks" }
        });
        // Envoy sends what is written as text alone.
        let send = send.filter(|s| matches!(&s.payload, Some(payload::Payload::Text(text)) if !text.is_empty()));
        Ok(Self {
            send: cx.opt("send", send, bytes)?.unwrap_or_default(),
            receive: cx.each("receive", receive, |proto: Payload, cx| bytes(proto, cx))?,
        })
    }

    /// Checks once.
    pub async fn run(&self, target: &Target, config: &HealthCheckConfig, kept: &mut TcpConnection) -> Verdict {
        let mut stream = match kept.0.take() {
            Some(stream) => stream,
            None => match target.connect(&[]).await {
                Ok(stream) => stream,
                Err(_) => return Verdict::failed(Network),
            },
        };
        // That it could be made is all that is asked of the connection.
        if self.receive.is_empty() {
            return Verdict::Healthy { degraded: false };
        }
        if stream.write_all(&self.send).await.is_err() || stream.flush().await.is_err() {
            return Verdict::failed(Network);
        }
        let mut answer = Vec::new();
        while answer.len() < MAX_ANSWER {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return Verdict::failed(Network),
                Ok(_) if contains_in_order(&self.receive, &answer) => {
                    if config.reuse_connection {
                        kept.0 = Some(stream);
                    }
                    return Verdict::Healthy { degraded: false };
                }
                Ok(_) => {}
            }
        }
        Verdict::failed(Network)
    }
}

impl TcpConnection {
    /// Returns when the other side closes the kept connection, which counts as a failure; never without one.
    pub async fn closed(&mut self) {
        let Some(stream) = &mut self.0 else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 512];
        while let Ok(1..) = stream.read(&mut buffer).await {}
        self.0 = None;
    }
}
