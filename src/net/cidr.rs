//! `CidrRange`, in the spelling of Envoy's API and of xds's, to [`IpNet`].

use std::net::IpAddr;

use ipnet::IpNet;
use xds_protos::{
    envoy::config::core::v3::CidrRange, google::protobuf::UInt32Value, xds::core::v3::CidrRange as XdsCidrRange,
};

use crate::config::{BuildCx, ConfigResult};

/// `envoy.config.core.v3.CidrRange`; a length past the address's is cut, as in Envoy.
pub fn cidr_range(proto: CidrRange, cx: &mut BuildCx<'_>) -> ConfigResult<IpNet> {
    coverage!(cx, proto => CidrRange { supported { address_prefix, prefix_len } });
    net(&address_prefix, prefix_len, cx)
}

/// `xds.core.v3.CidrRange`, read the same way.
pub fn xds_cidr_range(proto: XdsCidrRange, cx: &mut BuildCx<'_>) -> ConfigResult<IpNet> {
    coverage!(cx, proto => XdsCidrRange { supported { address_prefix, prefix_len } });
    net(&address_prefix, prefix_len, cx)
}

fn net(prefix: &str, len: Option<UInt32Value>, cx: &BuildCx<'_>) -> ConfigResult<IpNet> {
    let malformed = || format!("malformed IP address: {prefix}");
    let ip: IpAddr = prefix.parse().map_err(|_| cx.error_at("address_prefix", malformed()))?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(0, |l| l.value).min(max);
    IpNet::new(ip, u8::try_from(len).unwrap_or(u8::MAX))
        .map(|net| net.trunc())
        .map_err(|_| cx.error_at("prefix_len", malformed()))
}
