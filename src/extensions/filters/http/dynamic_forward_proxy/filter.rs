//! One stream on its way to a host by name.

use std::{any::Any, borrow::Cow, net::SocketAddr, rc::Rc, sync::Arc};

use http::StatusCode;

use super::config::{Config, PerRoute};
use crate::{
    http::{
        Flag, LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        stream_info::{FilterStateObject, Sharing},
    },
    upstream::dynamic_forward_proxy::{
        CachedHost, DynamicForwardProxy, Load, SubCluster, SubClusters, dynamic_host, resolution_failure,
    },
};

/// Filter state with the address that a name has (`save_upstream_address`).
const UPSTREAM_ADDRESS: &str = "envoy.stream.upstream_address";

/// The filter's configuration.
pub(super) struct DynamicForwardProxyFilter(pub Arc<Config>);

impl HttpFilterConfig for DynamicForwardProxyFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        // Other clusters have their own ways to find hosts.
        let Some(cluster) = cx.route.as_ref().and_then(|r| cx.worker.clusters.get(r.cluster_name())) else {
            return Step::Continue;
        };
        let Some(forward_proxy) = cluster.info.dynamic_forward_proxy().cloned() else {
            return Step::Continue;
        };
        let default_port = if cluster.info.sockets.is_secure() { 443 } else { 80 };
        match cx.route_config::<PerRoute>() {
            Some(PerRoute::Literal(host)) => head.authority = Some(host.clone()),
            Some(PerRoute::Header(name)) => {
                if let Some(host) = head.headers.get(name) {
                    head.authority = Some(host.clone());
                }
            }
            Some(PerRoute::Own) | None => {}
        }
        let (host, port) = match self.0.host_from_filter_state {
            true => dynamic_host(Some(head), &cx.info, default_port),
            false => (head.host().into(), default_port),
        };
        let host = host.into_owned();
        match forward_proxy {
            DynamicForwardProxy::Cached(_) => self.by_cache(cx, &host, port),
            DynamicForwardProxy::SubClusters(clusters) => self.by_sub_cluster(cx, &clusters, &host, port),
        }
    }
}

impl Filter {
    fn by_cache<'a>(&'a self, cx: &'a mut FilterCx, host: &str, default_port: u16) -> Step<'a> {
        let Some(pending) = self.0.cache.enter() else {
            return refuse(
                "Dynamic forward proxy pending request overflow",
                "dynamic_forward_proxy_pending_request_overflow",
            );
        };
        if host.is_empty() {
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Empty host header", "empty_host_header");
            return Step::Reply(Box::new(reply));
        }
        match self.0.cache.load(host, default_port, &cx.worker.server) {
            Load::InCache(host) => self.resolved(cx, &host),
            Load::Overflow => refuse("DNS cache overflow", "dns_cache_overflow"),
            Load::Loading(loading) => Step::Wait(Box::pin(async move {
                let _pending = pending;
                match loading.await {
                    Ok(host) => self.resolved(cx, &host),
                    Err(_) => failed("no_host"),
                }
            })),
        }
    }

    /// It is known what becomes of the name.
    fn resolved(&self, cx: &mut FilterCx, host: &CachedHost) -> Step<'static> {
        let Some(address) = host.address() else {
            return failed(&host.details());
        };
        if self.0.save_address {
            let object = Rc::new(UpstreamAddress(address));
            cx.info
                .filter_state
                .set(UPSTREAM_ADDRESS.into(), object, Sharing::None, false);
        }
        Step::Continue
    }

    fn by_sub_cluster<'a>(
        &'a self,
        cx: &'a mut FilterCx,
        clusters: &Arc<SubClusters>,
        host: &str,
        default_port: u16,
    ) -> Step<'a> {
        let name = SubClusters::name(host, default_port);
        if cx.worker.clusters.get(&name).is_some() && clusters.touch(&name) {
            return Step::Continue;
        }
        let SubCluster::Warming(warm) = clusters.create(host, default_port, &cx.worker.server) else {
            return refuse("Sub cluster overflow", "sub_cluster_overflow");
        };
        let limit = self.0.warming_timeout;
        Step::Wait(Box::pin(async move {
            let work = async {
                if warm.await.is_err() {
                    return;
                }
                // The word of the cluster is on its way to this worker by now.
                while cx.worker.clusters.get(&name).is_none() {
                    tokio::task::yield_now().await;
                }
            };
            match tokio::time::timeout(limit, work).await {
                Ok(()) => Step::Continue,
                Err(_) => refuse("Sub cluster warming timeout", "sub_cluster_warming_timeout"),
            }
        }))
    }
}

fn refuse(body: &'static str, details: &'static str) -> Step<'static> {
    Step::Reply(Box::new(LocalReply::new(
        StatusCode::SERVICE_UNAVAILABLE,
        body,
        details,
    )))
}

fn failed(details: &str) -> Step<'static> {
    let reply = LocalReply::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "DNS resolution failure",
        resolution_failure(details),
    );
    Step::Reply(Box::new(reply.flag(Flag::DnsResolutionFailed)))
}

/// An address in filter state.
#[derive(Debug)]
struct UpstreamAddress(SocketAddr);

impl FilterStateObject for UpstreamAddress {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(self.0.to_string().into())
    }

    fn ip(&self) -> Option<std::net::IpAddr> {
        Some(self.0.ip())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
