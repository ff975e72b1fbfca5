//! One stream that has to say who it is.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use xds_protos::google::protobuf::{Value, value::Kind};

use super::config::{Config, Users};
use crate::http::{
    LocalReply, RequestHead,
    filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.basic_auth.` statistics
    pub(super) struct BasicAuthStats {
        counter allowed, "Requests of known users";
        counter denied, "Requests that were refused";
    }
}

/// The filter's configuration.
pub(super) struct BasicAuthFilter(pub Arc<Config>);

impl HttpFilterConfig for BasicAuthFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    NoCredential,
    Scheme,
    Format,
    Credential,
}

impl Refused {
    /// What the client is told, and the response code details.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NoCredential => (
                "User authentication failed. Missing username and password.",
                "no_credential_for_basic_auth",
            ),
            Self::Scheme => (
                "User authentication failed. Expected 'Basic' authentication scheme.",
                "invalid_scheme_for_basic_auth",
            ),
            Self::Format => (
                "User authentication failed. Invalid basic credential format.",
                "invalid_format_for_basic_auth",
            ),
            Self::Credential => (
                "User authentication failed. Invalid username/password combination.",
                "invalid_credential_for_basic_auth",
            ),
        }
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let config = &*self.0;
        let users = cx.route_config::<Users>().unwrap_or(&config.users);
        // Several values are one, and that is refused below.
        let mut values = head.headers.get_all(&config.header).iter();
        let credential = match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(Refused::Format),
            (value, _) => authenticate(value.map(HeaderValue::as_bytes), users),
        };
        let stats = config.stats.local();
        match credential {
            Ok(user) => {
                stats.allowed.inc();
                if let Some(name) = &config.forward
                    && let Ok(value) = HeaderValue::from_str(&user)
                {
                    head.headers.insert(name, value);
                }
                if config.metadata {
                    let of_filter = cx.info.metadata.entry(cx.filter_name.to_string()).or_default();
                    let user = Value {
                        kind: Some(Kind::StringValue(user)),
                    };
                    of_filter.fields.insert("username".to_owned(), user);
                }
                Step::Continue
            }
            Err(Refused::NoCredential | Refused::Scheme) if config.allow_missing => Step::Continue,
            Err(refused) => {
                stats.denied.inc();
                Step::Reply(Box::new(refusal(refused, head)))
            }
        }
    }
}

/// The user's name.
pub(super) fn authenticate(value: Option<&[u8]>, users: &Users) -> Result<String, Refused> {
    let value = value.filter(|v| !v.is_empty()).ok_or(Refused::NoCredential)?;
    let encoded = value.strip_prefix(b"Basic ").ok_or(Refused::Scheme)?;
    let decoded = STANDARD.decode(encoded).map_err(|_| Refused::Format)?;
    let colon = decoded.iter().position(|b| *b == b':').ok_or(Refused::Format)?;
    let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let name = std::str::from_utf8(name).map_err(|_| Refused::Credential)?;
    match users.check(name, password) {
        true => Ok(name.to_owned()),
        false => Err(Refused::Credential),
    }
}

fn refusal(refused: Refused, head: &RequestHead) -> LocalReply {
    let (text, details) = refused.texts();
    let mut reply = LocalReply::new(StatusCode::UNAUTHORIZED, text, details);
    let realm = format!("{}://{}{}", head.scheme.as_str(), head.host(), head.path());
    if let Ok(value) = HeaderValue::try_from(format!("Basic realm=\"{realm}\"")) {
        reply.headers.insert(header::WWW_AUTHENTICATE, value);
    }
    reply
}
