//! Where a session's host is written: a cookie, a header, or a header of the upstream's own session
//! (`envoy.http.stateful_session.cookie`, `.header`, `.envelope`).

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use prost::Message;
use xds_protos::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::http::stateful_session::{
            cookie::v3::CookieBasedSessionState,
            envelope::v3::{EnvelopeSessionState, envelope_session_state},
            header::v3::HeaderBasedSessionState,
        },
        r#type::http::v3::{Cookie as ProtoCookie, CookieAttribute},
    },
    prost::Name,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, duration, unpack},
    http::{RequestHead, ResponseHead},
    matching::cookie,
};

/// Between the host and the upstream's value in an envelope.
const UPSTREAM_VALUE: &str = ";UV:";

/// A kind of session state.
#[derive(Debug)]
pub(super) enum SessionState {
    Cookie(Cookie),
    Header(HeaderName),
    Envelope(HeaderName),
}

/// `CookieBasedSessionState`
#[derive(Debug)]
pub(super) struct Cookie {
    name: String,
    /// Zero: as long as the client keeps it.
    ttl: Duration,
    path: String,
    /// What follows the value, ready to be written.
    attributes: String,
}

/// A cookie's value, as Envoy writes it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    /// Of the host.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Seconds since the epoch; 0: never.
    #[prost(uint64, tag = "2")]
    pub expires: u64,
}

impl SessionState {
    /// Finds the extension by its type.
    pub fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
        let Some(any) = typed_config else {
            return Err(cx.error_at("typed_config", "is required"));
        };
        let kind = any.type_name().to_owned();
        cx.field("typed_config", |cx| {
            if kind == CookieBasedSessionState::full_name() {
                let proto: CookieBasedSessionState = unpack(&any, cx)?;
                coverage!(cx, proto => CookieBasedSessionState { supported { cookie } });
                cx.required("cookie", cookie, Cookie::build).map(Self::Cookie)
            } else if kind == HeaderBasedSessionState::full_name() {
                let proto: HeaderBasedSessionState = unpack(&any, cx)?;
                coverage!(cx, proto => HeaderBasedSessionState { supported { name } });
                header_name(&name, cx).map(Self::Header)
            } else if kind == EnvelopeSessionState::full_name() {
                let proto: EnvelopeSessionState = unpack(&any, cx)?;
                coverage!(cx, proto => EnvelopeSessionState { supported { header } });
                let name = cx.required("header", header, |proto, cx| {
                    use envelope_session_state::Header;
                    coverage!(cx, proto => Header { supported { name } });
                    header_name(&name, cx)
                })?;
                Ok(Self::Envelope(name))
            } else {
                Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{kind}'"
                )))
            }
        })
    }

    /// Whether this request may belong to a session.
    pub fn concerns(&self, head: &RequestHead) -> bool {
        match self {
            Self::Cookie(cookie) => cookie.covers(head.path()),
            Self::Header(_) | Self::Envelope(_) => true,
        }
    }

    /// The host of the request's session. An envelope is opened: the upstream gets back what it gave.
    pub fn host(&self, head: &mut RequestHead) -> Option<String> {
        let address = match self {
            Self::Cookie(c) => c.host(cookie(&head.headers, &c.name)?),
            Self::Header(name) => text(STANDARD.decode(head.headers.get(name)?).ok()?),
            Self::Envelope(name) => {
                let (address, upstream) = open(head.headers.get(name)?)?;
                if !upstream.is_empty() {
                    head.headers.insert(name, upstream);
                }
                Some(address)
            }
        };
        address.filter(|a| !a.is_empty())
    }

    /// Tells the client that its session is on `host`, where it does not know. `asked` is what it asked for.
    pub fn update(&self, asked: Option<&str>, host: &str, head: &mut ResponseHead) {
        let known = asked == Some(host);
        match self {
            Self::Cookie(cookie) if !known => {
                if let Ok(value) = HeaderValue::try_from(cookie.set(host, SystemTime::now())) {
                    head.headers.append(header::SET_COOKIE, value);
                }
            }
            Self::Header(name) if !known => {
                if let Ok(value) = HeaderValue::try_from(STANDARD.encode(host)) {
                    head.headers.insert(name, value);
                }
            }
            Self::Cookie(_) | Self::Header(_) => {}
            Self::Envelope(name) => {
                let mut values = head.headers.get_all(name).iter();
                if let (Some(value), None) = (values.next(), values.next())
                    && let Ok(value) = HeaderValue::try_from(format!(
                        "{}{UPSTREAM_VALUE}{}",
                        STANDARD.encode(host),
                        STANDARD.encode(value)
                    ))
                {
                    head.headers.insert(name, value);
                }
            }
        }
    }
}

impl Cookie {
    fn build(proto: ProtoCookie, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoCookie { supported { name, ttl, path, attributes } });
        if name.is_empty() {
            return Err(cx.error_at("name", "Cookie key cannot be empty for cookie based stateful sessions"));
        }
        let ttl = ttl.as_ref().map_or(Duration::ZERO, duration);
        let mut text = String::new();
        if ttl.as_secs() > 0 {
            let _ = write!(text, "; Max-Age={}", ttl.as_secs());
        }
        if !path.is_empty() {
            let _ = write!(text, "; Path={path}");
        }
        for CookieAttribute { name, value } in attributes {
            let _ = match value.as_str() {
                "" => write!(text, "; {name}"),
                value => write!(text, "; {name}={value}"),
            };
        }
        text.push_str("; HttpOnly");
        Ok(Self {
            name,
            ttl: Duration::from_secs(ttl.as_secs()),
            path,
            attributes: text,
        })
    }

    /// Whether a client sends the cookie for this path.
    fn covers(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            None => false,
            Some(_) if self.path.is_empty() || self.path.ends_with('/') => true,
            Some(rest) => matches!(rest.bytes().next(), None | Some(b'/' | b'?' | b'#')),
        }
    }

    /// The host in a cookie's value, which may also be a bare address as older releases wrote it.
    fn host(&self, value: &[u8]) -> Option<String> {
        let decoded = STANDARD.decode(value).ok()?;
        match Value::decode(decoded.as_slice()) {
            Ok(value) if value.expires != 0 && value.expires < seconds(SystemTime::now()) => None,
            Ok(value) => Some(value.address),
            Err(_) => text(decoded),
        }
    }

    /// `set-cookie`
    fn set(&self, host: &str, now: SystemTime) -> String {
        let expires = match self.ttl.is_zero() {
            true => 0,
            false => seconds(now + self.ttl),
        };
        let value = Value {
            address: host.to_owned(),
            expires,
        };
        format!(
            "{}=\"{}\"{}",
            self.name,
            STANDARD.encode(value.encode_to_vec()),
            self.attributes
        )
    }
}

/// The host and the upstream's value in an envelope.
fn open(value: &HeaderValue) -> Option<(String, HeaderValue)> {
    let (host, upstream) = value.to_str().ok()?.rsplit_once(UPSTREAM_VALUE)?;
    let host = text(STANDARD.decode(host).ok()?)?;
    let upstream = STANDARD.decode(upstream).ok()?;
    Some((host, HeaderValue::from_bytes(&upstream).ok()?))
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn header_name(name: &str, cx: &BuildCx<'_>) -> ConfigResult<HeaderName> {
    HeaderName::try_from(name.to_ascii_lowercase()).map_err(|_| cx.error_at("name", "not a valid header name"))
}
