//! `HcmAccessLogOptions`: lines of the access log besides the one at the end of a stream.

use std::time::{Duration, Instant};

use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::HcmAccessLogOptions;

use crate::config::{BuildCx, ConfigResult, DurationExt};

/// When such lines are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogMoments {
    /// `flush_access_log_on_new_request`: once the route is chosen, before the filters.
    pub new_request: bool,
    /// `flush_log_on_tunnel_successfully_established`
    pub tunnel: bool,
    /// `access_log_flush_interval`: while the request is at its upstream, and while the response's body streams.
    pub interval: Option<Duration>,
}

impl LogMoments {
    pub(super) fn build(proto: HcmAccessLogOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HcmAccessLogOptions {
            supported {
                flush_access_log_on_new_request, flush_log_on_tunnel_successfully_established,
                access_log_flush_interval
            }
        });
        Ok(Self {
            new_request: flush_access_log_on_new_request,
            tunnel: flush_log_on_tunnel_successfully_established,
            interval: access_log_flush_interval.enabled_or(Duration::ZERO),
        })
    }

    /// When the next line of a stream is due that runs since `start`.
    pub fn next(&self, start: Instant) -> Option<Instant> {
        let interval = self.interval?;
        let passed = start.elapsed().as_nanos() / interval.as_nanos().max(1);
        let next = interval.checked_mul(u32::try_from(passed + 1).ok()?)?;
        start.checked_add(next)
    }
}
