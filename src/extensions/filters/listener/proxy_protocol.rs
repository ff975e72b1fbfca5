//! `envoy.filters.listener.proxy_protocol`: who the client of the proxy in front is.
//!
//! The header is peeked until it is whole, then taken off the socket, so that everything behind it finds its own first
//! bytes there.

use std::{io, rc::Rc, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::{
        config::core::v3::{
            ProxyProtocolPassThroughTlVs as PassThroughProto, proxy_protocol_config::Version,
            proxy_protocol_pass_through_tl_vs::PassTlVsMatchType,
        },
        extensions::filters::listener::proxy_protocol::v3::{
            ProxyProtocol as Proto,
            proxy_protocol::{KeyValuePair, Rule as RuleProto, TlvLocation, key_value_pair::ValueStringEncoding},
        },
    },
    google::protobuf::{Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{
        ConnectionInfo,
        stream_info::{ProxyData, ProxyTlvs, Sharing},
    },
    listener::{Accepted, ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    net::{
        Address,
        proxy_protocol::{ProxyHeader, ProxyStart, ProxyVersion, parse},
    },
    stats::Stats,
    stats_block,
};

/// The namespace of TLV values that name none.
const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

/// The longest header of version 2.
const MAX_HEADER: usize = 16 + 65535;

stats_block! {
    /// `proxy_proto.[<stat_prefix>.]*`
    struct ProxyProtocolStats {
        counter not_found_allowed, "Connections without a header that were let in";
        counter not_found_disallowed, "Connections without a header that were closed";
        counter v1_found => "versions.v1.found", "Headers of version 1";
        counter v1_disallowed => "versions.v1.disallowed", "Headers of version 1 that were refused";
        counter v1_error => "versions.v1.error", "Broken headers of version 1";
        counter v2_found => "versions.v2.found", "Headers of version 2";
        counter v2_disallowed => "versions.v2.disallowed", "Headers of version 2 that were refused";
        counter v2_error => "versions.v2.error", "Broken headers of version 2";
    }
}

stats_block! {
    /// Without a prefix, as Envoy counts them.
    struct LegacyStats {
        counter(lazy) downstream_cx_proxy_proto_error, "Connections closed for the sake of their PROXY protocol header";
    }
}

/// The extension.
pub struct Factory;

struct ProxyProtocol {
    rules: Vec<Rule>,
    pass: PassThrough,
    optional: bool,
    allowed: Vec<ProxyVersion>,
    in_filter_state: bool,
    stats: Stats<ProxyProtocolStats>,
    legacy: Stats<LegacyStats>,
}

struct Rule {
    kind: u8,
    namespace: String,
    key: String,
    base64: bool,
}

/// Which TLVs may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PassThrough {
    None,
    All,
    Some(Vec<u8>),
}

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.proxy_protocol";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        let versions: Vec<Version> = proto.disallowed_versions().collect();
        let location = proto.tlv_location();
        coverage!(cx, proto => Proto {
            supported {
                rules, allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions, stat_prefix,
                tlv_location
            }
        });
        // Read by their accessors.
        let _ = (disallowed_versions, tlv_location);
        if [Version::V1, Version::V2].iter().all(|v| versions.contains(v)) {
            return Err(cx.error("Proxy Protocol filter is misconfigured: all proxy protocol versions are disallowed."));
        }
        let all = [(Version::V1, ProxyVersion::V1), (Version::V2, ProxyVersion::V2)];
        let prefix = match stat_prefix.as_str() {
            "" => "proxy_proto.".to_owned(),
            name => format!("proxy_proto.{name}."),
        };
        Ok(Arc::new(ProxyProtocol {
            rules: cx.each("rules", rules, rule)?.into_iter().flatten().collect(),
            pass: cx
                .opt("pass_through_tlvs", pass_through_tlvs, pass_through)?
                .unwrap_or(PassThrough::None),
            optional: allow_requests_without_proxy_protocol,
            allowed: all
                .into_iter()
                .filter(|(v, _)| !versions.contains(v))
                .map(|(_, v)| v)
                .collect(),
            in_filter_state: location == TlvLocation::FilterState,
            stats: cx.server.stats.scope(&prefix).block(),
            legacy: cx.server.stats.root().block(),
        }))
    }
}

impl ListenerFilter for ProxyProtocol {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        Box::pin(async move {
            if let Some(header) = self.read(cx.accepted).await? {
                self.apply(header, cx.info);
            }
            Ok(())
        })
    }
}

