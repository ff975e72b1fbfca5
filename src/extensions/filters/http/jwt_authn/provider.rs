//! `JwtProvider`: whose tokens are accepted, where they stand, and what becomes of them.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use xds_protos::{
    envoy::extensions::filters::http::jwt_authn::v3::{
        JwtHeader, JwtProvider as Proto, jwt_provider::JwksSourceSpecifier,
    },
    google::protobuf::{self as pb, value::Kind},
};

use super::{
    audience::Audiences,
    cache::Cache,
    claims::{self, ClaimHeader},
    extract::Location,
    filter::JwtStats,
    jwks::Jwks,
    remote::Remote,
    status::Status,
    token::Token,
};
use crate::{
    config::{BuildCx, ConfigResult, duration, read_data_source},
    http::RequestHead,
    matching::StringMatcher,
    stats::Stats,
};

/// Tolerance of clocks unless `clock_skew_seconds` says otherwise, in seconds.
const CLOCK_SKEW: u64 = 60;

/// A provider, built.
#[derive(Debug)]
pub(super) struct Provider {
    /// Empty: any.
    pub issuer: String,
    pub audiences: Audiences,
    pub locations: Vec<Location>,
    pub keys: Keys,
    /// `jwt_cache_config`, or one of the usual size.
    pub cache: Cache,
    /// `failed_status_in_metadata`; empty for none.
    pub failure_key: String,
    subjects: Option<StringMatcher>,
    require_expiration: bool,
    max_lifetime: Option<Duration>,
    skew: u64,
    forward: bool,
    payload_header: Option<HeaderName>,
    pad_payload: bool,
    claim_headers: Vec<ClaimHeader>,
    /// Keys in dynamic metadata; empty for none.
    payload_key: String,
    header_key: String,
    /// Claims that are lists of words.
    split: Vec<String>,
    clear_route_cache: bool,
}

/// Where the keys come from.
#[derive(Debug)]
pub(super) enum Keys {
    /// `local_jwks`
    Local(Jwks),
    Remote(Arc<Remote>),
}

impl Keys {
    /// Where they are fetched, if they are.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }
}

/// What accepted tokens leave behind besides headers.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Fields of the filter's dynamic metadata.
    pub metadata: pb::Struct,
    pub clear_route_cache: bool,
}

