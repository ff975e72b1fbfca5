//! Where a key may stand in a request, and how it is taken out.

use http::{HeaderName, HeaderValue, header};
use xds_protos::envoy::extensions::filters::http::api_key_auth::v3::KeySource as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::RequestHead,
    matching::{cookie, query_parameter, remove_query_parameter},
};

/// One place.
pub(super) enum Source {
    Header(HeaderName),
    Query(String),
    Cookie(String),
}

impl Source {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { header, query, cookie } });
        if !header.is_empty() {
            let name = HeaderName::try_from(header.to_ascii_lowercase());
            return name
                .map(Self::Header)
                .map_err(|_| cx.error_at("header", "not a valid header name"));
        }
        match (query.is_empty(), cookie.is_empty()) {
            (false, _) => Ok(Self::Query(query)),
            (true, false) => Ok(Self::Cookie(cookie)),
            (true, true) => Err(cx.error("One of 'header'/'query'/'cookie' must be set.")),
        }
    }

    /// The key, if it is there and not empty.
    pub fn key<'h>(&self, head: &'h RequestHead) -> Option<&'h str> {
        let key = match self {
            Self::Header(name) => {
                let value = head.headers.get(name)?.to_str().ok()?;
                value.strip_prefix("Bearer ").unwrap_or(value)
            }
            Self::Query(name) => query_parameter(head.query()?, name)?,
            Self::Cookie(name) => std::str::from_utf8(cookie(&head.headers, name)?).ok()?,
        };
        (!key.is_empty()).then_some(key)
    }

    /// Takes the key out of the request.
    pub fn remove(&self, head: &mut RequestHead) {
        match self {
            Self::Header(name) => {
                head.headers.remove(name);
            }
            Self::Query(name) => remove_query_parameter(head, name),
            Self::Cookie(name) => remove_cookie(head, name),
        }
    }
}

fn remove_cookie(head: &mut RequestHead, name: &str) {
    let is_other = |pair: &&[u8]| pair.split(|b| *b == b'=').next() != Some(name.as_bytes());
    let mut found = false;
    let mut kept = Vec::new();
    for value in head.headers.get_all(header::COOKIE) {
        let pairs = || value.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
        if pairs().all(|pair| is_other(&pair)) {
            kept.push(value.clone());
            continue;
        }
        found = true;
        let others: Vec<_> = pairs().filter(is_other).collect();
        if let Ok(others) = HeaderValue::from_bytes(&others.join(b"; ".as_slice()))
            && !others.is_empty()
        {
            kept.push(others);
        }
    }
    if found {
        head.headers.remove(header::COOKIE);
        for value in kept {
            head.headers.append(header::COOKIE, value);
        }
    }
}
