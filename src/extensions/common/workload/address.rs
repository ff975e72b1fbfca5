//! Where the workload of an upstream host is.

use std::net::{IpAddr, SocketAddr};

use xds_protos::google::protobuf::{Value, value::Kind};

use crate::{http::stream_info::Metadata, net::Address, upstream::Host};

/// The workload's address: the host's, or, of a host behind an internal listener, what its metadata say
/// (`envoy.filters.listener.original_dst.local`).
pub fn of_host(host: &Host) -> Option<IpAddr> {
    match &host.address {
        Address::Ip(_) => host.present_address().ip(),
        Address::Pipe(_) => None,
        Address::Internal { .. } => {
            let metadata = host.attributes().metadata.clone();
            let local = metadata_field(&metadata, "envoy.filters.listener.original_dst", "local")?;
            match &local.kind {
                Some(Kind::StringValue(address)) => address.parse().ok().map(|a: SocketAddr| a.ip()),
                _ => None,
            }
        }
    }
}

/// The same, but for hosts behind a gateway of another network, whose workloads nobody here knows.
pub fn of_host_in_network(host: &Host) -> Option<IpAddr> {
    let internal = matches!(host.address, Address::Internal { .. });
    if internal && metadata_field(&host.attributes().metadata, "istio", "double_hbone").is_some() {
        return None;
    }
    of_host(host)
}

/// A field of one namespace of metadata.
pub fn metadata_field<'m>(metadata: &'m Metadata, namespace: &str, field: &str) -> Option<&'m Value> {
    metadata.get(namespace)?.fields.get(field)
}

/// Whether that field is `true`.
pub fn metadata_flag(metadata: &Metadata, namespace: &str, field: &str) -> bool {
    let value = metadata_field(metadata, namespace, field);
    value.is_some_and(|v| matches!(v.kind, Some(Kind::BoolValue(true))))
}
