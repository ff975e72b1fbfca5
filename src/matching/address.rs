//! `envoy.type.matcher.v3.AddressMatcher`: CIDR ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use xds_protos::envoy::r#type::matcher::v3::AddressMatcher as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    net::xds_cidr_range,
};

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
        let ranges = cx.each("ranges", ranges, xds_cidr_range)?;
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
