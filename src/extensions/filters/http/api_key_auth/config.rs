//! What a filter or a route says of keys.

use std::collections::{HashMap, HashSet};

use http::{HeaderName, HeaderValue};
use xds_protos::envoy::extensions::filters::http::api_key_auth::v3::{
    Credential, Forwarding as ForwardingProto, KeySource,
};

use super::source::Source;
use crate::config::{BuildCx, ConfigResult};

/// Keys and where they stand. What is empty in a route's is the filter's; `forwarding` is not.
pub(super) struct Rules {
    /// Clients by key.
    pub clients: HashMap<String, String>,
    /// In order: the first source that has a key counts.
    pub sources: Vec<Source>,
    pub forwarding: Forwarding,
}

/// What goes upstream.
#[derive(Default)]
pub(super) struct Forwarding {
    /// The client's name in this header.
    pub header: Option<HeaderName>,
    /// `hide_credentials`: no source of keys goes upstream.
    pub hide: bool,
}

/// A route's rules.
pub(super) struct PerRoute {
    pub rules: Rules,
    /// Empty: all.
    pub allowed_clients: HashSet<String>,
}

impl Rules {
    pub fn build(
        credentials: Vec<Credential>,
        sources: Vec<KeySource>,
        forwarding: Option<ForwardingProto>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let mut clients = HashMap::new();
        for (i, proto) in credentials.into_iter().enumerate() {
            cx.item("credentials", i, |cx| {
                coverage!(cx, proto => Credential { supported { key, client } });
                // The key stays out of the error: it is a secret.
                match clients.insert(key, client) {
                    None => Ok(()),
                    Some(_) => Err(cx.error("Duplicated credential key")),
                }
            })?;
        }
        Ok(Self {
            clients,
            sources: cx.each("key_sources", sources, Source::build)?,
            forwarding: cx.opt("forwarding", forwarding, Forwarding::build)?.unwrap_or_default(),
        })
    }
}

impl Forwarding {
    fn build(proto: ForwardingProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ForwardingProto { supported { header, hide_credentials } });
        Ok(Self {
            header: match header.as_str() {
                "" => None,
                name => Some(
                    name.parse()
                        .map_err(|_| cx.error_at("header", "not a valid header name"))?,
                ),
            },
            hide: hide_credentials,
        })
    }
}

/// A client's name as a header; none when it cannot be one.
pub(super) fn client_value(client: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(client).ok()
}
