//! The actions of a `RateLimit`: each adds an entry to the descriptor, leaves it out, or ends it.

use std::net::IpAddr;

use xds_protos::{
    envoy::{
        config::{
            core::v3::Metadata as ProtoMetadata,
            route::v3::rate_limit::{
                Action as ProtoAction,
                action::{self, ActionSpecifier, meta_data::Source as MetadataSource},
            },
        },
        r#type::metadata::v3::{MetadataKey as ProtoKey, metadata_key::path_segment::Segment},
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{DescriptorCx, expression::Expression};
use crate::{
    config::{BuildCx, ConfigResult},
    http::StreamInfo,
    matching::{AddressMatcher, HeaderLookup, HeaderMatcher, QueryParameterMatcher, query_parameter},
};

#[derive(Debug, Clone)]
pub(super) struct MetadataKey {
    key: String,
    path: Vec<Segment>,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    SourceCluster,
    DestinationCluster,
    RequestHeader {
        header: HeaderLookup,
        key: String,
        skip: bool,
    },
    Query {
        parameter: String,
        key: String,
        skip: bool,
    },
    RemoteAddress,
    MaskedAddress {
        v4: u8,
        v6: u8,
    },
    Generic {
        key: String,
        value: String,
    },
    HeaderMatch {
        key: String,
        value: String,
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryMatch {
        key: String,
        value: String,
        expect: bool,
        parameters: Vec<QueryParameterMatcher>,
    },
    AddressMatch {
        key: String,
        value: String,
        addresses: AddressMatcher,
    },
    Metadata {
        key: String,
        from: MetadataKey,
        default: String,
        source: MetadataSource,
        skip: bool,
    },
    Extension(Expression),
}

/// What one action does to its descriptor.
pub(super) enum Entry {
    Add(String, String),
    /// Leaves the action out and goes on.
    Skip,
    /// There is no descriptor.
    Stop,
}

impl MetadataKey {
    pub(super) fn build(proto: ProtoKey, _cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(_cx, proto => ProtoKey { supported { key, path } });
        Ok(Self {
            key,
            path: path.into_iter().filter_map(|p| p.segment).collect(),
        })
    }

    pub(super) fn dynamic<'i>(&self, info: &'i StreamInfo) -> Option<&'i Value> {
        self.of(info.metadata.get(&self.key))
    }

    fn of_proto<'m>(&self, metadata: Option<&'m ProtoMetadata>) -> Option<&'m Value> {
        self.of(metadata.and_then(|m| m.filter_metadata.get(&self.key)))
    }

    fn of<'m>(&self, root: Option<&'m Struct>) -> Option<&'m Value> {
        let mut path = self.path.iter();
        let Some(Segment::Key(first)) = path.next() else {
            return None;
        };
        let mut value = root?.fields.get(first)?;
        for step in path {
            value = match (step, &value.kind) {
                (Segment::Key(key), Some(Kind::StructValue(s))) => s.fields.get(key)?,
                (Segment::Index(i), Some(Kind::ListValue(l))) => l.values.get(*i as usize)?,
                _ => return None,
            };
        }
        Some(value)
    }
}

fn or_default(key: String, default: &str) -> String {
    if key.is_empty() { default.to_owned() } else { key }
}

fn mask_len(proto: Option<xds_protos::google::protobuf::UInt32Value>, max: u8) -> u8 {
    proto.map_or(max, |v| u8::try_from(v.value).unwrap_or(max).min(max))
}

