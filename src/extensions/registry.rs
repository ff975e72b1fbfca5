//! Finding an extension by the type URL of its configuration, as Envoy does: names are labels.

use std::{collections::HashMap, sync::Arc};

use xds_protos::{google::protobuf::Any, prost::Name};

use super::filters::udp::udp_proxy::session_filter::{UdpSessionFilter, UdpSessionFilterFactory};
use crate::{
    access_log::{AccessLogger, AccessLoggerFactory},
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    formatter::{CommandParser, CommandParserFactory},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
    listener::{ListenerFilter, ListenerFilterFactory, UdpListenerFilter, UdpListenerFilterFactory},
    network_filter::{NetworkFilter, NetworkFilterFactory},
    server::overload::{ErasedResourceMonitor, ResourceMonitorFactory},
    tracing::{Tracer, TracerFactory},
    upstream::{UpstreamNetworkFilter, UpstreamNetworkFilterFactory},
};

/// An [`HttpFilterFactory`] with its types erased; a blanket impl makes it from any factory.
pub trait ErasedHttpFilter: Send + Sync {
    /// Envoy's extension name.
    fn name(&self) -> &'static str;
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>>;
    /// Opens and builds a per-route configuration.
    fn build_route(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig>;
}

impl<F: HttpFilterFactory> ErasedHttpFilter for F {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        HttpFilterFactory::build(self, proto, cx)
    }

    fn build_route(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        let proto = unpack::<F::RouteProto>(any, cx)?;
        HttpFilterFactory::build_route(self, proto, cx)
    }
}

/// A [`NetworkFilterFactory`] with its type erased.
pub trait ErasedNetworkFilter: Send + Sync {
    /// Envoy's extension name.
    fn name(&self) -> &'static str;
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter>;
}

impl<F: NetworkFilterFactory> ErasedNetworkFilter for F {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        let proto = unpack::<F::Proto>(any, cx)?;
        NetworkFilterFactory::build(self, proto, cx)
    }
}

/// An [`UpstreamNetworkFilterFactory`] with its type erased.
pub trait ErasedUpstreamNetworkFilter: Send + Sync {
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UpstreamNetworkFilter>>;
}

impl<F: UpstreamNetworkFilterFactory> ErasedUpstreamNetworkFilter for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UpstreamNetworkFilter>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        UpstreamNetworkFilterFactory::build(self, proto, cx)
    }
}

/// A [`ListenerFilterFactory`] with its type erased.
pub trait ErasedListenerFilter: Send + Sync {
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>>;
}

impl<F: ListenerFilterFactory> ErasedListenerFilter for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        ListenerFilterFactory::build(self, proto, cx)
    }
}

/// A [`UdpListenerFilterFactory`] with its type erased.
pub trait ErasedUdpFilter: Send + Sync {
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpListenerFilter>>;
}

impl<F: UdpListenerFilterFactory> ErasedUdpFilter for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpListenerFilter>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        UdpListenerFilterFactory::build(self, proto, cx)
    }
}

/// A [`UdpSessionFilterFactory`] with its type erased.
pub trait ErasedUdpSessionFilter: Send + Sync {
    /// Opens and builds the filter's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>>;
}

impl<F: UdpSessionFilterFactory> ErasedUdpSessionFilter for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        UdpSessionFilterFactory::build(self, proto, cx)
    }
}

/// An [`AccessLoggerFactory`] with its type erased.
pub trait ErasedAccessLogger: Send + Sync {
    /// Opens and builds the logger's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>>;
}

impl<F: AccessLoggerFactory> ErasedAccessLogger for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        AccessLoggerFactory::build(self, proto, cx)
    }
}

/// A [`CommandParserFactory`] with its type erased.
pub trait ErasedFormatter: Send + Sync {
    /// Opens and builds the extension's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>>;
}

impl<F: CommandParserFactory> ErasedFormatter for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        CommandParserFactory::build(self, proto, cx)
    }
}

/// A [`TracerFactory`] with its type erased.
pub trait ErasedTracer: Send + Sync {
    /// Opens and builds the tracer's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>>;
}

impl<F: TracerFactory> ErasedTracer for F {
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>> {
        let proto = unpack::<F::Proto>(any, cx)?;
        TracerFactory::build(self, proto, cx)
    }
}

/// All extensions by type name. Built once at start, never changed.
#[derive(Default)]
pub struct Registry {
    http_filters: HashMap<String, Arc<dyn ErasedHttpFilter>>,
    http_route_configs: HashMap<String, Arc<dyn ErasedHttpFilter>>,
    listener_filters: HashMap<String, Arc<dyn ErasedListenerFilter>>,
    udp_filters: HashMap<String, Arc<dyn ErasedUdpFilter>>,
    udp_session_filters: HashMap<String, Arc<dyn ErasedUdpSessionFilter>>,
    network_filters: HashMap<String, Arc<dyn ErasedNetworkFilter>>,
    upstream_network_filters: HashMap<String, Arc<dyn ErasedUpstreamNetworkFilter>>,
    access_loggers: HashMap<String, Arc<dyn ErasedAccessLogger>>,
    formatters: HashMap<String, Arc<dyn ErasedFormatter>>,
    resource_monitors: HashMap<String, Arc<dyn ErasedResourceMonitor>>,
    tracers: HashMap<String, Arc<dyn ErasedTracer>>,
}

