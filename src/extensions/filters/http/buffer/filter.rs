//! One stream that is held back until it is whole.

use bytes::Bytes;
use http::{HeaderValue, header};

use crate::http::{
    RequestHead,
    filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
};

/// The filter's configuration: `max_request_bytes`.
pub(super) struct BufferFilter(pub u64);

/// A route's: another limit, or none where the filter is disabled.
pub(super) struct PerRoute(pub Option<u64>);

impl HttpFilterConfig for BufferFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter { limit: Some(self.0) }))
    }
}

struct Filter {
    limit: Option<u64>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, end: bool) -> Step<'a> {
        if let Some(PerRoute(limit)) = cx.route_config() {
            self.limit = *limit;
        }
        if end {
            self.limit = None;
        }
        Step::Continue
    }

    fn buffer_request(&self) -> Option<u64> {
        self.limit
    }

    fn request_buffered<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Bytes,
    ) -> Step<'a> {
        head.headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(body.len()));
        Step::Continue
    }
}
