//! One endpoint of a cluster, shared by control and workers.

use std::{
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use xds_protos::envoy::config::core::v3::Locality as ProtoLocality;

use super::{TransportMetadata, lb::ReportedWeight, outlier::HostOutlier};
use crate::{http::stream_info::Metadata, net::Address};

/// `core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `region`
    pub region: String,
    /// `zone`
    pub zone: String,
    /// `sub_zone`
    pub sub_zone: String,
}

impl Locality {
    /// Of its message; without one it is empty.
    pub fn of(proto: Option<&ProtoLocality>) -> Self {
        proto.map_or_else(Self::default, |ProtoLocality { region, zone, sub_zone }| Self {
            region: region.clone(),
            zone: zone.clone(),
            sub_zone: sub_zone.clone(),
        })
    }
}

/// What an endpoint update may change on a host that stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostAttributes {
    /// Where it is.
    pub locality: Arc<Locality>,
    /// `LbEndpoint.metadata`: subsets, transport socket matches, canary.
    pub metadata: Arc<Metadata>,
    /// What transport sockets read of the metadata; mostly nothing.
    pub transport: Option<Arc<TransportMetadata>>,
    /// Metadata of the locality, for logs.
    pub locality_metadata: Arc<Metadata>,
    /// `LocalityLbEndpoints.priority`
    pub priority: u32,
    /// `envoy.lb` metadata `canary: true`.
    pub canary: bool,
    /// `Endpoint.additional_addresses`: tried after `address` (happy eyeballs).
    pub additional_addresses: Vec<Address>,
    /// The present address of a host that is a name, and has moved since it was made.
    pub moved_to: Option<Box<Address>>,
    /// `Endpoint.health_check_config.address`/`port_value`: what active health checks connect to.
    pub health_check_address: Option<Address>,
    /// `Endpoint.health_check_config.hostname`
    pub health_check_hostname: String,
    /// `Endpoint.health_check_config.disable_active_health_check`
    pub health_check_disabled: bool,
}

