//! `CommonLbConfig`: what applies to every policy, and what the older API says there of its own.

use xds_protos::envoy::config::{
    cluster::v3::cluster::{
        CommonLbConfig as Proto,
        common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier},
    },
    core::v3::{HealthStatus, HealthStatusSet},
};

use super::{Hashing, LbConfig, LbPolicy, LocalityLb, ZoneAware, hashing};
use crate::config::{BuildCx, ConfigResult, percent};

/// Sets what `proto` says. With the extension API the policy's own messages tell of localities.
pub fn apply(proto: Proto, by_extension: bool, config: &mut LbConfig, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => Proto {
        supported {
            healthy_panic_threshold, consistent_hashing_lb_config, override_host_status, locality_config_specifier,
            ignore_new_hosts_until_first_hc, close_connections_on_host_set_change
        }
        ignored { update_merge_window: "endpoint updates are applied at once" }
    });
    // It is the pools' and not the balancer's.
    let _ = close_connections_on_host_set_change;
    config.ignore_new_hosts_until_first_hc = ignore_new_hosts_until_first_hc;
    if let Some(threshold) = healthy_panic_threshold {
        config.panic_threshold = percent(&threshold).trunc();
    }
    if let Some(HealthStatusSet { statuses }) = override_host_status {
        config.override_statuses = statuses
            .into_iter()
            .filter_map(|s| HealthStatus::try_from(s).ok())
            .collect();
    }
    if let Some(proto) = consistent_hashing_lb_config {
        coverage!(cx, proto => ConsistentHashingLbConfig {
            supported { use_hostname_for_hashing, hash_balance_factor }
        });
        let own = Hashing {
            use_hostname: use_hostname_for_hashing,
            balance_factor: hashing::factor(hash_balance_factor),
        };
        match &mut config.policy {
            _ if by_extension => {}
            LbPolicy::RingHash(ring) => ring.hashing = own,
            LbPolicy::Maglev(maglev) => maglev.hashing = own,
            _ => {}
        }
        config.needs_hostnames = use_hostname_for_hashing;
    }
    match locality_config_specifier {
        _ if by_extension => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => config.locality = LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            (config.zone, config.fail_traffic_on_panic) = ZoneAware::old(zone, cx);
        }
        None => {}
    }
    Ok(())
}
