//! Small conversions that every message needs.

use std::time::Duration;

use xds_protos::{
    envoy::r#type::v3::{FractionalPercent as ProtoFractionalPercent, Percent, fractional_percent::DenominatorType},
    google::protobuf as pb,
};

/// A proto duration as std's; negative ones become zero (PGV has rejected them where they matter).
pub fn duration(d: &pb::Duration) -> Duration {
    let seconds = u64::try_from(d.seconds).unwrap_or(0);
    let nanos = u32::try_from(d.nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos)
}

/// Whole milliseconds, the unit most of Envoy's timers keep.
pub fn millis(d: &pb::Duration) -> u64 {
    u64::try_from(duration(d).as_millis()).unwrap_or(u64::MAX)
}

/// Reading optional durations.
pub trait DurationExt {
    /// The duration, or `default` when unset.
    fn or_duration(self, default: Duration) -> Duration;
    /// The duration, `default` when unset, and none when it is zero: Envoy's "0 disables".
    fn enabled_or(self, default: Duration) -> Option<Duration>;
}

impl DurationExt for Option<pb::Duration> {
    fn or_duration(self, default: Duration) -> Duration {
        self.as_ref().map_or(default, duration)
    }

    fn enabled_or(self, default: Duration) -> Option<Duration> {
        Some(self.or_duration(default)).filter(|d| !d.is_zero())
    }
}

/// A share of something in parts of a million, so that every denominator fits exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FractionalPercent(u32);

impl FractionalPercent {
    /// Always.
    pub const FULL: Self = Self(1_000_000);
    /// Never.
    pub const ZERO: Self = Self(0);

    /// A share from parts of a million; more than a million is everything.
    pub fn from_millionths(parts: u32) -> Self {
        Self(parts.min(1_000_000))
    }

    /// Parts of a million.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether this draw (any uniformly random number) falls into the share.
    pub fn hit(self, random: u64) -> bool {
        random % 1_000_000 < u64::from(self.0)
    }
}

/// `envoy.type.v3.FractionalPercent`: numerator over 100, 10,000 or 1,000,000.
pub fn fraction(p: &ProtoFractionalPercent) -> FractionalPercent {
    let scale = match p.denominator() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    FractionalPercent::from_millionths(p.numerator.saturating_mul(scale))
}

/// `envoy.type.v3.Percent`: 0 to 100 as a double.
pub fn percent(p: &Percent) -> f64 {
    p.value.clamp(0.0, 100.0)
}
