//! `istio.workload.BootstrapExtension`: turns workload discovery on. What comes is kept in
//! [`Workloads`](crate::extensions::common::workload::Workloads).

use xds_protos::{
    any::{inner_type_name, unpack},
    envoy::config::{bootstrap::v3::Bootstrap, core::v3::ConfigSource},
    istio::workload::BootstrapExtension,
    prost::Name,
};

use crate::config::{ConfigError, ConfigResult};

/// Where workloads come from; none without the extension.
///
/// # Errors
/// When the extension's configuration cannot be read, or names no source.
pub fn source(bootstrap: &Bootstrap) -> ConfigResult<Option<ConfigSource>> {
    for (index, extension) in bootstrap.bootstrap_extensions.iter().enumerate() {
        let Some(any) = &extension.typed_config else { continue };
        let refused = |reason: String| ConfigError::new(format!("bootstrap_extensions[{index}]"), reason);
        if inner_type_name(any).map_err(|e| refused(e.to_string()))? != BootstrapExtension::full_name() {
            continue;
        }
        let BootstrapExtension { config_source } = unpack(any).map_err(|e| refused(e.to_string()))?;
        return match config_source {
            Some(source) => Ok(Some(source)),
            None => Err(refused("config_source: value is required".to_owned())),
        };
    }
    Ok(None)
}