/// How the load balancer treats a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// First choice.
    Healthy,
    /// Second choice, used as far as healthy hosts do not suffice.
    Degraded,
    /// Used only in panic mode.
    Unhealthy,
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $text:literal;)*) => {
        /// The reasons why a host is not healthy, as `/clusters` prints them (`health_flags`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum HealthFlag { $($(#[$doc])* $name = $bit),* }

        impl HealthFlag {
            /// All flags with their texts, in the order they are printed.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

flags! {
    /// Active health checking failed.
    FailedActiveHc = 0x1 "/failed_active_hc";
    /// Ejected by outlier detection.
    FailedOutlierCheck = 0x2 "/failed_outlier_check";
    /// EDS said UNHEALTHY.
    FailedEdsHealth = 0x4 "/failed_eds_health";
    /// Degraded by active health checking.
    DegradedActiveHc = 0x8 "/degraded_active_hc";
    /// EDS said DEGRADED.
    DegradedEdsHealth = 0x10 "/degraded_eds_health";
    /// Removed by discovery, kept until it fails its health check.
    PendingDynamicRemoval = 0x20 "/pending_dynamic_removal";
    /// Never health-checked yet.
    PendingActiveHc = 0x40 "/pending_active_hc";
    /// It said `x-envoy-immediate-health-check-fail`: it does not count until a check succeeds.
    ExcludedViaImmediateHcFail = 0x80 "/excluded_via_immediate_hc_fail";
    /// Its last health check timed out.
    ActiveHcTimeout = 0x100 "/active_hc_timeout";
    /// EDS said DRAINING.
    EdsStatusDraining = 0x200 "/eds_status_draining";
    /// It said `x-envoy-degraded`, and outlier detection looks for that.
    DegradedOutlierDetection = 0x400 "/degraded_outlier_detection";
}

const UNHEALTHY: u32 = HealthFlag::FailedActiveHc as u32
    | HealthFlag::FailedOutlierCheck as u32
    | HealthFlag::FailedEdsHealth as u32
    | HealthFlag::EdsStatusDraining as u32;
const EXCLUDED: u32 = HealthFlag::PendingActiveHc as u32
    | HealthFlag::ExcludedViaImmediateHcFail as u32
    | HealthFlag::EdsStatusDraining as u32;
const DEGRADED: u32 = HealthFlag::DegradedActiveHc as u32
    | HealthFlag::DegradedEdsHealth as u32
    | HealthFlag::DegradedOutlierDetection as u32;

/// A time that does not come.
const NEVER: u64 = u64::MAX;

/// Milliseconds since the first call.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Counters of one host, summed over all workers; shown by `/clusters`.
#[derive(Debug, Default)]
pub struct HostStats {
    /// Connections opened or tried.
    pub cx_total: AtomicU64,
    /// Connections open now.
    pub cx_active: AtomicU64,
    /// Connections that failed.
    pub cx_connect_fail: AtomicU64,
    /// Requests sent.
    pub rq_total: AtomicU64,
    /// Requests in flight; least request decides by it.
    pub rq_active: AtomicU64,
    /// Requests waiting for a connection.
    pub rq_pending_active: AtomicU64,
    /// Responses below 500 (the router counts them).
    pub rq_success: AtomicU64,
    /// 5xx responses, resets and failed connections.
    pub rq_error: AtomicU64,
    /// Requests that timed out.
    pub rq_timeout: AtomicU64,
}

/// One endpoint. Identity is its address: it survives endpoint and health updates, and its connections with it.
#[derive(Debug)]
pub struct Host {
    /// Where to connect.
    pub address: Address,
    /// DNS name it was resolved from, or `Endpoint.hostname`; empty when neither.
    pub hostname: Arc<str>,
    /// Counters shared by all workers.
    pub stats: HostStats,
    weight: AtomicU32,
    health: AtomicU32,
    removed: AtomicBool,
    /// Milliseconds of [`now`]: since when it is well, or there; [`NEVER`] if it never was well.
    well_since: AtomicU64,
    attributes: ArcSwap<HostAttributes>,
    /// What outlier detection counts; most hosts never need it.
    outlier: OnceLock<Box<HostOutlier>>,
    /// What it reports of its load, once it did.
    reported: OnceLock<Box<ReportedWeight>>,
}

impl Host {
    /// A healthy host of weight 1 (0 becomes 1, as in Envoy).
    pub fn new(
        address: Address,
        hostname: impl Into<Arc<str>>,
        weight: u32,
        attributes: impl Into<Arc<HostAttributes>>,
    ) -> Self {
        Self {
            address,
            hostname: hostname.into(),
            stats: HostStats::default(),
            weight: AtomicU32::new(weight.max(1)),
            health: AtomicU32::new(0),
            removed: AtomicBool::new(false),
            well_since: AtomicU64::new(now()),
            attributes: ArcSwap::new(attributes.into()),
            outlier: OnceLock::new(),
            reported: OnceLock::new(),
        }
    }

    /// What outlier detection counts.
    pub(super) fn outlier(&self) -> &HostOutlier {
        self.outlier.get_or_init(Box::default)
    }

    /// What outlier detection counts, if it ever did.
    pub(super) fn outlier_if_any(&self) -> Option<&HostOutlier> {
        self.outlier.get().map(Box::as_ref)
    }

    /// Success in percent in the last interval, on this side or on the other; -1 if nothing can be said.
    pub fn success_rate(&self, local: bool) -> f64 {
        self.outlier_if_any().map_or(-1.0, |o| o.success_rate(local))
    }

    /// A health check finds it well again: its slow start begins.
    pub(super) fn well_from_now(&self) {
        self.well_since.store(now(), Relaxed);
    }

    /// Discovery told of its health when it came (`new`) or later: its slow start begins when it is well for the first
    /// time.
    pub(super) fn health_told(&self, new: bool) {
        match self.health() {
            Health::Healthy if self.well_since.load(Relaxed) == NEVER => self.well_from_now(),
            Health::Healthy => {}
            _ if new => self.well_since.store(NEVER, Relaxed),
            _ => {}
        }
    }

    /// Milliseconds since it came or was found well again.
    pub fn well_for(&self) -> u64 {
        now().saturating_sub(self.well_since.load(Relaxed))
    }

    /// Load-balancing weight, at least 1.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Sets the weight; tells whether it changed.
    pub fn set_weight(&self, weight: u32) -> bool {
        self.weight.swap(weight.max(1), Relaxed) != weight.max(1)
    }

    /// The weight that it reported, for `client_side_weighted_round_robin`; none before its first report.
    pub(super) fn reported_weight(&self) -> Option<&ReportedWeight> {
        self.reported.get().map(|r| &**r)
    }

    /// The same, to note a report.
    pub(super) fn reported_weight_mut(&self) -> &ReportedWeight {
        self.reported.get_or_init(Box::default)
    }

    /// Whether it is at another address than it was made with.
    pub fn has_moved(&self) -> bool {
        self.attributes().moved_to.is_some()
    }

    /// Where to connect now.
    pub fn present_address(&self) -> Address {
        let attributes = self.attributes();
        attributes.moved_to.as_deref().unwrap_or(&self.address).clone()
    }

    /// Everything else an update may change.
    pub fn attributes(&self) -> arc_swap::Guard<Arc<HostAttributes>> {
        self.attributes.load()
    }

    /// Replaces the attributes; tells whether they changed.
    pub fn set_attributes(&self, attributes: Arc<HostAttributes>) -> bool {
        if *self.attributes.load() == attributes {
            return false;
        }
        self.attributes.store(attributes);
        true
    }

    /// How the load balancer treats it.
    #[inline]
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            f if f & UNHEALTHY != 0 => Health::Unhealthy,
            f if f & DEGRADED != 0 => Health::Degraded,
            _ => Health::Healthy,
        }
    }

    /// Whether it counts neither as well nor as unwell (it was never checked, or it drains): the load of the others
    /// does not depend on it.
    pub fn is_excluded(&self) -> bool {
        self.health.load(Relaxed) & EXCLUDED != 0
    }

    /// Whether the flag is set.
    pub fn has_flag(&self, flag: HealthFlag) -> bool {
        self.health.load(Relaxed) & flag as u32 != 0
    }

    /// Sets or clears a flag; tells whether it changed.
    pub fn set_flag(&self, flag: HealthFlag, on: bool) -> bool {
        let before = if on {
            self.health.fetch_or(flag as u32, Relaxed)
        } else {
            self.health.fetch_and(!(flag as u32), Relaxed)
        };
        (before & flag as u32 != 0) != on
    }

    /// Whether discovery removed it; it never comes back, its address gets a new host then.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    /// Marks it removed: workers drain its pools.
    pub(super) fn remove(&self) {
        self.removed.store(true, Relaxed);
    }

    /// `healthy`, or the flags one after the other: `/clusters` prints it.
    pub fn health_text(&self) -> String {
        let text: String = HealthFlag::ALL
            .iter()
            .filter(|(f, _)| self.has_flag(*f))
            .map(|(_, t)| *t)
            .collect();
        if text.is_empty() { "healthy".into() } else { text }
    }
}
