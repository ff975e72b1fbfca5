//! `reduce_timeouts`: timers that run out sooner the higher the pressure is.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use xds_protos::{
    envoy::config::overload::v3::{
        ScaleTimersOverloadActionConfig as Proto,
        scale_timers_overload_action_config::{ScaleTimer, TimerType, scale_timer::OverloadAdjust},
    },
    google::protobuf::Any,
};

use super::{Level, OverloadManager};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, duration, plain, unpack},
    net::Deadline,
};

/// `ScaleTimersOverloadActionConfig.TimerType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ScaledTimer {
    /// `idle_timeout` of a downstream connection.
    ConnectionIdle,
    /// `stream_idle_timeout`, also of a route.
    StreamIdle,
    /// `transport_socket_connect_timeout` of a filter chain.
    TransportSocketConnect,
    /// `max_connection_duration`
    ConnectionMax,
    /// `stream_flush_timeout`
    StreamFlush,
}

/// Ready when `full` has passed, or what is left of it under overload.
pub async fn expire(overload: Option<&Arc<OverloadManager>>, timer: ScaledTimer, full: Duration) {
    let since = Instant::now();
    let mut armed: Option<(Instant, Deadline)> = None;
    poll_fn(|cx| {
        loop {
            let timeouts = overload.and_then(|o| o.timeouts.as_ref());
            let due = since + timeouts.map_or(full, |t| t.scaled(timer, full));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            if armed.as_ref().is_none_or(|(at, _)| *at > due) {
                armed = Some((due, Deadline::at(due)));
            }
            if let Some((_, deadline)) = &mut armed {
                ready!(Pin::new(deadline).poll(cx));
            }
            armed = None;
        }
    })
    .await;
}

/// How short a timer may become.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Minimum {
    Absolute(Duration),
    Share(f64),
}

/// The timers that are scaled, and how far.
#[derive(Debug)]
pub struct Timeouts {
    minimum: [Option<Minimum>; 5],
    level: Level,
}

impl Timeouts {
    /// `typed_config` of the action.
    pub(super) fn build(any: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = plain(any, cx)?;
        if any.type_name() != "envoy.config.overload.v3.ScaleTimersOverloadActionConfig" {
            return Err(cx.error(format!(
                "typed_config resolves to {} instead of envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                any.type_name()
            )));
        }
        let proto: Proto = unpack(&any, cx)?;
        coverage!(cx, proto => Proto { supported { timer_scale_factors } });
        let mut minimum = [None; 5];
        for proto in timer_scale_factors {
            coverage!(cx, proto => ScaleTimer { supported { timer, overload_adjust } });
            let kind = TimerType::try_from(timer).unwrap_or(TimerType::Unspecified);
            let timer = match kind {
                TimerType::HttpDownstreamConnectionIdle => ScaledTimer::ConnectionIdle,
                TimerType::HttpDownstreamStreamIdle => ScaledTimer::StreamIdle,
                TimerType::TransportSocketConnect => ScaledTimer::TransportSocketConnect,
                TimerType::HttpDownstreamConnectionMax => ScaledTimer::ConnectionMax,
                TimerType::HttpDownstreamStreamFlush => ScaledTimer::StreamFlush,
                TimerType::Unspecified => return Err(cx.error(format!("Unknown timer type {timer}"))),
            };
            let least = match overload_adjust {
                Some(OverloadAdjust::MinTimeout(least)) => Minimum::Absolute(duration(&least)),
                Some(OverloadAdjust::MinScale(share)) => Minimum::Share((share.value / 100.0).clamp(0.0, 1.0)),
                None => return Err(cx.error("field: \"overload_adjust\", reason: is required")),
            };
            if minimum[timer as usize].replace(least).is_some() {
                return Err(cx.error(format!("Found duplicate entry for timer type {}", kind.as_str_name())));
            }
        }
        Ok(Self {
            minimum,
            level: Level::default(),
        })
    }

    pub(super) fn set(&self, level: f32) {
        self.level.set(level);
    }

    /// What `full` comes to now: all of it when idle, the minimum when saturated.
    pub fn scaled(&self, timer: ScaledTimer, full: Duration) -> Duration {
        let level = f64::from(self.level.get());
        match self.minimum[timer as usize] {
            Some(minimum) if level > 0.0 => {
                let least = match minimum {
                    Minimum::Absolute(least) => least.min(full),
                    Minimum::Share(share) => full.mul_f64(share),
                };
                least + (full - least).mul_f64(1.0 - level)
            }
            _ => full,
        }
    }
}
