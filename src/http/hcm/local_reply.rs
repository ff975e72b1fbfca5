//! `local_reply_config`: rewriting what the proxy itself answers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::{LocalReplyConfig, ResponseMapper};

use crate::{
    access_log::LogFilter,
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{
        LocalReply, RequestHead, ResponseHead, StreamInfo,
        local_reply::{grpc_of_http, percent_encode},
    },
    route::HeaderMutations,
};

/// `local_reply_config`, built.
#[derive(Default)]
pub struct LocalReplies {
    mappers: Vec<Mapper>,
    body_format: Option<Format>,
}

struct Mapper {
    filter: LogFilter,
    status: Option<StatusCode>,
    body: Option<Bytes>,
    format: Option<Format>,
    headers: HeaderMutations,
}

impl LocalReplies {
    /// Builds `local_reply_config`.
    pub fn build(proto: Option<LocalReplyConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(proto) = proto else { return Ok(Self::default()) };
        coverage!(cx, proto => LocalReplyConfig { supported { mappers, body_format } });
        Ok(Self {
            mappers: cx.each("mappers", mappers, |m, cx| {
                coverage!(cx, m => ResponseMapper { supported { filter, status_code, body, body_format_override, headers_to_add } });
                Ok(Mapper {
                    filter: cx.required("filter", filter, LogFilter::build)?,
                    status: match status_code {
                        Some(v) => Some(u16::try_from(v.value).ok().and_then(|c| StatusCode::from_u16(c).ok()).ok_or_else(|| cx.error_at("status_code", "not a status"))?),
                        None => None,
                    },
                    body: cx.opt("body", body, |b, cx| crate::config::read_data_source(b, cx))?.map(Bytes::from),
                    format: cx.opt("body_format_override", body_format_override, Format::build)?,
                    headers: HeaderMutations::build(("headers_to_add", ""), headers_to_add, Vec::new(), cx)?,
                })
            })?,
            body_format: cx.opt("body_format", body_format, Format::build)?,
        })
    }

    /// Turns a local reply into a response head and its body, with mappers and formats applied.
    pub fn apply(&self, reply: LocalReply, request: &RequestHead, info: &mut StreamInfo) -> (ResponseHead, Bytes) {
        let mut head = ResponseHead::new(reply.status);
        head.headers = reply.headers;
        info.response_code = Some(reply.status);
        info.local_reply_body = Some(reply.body.clone());
        let mut body = reply.body;
        let mut format = self.body_format.as_ref();
        if reply.verbatim {
            return (head, body);
        }
        if let Some(mapper) = self
            .mappers
            .iter()
            .find(|m| m.filter.passes(Some(request), Some(&head), info))
        {
            if let Some(b) = &mapper.body {
                body = b.clone();
                info.local_reply_body = Some(body.clone());
            }
            let values = mapper.headers.evaluate(
                &head.headers,
                &FormatCx {
                    request: Some(request),
                    response: Some(&head),
                    info,
                },
            );
            values.apply(&mut head.headers);
            if let Some(status) = mapper.status {
                head.status = status;
                info.response_code = Some(status);
            }
            format = mapper.format.as_ref().or(format);
        }
        let mut content_type = HeaderValue::from_static("text/plain");
        if let Some(format) = format {
            let mut out = Vec::new();
            format.write(
                &mut out,
                &FormatCx {
                    request: Some(request),
                    response: Some(&head),
                    info,
                },
            );
            body = out.into();
            content_type = HeaderValue::from_str(format.content_type()).unwrap_or(content_type);
        }
        if !body.is_empty() {
            head.headers.entry(header::CONTENT_TYPE).or_insert(content_type);
            head.headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        (head, body)
    }
}

/// A gRPC client is told by `grpc-status` in a 200, never by an HTTP status.
pub fn as_grpc(status: StatusCode, grpc_status: Option<u32>, body: &Bytes) -> ResponseHead {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(
        STATUS,
        HeaderValue::from(grpc_status.unwrap_or_else(|| grpc_of_http(status))),
    );
    if !body.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encode(body))
    {
        head.headers.insert(MESSAGE, message);
    }
    head
}
