//! A stream of a subscription's own.

use super::*;

#[test]
fn each_subscription_has_a_stream_of_its_types_service() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let own = |api_type: &str| {
            source(&format!(
                "{{ api_config_source: {{ api_type: {api_type}, transport_api_version: V3, \
                 grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}] }} }}"
            ))
        };
        // The aggregated stream has nothing to ask, so it is seen only as a stream.
        let _ads = plane.sotw.recv().await.unwrap();
        let mut sotw = watch(&proxy, &clusters(), &own("GRPC"), Names::Wildcard);
        let mut stream = plane.sotw.recv().await.unwrap();
        assert_eq!(stream.request().await.type_url, clusters());
        stream.respond(DiscoveryResponse {
            type_url: clusters(),
            version_info: "1".to_owned(),
            ..DiscoveryResponse::default()
        });
        assert_eq!(sotw.next().await, update("1", &[], &[]));
        assert!(
            stream.request().await.node.is_some(),
            "the node comes with every request"
        );

        let delta = watch(&proxy, &clusters(), &own("DELTA_GRPC"), Names::Wildcard);
        let mut stream = plane.delta.recv().await.unwrap();
        assert_eq!(stream.request().await.type_url, clusters());
        assert_eq!(
            proxy.server.stats.gauge_value("test.control_plane.connected_state"),
            Some(1)
        );
        // Nobody watches: the stream ends.
        drop(delta.guard);
        assert!(stream.requests.message().await.ok().flatten().is_none());
    });
}

#[test]
fn a_control_plane_that_comes_late_is_found() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let proxy = ads_proxy(address, "GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        assert!(matches!(
            watched.next().await,
            Told::Failed(FetchFailure::Connection(_))
        ));
        assert_eq!(proxy.server.stats.counter_value("test.update_failure"), Some(1));

        let mut plane = ControlPlane::start_at(address).await;
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.respond(DiscoveryResponse {
            type_url: clusters(),
            version_info: "1".to_owned(),
            ..DiscoveryResponse::default()
        });
        assert_eq!(watched.next_update().await, update("1", &[], &[]));
    });
}
