//! `zone_aware_lb_config` of either API to [`ZoneAware`].

use xds_protos::envoy::{
    config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig as OldZoneAware,
    extensions::load_balancing_policies::common::v3::locality_lb_config::{
        ZoneAwareLbConfig,
        zone_aware_lb_config::{ForceLocalZone, LocalityBasis},
    },
    r#type::v3::Percent,
};

use crate::config::{BuildCx, percent};

/// How zones are preferred where there is a local cluster to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneAware {
    /// `routing_enabled`, whole percent, 100: share of requests that are routed by zone.
    pub routing_enabled: u64,
    /// `min_cluster_size`, 6: fewer healthy hosts are not divided.
    pub min_cluster_size: u64,
    /// `force_local_zone.min_size`, or 1 for `force_locality_direct_routing`: with that many healthy hosts the own zone
    /// takes everything.
    pub force_local_zone: Option<u32>,
    /// `locality_basis: HEALTHY_HOSTS_WEIGHT`
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            force_local_zone: None,
            by_weight: false,
        }
    }
}

impl ZoneAware {
    /// Of `common_lb_config`; also tells `fail_traffic_on_panic`.
    pub(super) fn old(proto: OldZoneAware, cx: &mut BuildCx<'_>) -> (Self, bool) {
        coverage!(cx, proto => OldZoneAware {
            supported { routing_enabled, min_cluster_size, fail_traffic_on_panic }
        });
        let config = Self {
            routing_enabled: whole_percent(routing_enabled),
            min_cluster_size: min_cluster_size.map_or(6, |v| v.value),
            ..Self::default()
        };
        (config, fail_traffic_on_panic)
    }

    /// Of a policy; also tells `fail_traffic_on_panic`.
    #[allow(deprecated)]
    pub(super) fn new(proto: ZoneAwareLbConfig, cx: &mut BuildCx<'_>) -> (Self, bool) {
        coverage!(cx, proto => ZoneAwareLbConfig {
            supported {
                routing_enabled, min_cluster_size, fail_traffic_on_panic, force_locality_direct_routing,
                force_local_zone, locality_basis
            }
        });
        let forced = force_local_zone.map(|ForceLocalZone { min_size }| min_size.map_or(1, |v| v.value));
        let config = Self {
            routing_enabled: whole_percent(routing_enabled),
            min_cluster_size: min_cluster_size.map_or(6, |v| v.value),
            force_local_zone: forced.or(force_locality_direct_routing.then_some(1)),
            by_weight: locality_basis == LocalityBasis::HealthyHostsWeight as i32,
        };
        (config, fail_traffic_on_panic)
    }
}

fn whole_percent(value: Option<Percent>) -> u64 {
    value.map_or(100, |v| percent(&v) as u64)
}
