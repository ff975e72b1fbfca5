//! Headers that Envoy keeps once: when one of them comes several times, the values are joined by commas. All others
//! stay apart.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Joins what came several times, in a request.
pub fn join_request(headers: &mut HeaderMap) {
    join_all(headers, is_inline_in_requests);
}

/// Joins what came several times, in a response.
pub fn join_response(headers: &mut HeaderMap) {
    join_all(headers, is_inline_in_responses);
}

fn join_all(headers: &mut HeaderMap, is_inline: fn(&str) -> bool) {
    // Most messages have no header twice.
    if headers.len() == headers.keys_len() {
        return;
    }
    let several = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_inline(name.as_str()))
        .filter(several)
        .cloned()
        .collect();
    for name in names {
        join(headers, &name, b",");
    }
}

/// Whether one more header of this name will be joined to what is there.
pub(crate) fn joins_request(headers: &HeaderMap, name: &HeaderName) -> bool {
    is_inline_in_requests(name.as_str()) && headers.contains_key(name)
}

/// How many headers of a request there are once they are joined.
pub fn count_in_request(headers: &HeaderMap) -> usize {
    count(headers, is_inline_in_requests)
}

/// How many headers of a response there are once they are joined.
pub fn count_in_response(headers: &HeaderMap) -> usize {
    count(headers, is_inline_in_responses)
}

fn count(headers: &HeaderMap, is_inline: fn(&str) -> bool) -> usize {
    let joined = headers
        .keys()
        .filter(|name| is_inline(name.as_str()))
        .map(|name| headers.get_all(name).iter().count() - 1);
    headers.len() - joined.sum::<usize>()
}

/// Several headers of one name become one.
pub(crate) fn join(headers: &mut HeaderMap, name: &HeaderName, delimiter: &[u8]) {
    let values = headers.get_all(name);
    if values.iter().nth(1).is_none() {
        return;
    }
    // Empty ones leave no trace.
    let values: Vec<&[u8]> = values
        .iter()
        .map(HeaderValue::as_bytes)
        .filter(|v| !v.is_empty())
        .collect();
    let joined = values.join(delimiter);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

fn is_inline_in_both(name: &str) -> bool {
    matches!(
        name,
        "cache-control"
            | "connection"
            | "content-encoding"
            | "content-type"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-status"
            | "transfer-encoding"
            | "upgrade"
            | "via"
            | "x-envoy-attempt-count"
            | "x-envoy-decorator-operation"
            | "x-request-id"
    )
}

fn is_inline_in_requests(name: &str) -> bool {
    is_inline_in_both(name)
        || matches!(
            name,
            "accept"
                | "accept-encoding"
                | "access-control-request-headers"
                | "access-control-request-method"
                | "access-control-request-private-network"
                | "authorization"
                | "expect"
                | "grpc-accept-encoding"
                | "grpc-timeout"
                | "if-match"
                | "if-modified-since"
                | "if-none-match"
                | "if-range"
                | "if-unmodified-since"
                | "origin"
                | "pragma"
                | "referer"
                | "te"
                | "user-agent"
                | "x-client-trace-id"
                | "x-envoy-downstream-service-cluster"
                | "x-envoy-downstream-service-node"
                | "x-envoy-expected-rq-timeout-ms"
                | "x-envoy-external-address"
                | "x-envoy-force-trace"
                | "x-envoy-hedge-on-per-try-timeout"
                | "x-envoy-ip-tags"
                | "x-envoy-is-timeout-retry"
                | "x-envoy-max-retries"
                | "x-envoy-original-host"
                | "x-envoy-original-path"
                | "x-envoy-original-url"
                | "x-envoy-retriable-header-names"
                | "x-envoy-retriable-status-codes"
                | "x-envoy-retry-grpc-on"
                | "x-envoy-retry-on"
                | "x-envoy-upstream-alt-stat-name"
                | "x-envoy-upstream-rq-per-try-timeout-ms"
                | "x-envoy-upstream-rq-timeout-alt-response"
                | "x-envoy-upstream-rq-timeout-ms"
                | "x-forwarded-client-cert"
                | "x-forwarded-for"
                | "x-forwarded-host"
                | "x-forwarded-port"
                | "x-forwarded-proto"
        )
}

fn is_inline_in_responses(name: &str) -> bool {
    is_inline_in_both(name)
        || matches!(
            name,
            "access-control-allow-credentials"
                | "access-control-allow-headers"
                | "access-control-allow-methods"
                | "access-control-allow-origin"
                | "access-control-allow-private-network"
                | "access-control-expose-headers"
                | "access-control-max-age"
                | "age"
                | "date"
                | "etag"
                | "expires"
                | "grpc-message"
                | "grpc-status"
                | "last-modified"
                | "location"
                | "server"
                | "vary"
                | "x-envoy-degraded"
                | "x-envoy-immediate-health-check-fail"
                | "x-envoy-ratelimited"
                | "x-envoy-upstream-canary"
                | "x-envoy-upstream-healthchecked-cluster"
                | "x-envoy-upstream-service-time"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_joined() {
        let mut headers = HeaderMap::new();
        for name in ["accept", "x-custom", "cookie"] {
            for value in ["a", "b", "c"] {
                headers.append(name, HeaderValue::from_static(value));
            }
        }
        join_request(&mut headers);
        let all = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("accept"), ["a,b,c"]);
        assert_eq!(all("x-custom"), ["a", "b", "c"]);
        assert_eq!(all("cookie"), ["a", "b", "c"]);
    }
}
