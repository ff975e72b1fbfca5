//! Why a host is ejected, and what that means: one row for each cause.

use xds_protos::envoy::data::cluster::v3::OutlierEjectionType;

use super::{config::Config, stats::OutlierStats};
use crate::{
    runtime::{Key, OutlierKeys},
    stats::CounterCell,
};

/// Why a host is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

/// One of the counters.
pub(super) type Counter = fn(&OutlierStats) -> &CounterCell;

/// What is counted and how surely a host is ejected.
pub(super) struct Rule {
    /// Counts that there was a cause.
    pub detected: Counter,
    /// Counts that the host was ejected.
    pub enforced: Counter,
    /// Percent of the causes that eject.
    pub percent: u32,
    /// The runtime's word on that.
    pub key: fn(&OutlierKeys) -> &Key,
}

impl Cause {
    /// Whether it is about failures on this side.
    pub(super) fn is_local(self) -> bool {
        matches!(
            self,
            Self::LocalOrigin | Self::LocalOriginSuccessRate | Self::LocalOriginFailurePercentage
        )
    }

    /// Its name in the log of ejections.
    pub(super) fn proto(self) -> OutlierEjectionType {
        match self {
            Self::Consecutive5xx => OutlierEjectionType::Consecutive5xx,
            Self::GatewayFailure => OutlierEjectionType::ConsecutiveGatewayFailure,
            Self::LocalOrigin => OutlierEjectionType::ConsecutiveLocalOriginFailure,
            Self::SuccessRate => OutlierEjectionType::SuccessRate,
            Self::LocalOriginSuccessRate => OutlierEjectionType::SuccessRateLocalOrigin,
            Self::FailurePercentage => OutlierEjectionType::FailurePercentage,
            Self::LocalOriginFailurePercentage => OutlierEjectionType::FailurePercentageLocalOrigin,
        }
    }

    pub(super) fn rule(self, config: &Config) -> Rule {
        match self {
            Self::Consecutive5xx => Rule {
                detected: |s| &s.ejections_detected_consecutive_5xx,
                enforced: |s| &s.ejections_enforced_consecutive_5xx,
                percent: config.consecutive_5xx.enforcing,
                key: |k| &k.enforcing_consecutive_5xx,
            },
            Self::GatewayFailure => Rule {
                detected: |s| &s.ejections_detected_consecutive_gateway_failure,
                enforced: |s| &s.ejections_enforced_consecutive_gateway_failure,
                percent: config.gateway.enforcing,
                key: |k| &k.enforcing_consecutive_gateway_failure,
            },
            Self::LocalOrigin => Rule {
                detected: |s| &s.ejections_detected_consecutive_local_origin_failure,
                enforced: |s| &s.ejections_enforced_consecutive_local_origin_failure,
                percent: config.local.enforcing,
                key: |k| &k.enforcing_consecutive_local_origin_failure,
            },
            Self::SuccessRate => Rule {
                detected: |s| &s.ejections_detected_success_rate,
                enforced: |s| &s.ejections_enforced_success_rate,
                percent: config.enforcing.success_rate,
                key: |k| &k.enforcing_success_rate,
            },
            Self::LocalOriginSuccessRate => Rule {
                detected: |s| &s.ejections_detected_local_origin_success_rate,
                enforced: |s| &s.ejections_enforced_local_origin_success_rate,
                percent: config.enforcing.local_success_rate,
                key: |k| &k.enforcing_local_origin_success_rate,
            },
            Self::FailurePercentage => Rule {
                detected: |s| &s.ejections_detected_failure_percentage,
                enforced: |s| &s.ejections_enforced_failure_percentage,
                percent: config.enforcing.failure_percentage,
                key: |k| &k.enforcing_failure_percentage,
            },
            Self::LocalOriginFailurePercentage => Rule {
                detected: |s| &s.ejections_detected_local_origin_failure_percentage,
                enforced: |s| &s.ejections_enforced_local_origin_failure_percentage,
                percent: config.enforcing.local_failure_percentage,
                key: |k| &k.enforcing_failure_percentage_local_origin,
            },
        }
    }
}
