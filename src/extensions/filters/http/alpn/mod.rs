//! `istio.alpn`: what is offered by ALPN to the upstream, by the protocol that the request will be sent in. It lets the
//! peer's proxy tell mesh traffic from other traffic before it has read any of it.

use std::{rc::Rc, sync::Arc};

use http::Version;
use xds_protos::{
    google::protobuf::value::Kind,
    istio::envoy::config::filter::http::alpn::v2alpha1::{
        FilterConfig as Proto,
        filter_config::{AlpnOverride, Protocol},
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, HttpFilterFactory, Step, StreamCx},
        stream_info::{Sharing, StringObject},
    },
    upstream::{ClusterInfo, config::HttpProtocol},
};

/// The filter state by which an upstream connection is told what to offer.
const APPLICATION_PROTOCOLS: &str = "envoy.network.application_protocols";

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "istio.alpn";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Proto { supported { alpn_override } });
        let mut overrides = Overrides::default();
        for (index, alpn) in alpn_override.into_iter().enumerate() {
            cx.item("alpn_override", index, |cx| {
                coverage!(cx, alpn => AlpnOverride { supported { upstream_protocol, alpn_override } });
                let slot = match Protocol::try_from(upstream_protocol) {
                    Ok(Protocol::Http10) => &mut overrides.http10,
                    Ok(Protocol::Http11) => &mut overrides.http11,
                    Ok(Protocol::Http2) => &mut overrides.http2,
                    Err(_) => return Err(cx.error_at("upstream_protocol", "no such protocol")),
                };
                // As in Envoy, the first for a protocol stands.
                slot.get_or_insert_with(|| alpn_override.join(",").into());
                Ok(())
            })?;
        }
        Ok(Arc::new(Alpn(Arc::new(overrides))))
    }
}

/// What to offer for each protocol, comma-separated.
#[derive(Debug, Default)]
struct Overrides {
    http10: Option<Arc<str>>,
    http11: Option<Arc<str>>,
    http2: Option<Arc<str>>,
}

impl Overrides {
    /// What to offer to a cluster for a request that came in `downstream`; none where that is not changed.
    fn of(&self, cluster: &ClusterInfo, downstream: Option<Version>) -> Option<&Arc<str>> {
        let istio = cluster.metadata.get("istio");
        if let Some(Kind::StringValue(text)) = istio
            .and_then(|m| m.fields.get("alpn_override"))
            .and_then(|v| v.kind.as_ref())
            && text == "false"
        {
            return None;
        }
        let protocol = match (cluster.http.protocol, downstream) {
            (HttpProtocol::Http2 | HttpProtocol::Auto, _) => Version::HTTP_2,
            (HttpProtocol::Downstream, Some(version)) => version,
            (HttpProtocol::Http1 | HttpProtocol::Downstream, _) => Version::HTTP_11,
        };
        let offered = match protocol {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_11 => &self.http11,
            Version::HTTP_2 => &self.http2,
            _ => &None,
        };
        offered.as_ref().filter(|alpn| !alpn.is_empty())
    }
}

struct Alpn(Arc<Overrides>);

impl HttpFilterConfig for Alpn {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Overrides>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, _: bool) -> Step<'a> {
        let name = cx.route.as_ref().map(|route| route.cluster_name());
        let Some(cluster) = name.and_then(|name| cx.worker.clusters.get(name)) else {
            return Step::Continue;
        };
        if let Some(alpn) = self.0.of(&cluster.info, cx.info.protocol) {
            let object = Rc::new(StringObject(alpn.clone()));
            let state = &mut cx.info.filter_state;
            state.set(APPLICATION_PROTOCOLS.into(), object, Sharing::None, false);
        }
        Step::Continue
    }
}

#[cfg(test)]
mod tests;
