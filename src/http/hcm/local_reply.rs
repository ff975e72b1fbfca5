//! `local_reply_config`: rewriting what the proxy itself answers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::{LocalReplyConfig, ResponseMapper};

use crate::{
    access_log::LogFilter,
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{LocalReply, RequestHead, ResponseHead, StreamInfo, grpc},
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

    /// Turns a local reply into a response head and its body, with mappers and formats applied. A gRPC client is told
    /// by `grpc-status` in a 200, never by an HTTP status.
    pub fn apply(
        &self,
        reply: LocalReply,
        grpc: bool,
        request: Option<&RequestHead>,
        info: &mut StreamInfo,
    ) -> (ResponseHead, Bytes) {
        let mut head = ResponseHead::new(reply.status);
        head.headers = reply.headers;
        info.response_code = Some(reply.status);
        info.local_reply_body = Some(reply.body.clone());
        if reply.verbatim {
            return (head, reply.body);
        }
        let given = reply.body.clone();
        let given_type = head.headers.get(header::CONTENT_TYPE).cloned();
        let (body, content_type) = self.rewrite(reply.body, &mut head, request, info);
        let has_own_type = head.headers.get(header::CONTENT_TYPE) != given_type.as_ref();
        if grpc {
            let message = body.strip_suffix(b"\n").filter(|_| content_type.is_json);
            as_grpc(&mut head, reply.grpc_status, message.unwrap_or(&body));
            return (head, Bytes::new());
        }
        if body.is_empty() {
            head.headers.remove(header::CONTENT_TYPE);
            head.headers.remove(header::CONTENT_LENGTH);
        } else {
            // A rewritten body is of another type, unless the mapper said which.
            if !has_own_type && (given_type.is_none() || body != given) {
                head.headers.insert(header::CONTENT_TYPE, content_type.value);
            }
            head.headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        (head, body)
    }

    /// The body after the first mapper that fits and its format, and the type of that.
    fn rewrite(
        &self,
        mut body: Bytes,
        head: &mut ResponseHead,
        request: Option<&RequestHead>,
        info: &mut StreamInfo,
    ) -> (Bytes, ContentType) {
        let mut format = self.body_format.as_ref();
        if let Some(mapper) = self.mappers.iter().find(|m| m.filter.passes(request, Some(head), info)) {
            if let Some(b) = &mapper.body {
                body = b.clone();
                info.local_reply_body = Some(body.clone());
            }
            let values = mapper.headers.evaluate(
                &head.headers,
                &FormatCx {
                    request,
                    response: Some(head),
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
        let mut content_type = ContentType {
            value: HeaderValue::from_static("text/plain"),
            is_json: false,
        };
        if let Some(format) = format {
            let mut out = Vec::new();
            format.write(
                &mut out,
                &FormatCx {
                    request,
                    response: Some(head),
                    info,
                },
            );
            body = out.into();
            content_type.is_json = format.is_json();
            if let Ok(value) = HeaderValue::from_str(format.content_type()) {
                content_type.value = value;
            }
        }
        (body, content_type)
    }
}

struct ContentType {
    value: HeaderValue,
    is_json: bool,
}

/// Makes a gRPC answer of the head: its status and message are headers.
fn as_grpc(head: &mut ResponseHead, status: Option<u32>, message: &[u8]) {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
    let status = status.unwrap_or_else(|| grpc::status_of_http(head.status));
    head.status = StatusCode::OK;
    head.headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.entry(STATUS).or_insert(HeaderValue::from(status));
    if !message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&grpc::percent_encode(message))
    {
        head.headers.insert(MESSAGE, message);
    }
    head.headers.remove(header::CONTENT_LENGTH);
}
