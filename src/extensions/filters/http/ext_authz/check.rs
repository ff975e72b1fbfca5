//! The question: what the service is told of a request.

use std::{collections::HashMap, time::UNIX_EPOCH};

use bytes::Bytes;
use http::Version;
use xds_protos::{
    envoy::{
        config::core::v3::{HeaderMap as ProtoHeaderMap, HeaderValue as ProtoHeader, Metadata},
        service::auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
        },
    },
    google::protobuf::Timestamp,
};

use super::config::Config;
use crate::{
    extensions::filters::common::authorization::peer,
    http::{RequestHead, filter::FilterCx, stream_info::StreamInfo},
};

/// What was read of the body.
pub(super) struct Read {
    pub bytes: Bytes,
    pub partial: bool,
    pub as_bytes: bool,
}

/// The question about a request.
pub(super) fn request(
    config: &Config,
    cx: &FilterCx,
    head: &RequestHead,
    body: Option<&Read>,
    context: HashMap<String, String>,
) -> CheckRequest {
    let info = &cx.info;
    let connection = &info.connection;
    let tls = connection.tls.as_deref();
    let source = Peer {
        certificate: match (config.include_certificate, tls) {
            (true, Some(tls)) => tls.peer.url_encoded_pem.clone(),
            _ => String::new(),
        },
        service: head
            .get_str("x-envoy-downstream-service-cluster")
            .unwrap_or_default()
            .to_owned(),
        ..peer(info.remote_address(), tls.map(|t| &*t.peer))
    };
    let destination = peer(&connection.local_address, tls.map(|t| &*t.local));
    let since = info.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(source),
            destination: Some(destination),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    nanos: since.subsec_nanos().cast_signed(),
                }),
                http: Some(http(config, info, head, body)),
            }),
            context_extensions: context,
            metadata_context: Some(metadata(config, info)),
            route_metadata_context: Some(route_metadata(config, info)),
            tls_session: match (config.include_tls_session, tls) {
                (true, Some(tls)) => Some(TlsSession {
                    sni: tls.sni.as_deref().unwrap_or_default().to_owned(),
                }),
                _ => None,
            },
        }),
    }
}

fn http(config: &Config, info: &StreamInfo, head: &RequestHead, body: Option<&Read>) -> HttpRequest {
    let path = head.path.as_ref().map(|p| p.as_str()).unwrap_or_default();
    let mut headers = told(config, head);
    if let Some(read) = body {
        headers.push(("x-envoy-auth-partial-body".to_owned(), read.partial.to_string().into()));
    }
    let mut request = HttpRequest {
        id: info
            .request_id
            .as_ref()
            .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
            .unwrap_or_default(),
        method: head.method.as_str().to_owned(),
        path: path.to_owned(),
        host: head.host().to_owned(),
        scheme: head.scheme.as_str().to_owned(),
        size: i64::try_from(info.progress.bytes_received.get()).unwrap_or(i64::MAX),
        protocol: match head.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }
        .to_owned(),
        ..HttpRequest::default()
    };
    if config.raw_headers {
        let headers = headers.into_iter().map(|(key, raw_value)| ProtoHeader {
            key,
            raw_value,
            ..ProtoHeader::default()
        });
        request.header_map = Some(ProtoHeaderMap {
            headers: headers.collect(),
        });
    } else {
        let mut map: HashMap<String, String> = HashMap::new();
        for (name, value) in headers {
            // A proto string is UTF-8, a header need not be.
            let value: String = value
                .iter()
                .map(|b| if b.is_ascii() { char::from(*b) } else { '!' })
                .collect();
            map.entry(name)
                .and_modify(|all| {
                    all.push(',');
                    all.push_str(&value);
                })
                .or_insert(value);
        }
        request.headers = map;
    }
    if let Some(read) = body {
        match read.as_bytes {
            true => request.raw_body = read.bytes.to_vec(),
            false => request.body = String::from_utf8_lossy(&read.bytes).into_owned(),
        }
    }
    request
}

/// The headers the service is told, pseudo-headers among them.
pub(super) fn told(config: &Config, head: &RequestHead) -> Vec<(String, Vec<u8>)> {
    let path = head.path.as_ref().map(|p| p.as_str()).unwrap_or_default();
    let pseudo = [
        (":authority", head.host()),
        (":method", head.method.as_str()),
        (":path", path),
        (":scheme", head.scheme.as_str()),
    ];
    let pseudo = pseudo
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    pseudo.chain(headers).filter(|(name, _)| config.tells(name)).collect()
}

fn metadata(config: &Config, info: &StreamInfo) -> Metadata {
    let connection = info.connection.metadata.borrow();
    let found = config.metadata_namespaces.iter().filter_map(|name| {
        let data = info.metadata.get(name).or_else(|| connection.get(name))?;
        Some((name.clone(), data.clone()))
    });
    Metadata {
        filter_metadata: found.collect(),
        ..Metadata::default()
    }
}

fn route_metadata(config: &Config, info: &StreamInfo) -> Metadata {
    let Some(of_route) = info.route_metadata.as_deref() else {
        return Metadata::default();
    };
    let plain = config
        .route_namespaces
        .iter()
        .filter_map(|name| Some((name.clone(), of_route.filter_metadata.get(name)?.clone())));
    let typed = config
        .route_typed_namespaces
        .iter()
        .filter_map(|name| Some((name.clone(), of_route.typed_filter_metadata.get(name)?.clone())));
    Metadata {
        filter_metadata: plain.collect(),
        typed_filter_metadata: typed.collect(),
    }
}
