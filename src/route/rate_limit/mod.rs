//! `RateLimit`: the descriptors of a request, for the two rate limit filters.

mod action;
mod expression;

use xds_protos::{
    envoy::{
        config::route::v3::{
            RateLimit as Proto,
            rate_limit::{
                HitsAddend as ProtoHits, Override as ProtoOverride, XRateLimitOption,
                r#override::{self, OverrideSpecifier},
            },
        },
        r#type::v3::RateLimitUnit,
    },
    google::protobuf::{Value, value::Kind},
};

use self::action::{Action, Entry, MetadataKey};
use super::RouteMatch;
use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{RequestHead, StreamInfo},
    runtime::Key,
};

/// The rate limits of one level (route, virtual host, or a filter's own list).
#[derive(Debug, Clone, Default)]
pub struct RateLimitPolicy(Vec<RateLimit>);

/// One `RateLimit`: actions that together give one descriptor.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// `stage`, 0 to 10: only filters of the same stage see it.
    pub stage: u32,
    /// `disable_key`: the runtime key that turns it off.
    pub disable_key: String,
    enabled: Key,
    /// `apply_on_stream_done`: counted when the stream has ended.
    pub apply_on_stream_done: bool,
    actions: Vec<Action>,
    limit: Option<Override>,
    hits: Option<Hits>,
    x_ratelimit: XRateLimitOption,
}

/// What a descriptor is made of.
pub struct DescriptorCx<'a> {
    /// The request's head.
    pub head: &'a RequestHead,
    /// The stream.
    pub info: &'a StreamInfo,
    /// The chosen route.
    pub route: Option<&'a RouteMatch>,
    /// This proxy's own cluster (`node.cluster`): `source_cluster`.
    pub local_cluster: &'a str,
}

/// A descriptor as the rate limit service takes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Descriptor {
    /// Keys and values in order.
    pub entries: Vec<(String, String)>,
    /// A limit that replaces the service's own.
    pub limit: Option<LimitOverride>,
    /// How much the request counts; none: the filter's default.
    pub hits_addend: Option<u64>,
    /// Whether `hits_addend` gives back instead of taking.
    pub is_negative_hits: bool,
    /// `x_ratelimit_option`: none when the filter's own setting stands.
    pub x_ratelimit_headers: Option<bool>,
}

/// `RateLimitOverride`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// Requests in a unit.
    pub requests_per_unit: u32,
    /// The unit of time.
    pub unit: RateLimitUnit,
}

#[derive(Debug, Clone)]
enum Override {
    Fixed(LimitOverride),
    Metadata(MetadataKey),
}

#[derive(Debug, Clone)]
struct Hits {
    number: Option<u64>,
    format: Option<Format>,
    negative: bool,
}

impl RateLimitPolicy {
    /// Builds the rate limits of one level.
    pub fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self(cx.each("rate_limits", protos, RateLimit::build)?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rate limits of a stage.
    pub fn of_stage(&self, stage: u32) -> impl Iterator<Item = &RateLimit> {
        self.0.iter().filter(move |limit| limit.stage == stage)
    }

    /// All rate limits, of every stage.
    pub fn all(&self) -> &[RateLimit] {
        &self.0
    }
}

impl RateLimit {
    /// Whether it is asked for: `ratelimit.<disable_key>.http_filter_enabled`, a percentage of the requests.
    pub fn is_enabled(&self) -> bool {
        self.enabled.percent_feature(100, fastrand::u64(..))
    }

    /// Builds one rate limit.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let x_ratelimit = proto.x_ratelimit_option();
        coverage!(cx, proto => Proto {
            supported { stage, disable_key, actions, limit, hits_addend, apply_on_stream_done, x_ratelimit_option }
        });
        // Read by its accessor.
        let _ = x_ratelimit_option;
        Ok(Self {
            stage: stage.map_or(0, |v| v.value),
            enabled: match disable_key.as_str() {
                "" => Key::NONE,
                key => cx.server.runtime.key(&format!("ratelimit.{key}.http_filter_enabled")),
            },
            disable_key,
            apply_on_stream_done,
            actions: cx.each("actions", actions, Action::build)?,
            limit: cx.opt("limit", limit, Override::build)?,
            hits: cx.opt("hits_addend", hits_addend, |proto, cx| {
                coverage!(cx, proto => ProtoHits { supported { number, format, is_negative_hits } });
                Ok(Hits {
                    number: number.map(|n| n.value),
                    format: match format.as_str() {
                        "" => None,
                        text => Some(cx.field("format", |cx| Format::parse_omit_empty(text, cx))?),
                    },
                    negative: is_negative_hits,
                })
            })?,
            x_ratelimit,
        })
    }

    /// The descriptor of a request; none when an action has nothing to say.
    pub fn descriptor(&self, cx: &DescriptorCx<'_>) -> Option<Descriptor> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(cx) {
                Entry::Add(key, value) => entries.push((key, value)),
                Entry::Skip => {}
                Entry::Stop => return None,
            }
        }
        let limit = match &self.limit {
            None => None,
            Some(Override::Fixed(limit)) => Some(*limit),
            Some(Override::Metadata(key)) => key.dynamic(cx.info).and_then(LimitOverride::from_value),
        };
        Some(Descriptor {
            entries,
            limit,
            hits_addend: self.hits.as_ref().and_then(|hits| hits.value(cx)),
            is_negative_hits: self.hits.as_ref().is_some_and(|hits| hits.negative),
            x_ratelimit_headers: match self.x_ratelimit {
                XRateLimitOption::Unspecified => None,
                XRateLimitOption::Off => Some(false),
                XRateLimitOption::DraftVersion03 => Some(true),
            },
        })
    }
}

impl Hits {
    fn value(&self, cx: &DescriptorCx<'_>) -> Option<u64> {
        let Some(format) = &self.format else {
            return self.number;
        };
        let mut text = Vec::new();
        let format_cx = FormatCx {
            request: Some(cx.head),
            response: None,
            info: cx.info,
        };
        format.write(&mut text, &format_cx);
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }
}

impl Override {
    fn build(proto: ProtoOverride, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoOverride { supported { override_specifier } });
        match override_specifier {
            Some(OverrideSpecifier::DynamicMetadata(m)) => {
                coverage!(cx, m => r#override::DynamicMetadata { supported { metadata_key } });
                Ok(Self::Metadata(cx.required(
                    "dynamic_metadata.metadata_key",
                    metadata_key,
                    MetadataKey::build,
                )?))
            }
            Some(OverrideSpecifier::RateLimit(limit)) => {
                let unit_of = limit.unit();
                coverage!(cx, limit => r#override::RateLimitOverride { supported { requests_per_unit, unit } });
                // Read by its accessor.
                let _ = unit;
                Ok(Self::Fixed(LimitOverride {
                    requests_per_unit,
                    unit: unit_of,
                }))
            }
            None => Err(cx.error_at("override_specifier", "value is required")),
        }
    }
}

impl LimitOverride {
    /// A limit of a struct with `requests_per_unit` and `unit`.
    fn from_value(value: &Value) -> Option<Self> {
        let Some(Kind::StructValue(fields)) = &value.kind else {
            return None;
        };
        let Some(Kind::NumberValue(requests)) = fields.fields.get("requests_per_unit")?.kind else {
            return None;
        };
        let Some(Kind::StringValue(unit)) = &fields.fields.get("unit")?.kind else {
            return None;
        };
        Some(Self {
            requests_per_unit: requests as u32,
            unit: RateLimitUnit::from_str_name(unit)?,
        })
    }
}
