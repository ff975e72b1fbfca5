//! What an endpoint is given, and what it answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use crate::server::ServerContext;

/// A request to an endpoint.
pub struct AdminRequest {
    /// The server.
    pub server: Arc<ServerContext>,
    /// GET or POST.
    pub method: Method,
    /// The query without its `?`, as it was sent: Envoy's clients do not always escape it.
    pub query: String,
    /// The body of a POST.
    pub body: Bytes,
    /// Whether the body says that it is a form (`application/x-www-form-urlencoded`).
    pub is_form: bool,
}

impl AdminRequest {
    /// The value of a query parameter, percent-decoded; empty for a flag without `=`.
    pub fn param(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_decode(value))
        })
    }

    /// Whether a query parameter is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.param(name).is_some()
    }
}

/// The parameters of a query or a form, decoded, in their order.
pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key), percent_decode(value))
        })
        .collect()
}

/// Decodes `%XX`; what is no escape stays, so that an unescaped regex arrives whole.
pub fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().enumerate();
    while let Some((i, b)) = bytes.next() {
        let escape = (b == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match escape {
            Some(decoded) => {
                out.push(decoded);
                bytes.nth(1);
            }
            None => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The body of an answer.
pub enum ReplyBody {
    /// All at once.
    Whole(Bytes),
    /// In pieces, as they are rendered on another thread.
    Pieces(mpsc::Receiver<Bytes>),
}

/// An answer.
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// `content-type`
    pub content_type: &'static str,
    /// Says `x-content-type-options` twice: what Envoy does for some refusals.
    pub nosniff_twice: bool,
    /// Body.
    pub body: ReplyBody,
}

impl Reply {
    /// 200 with text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=UTF-8",
            nosniff_twice: false,
            body: ReplyBody::Whole(body.into()),
        }
    }

    /// 200 with JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "application/json",
            ..Self::text(body)
        }
    }

    /// 200 with HTML.
    pub fn html(body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "text/html; charset=UTF-8",
            ..Self::text(body)
        }
    }

    /// Text with another status.
    pub fn error(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            ..Self::text(body)
        }
    }

    /// Text without a charset, as some of Envoy's endpoints refuse.
    pub fn plain_error(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "text/plain",
            ..Self::error(status, body)
        }
    }

    /// What `/config_dump` answers to a `resource` or `mask` that does not fit.
    pub fn refused(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            nosniff_twice: true,
            ..Self::plain_error(status, body)
        }
    }

    /// Text rendered in pieces by `render` on a blocking thread; a slow reader slows only that thread.
    pub fn pieces(content_type: &'static str, render: impl FnOnce(&mut dyn FnMut(Bytes)) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut gone = false;
            render(&mut |piece| {
                // Nobody reads any more: render to the end without sending.
                gone = gone || sender.blocking_send(piece).is_err();
            });
        });
        Self {
            status: StatusCode::OK,
            content_type,
            nosniff_twice: false,
            body: ReplyBody::Pieces(receiver),
        }
    }
}

/// JSON as Envoy prints it: one space of indent, a line feed at the end.
pub fn envoy_json(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing a Value into a Vec does not fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    out.push(b'\n');
    out
}
