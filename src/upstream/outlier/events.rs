//! The log of ejections: `envoy.data.cluster.v3.OutlierDetectionEvent` as lines of JSON, for all clusters together
//! (`cluster_manager.outlier_detection.event_log_path` of the bootstrap).

use std::time::SystemTime;

use xds_protos::{
    dynamic,
    envoy::data::cluster::v3::{
        Action, OutlierDetectionEvent, OutlierEjectConsecutive, OutlierEjectFailurePercentage, OutlierEjectSuccessRate,
        outlier_detection_event::Event,
    },
    google::protobuf::UInt64Value,
    print::{self, PrintOptions},
};

use super::{Cause, OutlierDetector};
use crate::{
    server::ServerContext,
    upstream::{Cluster, Host, admin},
};

/// What happened to a host.
#[derive(Debug, Clone, Copy)]
pub enum Happened {
    /// It was ejected, or would have been if ejections were enforced.
    Ejected { cause: Cause, enforced: bool },
    /// It said that it is degraded.
    Degraded,
    /// It came back, or is not degraded any more.
    Back,
}

impl OutlierDetector {
    /// Writes one line, if anybody wants it.
    pub(super) fn write(&self, happened: Happened, cluster: &Cluster, host: &Host, server: &ServerContext) {
        let Some(file) = server.clusters.ejection_log() else {
            return;
        };
        let (count, since) = {
            let ejection = host.outlier().ejection();
            let since = match happened {
                Happened::Back => ejection.ejected.since_begin(),
                _ => ejection.ejected.since_end(),
            };
            (ejection.count, since)
        };
        let mut message = OutlierDetectionEvent {
            timestamp: Some(admin::timestamp(SystemTime::now())),
            secs_since_last_action: since.map(|s| UInt64Value { value: s.as_secs() }),
            cluster_name: cluster.info.name.to_string(),
            upstream_url: host.address.to_string(),
            action: Action::Eject as i32,
            num_ejections: count,
            ..OutlierDetectionEvent::default()
        };
        match happened {
            Happened::Back => message.action = Action::Uneject as i32,
            Happened::Degraded => {
                message.enforced = true;
                message.event = Some(Event::EjectConsecutiveEvent(OutlierEjectConsecutive {}));
            }
            Happened::Ejected { cause, enforced } => {
                message.enforced = enforced;
                message.r#type = cause.proto() as i32;
                message.event = Some(self.event(cause, host));
            }
        }
        let options = PrintOptions {
            always_print_defaults: true,
            redact_sensitive: false,
            pretty: false,
        };
        let Ok(message) = dynamic::from_typed(&message) else {
            return;
        };
        let mut line = print::json(&message, options) + "\n";
        if matches!(happened, Happened::Degraded) {
            // The API's enum does not have Envoy's name for it.
            line = line.replace("\"CONSECUTIVE_5XX\"", "\"DEGRADED\"");
        }
        file.write(line.as_bytes());
    }

    fn event(&self, cause: Cause, host: &Host) -> Event {
        let rate = || whole(host.outlier().success_rate(cause.is_local()));
        match cause {
            Cause::SuccessRate | Cause::LocalOriginSuccessRate => {
                let compared = self.compared(cause.is_local());
                Event::EjectSuccessRateEvent(OutlierEjectSuccessRate {
                    host_success_rate: rate(),
                    cluster_average_success_rate: whole(compared.average),
                    cluster_success_rate_ejection_threshold: whole(compared.ejection),
                })
            }
            Cause::FailurePercentage | Cause::LocalOriginFailurePercentage => {
                Event::EjectFailurePercentageEvent(OutlierEjectFailurePercentage {
                    host_success_rate: rate(),
                })
            }
            Cause::Consecutive5xx | Cause::GatewayFailure | Cause::LocalOrigin => {
                Event::EjectConsecutiveEvent(OutlierEjectConsecutive {})
            }
        }
    }
}

/// Rates are written without their fraction; there is none below zero.
fn whole(rate: f64) -> u32 {
    rate.max(0.0) as u32
}
