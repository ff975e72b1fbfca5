//! `envoy.filters.listener.local_ratelimit`: a token for each new connection, taken before a byte of it is read.

use std::{sync::Arc, time::Instant};

use futures_util::future::{LocalBoxFuture, ready};
use xds_protos::envoy::extensions::filters::listener::local_ratelimit::v3::LocalRateLimit as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::{
        http::local_ratelimit::Bucket,
        network::{RuntimeFlag, local_ratelimit::connection_bucket},
    },
    listener::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    stats::Stats,
    stats_block,
};

stats_block! {
    /// `listener_local_ratelimit.<stat_prefix>.*`
    struct LocalRateLimitStats {
        counter rate_limited, "Connections closed because there was no token";
    }
}

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.local_ratelimit";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        coverage!(cx, proto => Proto { supported { stat_prefix, token_bucket, runtime_enabled } });
        let stats = cx
            .server
            .stats
            .scope(&format!("listener_local_ratelimit.{stat_prefix}."));
        Ok(Arc::new(LocalRateLimit {
            bucket: cx.required("token_bucket", token_bucket, connection_bucket)?,
            enabled: RuntimeFlag::build(runtime_enabled, cx)?,
            stats: stats.block(),
        }))
    }
}

struct LocalRateLimit {
    bucket: Bucket,
    enabled: RuntimeFlag,
    stats: Stats<LocalRateLimitStats>,
}

impl ListenerFilter for LocalRateLimit {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        let let_in = !self.enabled.get() || self.bucket.take(1.0, Instant::now());
        if !let_in {
            self.stats.local().rate_limited.inc();
            tracing::debug!(client = %cx.info.remote_address, "rate limiting socket");
        }
        Box::pin(ready(let_in.then_some(()).ok_or(Refused::Filter)))
    }
}
