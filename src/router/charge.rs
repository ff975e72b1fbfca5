//! Where a response counts: by code, below the names that the request and its host bring along.

use std::sync::Arc;

use http::StatusCode;

use super::request::Request;
use crate::{
    http::ResponseHead,
    stats::Charge,
    upstream::{ExtraStats, Host},
};

/// What shapes the statistics of a request's responses.
#[derive(Default, Clone)]
pub(super) struct Charging {
    /// The request came from inside (`x-envoy-internal`).
    pub(super) internal: bool,
    /// `suppress_grpc_request_failure_code_stats`, for a gRPC request.
    pub(super) completed_only: bool,
    /// `x-envoy-upstream-alt-stat-name`, with a dot at its end.
    pub(super) alternative: Option<String>,
}

/// Whether a response says that a canary gave it, or its host is known as one.
pub(super) fn is_canary(response: Option<&ResponseHead>, host: Option<&Host>) -> bool {
    let header = response.and_then(|r| r.headers.get("x-envoy-upstream-canary"));
    header.is_some_and(|v| v == "true") || host.is_some_and(|h| h.attributes().canary)
}

impl Request<'_> {
    /// Charges a response, or a failure that is answered with `status`.
    pub(super) fn charge(&self, status: StatusCode, response: Option<&ResponseHead>, host: Option<&Arc<Host>>) {
        if !self.config.dynamic_stats {
            return;
        }
        let code = status.as_u16();
        let charge = Charge {
            internal: self.charging.internal,
            canary: is_canary(response, host.map(|h| &**h)),
            completed_only: self.charging.completed_only,
        };
        self.cluster.info.codes.charge_as(code, charge);
        if let Some(alternative) = &self.charging.alternative {
            self.cluster.extra_stats(alternative).codes.charge_as(code, charge);
        }
        for entry in self.entries.iter().flatten() {
            entry.codes.charge_basic_as(code, charge.completed_only);
        }
        if let Some(zone) = host.and_then(|host| self.zone_stats(host)) {
            zone.codes.charge_basic_as(code, charge.completed_only);
        }
    }

    /// `zone.<own zone>.<host's zone>.`, when both are known.
    pub(super) fn zone_stats(&self, host: &Host) -> Option<ExtraStats> {
        let from = self.config.zone.as_deref()?;
        let attributes = host.attributes();
        let to = attributes.locality.zone.as_str();
        (!to.is_empty()).then(|| self.cluster.extra_stats(&format!("zone.{from}.{to}.")))
    }
}
