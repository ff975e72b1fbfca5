//! How long a large endpoint assignment takes: decoding it dynamically, its rules, its typed form, printing it.
//!
//! `cargo run --profile quick -p xds-protos --example scale [ENDPOINTS]`

use std::time::Instant;

use prost::Message;
use xds_protos::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use xds_protos::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use xds_protos::{dynamic, pgv, print};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(10_000), |arg| arg.parse::<u32>())?;
    let bytes = assignment(count).encode_to_vec();
    let name = "envoy.config.endpoint.v3.ClusterLoadAssignment";

    let timed = |what: &str, start: Instant| println!("{what:<28}{:>9.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    xds_protos::pool();
    timed("descriptor pool", start);
    for round in ["first", "second"] {
        let start = Instant::now();
        let message = dynamic::from_bytes(name, &bytes)?;
        timed(&format!("decode dynamic, {round}"), start);
        let start = Instant::now();
        pgv::validate(&message)?;
        timed(&format!("validation rules, {round}"), start);
        let start = Instant::now();
        let found = xds_protos::check::findings(&message).len();
        timed(&format!("unknown and deprecated, {round}"), start);
        let start = Instant::now();
        let typed = ClusterLoadAssignment::decode(bytes.as_slice())?;
        timed(&format!("decode typed, {round}"), start);
        let start = Instant::now();
        let printed = print::json(&message, print::PrintOptions::default()).len();
        timed(&format!("print, {round}"), start);
        println!(
            "{} localities, {found} findings, {printed} bytes printed",
            typed.endpoints.len()
        );
    }
    Ok(())
}

fn assignment(count: u32) -> ClusterLoadAssignment {
    let endpoint = |number: u32| LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address: std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(),
                    port_specifier: Some(socket_address::PortSpecifier::PortValue(8080)),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: "backend".into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: (0..count).map(endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}
