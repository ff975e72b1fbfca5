//! Small conversions that every message needs.

use std::time::Duration;

use xds_protos::{
    envoy::r#type::v3::{FractionalPercent as ProtoFractionalPercent, Percent, fractional_percent::DenominatorType},
    google::protobuf as pb,
};

use super::{BuildCx, ConfigResult};

/// A proto duration as std's; negative ones become zero (PGV has rejected them where they matter).
pub fn duration(d: &pb::Duration) -> Duration {
    let seconds = u64::try_from(d.seconds).unwrap_or(0);
    let nanos = u32::try_from(d.nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos)
}

/// A proto duration as std's; one that is negative is an error in Envoy's words.
pub fn positive(d: pb::Duration, cx: &mut BuildCx<'_>) -> ConfigResult<Duration> {
    if d.seconds < 0 || d.nanos < 0 {
        let (seconds, nanos) = (d.seconds, d.nanos);
        return Err(cx.error(format!(
            "Invalid duration: Expected positive duration: seconds: {seconds} nanos: {nanos}"
        )));
    }
    Ok(duration(&d))
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

/// A share of something. The denominator is kept, because Envoy takes a random number modulo the denominator:
/// where the number is a request's own, both must choose the same requests.
#[derive(Debug, Clone, Copy)]
pub struct FractionalPercent {
    numerator: u32,
    denominator: u32,
}

impl FractionalPercent {
    /// Always.
    pub const FULL: Self = Self {
        numerator: 100,
        denominator: 100,
    };
    /// Never.
    pub const ZERO: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// A share; more than the denominator is everything. A denominator of zero counts as one.
    pub const fn new(numerator: u32, denominator: u32) -> Self {
        Self {
            numerator,
            denominator: if denominator == 0 { 1 } else { denominator },
        }
    }

    /// A share over one of the denominators of the API.
    pub fn of(numerator: u32, denominator: DenominatorType) -> Self {
        Self::new(
            numerator,
            match denominator {
                DenominatorType::Hundred => 100,
                DenominatorType::TenThousand => 10_000,
                DenominatorType::Million => 1_000_000,
            },
        )
    }

    /// A share from parts of a million; more than a million is everything.
    pub fn from_millionths(parts: u32) -> Self {
        Self::new(parts, 1_000_000)
    }

    /// Parts of a million.
    pub fn millionths(self) -> u32 {
        let parts = u64::from(self.numerator) * 1_000_000 / u64::from(self.denominator);
        parts.min(1_000_000) as u32
    }

    /// The part.
    pub fn numerator(self) -> u32 {
        self.numerator
    }

    /// The whole.
    pub fn denominator(self) -> u32 {
        self.denominator
    }

    /// Whether this draw (any uniformly random number) falls into the share.
    #[inline]
    pub fn hit(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

impl PartialEq for FractionalPercent {
    fn eq(&self, other: &Self) -> bool {
        self.millionths() == other.millionths()
    }
}

impl Eq for FractionalPercent {}

/// `envoy.type.v3.FractionalPercent`: numerator over 100, 10,000 or 1,000,000.
pub fn fraction(p: &ProtoFractionalPercent) -> FractionalPercent {
    FractionalPercent::of(p.numerator, p.denominator())
}

/// `envoy.type.v3.Percent`: 0 to 100 as a double.
pub fn percent(p: &Percent) -> f64 {
    p.value.clamp(0.0, 100.0)
}