impl Action {
    pub(super) fn build(proto: ProtoAction, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoAction { supported { action_specifier } });
        Ok(match action_specifier {
            Some(ActionSpecifier::SourceCluster(_)) => Self::SourceCluster,
            Some(ActionSpecifier::DestinationCluster(_)) => Self::DestinationCluster,
            Some(ActionSpecifier::RequestHeaders(a)) => cx.field("request_headers", |cx| {
                coverage!(cx, a => action::RequestHeaders { supported { header_name, descriptor_key, skip_if_absent } });
                Ok(Self::RequestHeader {
                    header: HeaderLookup::of(&header_name),
                    key: descriptor_key,
                    skip: skip_if_absent,
                })
            })?,
            Some(ActionSpecifier::QueryParameters(a)) => {
                coverage!(cx, a => action::QueryParameters {
                    supported { query_parameter_name, descriptor_key, skip_if_absent }
                });
                Self::Query {
                    parameter: query_parameter_name,
                    key: descriptor_key,
                    skip: skip_if_absent,
                }
            }
            Some(ActionSpecifier::RemoteAddress(_)) => Self::RemoteAddress,
            Some(ActionSpecifier::MaskedRemoteAddress(a)) => {
                coverage!(cx, a => action::MaskedRemoteAddress { supported { v4_prefix_mask_len, v6_prefix_mask_len } });
                Self::MaskedAddress {
                    v4: mask_len(v4_prefix_mask_len, 32),
                    v6: mask_len(v6_prefix_mask_len, 128),
                }
            }
            Some(ActionSpecifier::GenericKey(a)) => {
                coverage!(cx, a => action::GenericKey {
                    supported { descriptor_value, descriptor_key }
                    ignored { default_value: "values are literal, as Envoy reads them by default" }
                });
                Self::Generic {
                    key: or_default(descriptor_key, "generic_key"),
                    value: descriptor_value,
                }
            }
            Some(ActionSpecifier::HeaderValueMatch(a)) => cx.field("header_value_match", |cx| {
                coverage!(cx, a => action::HeaderValueMatch {
                    supported { descriptor_value, descriptor_key, expect_match, headers }
                    ignored { default_value: "values are literal, as Envoy reads them by default" }
                });
                Ok(Self::HeaderMatch {
                    key: or_default(descriptor_key, "header_match"),
                    value: descriptor_value,
                    expect: expect_match.is_none_or(|b| b.value),
                    headers: cx.each("headers", headers, HeaderMatcher::build)?,
                })
            })?,
            Some(ActionSpecifier::QueryParameterValueMatch(a)) => cx.field("query_parameter_value_match", |cx| {
                coverage!(cx, a => action::QueryParameterValueMatch {
                    supported { descriptor_value, descriptor_key, expect_match, query_parameters }
                    ignored { default_value: "values are literal, as Envoy reads them by default" }
                });
                Ok(Self::QueryMatch {
                    key: or_default(descriptor_key, "query_match"),
                    value: descriptor_value,
                    expect: expect_match.is_none_or(|b| b.value),
                    parameters: cx.each("query_parameters", query_parameters, QueryParameterMatcher::build)?,
                })
            })?,
            Some(ActionSpecifier::RemoteAddressMatch(a)) => cx.field("remote_address_match", |cx| {
                coverage!(cx, a => action::RemoteAddressMatch {
                    supported { descriptor_value, descriptor_key, address_matcher }
                    ignored { default_value: "values are literal, as Envoy reads them by default" }
                });
                Ok(Self::AddressMatch {
                    key: or_default(descriptor_key, "remote_address_match"),
                    value: descriptor_value,
                    addresses: cx.required("address_matcher", address_matcher, AddressMatcher::build)?,
                })
            })?,
            Some(ActionSpecifier::DynamicMetadata(a)) => cx.field("dynamic_metadata", |cx| {
                coverage!(cx, a => action::DynamicMetaData { supported { descriptor_key, metadata_key, default_value } });
                Ok(Self::Metadata {
                    key: descriptor_key,
                    from: cx.required("metadata_key", metadata_key, MetadataKey::build)?,
                    default: default_value,
                    source: MetadataSource::Dynamic,
                    skip: false,
                })
            })?,
            Some(ActionSpecifier::Metadata(a)) => cx.field("metadata", |cx| {
                let source_of = a.source();
                coverage!(cx, a => action::MetaData {
                    supported { descriptor_key, metadata_key, default_value, source, skip_if_absent }
                });
                // Read by its accessor.
                let _ = source;
                Ok(Self::Metadata {
                    key: descriptor_key,
                    from: cx.required("metadata_key", metadata_key, MetadataKey::build)?,
                    default: default_value,
                    source: source_of,
                    skip: skip_if_absent,
                })
            })?,
            Some(ActionSpecifier::Extension(e)) => Self::Extension(cx.field("extension", |cx| Expression::build(e, cx))?),
            None => return Err(cx.error_at("action_specifier", "value is required")),
        })
    }

    /// What this action does to the descriptor.
    pub(super) fn entry(&self, cx: &DescriptorCx<'_>) -> Entry {
        let absent = |skip: bool| if skip { Entry::Skip } else { Entry::Stop };
        let matched = |matched: bool, expect: bool, key: &String, value: &String| {
            if matched == expect {
                Entry::Add(key.clone(), value.clone())
            } else {
                Entry::Stop
            }
        };
        let remote = cx.info.remote_address().ip();
        match self {
            Self::SourceCluster => Entry::Add("source_cluster".into(), cx.local_cluster.into()),
            Self::DestinationCluster => match cx.route {
                Some(route) => Entry::Add("destination_cluster".into(), route.cluster_name().into()),
                None => Entry::Stop,
            },
            Self::RequestHeader { header, key, skip } => match header.first(cx.head) {
                Some(value) => Entry::Add(key.clone(), String::from_utf8_lossy(value).into_owned()),
                None => absent(*skip),
            },
            Self::Query { parameter, key, skip } => match cx.head.query().and_then(|q| query_parameter(q, parameter)) {
                Some(value) => Entry::Add(key.clone(), value.to_owned()),
                None => absent(*skip),
            },
            Self::Extension(expression) => match expression.value(cx) {
                Some(Some(value)) => Entry::Add(expression.key.clone(), value),
                Some(None) => Entry::Skip,
                None => Entry::Stop,
            },
            Self::RemoteAddress => match remote {
                Some(ip) => Entry::Add("remote_address".into(), ip.to_string()),
                None => Entry::Stop,
            },
            Self::MaskedAddress { v4, v6 } => match remote {
                Some(ip) => masked(ip, if ip.is_ipv4() { *v4 } else { *v6 }),
                None => Entry::Stop,
            },
            Self::Generic { key, value } => Entry::Add(key.clone(), value.clone()),
            Self::HeaderMatch {
                key,
                value,
                expect,
                headers,
            } => matched(headers.iter().all(|m| m.matches(cx.head)), *expect, key, value),
            Self::QueryMatch {
                key,
                value,
                expect,
                parameters,
            } => matched(
                parameters.iter().all(|m| m.matches(cx.head.query())),
                *expect,
                key,
                value,
            ),
            Self::AddressMatch { key, value, addresses } => matched(addresses.matches(remote), true, key, value),
            Self::Metadata {
                key,
                from,
                default,
                source,
                skip,
            } => {
                let value = match source {
                    MetadataSource::Dynamic => from.dynamic(cx.info),
                    MetadataSource::RouteEntry => from.of_proto(cx.route.and_then(|r| r.metadata.as_deref())),
                    MetadataSource::ClusterEntry | MetadataSource::ClusterLocalityEntry => None,
                };
                match value.map(|v| &v.kind) {
                    Some(Some(Kind::StringValue(text))) if !text.is_empty() => Entry::Add(key.clone(), text.clone()),
                    _ if !default.is_empty() => Entry::Add(key.clone(), default.clone()),
                    _ => absent(*skip),
                }
            }
        }
    }
}

fn masked(ip: IpAddr, len: u8) -> Entry {
    match ipnet::IpNet::new(ip, len) {
        Ok(net) => Entry::Add("masked_remote_address".into(), net.trunc().to_string()),
        Err(_) => Entry::Stop,
    }
}
