//! The W3C trace context: `traceparent` and `tracestate`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::tracing::Context;

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, 16 digits, 2 digits.
const LENGTH: usize = 55;

/// What came with a request.
pub enum Parent {
    /// Nothing.
    None,
    /// Something that cannot be read.
    Malformed,
    /// The span of the hop before; its id is `span_id`.
    Known(Context),
}

/// Reads the headers.
pub fn extract(headers: &HeaderMap) -> Parent {
    let Some(value) = headers.get(TRACEPARENT) else {
        return Parent::None;
    };
    let Some(mut context) = value.to_str().ok().and_then(parse) else {
        return Parent::Malformed;
    };
    let states: Vec<&str> = headers
        .get_all(TRACESTATE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    context.state = states.join(",");
    Parent::Known(context)
}

fn parse(text: &str) -> Option<Context> {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace_id, span_id, flags] = parts.as_slice() else {
        return None;
    };
    let sized = text.len() == LENGTH && version.len() == 2 && trace_id.len() == 32 && span_id.len() == 16;
    let digits = parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
    if !sized || !digits {
        return None;
    }
    let context = Context {
        trace_id: u128::from_str_radix(trace_id, 16).ok()?,
        wide: true,
        span_id: u64::from_str_radix(span_id, 16).ok()?,
        sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        ..Context::default()
    };
    (context.trace_id != 0 && context.span_id != 0).then_some(context)
}

/// Writes `traceparent`.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    let Context { trace_id, span_id, .. } = context;
    let text = format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(context.sampled));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(TRACEPARENT, value);
    }
}