impl ProxyProtocol {
    /// Reads the header; none when there is none and need not be.
    async fn read(&self, accepted: &mut Accepted) -> Result<Option<ProxyHeader>, Refused> {
        let stats = self.stats.local();
        let error = || {
            self.legacy.local().downstream_cx_proxy_proto_error.inc();
            Refused::Filter
        };
        // Versions that are refused are still recognised, so that they can be counted; unless nothing is required:
        // then they are what any other bytes are.
        let looked_for = match self.optional {
            true => self.allowed.as_slice(),
            false => &[ProxyVersion::V1, ProxyVersion::V2],
        };
        let mut seen = 0;
        loop {
            let bytes = accepted.peek(seen, MAX_HEADER).await?;
            if bytes.len() == seen {
                return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            seen = bytes.len();
            match parse(&bytes, looked_for, !self.optional) {
                ProxyStart::Header(header) => {
                    match header.version {
                        ProxyVersion::V1 => stats.v1_found.inc(),
                        ProxyVersion::V2 => stats.v2_found.inc(),
                    }
                    self.check(header.version)?;
                    accepted.take(header.length).await?;
                    return Ok(Some(header));
                }
                ProxyStart::Malformed(version) => {
                    tracing::debug!(?version, "a broken PROXY protocol header");
                    self.check(version)?;
                    match version {
                        ProxyVersion::V1 => stats.v1_error.inc(),
                        ProxyVersion::V2 => stats.v2_error.inc(),
                    }
                    return Err(error());
                }
                ProxyStart::Absent if self.optional => {
                    stats.not_found_allowed.inc();
                    return Ok(None);
                }
                ProxyStart::Absent | ProxyStart::Endless => {
                    tracing::debug!("no PROXY protocol header");
                    stats.not_found_disallowed.inc();
                    return Err(error());
                }
                ProxyStart::Incomplete(_) => {}
            }
        }
    }

    fn check(&self, version: ProxyVersion) -> Result<(), Refused> {
        if self.allowed.contains(&version) {
            return Ok(());
        }
        let stats = self.stats.local();
        match version {
            ProxyVersion::V1 => stats.v1_disallowed.inc(),
            ProxyVersion::V2 => stats.v2_disallowed.inc(),
        }
        Err(Refused::Filter)
    }

    /// Leaves what the header said in the connection's facts.
    fn apply(&self, header: ProxyHeader, info: &mut ConnectionInfo) {
        if let Some((source, destination)) = header.addresses {
            info.remote_address = Address::Ip(source);
            let destination = Address::Ip(destination);
            info.local_address_restored |= info.local_address != destination;
            info.local_address = destination;
        }
        let mut in_state = ProxyTlvs::default();
        for (kind, value) in &header.tlvs {
            for rule in self.rules.iter().filter(|r| r.kind == *kind) {
                let text = if rule.base64 {
                    STANDARD.encode(value)
                } else {
                    sanitized(value)
                };
                if self.in_filter_state {
                    in_state.0.insert(rule.key.clone(), text);
                    continue;
                }
                let mut metadata = info.metadata.borrow_mut();
                let fields = &mut metadata.entry(rule.namespace.clone()).or_default().fields;
                // Of several of one kind the first one counts; in filter state the last. Both as in Envoy.
                fields.entry(rule.key.clone()).or_insert(Value {
                    kind: Some(Kind::StringValue(text)),
                });
            }
        }
        let passed = |kind: u8| match &self.pass {
            PassThrough::None => false,
            PassThrough::All => true,
            PassThrough::Some(kinds) => kinds.contains(&kind),
        };
        let data = ProxyData {
            source: info.remote_address.clone(),
            destination: info.local_address.clone(),
            tlvs: header.tlvs.into_iter().filter(|(kind, _)| passed(*kind)).collect(),
        };
        let mut state = info.filter_state.borrow_mut();
        state.set(ProxyData::KEY.into(), Rc::new(data), Sharing::None, false);
        if !in_state.0.is_empty() {
            state.set(ProxyTlvs::KEY.into(), Rc::new(in_state), Sharing::None, false);
        }
    }
}

/// UTF-8 with `!` for each byte that is none.
fn sanitized(value: &Bytes) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n('!', chunk.invalid().len()));
    }
    text
}

fn rule(proto: RuleProto, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Rule>> {
    coverage!(cx, proto => RuleProto { supported { tlv_type, on_tlv_present } });
    cx.opt("on_tlv_present", on_tlv_present, |pair, cx| {
        let base64 = pair.value_string_encoding() == ValueStringEncoding::Base64;
        coverage!(cx, pair => KeyValuePair { supported { metadata_namespace, key, value_string_encoding } });
        let _ = value_string_encoding;
        Ok(Rule {
            kind: tlv(tlv_type),
            namespace: if metadata_namespace.is_empty() {
                NAMESPACE.to_owned()
            } else {
                metadata_namespace
            },
            key,
            base64,
        })
    })
}

fn pass_through(proto: PassThroughProto, cx: &mut BuildCx<'_>) -> ConfigResult<PassThrough> {
    let kind = proto.match_type();
    coverage!(cx, proto => PassThroughProto { supported { match_type, tlv_type } });
    let _ = match_type;
    Ok(match kind {
        PassTlVsMatchType::IncludeAll => PassThrough::All,
        PassTlVsMatchType::Include => PassThrough::Some(tlv_type.into_iter().map(tlv).collect()),
    })
}

// The API's rules have checked the range.
fn tlv(kind: u32) -> u8 {
    u8::try_from(kind).unwrap_or(u8::MAX)
}
