//! From a resource's pressure to a level.

use xds_protos::envoy::config::overload::v3::{
    ScaledTrigger, ThresholdTrigger, Trigger as Proto, trigger::TriggerOneof,
};

use crate::config::{BuildCx, ConfigResult};

/// `envoy.config.overload.v3.Trigger`, without the name of its resource.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trigger {
    /// Saturated from this pressure on.
    Threshold(f64),
    /// Idle up to `from`, saturated from `to` on.
    Scaled { from: f64, to: f64 },
}

impl Trigger {
    /// The resource and its trigger.
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Self)> {
        coverage!(cx, proto => Proto { supported { name, trigger_oneof } });
        let trigger = match trigger_oneof {
            Some(TriggerOneof::Threshold(proto)) => {
                coverage!(cx, proto => ThresholdTrigger { supported { value } });
                Self::Threshold(value)
            }
            Some(TriggerOneof::Scaled(proto)) => {
                coverage!(cx, proto => ScaledTrigger { supported { scaling_threshold, saturation_threshold } });
                if scaling_threshold >= saturation_threshold {
                    return Err(cx.error("scaling_threshold must be less than saturation_threshold"));
                }
                Self::Scaled {
                    from: scaling_threshold,
                    to: saturation_threshold,
                }
            }
            None => return Err(cx.error(format!("action not set for trigger {name}"))),
        };
        Ok((name, trigger))
    }

    /// The level at this pressure.
    pub(super) fn level(&self, pressure: f64) -> f32 {
        match *self {
            Self::Threshold(threshold) => f32::from(u8::from(pressure >= threshold)),
            Self::Scaled { from, .. } if pressure <= from => 0.0,
            Self::Scaled { to, .. } if pressure >= to => 1.0,
            Self::Scaled { from, to } => ((pressure - from) / (to - from)) as f32,
        }
    }
}
