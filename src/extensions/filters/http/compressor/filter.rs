//! One stream that may be compressed.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    accept::{Candidate, Decision},
    body::compressed,
    config::{AcceptStats, Config, Direction, PerRoute},
    registry,
};
use crate::{
    extensions::compression::{Compressor, Library},
    http::{
        Body, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::HeaderLookup,
};

const STATUS: HeaderName = HeaderName::from_static("x-envoy-compression-status");

/// The filter's configuration.
pub(super) struct CompressorFilter(pub Arc<Config>);

impl HttpFilterConfig for CompressorFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            library: self.0.library.clone(),
            accept: None,
            compress_request: false,
            compress_response: false,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// Of the responses: the route's, or the filter's.
    library: Arc<Library<dyn Compressor>>,
    /// `accept-encoding`, as the client sent it.
    accept: Option<String>,
    compress_request: bool,
    compress_response: bool,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        let accept = HeaderLookup::Header(header::ACCEPT_ENCODING).get(head);
        self.accept = accept.map(|v| String::from_utf8_lossy(&v).into_owned());
        let of_route = cx.route_config::<PerRoute>();
        if let Some(library) = of_route.and_then(|r| r.library.clone()) {
            self.library = library;
        }
        let remove = of_route
            .and_then(|r| r.remove_accept_encoding)
            .unwrap_or(self.config.response.remove_accept_encoding);
        if remove && self.response_enabled(cx) {
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        let candidate = Candidate {
            token: self.library.encoding.token(),
            choose_first: self.config.choose_first,
        };
        registry::register(&mut cx.info.filter_state, self.config.clone(), candidate);
        let compress = self.config.request.as_ref().is_some_and(|request| {
            !end && request.enabled.enabled()
                && !head.headers.contains_key(header::UPGRADE)
                && long_enough(request, &head.headers)
                && request.types.allow(content_type(&head.headers))
                && !head.headers.contains_key(header::CONTENT_ENCODING)
        });
        let stats = self.config.request_stats.local();
        if compress {
            self.compress_request = true;
            encode(&mut head.headers, self.config.library.encoding.token());
            stats.compressed.inc();
        } else {
            stats.not_compressed.inc();
        }
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.compress_request {
            true => compressed(body, &self.config.library, self.config.request_stats.clone()),
            false => body,
        }
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        let config = self.config.clone();
        let response = &config.response;
        let enabled = self.response_enabled(cx);
        let looked = enabled && long_enough(&response.direction, &head.headers);
        let refused = if looked { self.refused(head) } else { None };
        let compressible = looked && refused.is_none();
        // The wish of the client is counted even for what is not compressed, unless the reason is shown.
        let chosen = !end && looked && (compressible || !response.status_header) && self.is_chosen(cx, head);
        let stats = response.direction.stats.local();
        let token = self.library.encoding.token();
        if chosen && compressible {
            let length = head.headers.get(header::CONTENT_LENGTH);
            let length = length.and_then(|v| v.to_str().ok()).unwrap_or_default();
            self.show(head, &format!("{token};Compressed;OriginalLength={length}"));
            self.sanitize_etag(&mut head.headers);
            encode(&mut head.headers, token);
            self.compress_response = true;
            stats.compressed.inc();
        } else {
            stats.not_compressed.inc();
            let reason = match refused {
                Some(Refused::Quietly) => None,
                Some(Refused::Because(reason)) => Some(reason),
                None if enabled && !looked => Some("ContentLengthTooSmall"),
                None => None,
            };
            if let Some(reason) = reason {
                self.show(head, &format!("{token};{reason}"));
            }
        }
        // Another client may get it compressed: caches have to know.
        if compressible {
            vary(&mut head.headers);
        }
        Step::Continue
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.compress_response {
            true => compressed(body, &self.library, self.config.response.direction.stats.clone()),
            false => body,
        }
    }
}

/// Why a response is not compressed, whatever the client wants.
enum Refused {
    Quietly,
    /// As `x-envoy-compression-status` tells it.
    Because(&'static str),
}

impl Filter {
    fn response_enabled(&self, cx: &FilterCx) -> bool {
        cx.route_config::<PerRoute>()
            .and_then(|r| r.enabled)
            .unwrap_or_else(|| self.config.response.direction.enabled.enabled())
    }