impl Provider {
    pub fn build(name: &str, proto: Proto, stats: &Stats<JwtStats>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                issuer, audiences, subjects, require_expiration, max_lifetime, forward, from_headers, from_params,
                from_cookies, forward_payload_header, pad_forward_payload_header, payload_in_metadata,
                normalize_payload_in_metadata, header_in_metadata, failed_status_in_metadata, clock_skew_seconds,
                claim_to_headers, clear_route_cache, jwks_source_specifier, jwt_cache_config,
            }
        });
        let keys = match jwks_source_specifier {
            Some(JwksSourceSpecifier::LocalJwks(source)) => {
                let text = cx.field("local_jwks", |cx| read_data_source(source, cx))?;
                let keys = Jwks::parse(&text).map_err(|status| {
                    let reason = status.text();
                    cx.error(format!(
                        "Provider '{name}' in jwt_authn config has invalid local jwks: {reason}"
                    ))
                })?;
                Keys::Local(keys)
            }
            Some(JwksSourceSpecifier::RemoteJwks(remote)) => {
                Keys::Remote(cx.field("remote_jwks", |cx| Remote::build(remote, stats.clone(), cx))?)
            }
            None => return Err(cx.error_at("jwks_source_specifier", "value is required")),
        };
        let mut locations = cx.each("from_headers", from_headers, header_location)?;
        locations.extend(from_params.into_iter().map(Location::Parameter));
        locations.extend(from_cookies.into_iter().map(Location::Cookie));
        if locations.is_empty() {
            locations = Location::defaults();
        }
        let payload_header = match forward_payload_header.as_str() {
            "" => None,
            name => Some(
                HeaderName::try_from(name)
                    .map_err(|_| cx.error_at("forward_payload_header", "value does not match regex pattern"))?,
            ),
        };
        Ok(Self {
            audiences: Audiences::new(audiences),
            locations,
            keys,
            cache: cx
                .opt("jwt_cache_config", jwt_cache_config, Cache::build)?
                .unwrap_or_default(),
            failure_key: failed_status_in_metadata,
            subjects: cx.opt("subjects", subjects, StringMatcher::build)?,
            require_expiration,
            max_lifetime: max_lifetime.as_ref().map(duration),
            skew: match clock_skew_seconds {
                0 => CLOCK_SKEW,
                seconds => u64::from(seconds),
            },
            forward,
            payload_header,
            pad_payload: pad_forward_payload_header,
            claim_headers: cx.each("claim_to_headers", claim_to_headers, ClaimHeader::build)?,
            payload_key: payload_in_metadata,
            header_key: header_in_metadata,
            split: normalize_payload_in_metadata.map_or(Vec::new(), |n| n.space_delimited_claims),
            clear_route_cache,
            issuer,
        })
    }

    /// The checks that need no key. `audiences` replaces the provider's own.
    pub fn check(&self, token: &Token, audiences: Option<&Audiences>, now: u64) -> Result<(), Status> {
        if self.subjects.as_ref().is_some_and(|m| !m.matches(token.sub.as_bytes())) {
            return Err(Status::VerificationFail);
        }
        if (self.require_expiration || self.max_lifetime.is_some()) && token.exp == 0 {
            return Err(Status::VerificationFail);
        }
        if let Some(most) = self.max_lifetime
            && token.exp.saturating_sub(now) > most.as_secs()
        {
            return Err(Status::VerificationFail);
        }
        token.check_time(now, self.skew)?;
        match audiences.unwrap_or(&self.audiences).allow(&token.audiences) {
            true => Ok(()),
            false => Err(Status::AudienceNotAllowed),
        }
    }

    /// Removes what only this provider's tokens may set.
    pub fn sanitize(&self, head: &mut RequestHead) {
        let claims = self.claim_headers.iter().map(|claim| &claim.header);
        for name in claims.chain(&self.payload_header) {
            head.headers.remove(name);
        }
    }

    /// Hands on what an accepted token says.
    pub fn accept(&self, token: &Token, location: &Location, head: &mut RequestHead, left: &mut Left) {
        if let Some(name) = &self.payload_header
            && let Some(value) = claims::payload_header(&token.payload_text, self.pad_payload)
        {
            head.headers.append(name, value);
        }
        let mut copied = false;
        for claim in &self.claim_headers {
            if let Some(value) = claim.value(&token.payload) {
                head.headers.append(&claim.header, value);
                copied = true;
            }
        }
        if !self.forward {
            location.remove(head);
        }
        for (key, object, split) in [
            (&self.header_key, &token.header, &[][..]),
            (&self.payload_key, &token.payload, &self.split),
        ] {
            if !key.is_empty() {
                let value = claims::metadata(object, split);
                left.metadata.fields.insert(key.clone(), value);
            }
        }
        left.clear_route_cache |= self.clear_route_cache && (copied || !self.payload_key.is_empty());
    }

    /// Notes why a token was refused, where the provider asks for that.
    pub fn refused(&self, status: Status, left: &mut Left) {
        if self.failure_key.is_empty() {
            return;
        }
        let value = |kind| pb::Value { kind: Some(kind) };
        let fields = [
            ("code".to_owned(), value(Kind::NumberValue(status.number().into()))),
            ("message".to_owned(), value(Kind::StringValue(status.text().to_owned()))),
        ];
        let why = Kind::StructValue(pb::Struct {
            fields: fields.into_iter().collect(),
        });
        left.metadata.fields.insert(self.failure_key.clone(), value(why));
    }
}

fn header_location(proto: JwtHeader, cx: &mut BuildCx<'_>) -> ConfigResult<Location> {
    coverage!(cx, proto => JwtHeader { supported { name, value_prefix } });
    let name =
        HeaderName::try_from(name.as_str()).map_err(|_| cx.error_at("name", "value does not match regex pattern"))?;
    if HeaderValue::from_str(&value_prefix).is_err() {
        return Err(cx.error_at("value_prefix", "value does not match regex pattern"));
    }
    Ok(Location::Header(name.as_str().to_owned(), value_prefix))
}
