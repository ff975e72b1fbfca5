//! `envoy.type.matcher.v3.AddressMatcher`: CIDR ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use xds_protos::{
    envoy::{config::core::v3::CidrRange as EnvoyRange, r#type::matcher::v3::AddressMatcher as Proto},
    google::protobuf::UInt32Value,
    xds::core::v3::CidrRange,
};

use crate::config::{BuildCx, ConfigResult};

/// Matches an IP address by ranges.
#[derive(Debug, Clone)]
pub struct AddressMatcher {
    ranges: Vec<IpNet>,
    invert: bool,
}

impl AddressMatcher {
    /// Builds the matcher.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { ranges, invert_match } });
        let ranges = cx.each("ranges", ranges, xds_range)?;
        Ok(Self {
            ranges,
            invert: invert_match,
        })
    }

    /// Whether the address matches; something that is not an IP never does, unless inverted.
    pub fn matches(&self, ip: Option<IpAddr>) -> bool {
        ip.is_some_and(|ip| self.ranges.iter().any(|r| r.contains(&ip))) != self.invert
    }
}

/// `xds.core.v3.CidrRange`; a length past the address's is cut, as in Envoy.
pub fn xds_range(proto: CidrRange, cx: &mut BuildCx<'_>) -> ConfigResult<IpNet> {
    coverage!(cx, proto => CidrRange { supported { address_prefix, prefix_len } });
    net(&address_prefix, prefix_len, cx)
}

/// `envoy.config.core.v3.CidrRange`.
pub fn range(proto: EnvoyRange, cx: &mut BuildCx<'_>) -> ConfigResult<IpNet> {
    coverage!(cx, proto => EnvoyRange { supported { address_prefix, prefix_len } });
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