    fn refused(&self, head: &ResponseHead) -> Option<Refused> {
        let response = &self.config.response;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Some(Refused::Quietly);
        }
        if !response.allows_status(head.status) {
            return Some(Refused::Because("StatusCodeNotAllowed"));
        }
        if !response.direction.types.allow(content_type(&head.headers)) {
            return Some(Refused::Because("ContentTypeNotAllowed"));
        }
        if no_transform(&head.headers) {
            return Some(Refused::Quietly);
        }
        if response.disable_on_etag && !response.weaken_etag && head.headers.contains_key(header::ETAG) {
            response.accept.local().not_compressed_etag.inc();
            return Some(Refused::Because("EtagNotAllowed"));
        }
        head.headers
            .contains_key(header::CONTENT_ENCODING)
            .then_some(Refused::Quietly)
    }

    /// Whether the client wants this compressor of the chain; counts what it wants.
    fn is_chosen(&self, cx: &FilterCx, head: &ResponseHead) -> bool {
        let stats: &AcceptStats = self.config.response.accept.local();
        let Some(accept) = &self.accept else {
            stats.no_accept_header.inc();
            return false;
        };
        let decision = registry::decide(&cx.info.filter_state, accept, content_type(&head.headers));
        let own = decision.token() == Some(self.library.encoding.token());
        match decision {
            Decision::Encoding(_) if own => stats.header_compressor_used.inc(),
            Decision::Encoding(_) => stats.header_compressor_overshadowed.inc(),
            Decision::Wildcard(_) => stats.header_wildcard.inc(),
            Decision::Identity => stats.header_identity.inc(),
            Decision::NotValid => stats.header_not_valid.inc(),
        }
        own
    }

    fn show(&self, head: &mut ResponseHead, status: &str) {
        if self.config.response.status_header
            && let Ok(status) = HeaderValue::from_str(status)
        {
            head.headers.append(STATUS, status);
        }
    }

    /// A strong etag stands for other bytes than those that are sent.
    fn sanitize_etag(&self, headers: &mut HeaderMap) {
        let Some(etag) = headers.get(header::ETAG) else { return };
        let etag = etag.as_bytes();
        if etag.len() <= 2 || matches!(etag, [b'w' | b'W', b'/', ..]) {
            return;
        }
        let weak = HeaderValue::from_bytes(&[b"W/", etag].concat());
        match weak {
            Ok(weak) if self.config.response.weaken_etag => {
                headers.insert(header::ETAG, weak);
            }
            _ => {
                headers.remove(header::ETAG);
            }
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)
}

/// A body of unknown length is long enough.
fn long_enough(direction: &Direction, headers: &HeaderMap) -> bool {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        return true;
    };
    let length: Option<u64> = length.to_str().ok().and_then(|v| v.parse().ok());
    let enough = length.is_some_and(|length| length >= direction.min_content_length);
    if !enough {
        direction.stats.local().content_length_too_small.inc();
    }
    enough
}

/// `cache-control: no-transform`
pub(in crate::extensions::filters::http) fn no_transform(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CACHE_CONTROL).iter();
    values.any(|v| {
        let mut directives = v.as_bytes().split(|b| *b == b',');
        directives.any(|d| d.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
}

fn encode(headers: &mut HeaderMap, token: &'static str) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
}

/// Adds `Accept-Encoding` to `vary`.
fn vary(headers: &mut HeaderMap) {
    const ACCEPT_ENCODING: &[u8] = b"Accept-Encoding";
    let Some(old) = headers.get(header::VARY) else {
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        return;
    };
    let old = old.as_bytes();
    if old
        .split(|b| *b == b',')
        .any(|name| name.trim_ascii() == ACCEPT_ENCODING)
    {
        return;
    }
    if let Ok(new) = HeaderValue::from_bytes(&[old, b", ", ACCEPT_ENCODING].concat()) {
        headers.insert(header::VARY, new);
    }
}
