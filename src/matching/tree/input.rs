//! Inputs of matcher trees: what is asked about a connection or a request.

use std::{borrow::Cow, net::IpAddr};

use xds_protos::{
    envoy::{
        extensions::matching::common_inputs::{
            environment_variable::v3::Config as EnvironmentVariable,
            network::v3::{DynamicMetadataInput, FilterStateInput, dynamic_metadata_input},
            transport_socket::v3::{
                EndpointMetadataInput, LocalityMetadataInput, endpoint_metadata_input, locality_metadata_input,
            },
        },
        r#type::matcher::v3::{
            HttpRequestHeaderMatchInput, HttpRequestQueryParamMatchInput, HttpResponseHeaderMatchInput,
        },
    },
    google::protobuf::{Value, value},
    xds::core::v3::TypedExtensionConfig,
};

use super::{MatchCx, MatchTarget, extension, unknown};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::stream_info::{CertInfo, Metadata, NETWORK_NAMESPACE},
    matching::{HeaderLookup, query_parameter, struct_path},
    net::Address,
};

/// What an input gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Data<'a> {
    /// There is nothing: no matcher matches.
    Missing,
    /// A text; header values need not be UTF-8.
    Text(Cow<'a, [u8]>),
    /// An address, which is a text to those who want one.
    Ip(IpAddr),
    /// A value of metadata.
    Value(Cow<'a, Value>),
    /// All attributes: CEL picks what it needs.
    Attributes,
}

impl Data<'_> {
    /// As text, where it has one.
    pub fn text(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Ip(ip) => Some(Cow::Owned(ip.to_string().into_bytes())),
            Self::Missing | Self::Value(_) | Self::Attributes => None,
        }
    }

    /// As an address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Self::Missing | Self::Value(_) | Self::Attributes => None,
        }
    }
}

/// An input.
#[derive(Debug, Clone)]
pub enum DataInput {
    /// `HttpRequestHeaderMatchInput`: several values are joined by commas.
    RequestHeader(HeaderLookup),
    /// `HttpResponseHeaderMatchInput`
    ResponseHeader(HeaderLookup),
    /// `HttpRequestQueryParamMatchInput`
    QueryParameter(String),
    /// `DestinationIPInput`
    DestinationIp,
    /// `DestinationPortInput`
    DestinationPort,
    /// `SourceIPInput`: the client as far as it can be trusted.
    SourceIp,
    /// `SourcePortInput`
    SourcePort,
    /// `DirectSourceIPInput`: the peer of the socket.
    DirectSourceIp,
    /// `SourceTypeInput`: `local` for clients on this machine.
    SourceType,
    /// `ServerNameInput`: SNI.
    ServerName,
    /// `TransportProtocolInput`
    TransportProtocol,
    /// `ApplicationProtocolInput`: `'h2','http/1.1'`.
    ApplicationProtocol,
    /// `NetworkNamespaceInput`: that of the listener's address.
    NetworkNamespace,
    /// `FilterStateInput`: an object's text, or a field of it.
    FilterState(String, String),
    /// `DynamicMetadataInput`
    DynamicMetadata(String, Vec<String>),
    /// `UriSanInput`: the URIs of the client's certificate, joined by commas.
    UriSan,
    /// `DnsSanInput`
    DnsSan,
    /// `SubjectInput`
    Subject,
    /// An environment variable, read when configured.
    Constant(Option<String>),
    /// `EndpointMetadataInput`
    EndpointMetadata(String, Vec<String>),
    /// `LocalityMetadataInput`
    LocalityMetadata(String, Vec<String>),
    /// `HttpAttributesCelMatchInput`
    Attributes,
}

