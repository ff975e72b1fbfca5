//! One stream that may be decompressed.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::config::{Config, DecompressorStats, Direction};
use crate::{
    extensions::{
        compression::{
            Decompressor, Encoding,
            body::{Transform, transformed},
        },
        filters::http::compressor::no_transform,
    },
    http::{
        Body, BodyError, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::HeaderLookup,
    stats::Stats,
};

/// The filter's configuration.
pub(super) struct DecompressorFilter(pub Arc<Config>);

impl HttpFilterConfig for DecompressorFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            request: false,
            response: false,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// The request's body is decompressed.
    request: bool,
    /// The response's is.
    response: bool,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, _: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        if self.config.response.enabled.enabled() && self.config.advertise {
            let accept = HeaderLookup::Header(header::ACCEPT_ENCODING).get(head);
            let accept = String::from_utf8_lossy(&accept.unwrap_or_default()).into_owned();
            let accept = with_encoding(&accept, self.config.library.encoding);
            if let Ok(accept) = HeaderValue::try_from(accept) {
                head.headers.insert(header::ACCEPT_ENCODING, accept);
            }
        }
        self.request = !end && begin(&self.config.request, self.config.library.encoding, &mut head.headers);
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.request {
            true => self.decompressed(body, self.config.request.stats.clone()),
            false => body,
        }
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        self.response = !end && begin(&self.config.response, self.config.library.encoding, &mut head.headers);
        Step::Continue
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.response {
            true => self.decompressed(body, self.config.response.stats.clone()),
            false => body,
        }
    }
}

impl Filter {
    fn decompressed(&self, body: Body, stats: Stats<DecompressorStats>) -> Body {
        transformed(
            body,
            Decompress {
                decompressor: self.config.library.make().ok(),
                config: self.config.clone(),
                stats,
                before: 0,
                after: 0,
            },
        )
    }
}

/// Whether the body is one to decompress; its head then tells of the plain one.
fn begin(direction: &Direction, encoding: Encoding, headers: &mut HeaderMap) -> bool {
    let stats = direction.stats.local();
    let rest = headers
        .get(header::CONTENT_ENCODING)
        .and_then(|v| without_first(v.as_bytes(), encoding));
    let transforms = direction.ignore_no_transform || !no_transform(headers);
    let Some(rest) = rest.filter(|_| transforms && direction.enabled.enabled()) else {
        stats.not_decompressed.inc();
        return false;
    };
    if rest.is_empty() {
        headers.remove(header::CONTENT_ENCODING);
    } else if let Ok(rest) = HeaderValue::from_bytes(&rest) {
        headers.insert(header::CONTENT_ENCODING, rest);
    }
    headers.remove(header::CONTENT_LENGTH);
    stats.decompressed.inc();
    true
}

/// The encodings after the first one, if that one is this; empty when there are none.
fn without_first(value: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let mut parts = value.splitn(2, |b| *b == b',');
    let first = parts.next()?.trim_ascii();
    first
        .eq_ignore_ascii_case(encoding.token().as_bytes())
        .then(|| parts.next().unwrap_or_default().trim_ascii().to_vec())
}

/// `accept-encoding` with this encoding at its end, without a weight.
fn with_encoding(accept: &str, encoding: Encoding) -> String {
    let name = |part: &str| part.split(';').next().unwrap_or_default().trim().to_owned();
    let others = accept.split(',').map(str::trim);
    let others = others.filter(|part| !part.is_empty() && name(part) != encoding.token());
    others.chain([encoding.token()]).collect::<Vec<_>>().join(",")
}

struct Decompress {
    /// None after an error: what follows cannot be read.
    decompressor: Option<Box<dyn Decompressor>>,
    config: Arc<Config>,
    stats: Stats<DecompressorStats>,
    before: u64,
    after: u64,
}

impl Transform for Decompress {
    /// What cannot be decompressed is left out, as in Envoy.
    fn data(&mut self, data: &Bytes) -> Result<Vec<u8>, BodyError> {
        let out = match self.decompressor.as_mut().map(|d| d.decompress(data)) {
            Some(Ok(out)) => out,
            Some(Err(_)) => {
                self.decompressor = None;
                let name = format!("{}_data_error", self.config.library.encoding.library());
                self.config.scope.counter(&name).inc();
                Vec::new()
            }
            None => Vec::new(),
        };
        let stats = self.stats.local();
        self.before += data.len() as u64;
        self.after += out.len() as u64;
        stats.total_compressed_bytes.add(data.len() as u64);
        stats.total_uncompressed_bytes.add(out.len() as u64);
        Ok(out)
    }

    fn trailers(&mut self, trailers: Option<HeaderMap>) -> Option<HeaderMap> {
        let mut trailers = trailers.unwrap_or_default();
        if let Some((before, after)) = &self.config.trailers {
            trailers.insert(before, HeaderValue::from(self.before));
            trailers.insert(after, HeaderValue::from(self.after));
        }
        Some(trailers)
    }
}
