//! `HashPolicy`: the hash by which ring hash and Maglev choose a host. Hashes are Envoy's, bit for bit.

use std::fmt::Write;

use http::HeaderValue;
use smallvec::SmallVec;
use twox_hash::XxHash64;
use xds_protos::envoy::config::route::v3::route_action::{
    HashPolicy as Proto,
    hash_policy::{
        ConnectionProperties, Cookie as ProtoCookie, CookieAttribute, FilterState, Header as ProtoHeader,
        PolicySpecifier, QueryParameter,
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, StreamInfo},
    matching::{HeaderLookup, RegexSubstitution, cookie, query_parameter},
};

/// All hash policies of a route, in order.
#[derive(Debug, Clone, Default)]
pub struct HashPolicies(Box<[Policy]>);

#[derive(Debug, Clone)]
struct Policy {
    source: Source,
    terminal: bool,
}

#[derive(Debug, Clone)]
enum Source {
    Header(HeaderLookup, Option<RegexSubstitution>),
    Cookie(Cookie),
    ClientIp,
    Query(String),
    FilterState(String),
    /// `connection_properties` that ask for nothing.
    Nothing,
}

#[derive(Debug, Clone)]
struct Cookie {
    name: String,
    /// Seconds; a request without the cookie gets one.
    ttl: Option<i64>,
    /// `; Path=...; ...`, ready to be written.
    attributes: String,
}

/// What hashing a request gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashOutcome {
    /// The hash; none when no policy had something to hash.
    pub hash: Option<u64>,
    /// `set-cookie` values to add to the response, of cookie policies with a `ttl` that made a new cookie.
    pub set_cookies: SmallVec<[HeaderValue; 1]>,
}

impl HashPolicies {
    /// Builds the policies of a route.
    pub fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self(cx.each("hash_policy", protos, Policy::build)?.into()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hashes a request. Without `make_cookies`, cookie policies hash only cookies that are there.
    pub fn hash(&self, head: &RequestHead, info: &StreamInfo, make_cookies: bool) -> HashOutcome {
        let mut outcome = HashOutcome::default();
        for policy in &self.0 {
            if let Some(new) = policy.source.hash(head, info, make_cookies, &mut outcome.set_cookies) {
                // The rotation keeps two equal policies from cancelling each other out.
                outcome.hash = Some(outcome.hash.map_or(0, |old| old.rotate_left(1)) ^ new);
            }
            if policy.terminal && outcome.hash.is_some() {
                break;
            }
        }
        outcome
    }
}

impl Policy {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { terminal, policy_specifier } });
        let source = match policy_specifier {
            Some(PolicySpecifier::Header(h)) => cx.field("header", |cx| {
                coverage!(cx, h => ProtoHeader { supported { header_name, regex_rewrite } });
                let rewrite = cx.opt("regex_rewrite", regex_rewrite, RegexSubstitution::build)?;
                Ok(Source::Header(HeaderLookup::of(&header_name), rewrite))
            })?,
            Some(PolicySpecifier::Cookie(c)) => cx.field("cookie", |cx| Cookie::build(c, cx).map(Source::Cookie))?,
            Some(PolicySpecifier::ConnectionProperties(c)) => {
                coverage!(cx, c => ConnectionProperties { supported { source_ip } });
                if source_ip { Source::ClientIp } else { Source::Nothing }
            }
            Some(PolicySpecifier::QueryParameter(q)) => {
                coverage!(cx, q => QueryParameter { supported { name } });
                Source::Query(name)
            }
            Some(PolicySpecifier::FilterState(f)) => {
                coverage!(cx, f => FilterState { supported { key } });
                Source::FilterState(key)
            }
            None => return Err(cx.error_at("policy_specifier", "value is required")),
        };
        Ok(Self { source, terminal })
    }
}

impl Source {
    fn hash(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
        make_cookies: bool,
        set_cookies: &mut SmallVec<[HeaderValue; 1]>,
    ) -> Option<u64> {
        match self {
            Self::Header(name, rewrite) => hash_header(head, name, rewrite.as_ref()),
            Self::Cookie(c) => c.hash(head, info, make_cookies, set_cookies),
            Self::ClientIp => info.remote_address().ip().map(|ip| xx_hash(ip.to_string().as_bytes())),
            Self::Query(name) => query_parameter(head.query()?, name).map(|v| xx_hash(v.as_bytes())),
            Self::FilterState(key) => match info.filter_state.get(key) {
                Some(object) => object.hash(),
                None => info.connection.filter_state.borrow().get(key).and_then(|o| o.hash()),
            },
            Self::Nothing => None,
        }
    }
}

/// Several values are hashed in sorted order, each seeded with the hash before it, so that their order on the wire
/// does not matter.
fn hash_header(head: &RequestHead, name: &HeaderLookup, rewrite: Option<&RegexSubstitution>) -> Option<u64> {
    let rewritten = |value| match rewrite {
        Some(r) => r.replace_all(value),
        None => value.into(),
    };
    let mut values: SmallVec<[_; 2]> = match name {
        HeaderLookup::Header(name) => {
            let values = head.headers.get_all(name).iter();
            values.map(|v| rewritten(v.as_bytes())).collect()
        }
        other => other.first(head).map(rewritten).into_iter().collect(),
    };
    values.sort();
    let hash = |seed, value: &std::borrow::Cow<'_, [u8]>| XxHash64::oneshot(seed, value);
    (!values.is_empty()).then(|| values.iter().fold(0, hash))
}

impl Cookie {
    fn build(proto: ProtoCookie, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoCookie { supported { name, ttl, path, attributes } });
        let mut text = String::new();
        if !path.is_empty() {
            let _ = write!(text, "; Path={path}");
        }
        for CookieAttribute { name, value } in attributes {
            let _ = match value.as_str() {
                "" => write!(text, "; {name}"),
                value => write!(text, "; {name}={value}"),
            };
        }
        Ok(Self {
            name,
            ttl: ttl.map(|t| t.seconds),
            attributes: text,
        })
    }

    fn hash(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
        make_cookies: bool,
        set_cookies: &mut SmallVec<[HeaderValue; 1]>,
    ) -> Option<u64> {
        if let Some(value) = cookie(&head.headers, &self.name).filter(|v| !v.is_empty()) {
            return Some(xx_hash(value));
        }
        let ttl = self.ttl.filter(|_| make_cookies)?;
        // The new value ties the client to its connection's addresses, so a retry lands on the same host.
        let connection = &info.connection;
        let seed = format!("{}{}", connection.remote_address, connection.local_address);
        let value = format!("{:016x}", xx_hash(seed.as_bytes()));
        let mut text = format!("{}=\"{value}\"", self.name);
        if ttl != 0 {
            let _ = write!(text, "; Max-Age={ttl}");
        }
        text.push_str(&self.attributes);
        text.push_str("; HttpOnly");
        set_cookies.extend(HeaderValue::try_from(text).ok());
        Some(xx_hash(value.as_bytes()))
    }
}

fn xx_hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}