impl DataInput {
    /// Builds an input that `target` allows.
    pub fn build<T: MatchTarget>(proto: TypedExtensionConfig, target: &T, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3.";
        let (name, any) = extension(proto, cx)?;
        let kind = any.type_name().to_owned();
        let allowed = target.allows(&kind);
        let input = match kind.as_str() {
            "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" => {
                let proto = unpack::<HttpRequestHeaderMatchInput>(&any, cx)?;
                coverage!(cx, proto => HttpRequestHeaderMatchInput { supported { header_name } });
                Self::RequestHeader(HeaderLookup::of(&header_name))
            }
            "envoy.type.matcher.v3.HttpResponseHeaderMatchInput" => {
                let proto = unpack::<HttpResponseHeaderMatchInput>(&any, cx)?;
                coverage!(cx, proto => HttpResponseHeaderMatchInput { supported { header_name } });
                Self::ResponseHeader(HeaderLookup::of(&header_name))
            }
            "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput" => {
                let proto = unpack::<HttpRequestQueryParamMatchInput>(&any, cx)?;
                coverage!(cx, proto => HttpRequestQueryParamMatchInput { supported { query_param } });
                Self::QueryParameter(query_param)
            }
            "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput" => Self::UriSan,
            "envoy.extensions.matching.common_inputs.ssl.v3.DnsSanInput" => Self::DnsSan,
            "envoy.extensions.matching.common_inputs.ssl.v3.SubjectInput" => Self::Subject,
            "envoy.extensions.matching.common_inputs.environment_variable.v3.Config" => {
                let proto = unpack::<EnvironmentVariable>(&any, cx)?;
                coverage!(cx, proto => EnvironmentVariable { supported { name } });
                return Ok(Self::Constant(std::env::var(name).ok()));
            }
            "envoy.extensions.matching.common_inputs.transport_socket.v3.EndpointMetadataInput" => {
                let proto = unpack::<EndpointMetadataInput>(&any, cx)?;
                coverage!(cx, proto => EndpointMetadataInput { supported { filter, path } });
                let keys = path.into_iter().filter_map(|p| p.segment);
                let keys = keys.map(|endpoint_metadata_input::path_segment::Segment::Key(k)| k);
                Self::EndpointMetadata(filter, keys.collect())
            }
            "envoy.extensions.matching.common_inputs.transport_socket.v3.LocalityMetadataInput" => {
                let proto = unpack::<LocalityMetadataInput>(&any, cx)?;
                coverage!(cx, proto => LocalityMetadataInput { supported { filter, path } });
                let keys = path.into_iter().filter_map(|p| p.segment);
                let keys = keys.map(|locality_metadata_input::path_segment::Segment::Key(k)| k);
                Self::LocalityMetadata(filter, keys.collect())
            }
            "xds.type.matcher.v3.HttpAttributesCelMatchInput" => Self::Attributes,
            _ => match kind.strip_prefix(NETWORK).unwrap_or_default() {
                "DestinationIPInput" => Self::DestinationIp,
                "DestinationPortInput" => Self::DestinationPort,
                "SourceIPInput" => Self::SourceIp,
                "SourcePortInput" => Self::SourcePort,
                "DirectSourceIPInput" => Self::DirectSourceIp,
                "SourceTypeInput" => Self::SourceType,
                "ServerNameInput" => Self::ServerName,
                "TransportProtocolInput" => Self::TransportProtocol,
                "ApplicationProtocolInput" => Self::ApplicationProtocol,
                "NetworkNamespaceInput" => Self::NetworkNamespace,
                "FilterStateInput" => {
                    let proto = unpack::<FilterStateInput>(&any, cx)?;
                    coverage!(cx, proto => FilterStateInput { supported { key, field } });
                    Self::FilterState(key, field)
                }
                "DynamicMetadataInput" => {
                    let proto = unpack::<DynamicMetadataInput>(&any, cx)?;
                    coverage!(cx, proto => DynamicMetadataInput { supported { filter, path } });
                    let keys = path.into_iter().filter_map(|p| p.segment);
                    let keys = keys.map(|dynamic_metadata_input::path_segment::Segment::Key(k)| k);
                    Self::DynamicMetadata(filter, keys.collect())
                }
                _ => return Err(cx.error(unknown(&name, &kind))),
            },
        };
        match allowed {
            Ok(()) => Ok(input),
            Err(why) => Err(cx.error(why)),
        }
    }

