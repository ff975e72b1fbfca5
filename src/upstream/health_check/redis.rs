//! Redis checks (`envoy.health_checkers.redis`): `PING` is answered `PONG`, or a key does not exist.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::{
    data::core::v3::HealthCheckFailureType::{Active, Network},
    extensions::health_checkers::redis::v3::Redis as Proto,
};

use super::{HealthCheckConfig, client::Target, raw::RawConnection, session::Verdict};
use crate::{
    config::{BuildCx, ConfigResult},
    stats::{Scope, Stats},
    stats_block,
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
        let Ok(mut stream) = kept.take_or_connect(target).await else {
            return Verdict::failed(Network);
        };
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
        if config.reuse_connection && verdict != Verdict::failed(Network) {
            kept.keep(stream);
        }
        verdict
    }

    /// The first line of an answer says all there is to know.
    fn judge(&self, line: &[u8]) -> Verdict {
        let well = Verdict::Healthy { degraded: false };
        match (line, self.asks_for_key) {
            (b"+PONG", false) | (b":0", true) => well,
            ([b':', count @ ..], true) => {
                if count != b"0" && !count.starts_with(b"-") {
                    self.stats.iter().for_each(|s| s.local().exists_failure.inc());
                }
                Verdict::failed(Active)
            }
            ([b'+' | b'-' | b':' | b'$' | b'*', ..], _) => Verdict::failed(Active),
            // That is no Redis.
            _ => Verdict::failed(Network),
        }
    }
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
