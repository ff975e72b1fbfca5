//! Redis checks (`envoy.health_checkers.redis`): `PING` is answered `PONG`, or a key does not exist.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::{
    data::core::v3::HealthCheckFailureType::{Active, Network},
    extensions::health_checkers::redis::v3::Redis as Proto,
};

use super::{HealthCheckConfig, client::Target, raw::RawConnection, session::Verdict};
use crate::{
    config::{BuildCx, ConfigResult},
    net::Stream,
    stats::{Scope, Stats},
    stats_block,
    upstream::ConnectFailure,
};

stats_block! {
    /// `cluster.<name>.health_check.redis.`
    pub struct RedisStats {
        counter exists_failure => "health_check.redis.exists_failure", "Checks that found the key";
    }
}

/// Longest answer that is looked at.
const MAX_ANSWER: usize = 64 << 10;

/// The check.
pub struct RedisCheck {
    request: Vec<u8>,
    /// It asks for a key, whose existence takes the host out.
    asks_for_key: bool,
    stats: Option<Stats<RedisStats>>,
}

impl RedisCheck {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { key }
            rejected { aws_iam: "AWS authentication of Redis checks" }
        });
        Ok(Self {
            request: match key.is_empty() {
                true => command(&["PING"]),
                false => command(&["EXISTS", &key]),
            },
            asks_for_key: !key.is_empty(),
            stats: None,
        })
    }

    /// Its statistics stand below the cluster's `scope`.
    pub fn count_into(&mut self, scope: &Scope) {
        self.stats = Some(scope.block());
    }

    /// Checks once, over the connection of the last time if it is still there.
    pub async fn run(&self, target: &Target, config: &HealthCheckConfig, kept: &mut RawConnection) -> Verdict {
        let mut stream = match kept.take_alive() {
            Some(stream) => stream,
            None => match connect(target).await {
                Ok(stream) => stream,
                Err(_) => return Verdict::failed(Network),
            },
        };
        target.cluster.stats.local().upstream_rq_total.inc();
        target.host.stats.rq_total.fetch_add(1, Relaxed);
        if stream.write_all(&self.request).await.is_err() || stream.flush().await.is_err() {
            return Verdict::failed(Network);
        }
        let mut answer = Vec::new();
        let line = loop {
            if let Some(end) = answer.windows(2).position(|w| w == b"\r\n") {
                break &answer[..end];
            }
            if answer.len() >= MAX_ANSWER || !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                return Verdict::failed(Network);
            }
        };
        let verdict = self.judge(line);
        if config.reuse_connection {
            kept.keep(stream);
        }
        verdict
    }

    /// The first line of an answer says all there is to know.
    fn judge(&self, line: &[u8]) -> Verdict {
        let well = Verdict::Healthy { degraded: false };
        match (line, self.asks_for_key) {
            (b"+PONG", false) | (b":0", true) => well,
            (_, asked) => {
                if asked {
                    self.stats.iter().for_each(|s| s.local().exists_failure.inc());
                }
                Verdict::failed(Active)
            }
        }
    }
}

/// Opens a connection. Envoy's checks go through its Redis client, and so count as traffic of the cluster.
async fn connect(target: &Target) -> Result<Stream, ConnectFailure> {
    let (stats, host) = (target.cluster.stats.local(), &target.host.stats);
    stats.upstream_cx_total.inc();
    host.cx_total.fetch_add(1, Relaxed);
    let opened = target.connect(&[]).await;
    if opened.is_err() {
        stats.upstream_cx_connect_fail.inc();
        host.cx_connect_fail.fetch_add(1, Relaxed);
    }
    opened
}

/// A command as Redis reads it: an array of strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests;
