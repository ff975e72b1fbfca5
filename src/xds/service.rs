//! The discovery services: which method serves which resource type on a stream of its own.

/// A resource type's own discovery service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Full message name of the resource.
    pub resource: &'static str,
    /// gRPC path of the SotW method; none where only delta exists (VHDS).
    pub sotw: Option<&'static str>,
    /// gRPC path of the delta method.
    pub delta: &'static str,
    /// HTTP path of the REST method.
    pub rest: Option<&'static str>,
}

/// gRPC path of the aggregated service's SotW method.
pub(super) const ADS_SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// gRPC path of the aggregated service's delta method.
pub(super) const ADS_DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

macro_rules! services {
    ($($resource:literal: $service:literal { $($sotw:literal)? | $delta:literal | $($rest:literal)? })*) => {
        &[$(Service {
            resource: $resource,
            sotw: optional!($(concat!("/envoy.service.", $service, "/", $sotw))?),
            delta: concat!("/envoy.service.", $service, "/", $delta),
            rest: optional!($(concat!("/v3/discovery:", $rest))?),
        }),*]
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($some:expr) => {
        Some($some)
    };
}

static SERVICES: &[Service] = services! {
    "envoy.config.cluster.v3.Cluster": "cluster.v3.ClusterDiscoveryService"
        { "StreamClusters" | "DeltaClusters" | "clusters" }
    "envoy.config.endpoint.v3.ClusterLoadAssignment": "endpoint.v3.EndpointDiscoveryService"
        { "StreamEndpoints" | "DeltaEndpoints" | "endpoints" }
    "envoy.config.listener.v3.Listener": "listener.v3.ListenerDiscoveryService"
        { "StreamListeners" | "DeltaListeners" | "listeners" }
    "envoy.config.route.v3.RouteConfiguration": "route.v3.RouteDiscoveryService"
        { "StreamRoutes" | "DeltaRoutes" | "routes" }
    "envoy.config.route.v3.ScopedRouteConfiguration": "route.v3.ScopedRoutesDiscoveryService"
        { "StreamScopedRoutes" | "DeltaScopedRoutes" | "scoped-routes" }
    "envoy.config.route.v3.VirtualHost": "route.v3.VirtualHostDiscoveryService"
        { | "DeltaVirtualHosts" | }
    "envoy.extensions.transport_sockets.tls.v3.Secret": "secret.v3.SecretDiscoveryService"
        { "StreamSecrets" | "DeltaSecrets" | "secrets" }
    "envoy.service.runtime.v3.Runtime": "runtime.v3.RuntimeDiscoveryService"
        { "StreamRuntime" | "DeltaRuntime" | "runtime" }
    "envoy.config.core.v3.TypedExtensionConfig": "extension.v3.ExtensionConfigDiscoveryService"
        { "StreamExtensionConfigs" | "DeltaExtensionConfigs" | "extension_configs" }
};

/// The service of a resource type, by its type URL.
pub(super) fn of(type_url: &str) -> Option<&'static Service> {
    let name = xds_protos::any::type_name(type_url);
    SERVICES.iter().find(|s| s.resource == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_exists_in_the_api() {
        let services: Vec<_> = xds_protos::pool().services().collect();
        let exists = |path: &str| {
            let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
            services
                .iter()
                .any(|s| s.full_name() == service && s.methods().any(|m| m.name() == method))
        };
        for service in SERVICES {
            assert!(xds_protos::message(service.resource).is_some(), "{}", service.resource);
            assert!(exists(service.delta), "{}", service.delta);
            assert!(service.sotw.is_none_or(exists), "{:?}", service.sotw);
        }
        assert!(exists(ADS_SOTW) && exists(ADS_DELTA));
    }
}
