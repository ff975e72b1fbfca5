//! `envoy.filters.network.local_ratelimit`: a token for each new connection.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::{
    extensions::filters::network::local_ratelimit::v3::LocalRateLimit as Proto, r#type::v3::TokenBucket,
};

use super::RuntimeFlag;
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    extensions::filters::http::local_ratelimit::Bucket,
    http::Flag,
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
    stats::Stats,
    stats_block,
};

stats_block! {
    /// `local_rate_limit.<stat_prefix>.*`
    struct LocalRateLimitStats {
        counter rate_limited, "Connections closed because there was no token";
    }
}

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.local_ratelimit";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto {
            supported { stat_prefix, token_bucket, runtime_enabled }
            rejected { share_key: "a bucket shared with other filters" }
        });
        let bucket = cx.required("token_bucket", token_bucket, connection_bucket)?;
        Ok(NetworkFilter::Gate(Arc::new(LocalRateLimit {
            bucket,
            enabled: RuntimeFlag::build(runtime_enabled, cx)?,
            stats: cx
                .server
                .stats
                .scope(&format!("local_rate_limit.{stat_prefix}."))
                .block(),
        })))
    }
}

/// A bucket of which each connection takes a token.
pub fn connection_bucket(proto: TokenBucket, cx: &mut BuildCx<'_>) -> ConfigResult<Bucket> {
    coverage!(cx, proto => TokenBucket { supported { max_tokens, tokens_per_fill, fill_interval } });
    let interval = fill_interval.or_duration(Duration::ZERO);
    if interval < Duration::from_millis(50) {
        return Err(cx.error_at(
            "fill_interval",
            "local rate limit token bucket fill timer must be >= 50ms",
        ));
    }
    let per_fill = tokens_per_fill.map_or(1, |v| v.value).max(1);
    Ok(Bucket::new(max_tokens, per_fill, interval))
}

struct LocalRateLimit {
    bucket: Bucket,
    enabled: RuntimeFlag,
    stats: Stats<LocalRateLimitStats>,
}

impl GateFilter for LocalRateLimit {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated> {
        if !self.enabled.get() || self.bucket.take(1.0, Instant::now()) {
            return Box::pin(async { Gated::Pass(connection) });
        }
        self.stats.local().rate_limited.inc();
        // Envoy's flag, odd as it is.
        Box::pin(async move { Gated::Closed(connection.info.clone(), Some(Flag::UpstreamRetryLimitExceeded)) })
    }
}
