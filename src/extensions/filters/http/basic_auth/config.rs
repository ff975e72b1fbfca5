//! `BasicAuth` -> [`Config`], and the users' passwords.

use std::collections::HashMap;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use xds_protos::envoy::{config::core::v3::DataSource, extensions::filters::http::basic_auth::v3::BasicAuth as Proto};

use super::filter::BasicAuthStats;
use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    stats::Stats,
};

/// The filter's configuration.
pub(super) struct Config {
    pub users: Users,
    /// `forward_username_header`
    pub forward: Option<HeaderName>,
    /// `authentication_header`; default `authorization`.
    pub header: HeaderName,
    /// `allow_missing`
    pub allow_missing: bool,
    /// `emit_dynamic_metadata`
    pub metadata: bool,
    pub stats: Stats<BasicAuthStats>,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { users, forward_username_header, authentication_header, allow_missing, emit_dynamic_metadata }
        });
        if allow_missing && !emit_dynamic_metadata {
            return Err(cx.error_at(
                "allow_missing",
                "basic_auth: `allow_missing` requires `emit_dynamic_metadata` to be true",
            ));
        }
        let header = |field: &str, name: &str| {
            let name = HeaderName::try_from(name.to_ascii_lowercase());
            name.map_err(|_| cx.error_at(field, "not a valid header name"))
        };
        Ok(Self {
            forward: match forward_username_header.as_str() {
                "" => None,
                name => Some(header("forward_username_header", name)?),
            },
            header: match authentication_header.as_str() {
                "" => header::AUTHORIZATION,
                name => header("authentication_header", name)?,
            },
            users: Users::build(users, cx)?,
            allow_missing,
            metadata: emit_dynamic_metadata,
            stats: cx.server.stats.scope(&format!("{}basic_auth", cx.http_prefix)).block(),
        })
    }
}

/// Hashes of passwords by user: the SHA-1 form of `htpasswd`, the only one Envoy takes.
pub(super) struct Users(HashMap<String, Vec<u8>>);

impl Users {
    pub fn build(users: Option<DataSource>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(users) = users else {
            return Ok(Self(HashMap::new()));
        };
        cx.field("users", |cx| {
            let text = String::from_utf8(read_data_source(users, cx)?)
                .map_err(|_| cx.error("basic auth: invalid htpasswd format, invalid UTF-8"))?;
            Self::parse(&text).map_err(|reason| cx.error(reason))
        })
    }

    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut users = HashMap::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let Some((name, hash)) = line.split_once(':') else {
                return Err("basic auth: invalid htpasswd format, username:password is expected");
            };
            if name.is_empty() || hash.is_empty() {
                return Err("basic auth: empty user name or password");
            }
            let Some(hash) = hash.strip_prefix("{SHA}") else {
                return Err("basic auth: unsupported htpasswd format: please use {SHA}");
            };
            if hash.len() != 28 {
                return Err("basic auth: invalid htpasswd format, invalid SHA hash length");
            }
            let hash = STANDARD
                .decode(hash)
                .map_err(|_| "basic auth: invalid htpasswd format, invalid SHA hash")?;
            if users.insert(name.to_owned(), hash).is_some() {
                return Err("basic auth: duplicate users");
            }
        }
        Ok(Self(users))
    }

    /// Whether there is such a user with this password.
    pub fn check(&self, name: &str, password: &[u8]) -> bool {
        let given = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
        let known = self.0.get(name);
        known.is_some_and(|hash| verify_slices_are_equal(hash, given.as_ref()).is_ok())
    }
}
