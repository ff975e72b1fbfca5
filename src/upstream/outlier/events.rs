//! The log of ejections: `envoy.data.cluster.v3.OutlierDetectionEvent` as lines of JSON, for all clusters together
//! (`cluster_manager.outlier_detection.event_log_path` of the bootstrap).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use xds_protos::{
    dynamic,
    envoy::data::cluster::v3::{
        Action, OutlierDetectionEvent, OutlierEjectConsecutive, OutlierEjectFailurePercentage, OutlierEjectSuccessRate,
        OutlierEjectionType, outlier_detection_event::Event,
    },
    google::protobuf::UInt64Value,
    print::{self, PrintOptions},
};

use super::{Cause, rates::Threshold};
use crate::{
    access_log::LogFile,
    upstream::{Host, admin},
};

/// What happened to a host.
#[derive(Debug, Clone, Copy)]
pub enum Happened {
    /// It was ejected, or would have been if ejections were enforced.
    Ejected {
        cause: Cause,
        enforced: bool,
        /// What the success rates were compared with.
        threshold: Threshold,
    },
    /// It came back.
    Back,
}

/// Writes one line. `since` is the time since the host was last ejected, or came back.
pub fn write(
    file: &Arc<LogFile>,
    happened: Happened,
    cluster: &str,
    host: &Host,
    ejections: u32,
    since: Option<Duration>,
) {
    let mut message = OutlierDetectionEvent {
        timestamp: Some(admin::timestamp(SystemTime::now())),
        secs_since_last_action: since.map(|s| UInt64Value { value: s.as_secs() }),
        cluster_name: cluster.to_owned(),
        upstream_url: host.address.to_string(),
        action: Action::Uneject as i32,
        num_ejections: ejections,
        ..OutlierDetectionEvent::default()
    };
    if let Happened::Ejected {
        cause,
        enforced,
        threshold,
    } = happened
    {
        message.action = Action::Eject as i32;
        message.enforced = enforced;
        message.r#type = cause.proto() as i32;
        message.event = Some(match cause {
            Cause::SuccessRate | Cause::LocalOriginSuccessRate => {
                Event::EjectSuccessRateEvent(OutlierEjectSuccessRate {
                    host_success_rate: whole(host.outlier.success_rate(cause.is_local())),
                    cluster_average_success_rate: whole(threshold.average),
                    cluster_success_rate_ejection_threshold: whole(threshold.ejection),
                })
            }
            Cause::FailurePercentage | Cause::LocalOriginFailurePercentage => {
                Event::EjectFailurePercentageEvent(OutlierEjectFailurePercentage {
                    host_success_rate: whole(host.outlier.success_rate(cause.is_local())),
                })
            }
            Cause::Consecutive5xx | Cause::GatewayFailure | Cause::LocalOrigin => {
                Event::EjectConsecutiveEvent(OutlierEjectConsecutive {})
            }
        });
    }
    let options = PrintOptions {
        always_print_defaults: true,
        redact_sensitive: false,
        pretty: false,
    };
    if let Ok(message) = dynamic::from_typed(&message) {
        file.write((print::json(&message, options) + "\n").as_bytes());
    }
}

/// Rates are written without their fraction; there is none below zero.
fn whole(rate: f64) -> u32 {
    rate.max(0.0) as u32
}

impl Cause {
    fn proto(self) -> OutlierEjectionType {
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
}
