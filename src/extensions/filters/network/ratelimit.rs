//! `envoy.filters.network.ratelimit`: a service counts connections. A new one waits for the answer, and later filters do
//! not hear of it before.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::{
    extensions::{
        common::ratelimit::v3::{RateLimitDescriptor as DescriptorProto, rate_limit_descriptor::Entry},
        filters::network::ratelimit::v3::RateLimit as Proto,
    },
    service::ratelimit::v3::{RateLimitRequest, rate_limit_response::Code},
};

use crate::{
    config::{BuildCx, ConfigResult, duration},
    extensions::{
        filters::common::rate_limit_service::{TIMEOUT, ask, service},
        grpc_service::Target,
    },
    formatter::{Format, FormatCx},
    http::{ConnectionInfo, StreamInfo},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    runtime::Key,
    server::Worker,
    stats::Stats,
    stats_block,
};

/// The namespace of what the service says.
const NAMESPACE: &str = "envoy.filters.network.ratelimit";

stats_block! {
    /// `ratelimit.<stat_prefix>.*`
    struct RateLimitStats {
        counter total, "Questions";
        counter ok, "Connections within the limit";
        counter over_limit, "Connections over the limit";
        counter error, "Questions without an answer";
        counter failure_mode_allowed, "Connections that passed because there was no answer";
        counter cx_closed, "Connections closed";
        gauge active, "Questions that wait for an answer";
    }
}

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.ratelimit";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto {
            supported { stat_prefix, domain, descriptors, timeout, failure_mode_deny, rate_limit_service }
        });
        let key = |name: &str| cx.server.runtime.key(name);
        let (enabled, enforcing) = (
            key("ratelimit.tcp_filter_enabled"),
            key("ratelimit.tcp_filter_enforcing"),
        );
        Ok(NetworkFilter::Gate(Arc::new(RateLimit {
            domain,
            descriptors: cx.each("descriptors", descriptors, descriptor)?,
            timeout: timeout.as_ref().map_or(TIMEOUT, duration),
            failure_mode_deny,
            service: cx.required("rate_limit_service", rate_limit_service, service)?,
            enabled,
            enforcing,
            stats: cx.server.stats.scope(&format!("ratelimit.{stat_prefix}.")).block(),
        })))
    }
}

/// Keys, and the formats of their values.
type Descriptor = Vec<(String, Format)>;

fn descriptor(proto: DescriptorProto, cx: &mut BuildCx<'_>) -> ConfigResult<Descriptor> {
    coverage!(cx, proto => DescriptorProto {
        supported { entries }
        ignored {
            limit: "Envoy does not tell it to the service either",
            hits_addend: "Envoy does not tell it to the service either",
            is_negative_hits: "Envoy does not tell it to the service either",
        }
    });
    cx.each("entries", entries, |entry, cx| {
        coverage!(cx, entry => Entry { supported { key, value } });
        let format = cx.field("value", |cx| Format::parse(&value, cx))?;
        Ok((key, format))
    })
}

struct RateLimit {
    domain: String,
    descriptors: Vec<Descriptor>,
    timeout: Duration,
    failure_mode_deny: bool,
    service: Target,
    /// Percent of connections that are asked about.
    enabled: Key,
    /// Percent of connections over the limit that are closed.
    enforcing: Key,
    stats: Stats<RateLimitStats>,
}

impl GateFilter for RateLimit {
    fn on_connection(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated> {
        if !hit(&self.enabled) {
            return Box::pin(async { Gated::Pass(connection) });
        }
        Box::pin(async move {
            match self.allows(&connection.info, worker).await {
                true => Gated::Pass(connection),
                false => {
                    self.stats.local().cx_closed.inc();
                    Gated::Closed(connection.info, None)
                }
            }
        })
    }
}

/// Draws with the percentage of a key; 100 without one.
fn hit(key: &Key) -> bool {
    fastrand::u64(..100) < key.integer(100)
}

/// A question is on its way, whatever becomes of it.
struct Active<'a>(&'a RateLimitStats);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

impl RateLimit {
    async fn allows(&self, info: &Rc<ConnectionInfo>, worker: Rc<Worker>) -> bool {
        let stats = self.stats.local();
        let answer = {
            stats.total.inc();
            stats.active.inc();
            let _active = Active(stats);
            ask(&self.service, self.question(info), self.timeout, worker, None).await
        };
        let Some(answer) = answer else {
            stats.error.inc();
            if !self.failure_mode_deny {
                stats.failure_mode_allowed.inc();
            }
            return !self.failure_mode_deny;
        };
        let over_limit = answer.overall_code() == Code::OverLimit;
        if let Some(said) = answer.dynamic_metadata.filter(|m| !m.fields.is_empty()) {
            let mut metadata = info.metadata.borrow_mut();
            let ours = metadata.entry(NAMESPACE.to_owned()).or_default();
            ours.fields.extend(said.fields);
        }
        match over_limit {
            true => stats.over_limit.inc(),
            false => stats.ok.inc(),
        }
        !over_limit || !hit(&self.enforcing)
    }

    fn question(&self, info: &Rc<ConnectionInfo>) -> RateLimitRequest {
        let mut stream = StreamInfo::new(info.clone(), None);
        stream.metadata.clone_from(&info.metadata.borrow());
        let cx = FormatCx {
            request: None,
            response: None,
            info: &stream,
        };
        let entry = |(key, format): &(String, Format)| {
            let mut value = Vec::new();
            format.write(&mut value, &cx);
            Entry {
                key: key.clone(),
                value: String::from_utf8_lossy(&value).into_owned(),
            }
        };
        RateLimitRequest {
            domain: self.domain.clone(),
            descriptors: self
                .descriptors
                .iter()
                .map(|entries| DescriptorProto {
                    entries: entries.iter().map(entry).collect(),
                    ..DescriptorProto::default()
                })
                .collect(),
            hits_addend: 0,
        }
    }
}
