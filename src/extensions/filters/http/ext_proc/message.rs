//! Messages to the service.

use http::HeaderMap;
use xds_protos::{
    envoy::{
        config::core::v3::{HeaderMap as ProtoHeaders, HeaderValue, Metadata},
        extensions::filters::http::ext_proc::v3::ProcessingMode,
        service::ext_proc::v3::{
            HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration, processing_request::Request,
        },
    },
    google::protobuf::Struct,
};

use super::{
    config::{Attributes, Forward, Settings},
    session::Session,
};
use crate::{
    extensions::filters::http::view::View,
    http::{RequestHead, ResponseHead, StreamInfo},
    matching::tree::MatchCx,
};

/// Under which name attributes are sent.
const NAMESPACE: &str = "envoy.filters.http.ext_proc";

/// Headers of a request or a response.
pub(super) fn headers(view: &View<'_>, request: bool, forward: &Forward, end: bool) -> Request {
    let headers = HttpHeaders {
        headers: Some(proto(view, forward)),
        end_of_stream: end,
        ..Default::default()
    };
    match request {
        true => Request::RequestHeaders(headers),
        false => Request::ResponseHeaders(headers),
    }
}

/// A body or a part of one.
pub(super) fn body(bytes: &[u8], request: bool, end: bool) -> Request {
    let body = HttpBody {
        body: bytes.to_vec(),
        end_of_stream: end,
        ..Default::default()
    };
    match request {
        true => Request::RequestBody(body),
        false => Request::ResponseBody(body),
    }
}

/// Trailers.
pub(super) fn trailers(trailers: &mut HeaderMap, request: bool, forward: &Forward) -> Request {
    let trailers = HttpTrailers {
        trailers: Some(proto(&View::trailers(trailers), forward)),
    };
    match request {
        true => Request::RequestTrailers(trailers),
        false => Request::ResponseTrailers(trailers),
    }
}

fn proto(view: &View<'_>, forward: &Forward) -> ProtoHeaders {
    let all = view.all().into_iter().filter(|(name, _)| forward.sees(name));
    let headers = all.map(|(name, value)| HeaderValue {
        key: String::from_utf8_lossy(&name).into_owned(),
        value: String::new(),
        raw_value: value,
    });
    ProtoHeaders {
        headers: headers.collect(),
    }
}

/// The message around it: the first one says what the service has to expect.
pub(super) fn message(session: &Session, mode: &ProcessingMode, request: Request) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(request),
        observability_mode: session.config.observability,
        protocol_config: session.first.replace(false).then_some(ProtocolConfiguration {
            request_body_mode: mode.request_body_mode,
            response_body_mode: mode.response_body_mode,
            send_body_without_waiting_for_header_response: false,
        }),
        ..Default::default()
    }
}

/// Adds what is known of the stream: metadata of the namespaces forwarded, and attributes.
pub(super) fn describe(
    message: &mut ProcessingRequest,
    settings: &Settings,
    attributes: &Attributes,
    info: &StreamInfo,
    request: Option<&RequestHead>,
    response: Option<&ResponseHead>,
) {
    let forwarded = &settings.metadata.forwarded;
    {
        let connection = info.connection.metadata.borrow();
        let found = forwarded.iter().filter_map(|name| {
            let of = info.metadata.get(name).or_else(|| connection.get(name))?;
            Some((name.clone(), of.clone()))
        });
        message.metadata_context = Some(Metadata {
            filter_metadata: found.collect(),
            ..Default::default()
        });
    }
    if attributes.is_empty() {
        return;
    }
    let cx = MatchCx {
        request,
        response,
        ..MatchCx::stream(info)
    };
    let values = attributes
        .iter()
        .filter_map(|(name, expression)| Some((name.clone(), expression.json(&cx)?)));
    let values = Struct {
        fields: values.collect(),
    };
    message.attributes.insert(NAMESPACE.to_owned(), values);
}
