//! `StatefulSession` -> [`Config`].

use std::sync::Arc;

use http::StatusCode;
use xds_protos::envoy::extensions::filters::http::stateful_session::v3::StatefulSession as Proto;

use super::{filter::SessionStats, state::SessionState};
use crate::{
    config::{BuildCx, ConfigResult},
    stats::Stats,
};

/// The configuration of a filter, or of a route.
pub(super) struct Config {
    /// `session_state`; without one there are no sessions.
    pub state: Option<SessionState>,
    /// `strict`: no other host will do.
    pub strict: bool,
    /// `status_on_strict_destination_not_found`; 503 unless strict.
    pub not_found: StatusCode,
    /// None without a `stat_prefix`, and for routes.
    pub stats: Option<Stats<SessionStats>>,
}

/// What a route says; none: no sessions there.
pub(super) struct PerRoute(pub Option<Arc<Config>>);

impl Config {
    /// Builds it; only a filter counts, its routes do not.
    pub fn build(proto: Proto, of_filter: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { session_state, strict, stat_prefix, status_on_strict_destination_not_found }
        });
        let status = status_on_strict_destination_not_found;
        let not_found = match u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok()) {
            Some(status) if strict => status,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Ok(Self {
            state: cx.opt("session_state", session_state, SessionState::build)?,
            strict,
            not_found,
            stats: (of_filter && !stat_prefix.is_empty()).then(|| {
                let scope = format!("{}stateful_session.{stat_prefix}", cx.http_prefix);
                cx.server.stats.scope(&scope).block()
            }),
        })
    }
}
