//! The messages of the API that hold a default and the runtime key that overrides it.

use xds_protos::envoy::config::core::v3::{
    RuntimeDouble as DoubleProto, RuntimeFeatureFlag as FlagProto, RuntimeFractionalPercent as FractionProto,
    RuntimePercent as PercentProto, RuntimeUInt32 as UInt32Proto,
};

use super::Key;
use crate::config::{BuildCx, ConfigResult, FractionalPercent, fraction, percent};

/// `envoy.config.core.v3.RuntimeFractionalPercent`: a share of requests.
///
/// The key's value may be a message `{numerator, denominator}` or a whole number of percent.
#[derive(Debug, Clone)]
pub struct RuntimeFractionalPercent {
    default: FractionalPercent,
    key: Key,
}

impl RuntimeFractionalPercent {
    /// Builds the message; without a `default_value` the share is zero.
    pub fn build(proto: FractionProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => FractionProto { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value.as_ref().map_or(FractionalPercent::ZERO, fraction),
            key: cx.server.runtime.key(&runtime_key),
        })
    }

    /// Builds an optional field; `unset` is the share where it is not there, and no key can change it.
    pub fn build_or(
        proto: Option<FractionProto>,
        unset: FractionalPercent,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        proto.map_or(Ok(Self::fixed(unset)), |proto| Self::build(proto, cx))
    }

    /// A share with a key that Envoy has built in.
    pub fn with_key(default: FractionalPercent, key: &str, cx: &BuildCx<'_>) -> Self {
        Self {
            default,
            key: cx.server.runtime.key(key),
        }
    }

    /// A share that no key changes.
    pub fn fixed(share: FractionalPercent) -> Self {
        Self {
            default: share,
            key: Key::NONE,
        }
    }

    /// The share as of now.
    #[inline]
    pub fn share(&self) -> FractionalPercent {
        self.key.share(self.default)
    }

    /// Whether the request with this random number belongs to the share: where several decisions about one request
    /// must agree.
    #[inline]
    pub fn hit(&self, random: u64) -> bool {
        self.share().hit(random)
    }

    /// Whether this request belongs to the share, by a random number of its own; none is drawn for all and nothing.
    #[inline]
    pub fn roll(&self) -> bool {
        let share = self.share();
        match share.numerator() {
            0 => false,
            n if n >= share.denominator() => true,
            _ => share.hit(fastrand::u64(..)),
        }
    }
}

/// `envoy.config.core.v3.RuntimeFeatureFlag`: a switch.
#[derive(Debug, Clone)]
pub struct RuntimeFeatureFlag {
    default: bool,
    key: Key,
}

impl RuntimeFeatureFlag {
    /// Builds the message; without a `default_value` the switch is off.
    pub fn build(proto: FlagProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => FlagProto { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value.is_some_and(|v| v.value),
            key: cx.server.runtime.key(&runtime_key),
        })
    }

    /// Builds an optional field; `unset` is the value where it is not there.
    pub fn build_or(proto: Option<FlagProto>, unset: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let fixed = Self {
            default: unset,
            key: Key::NONE,
        };
        proto.map_or(Ok(fixed), |proto| Self::build(proto, cx))
    }

    /// Whether it is on.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.key.boolean(self.default)
    }
}

/// `envoy.config.core.v3.RuntimeUInt32`: a whole number.
#[derive(Debug, Clone)]
pub struct RuntimeUInt32 {
    default: u32,
    key: Key,
}

impl RuntimeUInt32 {
    /// Builds the message.
    pub fn build(proto: UInt32Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => UInt32Proto { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value,
            key: cx.server.runtime.key(&runtime_key),
        })
    }

    /// The number as of now; what does not fit is the default.
    #[inline]
    pub fn value(&self) -> u32 {
        u32::try_from(self.key.integer(self.default.into())).unwrap_or(self.default)
    }
}

/// `envoy.config.core.v3.RuntimeDouble`: a number.
#[derive(Debug, Clone)]
pub struct RuntimeDouble {
    default: f64,
    key: Key,
}

impl RuntimeDouble {
    /// Builds the message.
    pub fn build(proto: DoubleProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => DoubleProto { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value,
            key: cx.server.runtime.key(&runtime_key),
        })
    }

    /// The number as of now.
    #[inline]
    pub fn value(&self) -> f64 {
        self.key.double(self.default)
    }
}

/// `envoy.config.core.v3.RuntimePercent`: 0 to 100 as a number.
#[derive(Debug, Clone)]
pub struct RuntimePercent {
    default: f64,
    key: Key,
}

impl RuntimePercent {
    /// Builds the message; without a `default_value` it is zero.
    pub fn build(proto: PercentProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => PercentProto { supported { default_value, runtime_key } });
        Ok(Self {
            default: default_value.as_ref().map_or(0.0, percent),
            key: cx.server.runtime.key(&runtime_key),
        })
    }

    /// The percentage as of now: a value out of range is the default, as in Envoy.
    #[inline]
    pub fn value(&self) -> f64 {
        let value = self.key.double(self.default);
        if (0.0..=100.0).contains(&value) {
            value
        } else {
            self.default
        }
    }
}
