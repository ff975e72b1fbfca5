//! B3 propagation: `x-b3-*`, or all of it in `b3`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::tracing::Context;

const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const SINGLE: HeaderName = HeaderName::from_static("b3");

/// `{32 digits}-{16}-{1}-{16}`
const LONGEST: usize = 32 + 1 + 16 + 1 + 1 + 1 + 16;

/// What came with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// No span; maybe a decision.
    None {
        /// The hop before has decided.
        sampled: Option<bool>,
        /// By the one header.
        single_header: bool,
    },
    /// A span.
    Known {
        /// Its place; `span_id` is its own.
        context: Context,
        /// Whether the hop before has decided.
        sampled: bool,
    },
    /// Something that cannot be read.
    Malformed,
}

/// Reads the headers; the one header comes first.
pub(super) fn extract(headers: &HeaderMap) -> Incoming {
    if let Some(single) = headers.get(SINGLE) {
        return single.to_str().map_or(Incoming::Malformed, parse_single);
    }
    let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let sampled = text(&SAMPLED).map(|v| v == "1" || v == "true");
    let (Some(trace_id), Some(span_id)) = (text(&TRACE_ID), text(&SPAN_ID)) else {
        return Incoming::None {
            sampled,
            single_header: false,
        };
    };
    let parent = match text(&PARENT).filter(|p| !p.is_empty()) {
        None => Some(None),
        Some(parent) => number(parent).map(|id| Some(id).filter(|id| *id != 0)),
    };
    match (trace(trace_id), number(span_id), parent) {
        (Some((trace_id, wide)), Some(span_id), Some(parent)) => Incoming::Known {
            context: Context {
                trace_id,
                wide,
                span_id,
                parent,
                sampled: sampled.unwrap_or_default(),
                ..Context::default()
            },
            sampled: sampled.is_some(),
        },
        _ => Incoming::Malformed,
    }
}

fn trace(text: &str) -> Option<(u128, bool)> {
    if text.len() != 32 {
        return number(text).map(|id| (id.into(), false));
    }
    let id = text.is_ascii().then(|| u128::from_str_radix(text, 16).ok())??;
    Some((id, id >> 64 != 0))
}

/// As `strtoull` of all of the text does.
fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" | "d" => Some(true),
        _ => None,
    }
}

fn parse_single(text: &str) -> Incoming {
    if text.len() == 1 {
        return match flag(text) {
            None => Incoming::Malformed,
            sampled => Incoming::None {
                sampled,
                single_header: true,
            },
        };
    }
    if !text.is_ascii() || text.len() < 33 || text.len() > LONGEST {
        return Incoming::Malformed;
    }
    read_single(text).unwrap_or(Incoming::Malformed)
}

fn read_single(text: &str) -> Option<Incoming> {
    let digits = if text.as_bytes().get(32) == Some(&b'-') && text.as_bytes().get(16) != Some(&b'-') {
        32
    } else {
        16
    };
    let (id, rest) = text.split_at_checked(digits)?;
    let (trace_id, wide) = trace(id)?;
    let rest = rest.strip_prefix('-')?;
    // As in Envoy, the last field may be too short.
    let (span_id, rest) = rest.split_at(rest.len().min(16));
    let mut context = Context {
        trace_id,
        wide,
        span_id: number(span_id)?,
        single_header: true,
        ..Context::default()
    };
    let mut sampled = None;
    if let Some(rest) = rest.strip_prefix('-') {
        // There is no parent without a decision.
        let (decision, rest) = rest.split_at_checked(1)?;
        sampled = Some(flag(decision)?);
        if !rest.is_empty() {
            let parent = rest.strip_prefix('-').filter(|p| p.len() == 16)?;
            context.parent = Some(number(parent)?);
        }
    } else if !rest.is_empty() {
        return None;
    }
    context.sampled = sampled.unwrap_or_default();
    Some(Incoming::Known {
        context,
        sampled: sampled.is_some(),
    })
}

/// Writes the headers, in the form they came in.
pub(super) fn inject(span: &Context, headers: &mut HeaderMap) {
    let mut set = |name: &HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name.clone(), value);
        }
    };
    let sampled = u8::from(span.sampled);
    if span.single_header {
        let parent = span.parent.map(|p| format!("-{p:016x}")).unwrap_or_default();
        return set(
            &SINGLE,
            format!("{}-{:016x}-{sampled}{parent}", trace_id(span), span.span_id),
        );
    }
    set(&TRACE_ID, trace_id(span));
    set(&SPAN_ID, format!("{:016x}", span.span_id));
    if let Some(parent) = span.parent {
        set(&PARENT, format!("{parent:016x}"));
    }
    set(&SAMPLED, sampled.to_string());
}

/// The trace's id, in as many digits as it has.
pub(super) fn trace_id(span: &Context) -> String {
    match span.wide {
        true => format!("{:032x}", span.trace_id),
        false => format!("{:016x}", span.trace_id),
    }
}
