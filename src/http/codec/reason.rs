//! Reason phrases of HTTP/1 responses where Envoy's differ from the `http` crate's.

use http::StatusCode;
use hyper::ext::ReasonPhrase;

/// Envoy's phrase, when hyper would write another one.
pub(super) fn differing(status: StatusCode) -> Option<ReasonPhrase> {
    let phrase = match status.as_u16() {
        203 => "Non-Authoritative Information",
        // Envoy has no name for these.
        103 | 418 | 451 => "Unknown",
        _ if status.canonical_reason().is_none() => "Unknown",
        _ => return None,
    };
    Some(ReasonPhrase::from_static(phrase.as_bytes()))
}