impl Registry {
    /// Adds an HTTP filter under its filter and its per-route message types.
    pub fn http_filter<F: HttpFilterFactory>(&mut self, factory: F) {
        let factory: Arc<dyn ErasedHttpFilter> = Arc::new(factory);
        self.http_filters.insert(F::Proto::full_name(), factory.clone());
        self.http_route_configs.insert(F::RouteProto::full_name(), factory);
    }

    /// Adds a listener filter under its message type.
    pub fn listener_filter<F: ListenerFilterFactory>(&mut self, factory: F) {
        self.listener_filters.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a UDP listener filter under its message type.
    pub fn udp_filter<F: UdpListenerFilterFactory>(&mut self, factory: F) {
        self.udp_filters.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a session filter of the UDP proxy under its message type.
    pub fn udp_session_filter<F: UdpSessionFilterFactory>(&mut self, factory: F) {
        self.udp_session_filters
            .insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a network filter under its message type.
    pub fn network_filter<F: NetworkFilterFactory>(&mut self, factory: F) {
        self.network_filters.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a network filter of clusters under its message type.
    pub fn upstream_network_filter<F: UpstreamNetworkFilterFactory>(&mut self, factory: F) {
        self.upstream_network_filters
            .insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds an access logger under its message type.
    pub fn access_logger<F: AccessLoggerFactory>(&mut self, factory: F) {
        self.access_loggers.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a formatter extension under its message type.
    pub fn formatter<F: CommandParserFactory>(&mut self, factory: F) {
        self.formatters.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a resource monitor under its message type.
    pub fn resource_monitor<F: ResourceMonitorFactory>(&mut self, factory: F) {
        self.resource_monitors.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// Adds a tracer under its message type.
    pub fn tracer<F: TracerFactory>(&mut self, factory: F) {
        self.tracers.insert(F::Proto::full_name(), Arc::new(factory));
    }

    /// The tracer whose configuration `any` holds.
    pub fn find_tracer(&self, any: &Any) -> Option<&Arc<dyn ErasedTracer>> {
        self.tracers.get(any.type_name())
    }

    /// The resource monitor whose configuration `any` holds.
    pub fn find_resource_monitor(&self, any: &Any) -> Option<&Arc<dyn ErasedResourceMonitor>> {
        self.resource_monitors.get(any.type_name())
    }

    /// The formatter extension whose configuration `any` holds.
    pub fn find_formatter(&self, any: &Any) -> Option<&Arc<dyn ErasedFormatter>> {
        self.formatters.get(any.type_name())
    }

    /// The access logger whose configuration `any` holds.
    pub fn find_access_logger(&self, any: &Any) -> Option<&Arc<dyn ErasedAccessLogger>> {
        self.access_loggers.get(any.type_name())
    }

    /// The listener filter whose configuration `any` holds.
    pub fn find_listener_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedListenerFilter>> {
        self.listener_filters.get(any.type_name())
    }

    /// The UDP listener filter whose configuration `any` holds.
    pub fn find_udp_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedUdpFilter>> {
        self.udp_filters.get(any.type_name())
    }

    /// The session filter whose configuration `any` holds.
    pub fn find_udp_session_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedUdpSessionFilter>> {
        self.udp_session_filters.get(any.type_name())
    }

    /// The network filter whose configuration `any` holds.
    pub fn find_network_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedNetworkFilter>> {
        self.network_filters.get(any.type_name())
    }

    /// The network filter of clusters whose configuration `any` holds.
    pub fn find_upstream_network_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedUpstreamNetworkFilter>> {
        self.upstream_network_filters.get(any.type_name())
    }

    /// The HTTP filter whose configuration `any` holds.
    pub fn find_http_filter(&self, any: &Any) -> Option<&Arc<dyn ErasedHttpFilter>> {
        self.http_filters.get(any.type_name())
    }

    /// The HTTP filter whose per-route configuration `any` holds.
    pub fn find_http_route_config(&self, any: &Any) -> Option<&Arc<dyn ErasedHttpFilter>> {
        self.http_route_configs.get(any.type_name())
    }

    /// Names of all HTTP filters, for `/server_info` and coverage.
    pub fn http_filter_names(&self) -> impl Iterator<Item = &'static str> {
        self.http_filters.values().map(|f| f.name())
    }
}
