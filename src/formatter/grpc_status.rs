//! `%GRPC_STATUS%` and `%GRPC_STATUS_NUMBER%`.

use http::HeaderMap;

use super::{
    FormatCx,
    command::{Kind, number, put},
};
use crate::http::grpc;

/// How a status is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum GrpcStyle {
    Camel,
    Snake,
    Number,
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcStyle {
    pub(super) fn parse(arguments: &str) -> Result<Self, String> {
        match arguments {
            "" | "CAMEL_STRING" => Ok(Self::Camel),
            "SNAKE_STRING" => Ok(Self::Snake),
            "NUMBER" => Ok(Self::Number),
            other => Err(format!(
                "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
            )),
        }
    }
}

/// Writes the status of a gRPC request; there is none for other requests.
pub(super) fn write(style: GrpcStyle, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
    cx.request.filter(|r| r.is_grpc())?;
    let status = status(cx)?;
    let name = usize::try_from(status).ok().and_then(|i| NAMES.get(i));
    match (style, name) {
        (GrpcStyle::Camel, Some((camel, _))) => put(out, camel.as_bytes()),
        (GrpcStyle::Snake, Some((_, snake))) => put(out, snake.as_bytes()),
        (GrpcStyle::Number, _) => number(out, u128::from(status)),
        (_, None) => {
            number(out, u128::from(status));
            Some(Kind::Text)
        }
    }
}

/// From the trailers, else the headers, else what the HTTP status means in gRPC.
fn status(cx: &FormatCx<'_>) -> Option<u64> {
    let of = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    if let Some(status) = cx.info.response_trailers.as_ref().and_then(of) {
        return Some(status);
    }
    if let Some(status) = cx.response.and_then(|r| of(&r.headers)) {
        return Some(status);
    }
    Some(u64::from(grpc::status_of_http(cx.info.response_code?)))
}
