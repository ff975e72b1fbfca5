//! `custom_match` of predicates: matchers of more than text.

use ipnet::IpNet;
use twox_hash::XxHash64;
use xds_protos::{
    envoy::extensions::matching::input_matchers::{
        consistent_hashing::v3::ConsistentHashing, ip::v3::Ip, metadata::v3::Metadata,
    },
    xds::core::v3::TypedExtensionConfig,
};

use super::{Data, MatchCx, extension, unknown};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    matching::ValueMatcher,
    net::cidr_range,
};

#[derive(Debug)]
pub(super) enum CustomMatch {
    /// `envoy.matching.matchers.ip`
    Ip(Vec<IpNet>),
    /// `envoy.matching.matchers.metadata_matcher`
    Metadata { value: ValueMatcher, invert: bool },
    /// `envoy.matching.matchers.consistent_hashing`
    Hash { threshold: u64, modulo: u64, seed: u64 },
}

impl CustomMatch {
    pub(super) fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (name, any) = extension(proto, cx)?;
        match any.type_name() {
            "envoy.extensions.matching.input_matchers.ip.v3.Ip" => {
                let proto = unpack::<Ip>(&any, cx)?;
                coverage!(cx, proto => Ip {
                    supported { cidr_ranges }
                    ignored { stat_prefix: "inputs that are no address are not counted" }
                });
                let ranges = cx.each("cidr_ranges", cidr_ranges, cidr_range)?;
                Ok(Self::Ip(ranges))
            }
            "envoy.extensions.matching.input_matchers.metadata.v3.Metadata" => {
                let proto = unpack::<Metadata>(&any, cx)?;
                coverage!(cx, proto => Metadata { supported { value, invert } });
                Ok(Self::Metadata {
                    value: cx.required("value", value, ValueMatcher::build)?,
                    invert,
                })
            }
            "envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing" => {
                let proto = unpack::<ConsistentHashing>(&any, cx)?;
                coverage!(cx, proto => ConsistentHashing { supported { threshold, modulo, seed } });
                Ok(Self::Hash {
                    threshold: threshold.into(),
                    modulo: u64::from(modulo).max(1),
                    seed,
                })
            }
            other => Err(cx.error(unknown(&name, other))),
        }
    }

    pub(super) fn matches(&self, data: &Data<'_>, _: &MatchCx<'_>) -> bool {
        match self {
            Self::Ip(ranges) => data.ip().is_some_and(|ip| ranges.iter().any(|r| r.contains(&ip))),
            Self::Metadata { value, invert } => match data {
                Data::Value(v) => value.matches(Some(v)) != *invert,
                _ => false,
            },
            Self::Hash {
                threshold,
                modulo,
                seed,
            } => data
                .text()
                .is_some_and(|text| XxHash64::oneshot(*seed, &text) % modulo >= *threshold),
        }
    }
}
