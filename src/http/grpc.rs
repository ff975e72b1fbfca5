//! gRPC as far as HTTP headers tell of it: statuses and timeouts.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// The gRPC status of an HTTP status, by the table of the gRPC specification: what a gRPC client is told when the
/// proxy or a plain HTTP upstream answers.
pub fn status_of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that says the same as this `grpc-status`; 500 for what is none.
pub fn http_of_status(status: &HeaderValue) -> StatusCode {
    match status.as_bytes() {
        b"0" => StatusCode::OK,
        // nginx's "client closed request", as Envoy counts it.
        b"1" => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        b"3" | b"9" | b"11" => StatusCode::BAD_REQUEST,
        b"4" => StatusCode::GATEWAY_TIMEOUT,
        b"5" => StatusCode::NOT_FOUND,
        b"6" | b"10" => StatusCode::CONFLICT,
        b"7" => StatusCode::FORBIDDEN,
        b"8" => StatusCode::TOO_MANY_REQUESTS,
        b"12" => StatusCode::NOT_IMPLEMENTED,
        b"14" => StatusCode::SERVICE_UNAVAILABLE,
        b"16" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `DEADLINE_EXCEEDED`
pub const DEADLINE_EXCEEDED: u32 = 4;

/// `grpc-timeout`
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time of a `grpc-timeout` header, in whole milliseconds as Envoy counts them, rounded up; none when it is
/// malformed: at most eight digits and a unit.
pub fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(match unit {
        "H" => n * 3_600_000,
        "M" => n * 60_000,
        "S" => n * 1_000,
        "m" => n,
        "u" => n.div_ceil(1_000),
        "n" => n.div_ceil(1_000_000),
        _ => return None,
    }))
}

/// A `grpc-timeout` of this time: milliseconds as long as eight digits suffice, coarser units after that.
pub fn timeout_value(timeout: Duration) -> HeaderValue {
    const MAX: u64 = 99_999_999;
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let text = [(1, "m"), (1_000, "S"), (60_000, "M")]
        .into_iter()
        .find(|(unit, _)| millis / unit <= MAX)
        .map_or_else(
            || format!("{}H", (millis / 3_600_000).min(MAX)),
            |(unit, name)| format!("{}{name}", millis / unit),
        );
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0m"))
}

/// A text as `grpc-message` has it: printable ASCII but `%`, all else escaped.
pub fn percent_encode(body: &[u8]) -> String {
    let mut out = String::with_capacity(body.len());
    for b in body {
        match b {
            b' '..=b'~' if *b != b'%' => out.push(*b as char),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        let parse = |text: &'static str| parse_timeout(&HeaderValue::from_static(text)).map(|d| d.as_millis());
        assert_eq!(parse("5S"), Some(5_000));
        assert_eq!(parse("1500u"), Some(2));
        assert_eq!(parse("99999999H"), Some(99_999_999 * 3_600_000));
        for malformed in ["", "S", "5", "5s", "-5S", "123456789m", " 5S"] {
            assert_eq!(parse(malformed), None, "{malformed}");
        }
        let write = |millis| timeout_value(Duration::from_millis(millis));
        assert_eq!(write(5_000), "5000m");
        assert_eq!(write(100_000_000), "100000S");
        assert_eq!(write(u64::MAX), "99999999H");
    }
}
