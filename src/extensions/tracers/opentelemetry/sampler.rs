//! Samplers: who decides whether a span is reported, in place of the connection manager.

use xds_protos::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::tracers::opentelemetry::samplers::v3::{
            AlwaysOnSamplerConfig, ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig,
        },
    },
    prost::Name,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, FractionalPercent, fraction, plain, unpack},
    tracing::Context,
};

/// `sampler`
#[derive(Debug)]
pub(super) enum Sampler {
    /// `always_on`
    AlwaysOn,
    /// `trace_id_ratio_based`
    Ratio(FractionalPercent),
    /// `parent_based`: as the parent, and without one as this.
    Parent(Box<Sampler>),
}

impl Sampler {
    /// Builds a sampler.
    ///
    /// # Errors
    /// A sampler that is not known, or one without what it needs.
    pub(super) fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let any = plain(typed_config.unwrap_or_default(), cx)?;
        let kind = any.type_name();
        if kind == AlwaysOnSamplerConfig::full_name() {
            Ok(Self::AlwaysOn)
        } else if kind == TraceIdRatioBasedSamplerConfig::full_name() {
            let proto = unpack::<TraceIdRatioBasedSamplerConfig>(&any, cx)?;
            let share = proto.sampling_percentage.as_ref().map(fraction);
            Ok(Self::Ratio(share.unwrap_or(FractionalPercent::new(0, 100))))
        } else if kind == ParentBasedSamplerConfig::full_name() {
            let proto = unpack::<ParentBasedSamplerConfig>(&any, cx)?;
            cx.required("wrapped_sampler", proto.wrapped_sampler, |wrapped, cx| {
                Self::build(wrapped, cx).map(|wrapped| Self::Parent(Box::new(wrapped)))
            })
        } else {
            Err(cx.error(format!("Sampler factory not found: '{name}'")))
        }
    }

    /// Whether a span of this trace is reported.
    pub(super) fn samples(&self, parent: Option<&Context>, trace_id: u128) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::Ratio(share) => {
                // As Envoy reads its first half: the least byte comes first.
                let first = (trace_id >> 64) as u64;
                share.hit(first.swap_bytes())
            }
            Self::Parent(wrapped) => match parent {
                Some(parent) => parent.sampled,
                None => wrapped.samples(None, trace_id),
            },
        }
    }
}
