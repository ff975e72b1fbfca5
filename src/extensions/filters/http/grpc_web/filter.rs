//! One stream that may come from a browser.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{
    text::{BadText, GrpcBody},
    trailers::WebBody,
};
use crate::{
    extensions::filters::http::grpc::{CallStats, cluster, service_and_method},
    http::{
        Body, LocalReply, RequestHead, ResponseFlags, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        grpc::{percent_encode, status_of_http},
        head::is_grpc_content_type,
        observe::{Observer, observe},
    },
};

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes of a response that is not gRPC that go into `grpc-message`.
const MOST_MESSAGE: usize = 16 * 1024;

/// Bytes of such a response that are read at all.
const MOST_PLAIN: u64 = 1024 * 1024;

/// The filter's configuration: there is none.
pub(super) struct GrpcWebFilter;

impl HttpFilterConfig for GrpcWebFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            web: None,
            plain_response: false,
        }))
    }
}

struct Filter {
    /// Set for a gRPC-Web request.
    web: Option<Web>,
    /// The response is not gRPC: its body becomes a message of the head.
    plain_response: bool,
}

struct Web {
    text_request: bool,
    text_response: bool,
    bad_text: Rc<Cell<Option<BadText>>>,
    stats: Option<CallStats>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let text_request = match head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(b"application/grpc-web" | b"application/grpc-web+proto") => false,
            Some(b"application/grpc-web-text" | b"application/grpc-web-text+proto") => true,
            _ => return Step::Continue,
        };
        let accept = head.headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
        let text_response = matches!(
            accept,
            Some(b"application/grpc-web-text" | b"application/grpc-web-text+proto")
        );
        let stats = cluster(cx)
            .zip(service_and_method(head.path_only()))
            .map(|(cluster, method)| CallStats::new(cluster, "grpc-web", Some(method)));
        self.web = Some(Web {
            text_request,
            text_response,
            bad_text: Rc::default(),
            stats,
        });
        let headers = &mut head.headers;
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers
            .entry(GRPC_ACCEPT_ENCODING)
            .or_insert(HeaderValue::from_static("identity"));
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match &self.web {
            Some(web) => Body::boxed(GrpcBody::new(body, web.text_request, web.bad_text.clone())),
            None => body,
        }
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        let Some(web) = &self.web else { return Step::Continue };
        if let Some(bad) = web.bad_text.get() {
            // The request broke off here, and not at the upstream.
            cx.info.flags = ResponseFlags::default();
            let mut reply = LocalReply::new(
                StatusCode::BAD_REQUEST,
                "",
                match bad {
                    BadText::Size => "grpc_base_64_decode_failed_bad_size",
                    BadText::Data => "grpc_base_64_decode_failed",
                },
            );
            let text = HeaderValue::from_static("Bad gRPC-web request, invalid base64 data.");
            reply.headers.insert(GRPC_MESSAGE, text);
            reply
                .headers
                .insert(GRPC_STATUS, HeaderValue::from(status_of_http(StatusCode::BAD_REQUEST)));
            reply.headers.insert(header::CONTENT_TYPE, web.content_type());
            // As it is: without a body it would lose its type.
            reply.verbatim = true;
            return Step::Reply(Box::new(reply));
        }
        if let Some(stats) = &web.stats {
            stats.status(&head.headers);
        }
        self.plain_response = !end && !is_grpc(head);
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.insert(header::CONTENT_TYPE, web.content_type());
        Step::Continue
    }

    fn buffer_response(&self) -> Option<u64> {
        self.plain_response.then_some(MOST_PLAIN)
    }

    fn response_buffered<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        head: &'a mut ResponseHead,
        body: &'a mut Bytes,
    ) -> Step<'a> {
        let message = percent_encode(&body[..body.len().min(MOST_MESSAGE)]);
        if let Ok(message) = HeaderValue::try_from(message) {
            head.headers.insert(GRPC_MESSAGE, message);
        }
        head.headers
            .insert(GRPC_STATUS, HeaderValue::from(status_of_http(head.status)));
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        *body = Bytes::new();
        Step::Continue
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        let Some(web) = &self.web else { return body };
        let body = match &web.stats {
            Some(stats) => observe(body, Status(stats.clone())),
            None => body,
        };
        Body::boxed(WebBody::new(body, web.text_response))
    }
}

impl Web {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(if self.text_response {
            "application/grpc-web-text+proto"
        } else {
            "application/grpc-web+proto"
        })
    }
}

/// Counts the status of the trailers.
struct Status(CallStats);

impl Observer for Status {
    fn trailers(&mut self, trailers: &mut http::HeaderMap) {
        self.0.status(trailers);
    }
}

/// Whether a browser can read the response as it is: a gRPC one, or one of gRPC-Web already.
fn is_grpc(head: &ResponseHead) -> bool {
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.unwrap_or_default();
    let media = content_type
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    head.status == StatusCode::OK
        && (is_grpc_content_type(content_type)
            || media.eq_ignore_ascii_case(b"application/grpc-web")
            || media.eq_ignore_ascii_case(b"application/grpc-web+proto"))
}
