//! `envoy.type.matcher.v3.AddressMatcher`: CIDR ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use xds_protos::{envoy::r#type::matcher::v3::AddressMatcher as Proto, xds::core::v3::CidrRange};

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
        let ranges = cx.each("ranges", ranges, |proto, cx| {
            coverage!(cx, proto => CidrRange { supported { address_prefix, prefix_len } });
            let malformed = || format!("malformed IP address: {address_prefix}");
            let ip: IpAddr = address_prefix
                .parse()
                .map_err(|_| cx.error_at("address_prefix", malformed()))?;
            let max = if ip.is_ipv4() { 32 } else { 128 };
            let len = prefix_len.map_or(0, |l| l.value).min(max);
            IpNet::new(ip, u8::try_from(len).unwrap_or(u8::MAX))
                .map(|net| net.trunc())
                .map_err(|_| cx.error_at("prefix_len", malformed()))
        })?;
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
