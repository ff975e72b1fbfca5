//! Who reports: attributes of the resource, by configuration and by detectors.

use std::{collections::BTreeMap, fs};

use xds_protos::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::tracers::opentelemetry::resource_detectors::v3::{
            DynatraceResourceDetectorConfig, EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig,
        },
    },
    prost::Name,
};

use super::{export::text, proto};
use crate::config::{AnyExt, BuildCx, ConfigResult, plain, unpack};

const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Where Dynatrace leaves what it knows of a process; the first file names another one.
const DYNATRACE: [&str; 2] = [
    "dt_metadata_e617c525669e072eebe3d0f08212e8f2.properties",
    "/var/lib/dynatrace/enrichment/dt_metadata.properties",
];

/// The version of the API that is served, as Envoy's own SDK would report it.
pub(super) fn version() -> String {
    format!("{}/{}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// A resource's attributes.
#[derive(Debug, Default)]
pub(super) struct Resource(BTreeMap<String, String>);

impl Resource {
    fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// `telemetry.sdk.*`: as Envoy has them, for whoever tells its spans by them.
    pub(super) fn describe_sdk(&mut self) {
        self.set("telemetry.sdk.language", "cpp");
        self.set("telemetry.sdk.name", "envoy");
        self.set("telemetry.sdk.version", &version());
    }

    /// `service.name`
    pub(super) fn name_service(&mut self, name: &str) {
        self.set(
            "service.name",
            if name.is_empty() { "unknown_service:envoy" } else { name },
        );
    }

    /// Adds what a detector finds; it comes before what is there.
    pub(super) fn detect(&mut self, proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let any = plain(typed_config.unwrap_or_default(), cx)?;
        let kind = any.type_name();
        if kind == EnvironmentResourceDetectorConfig::full_name() {
            let found = std::env::var_os(VARIABLE).map(|v| v.to_string_lossy().into_owned());
            for pair in found.unwrap_or_default().split(',').filter(|p| !p.is_empty()) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(cx.error(format!(
                        "The OpenTelemetry environment resource detector is configured but the '{VARIABLE}' \
                         environment variable has an invalid format."
                    )));
                };
                self.add(key, value);
            }
        } else if kind == StaticConfigResourceDetectorConfig::full_name() {
            let proto = unpack::<StaticConfigResourceDetectorConfig>(&any, cx)?;
            for (key, value) in &proto.attributes {
                self.add(key, value);
            }
        } else if kind == DynatraceResourceDetectorConfig::full_name() {
            for path in DYNATRACE {
                self.read(path);
            }
        } else {
            return Err(cx.error(format!("Resource detector factory not found: '{name}'")));
        }
        Ok(())
    }

    fn add(&mut self, key: &str, value: &str) {
        if !key.is_empty() && !value.is_empty() {
            self.set(key, value);
        }
    }

    fn read(&mut self, path: &str) {
        let Ok(text) = fs::read_to_string(path) else { return };
        let relative = !path.starts_with('/');
        let text = match relative {
            true => fs::read_to_string(text.trim()).unwrap_or_default(),
            false => text,
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            self.add(key.trim(), value.trim());
        }
    }

    pub(super) fn to_proto(&self) -> proto::Resource {
        let attributes = self.0.iter().map(|(key, value)| text(key.clone(), value.clone()));
        proto::Resource {
            attributes: attributes.collect(),
        }
    }
}
