//! Network filters, one file or folder each. The connection manager has a room of its own, `http::hcm`.

pub mod connection_limit;
pub mod direct_response;
pub mod echo;
pub mod ext_authz;
pub mod istio_stats;
pub mod local_ratelimit;
pub mod metadata_exchange;
pub mod peer_metadata;
pub mod ratelimit;
pub mod rbac;
pub mod set_filter_state;
pub mod sni_cluster;
pub mod sni_dynamic_forward_proxy;
pub mod tcp_proxy;

use xds_protos::envoy::config::core::v3::RuntimeFeatureFlag;

use crate::{
    config::{BuildCx, ConfigResult},
    runtime::Key,
};

/// `runtime_enabled`: on by default, and as the runtime says.
pub struct RuntimeFlag {
    default: bool,
    key: Option<Key>,
}

impl RuntimeFlag {
    /// Reads the flag; without one it is on.
    pub fn build(proto: Option<RuntimeFeatureFlag>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Ok(Self {
                default: true,
                key: None,
            });
        };
        coverage!(cx, proto => RuntimeFeatureFlag { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value.is_some_and(|v| v.value),
            key: Some(cx.server.runtime.key(&runtime_key)),
        })
    }

    /// Whether it is on now.
    pub fn get(&self) -> bool {
        self.key.as_ref().map_or(self.default, |key| key.boolean(self.default))
    }
}
