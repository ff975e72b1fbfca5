//! What is written when the health of a host changes: `envoy.data.core.v3.HealthCheckEvent` as lines of JSON.

use std::{sync::Arc, time::SystemTime};

use xds_protos::{
    dynamic,
    envoy::{
        config::core::v3::TypedExtensionConfig,
        data::core::v3::{
            DegradedHealthyHost, HealthCheckAddHealthy, HealthCheckEjectUnhealthy, HealthCheckEvent,
            HealthCheckFailure, HealthCheckFailureType, HealthCheckSuccessful, HealthCheckerType, NoLongerDegradedHost,
            health_check_event::Event as Proto,
        },
        extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink,
    },
    print::{self, PrintOptions},
};

use super::config::Kind;
use crate::{
    access_log::LogFile,
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    upstream::{Host, admin},
};

/// Where events go; nowhere by default.
#[derive(Default)]
pub struct EventLog(Vec<Arc<LogFile>>);

/// What happened to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is not used any more.
    Ejected(Failure),
    /// It is used.
    Added { first_check: bool },
    /// A check succeeded and changed nothing.
    Succeeded,
    /// A check failed.
    Failed { failure: Failure, first_check: bool },
    /// It says that it is degraded.
    Degraded,
    /// It does not say so any more.
    NoLongerDegraded,
}

/// How a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub kind: HealthCheckFailureType,
    /// It counts against the threshold though the host answered (`retriable_statuses`).
    pub retriable: bool,
    /// The status it answered with; 0 for none.
    pub status: u16,
}

impl EventLog {
    /// The file of `event_log_path`, and the sinks of `event_logger`.
    pub fn build(path: String, sinks: Vec<TypedExtensionConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut files = Vec::new();
        if !path.is_empty() {
            files.push(open(&path, cx)?);
        }
        files.extend(cx.each("event_logger", sinks, |sink, cx| {
            let TypedExtensionConfig { name, typed_config } = sink;
            let any = crate::config::plain(typed_config.unwrap_or_default(), cx)?;
            if any.type_name() != "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink" {
                return Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                    any.type_name()
                )));
            }
            let HealthCheckEventFileSink { event_log_path } = unpack(&any, cx)?;
            open(&event_log_path, cx)
        })?);
        Ok(Self(files))
    }

    /// Writes one event, if anybody wants it.
    pub fn write(&self, event: Event, kind: &Kind, cluster: &str, host: &Host) {
        if self.0.is_empty() {
            return;
        }
        let message = HealthCheckEvent {
            health_checker_type: match kind {
                Kind::Http(_) => HealthCheckerType::Http,
                Kind::Tcp(_) => HealthCheckerType::Tcp,
                Kind::Grpc(_) => HealthCheckerType::Grpc,
                Kind::Redis(_) => HealthCheckerType::Redis,
                Kind::Thrift(_) => HealthCheckerType::Thrift,
            } as i32,
            host: Some(admin::address(&host.address)),
            cluster_name: cluster.to_owned(),
            timestamp: Some(admin::timestamp(SystemTime::now())),
            metadata: admin::metadata(&host.attributes().metadata),
            locality: Some(admin::locality(&host.attributes().locality)),
            event: Some(proto(event)),
        };
        let options = PrintOptions {
            always_print_defaults: true,
            redact_sensitive: false,
            pretty: false,
        };
        let Ok(message) = dynamic::from_typed(&message) else {
            return;
        };
        let line = print::json(&message, options) + "\n";
        for file in &self.0 {
            file.write(line.as_bytes());
        }
    }
}

fn open(path: &str, cx: &BuildCx<'_>) -> ConfigResult<Arc<LogFile>> {
    cx.server
        .log_files
        .open(path)
        .map_err(|e| cx.error_at("event_log_path", format!("unable to open file '{path}': {e}")))
}

fn proto(event: Event) -> Proto {
    match event {
        Event::Ejected(failure) => Proto::EjectUnhealthyEvent(HealthCheckEjectUnhealthy {
            failure_type: failure.kind as i32,
            http_status_code: failure.status.into(),
        }),
        Event::Added { first_check } => Proto::AddHealthyEvent(HealthCheckAddHealthy { first_check }),
        Event::Succeeded => Proto::SuccessfulHealthCheckEvent(HealthCheckSuccessful {}),
        Event::Failed { failure, first_check } => Proto::HealthCheckFailureEvent(HealthCheckFailure {
            failure_type: failure.kind as i32,
            first_check,
            http_status_code: failure.status.into(),
        }),
        Event::Degraded => Proto::DegradedHealthyHost(DegradedHealthyHost {}),
        Event::NoLongerDegraded => Proto::NoLongerDegradedHost(NoLongerDegradedHost {}),
    }
}
