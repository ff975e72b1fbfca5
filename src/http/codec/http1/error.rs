//! What the HTTP/1 codec refuses, and how Envoy answers it: one table.

use http::StatusCode;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident $status:ident $details:literal;)*) => {
        /// Why a request, or the rest of one, is refused. The connection ends with the answer: after an error
        /// nobody can tell where the next request starts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CodecError { $($(#[$doc])* $name),* }

        impl CodecError {
            /// Every error.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// `%RESPONSE_CODE_DETAILS%`
            pub fn details(self) -> &'static str {
                match self { $(Self::$name => $details),* }
            }
        }
    };
}

errors! {
    /// Not the grammar of HTTP: request line, header line, length, chunk.
    Syntax BAD_REQUEST "http1.codec_error";
    /// A control character where none may be.
    InvalidCharacters BAD_REQUEST "http1.invalid_characters";
    /// A request target that is no path, URL or authority.
    InvalidUrl BAD_REQUEST "http1.invalid_url";
    /// An absolute target that is neither `http` nor `https`.
    InvalidScheme BAD_REQUEST "http1.invalid_scheme";
    /// An `https` target at the edge, where there is no TLS.
    HttpsWithoutTls FORBIDDEN "http1.https_url_on_plaintext_connection";
    /// A `host` that is none.
    InvalidAuthority BAD_REQUEST "http.invalid_authority";
    /// `connection` names headers that it must not name, or too many.
    ConnectionHeader BAD_REQUEST "http1.connection_header_rejected";
    /// Two ways to tell where the body ends.
    LengthAndChunked BAD_REQUEST "http1.content_length_and_chunked_not_allowed";
    /// A transfer coding other than `chunked` alone.
    TransferEncoding NOT_IMPLEMENTED "http1.invalid_transfer_encoding";
    /// CONNECT with a body.
    BodyDisallowed BAD_REQUEST "http1.body_disallowed";
    /// `headers_with_underscores_action: REJECT_REQUEST`
    Underscore BAD_REQUEST "http1.unexpected_underscore";
    /// More than `max_headers_count`.
    TooManyHeaders REQUEST_HEADER_FIELDS_TOO_LARGE "http1.too_many_headers";
    /// More than `max_request_headers_kb`.
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "http1.headers_too_large";
    /// Not HTTP/1.1, and `accept_http_10` is off.
    LowVersion UPGRADE_REQUIRED "low_version";
    /// The head did not come whole within `request_headers_timeout`.
    HeadersTimeout REQUEST_TIMEOUT "request_header_timeout";
    /// The overload manager wants it so.
    Overload INTERNAL_SERVER_ERROR "overload";
    /// Nor within `stream_idle_timeout`.
    StreamIdle REQUEST_TIMEOUT "stream_idle_timeout";
}

impl CodecError {
    /// The body of the answer.
    pub fn body(self) -> &'static str {
        match self {
            Self::HeadersTimeout => "request header timeout",
            Self::StreamIdle => "stream timeout",
            _ => self.status().canonical_reason().unwrap_or_default(),
        }
    }
}
