//! Thrift checks (`envoy.health_checkers.thrift`): a method without arguments returns and throws nothing.

mod wire;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::{
    data::core::v3::HealthCheckFailureType::{Active, Network},
    extensions::{
        filters::network::thrift_proxy::v3::{ProtocolType, TransportType},
        health_checkers::thrift::v3::Thrift as Proto,
    },
};

use self::wire::{Outcome, Wire};
use super::{HealthCheckConfig, client::Target, raw::RawConnection, session::Verdict};
use crate::config::{BuildCx, ConfigResult};

/// Longest answer that is looked at.
const MAX_ANSWER: usize = 1 << 20;

/// The check.
pub struct ThriftCheck {
    wire: Wire,
    request: Vec<u8>,
}

impl ThriftCheck {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { method_name, transport, protocol } });
        let transport = TransportType::try_from(transport).unwrap_or(TransportType::AutoTransport);
        let protocol = ProtocolType::try_from(protocol).unwrap_or(ProtocolType::AutoProtocol);
        if transport == TransportType::AutoTransport {
            return Err(cx.error_at("transport", "AUTO_TRANSPORT is not supported by health checks"));
        }
        if matches!(protocol, ProtocolType::AutoProtocol | ProtocolType::Twitter) {
            return Err(cx.error_at(
                "protocol",
                "AUTO_PROTOCOL and TWITTER are not supported by health checks",
            ));
        }
        let wire = Wire { transport, protocol };
        Ok(Self {
            request: wire.call(&method_name),
            wire,
        })
    }

    /// Checks once, over the connection of the last time if it is still there.
    pub async fn run(&self, target: &Target, config: &HealthCheckConfig, kept: &mut RawConnection) -> Verdict {
        let Ok(mut stream) = kept.take_or_connect(target).await else {
            return Verdict::failed(Network);
        };
        if stream.write_all(&self.request).await.is_err() || stream.flush().await.is_err() {
            return Verdict::failed(Network);
        }
        let mut answer = Vec::new();
        loop {
            let verdict = match self.wire.outcome(&answer) {
                Outcome::Unfinished => {
                    if answer.len() >= MAX_ANSWER || !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                        return Verdict::failed(Network);
                    }
                    continue;
                }
                Outcome::Garbage => return Verdict::failed(Network),
                Outcome::Returned => Verdict::Healthy { degraded: false },
                Outcome::Threw => Verdict::failed(Active),
            };
            // What follows the beginning of an unframed answer is not known to have come.
            if config.reuse_connection && self.wire.transport != TransportType::Unframed {
                kept.keep_watched(stream);
            }
            return verdict;
        }
    }
}