    /// What the input gives for this connection or request.
    pub fn get<'a>(&'a self, cx: &MatchCx<'a>) -> Data<'a> {
        let connection = cx.connection;
        match self {
            Self::RequestHeader(name) => bytes(cx.request.and_then(|head| name.get(head))),
            Self::ResponseHeader(name) => bytes(cx.response.and_then(|head| name.of_response(head))),
            Self::QueryParameter(name) => {
                let query = cx.request.and_then(|head| head.query());
                bytes(
                    query
                        .and_then(|q| query_parameter(q, name))
                        .map(|v| v.as_bytes().into()),
                )
            }
            Self::DestinationIp => ip(&connection.local_address),
            Self::DestinationPort => port(&connection.local_address),
            Self::SourceIp => ip(remote(cx)),
            Self::SourcePort => port(remote(cx)),
            Self::DirectSourceIp => ip(&connection.direct_remote_address),
            Self::SourceType => match connection.is_local() {
                true => Data::Text(Cow::Borrowed(b"local")),
                false => Data::Missing,
            },
            Self::ServerName => text(connection.server_name.as_deref().filter(|n| !n.is_empty())),
            Self::TransportProtocol => text(cx.inspected.map(|i| i.transport_protocol())),
            Self::ApplicationProtocol => match cx.inspected {
                Some(i) if !i.protocols.is_empty() => {
                    let quoted: Vec<String> = i.protocols.iter().map(|p| format!("'{p}'")).collect();
                    Data::Text(Cow::Owned(quoted.join(",").into_bytes()))
                }
                _ => Data::Missing,
            },
            Self::NetworkNamespace => filter_state(cx, NETWORK_NAMESPACE, ""),
            Self::FilterState(key, field) => filter_state(cx, key, field),
            Self::DynamicMetadata(filter, path) => {
                if let Some(stream) = cx.stream {
                    let found = stream.metadata.get(filter).and_then(|s| struct_path(s, path));
                    return found.map_or(Data::Missing, |v| Data::Value(Cow::Borrowed(v)));
                }
                let metadata = connection.metadata.borrow();
                let found = metadata.get(filter).and_then(|s| struct_path(s, path));
                found.map_or(Data::Missing, |v| Data::Value(Cow::Owned(v.clone())))
            }
            Self::UriSan => names(cx, |cert| &cert.uri_sans),
            Self::DnsSan => names(cx, |cert| &cert.dns_sans),
            Self::Subject => {
                let tls = connection.tls.as_deref();
                text(tls.map(|t| t.peer.subject.as_str()).filter(|s| !s.is_empty()))
            }
            Self::Constant(value) => text(value.as_deref()),
            Self::EndpointMetadata(filter, path) => scalar(cx.endpoint.map(|e| e.metadata), filter, path),
            Self::LocalityMetadata(filter, path) => scalar(cx.endpoint.map(|e| e.locality), filter, path),
            Self::Attributes => Data::Attributes,
        }
    }
}

/// A value of metadata as text, which is what sockets are chosen by.
fn scalar<'a>(metadata: Option<&'a Metadata>, filter: &str, path: &[String]) -> Data<'a> {
    let value = metadata.and_then(|m| struct_path(m.get(filter)?, path));
    match value.and_then(|v| v.kind.as_ref()) {
        Some(value::Kind::StringValue(value)) => text(Some(value)),
        Some(value::Kind::BoolValue(value)) => bytes(Some(Cow::Owned(value.to_string().into_bytes()))),
        Some(value::Kind::NumberValue(value)) => bytes(Some(Cow::Owned(value.to_string().into_bytes()))),
        _ => Data::Missing,
    }
}

fn remote<'a>(cx: &MatchCx<'a>) -> &'a Address {
    cx.stream.map_or(&cx.connection.remote_address, |s| s.remote_address())
}

fn bytes(value: Option<Cow<'_, [u8]>>) -> Data<'_> {
    value.map_or(Data::Missing, Data::Text)
}

fn text(value: Option<&str>) -> Data<'_> {
    bytes(value.map(|v| Cow::Borrowed(v.as_bytes())))
}

fn ip<'a>(address: &Address) -> Data<'a> {
    address.ip().map_or(Data::Missing, Data::Ip)
}

fn port<'a>(address: &Address) -> Data<'a> {
    bytes(address.port().map(|p| Cow::Owned(p.to_string().into_bytes())))
}

fn names<'a>(cx: &MatchCx<'a>, of: impl Fn(&CertInfo) -> &[String]) -> Data<'a> {
    let Some(tls) = &cx.connection.tls else {
        return Data::Missing;
    };
    match of(&tls.peer) {
        [] => Data::Missing,
        all => Data::Text(Cow::Owned(all.join(",").into_bytes())),
    }
}

/// An object of the stream's filter state, or of its connection's.
fn filter_state<'a>(cx: &MatchCx<'a>, key: &str, field: &str) -> Data<'a> {
    let of_stream = cx.stream.and_then(|s| s.filter_state.get(key));
    let of_connection = cx.connection.filter_state.borrow();
    let Some(object) = of_stream.or_else(|| of_connection.get(key)) else {
        return Data::Missing;
    };
    let value = match field {
        "" => object.as_text(),
        field => object.field(field),
    };
    bytes(value.map(|v| Cow::Owned(v.into_owned().into_bytes())))
}
