use std::time::Duration;

use xds_protos::{
    any,
    envoy::{
        config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions as Common},
        extensions::{
            load_balancing_policies::{
                client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin, wrr_locality::v3::WrrLocality,
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf as pb,
};

use super::*;
use crate::upstream::tests::{server, static_cluster};

fn build_one(proto: Proto) -> ConfigResult<ClusterConfig> {
    build(proto, false, &mut BuildCx::new(&server()))
}

fn policies(list: impl IntoIterator<Item = Any>) -> xds_protos::envoy::config::cluster::v3::LoadBalancingPolicy {
    use xds_protos::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy};
    LoadBalancingPolicy {
        policies: list
            .into_iter()
            .map(|any| Policy {
                typed_extension_config: Some(TypedExtensionConfig {
                    name: "p".into(),
                    typed_config: Some(any),
                }),
            })
            .collect(),
    }
}

#[test]
fn defaults() {
    let built = build_one(static_cluster(&[])).unwrap();
    let info = built.info;
    assert_eq!(info.connect_timeout, Duration::from_secs(5));
    assert_eq!(*info.http, HttpOptions::default());
    assert!(matches!(info.lb.policy, LbPolicy::RoundRobin));
    assert_eq!(info.resources(Default::default()).connections.max(), 1024);
    assert_eq!(info.resources(Default::default()).max_retries(), 3);
}

#[test]
fn http_protocol_options_by_extension() {
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(Common {
            idle_timeout: Some(pb::Duration { seconds: 0, nanos: 0 }),
            max_requests_per_connection: Some(pb::UInt32Value { value: 7 }),
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
                max_concurrent_streams: Some(pb::UInt32Value { value: 5 }),
                ..Default::default()
            })),
        })),
        ..Default::default()
    };
    let mut proto = static_cluster(&[]);
    proto.typed_extension_protocol_options.insert(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(),
        any::pack(&options),
    );
    let http = build_one(proto).unwrap().info.http;
    assert_eq!(http.protocol, HttpProtocol::Http2);
    assert_eq!(http.http2.max_concurrent_streams, 5);
    assert_eq!((http.idle_timeout, http.max_requests_per_connection), (None, Some(7)));
}

#[test]
fn the_first_known_policy_wins() {
    let inner = policies([any::pack(&ClientSideWeightedRoundRobin::default())]);
    let mut proto = static_cluster(&[]);
    proto.load_balancing_policy = Some(policies([
        any::pack(&Common::default()),
        any::pack(&WrrLocality {
            endpoint_picking_policy: Some(inner),
        }),
    ]));
    let lb = build_one(proto.clone()).unwrap().info.lb;
    assert!(lb.client_side.is_some());
    assert_eq!(lb.locality, LocalityLb::Weighted);
    proto.load_balancing_policy = Some(policies([any::pack(&Common::default())]));
    let error = build_one(proto).err().unwrap();
    assert_eq!(error.path(), "load_balancing_policy");
}

#[test]
fn errors_name_their_field() {
    let mut proto = static_cluster(&["127.0.0.1:80".parse().unwrap()]);
    proto.load_assignment.as_mut().unwrap().endpoints[0].priority = 200;
    let error = build_one(proto).err().unwrap();
    assert_eq!(error.path(), "load_assignment.endpoints[0].priority");
    assert_eq!(build_one(Proto::default()).err().unwrap().path(), "name");
}

#[test]
fn what_protects_traffic_is_never_left_out() {
    use xds_protos::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
    let mut proto = static_cluster(&[]);
    proto.transport_socket = Some(TransportSocket {
        name: "x".into(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: "type.googleapis.com/unknown.Socket".into(),
            ..Default::default()
        })),
    });
    assert_eq!(build_one(proto).err().unwrap().path(), "transport_socket");
}
