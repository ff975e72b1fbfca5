//! `HealthCheck.Payload`: bytes to send, and bytes to look for in an answer.

use xds_protos::envoy::config::core::v3::health_check::{Payload as Proto, payload::Payload};

use crate::config::{BuildCx, ConfigResult};

/// The bytes: text is hexadecimal.
pub fn bytes(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<u8>> {
    coverage!(cx, proto => Proto { supported { payload } });
    match payload {
        Some(Payload::Text(text)) => hex(&text).ok_or_else(|| cx.error(format!("invalid hex string '{text}'"))),
        Some(Payload::Binary(bytes)) => Ok(bytes),
        None => Err(cx.error_at("payload", "value is required")),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high << 4 | low).ok(),
            _ => None,
        })
        .collect()
}

/// Whether all segments stand in `data`, one after the other, with anything between them.
pub fn contains_in_order(segments: &[Vec<u8>], data: &[u8]) -> bool {
    let mut rest = data;
    segments.iter().all(|segment| {
        let found = match segment.is_empty() {
            true => Some(0),
            false => rest.windows(segment.len()).position(|w| w == segment),
        };
        if let Some(at) = found {
            rest = &rest[at + segment.len()..];
        }
        found.is_some()
    })
}
