//! `custom_match` of predicates: matchers of more than text.

use ipnet::IpNet;
use twox_hash::XxHash64;
use xds_protos::{
    envoy::extensions::matching::input_matchers::{
        consistent_hashing::v3::ConsistentHashing, ip::v3::Ip, metadata::v3::Metadata,
        runtime_fraction::v3::RuntimeFraction,
    },
    google::api::expr::v1alpha1,
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::{
            matcher::v3::CelMatcher,
            v3::{CelExpression as CelProto, cel_expression::ExprSpecifier},
        },
    },
};

use super::{Data, MatchCx, extension, unknown};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    matching::{
        ValueMatcher,
        cel::{CelExpression, CelOptions},
    },
    net::cidr_range,
    runtime::RuntimeFractionalPercent,
};

#[derive(Debug)]
pub(super) enum CustomMatch {
    /// `envoy.matching.matchers.ip`
    Ip(Vec<IpNet>),
    /// `envoy.matching.matchers.metadata_matcher`
    Metadata { value: ValueMatcher, invert: bool },
    /// `envoy.matching.matchers.cel_matcher`
    Cel(Box<CelExpression>),
    /// `envoy.matching.matchers.runtime_fraction`: a share of the values.
    Fraction { share: RuntimeFractionalPercent, seed: u64 },
    /// `envoy.matching.matchers.consistent_hashing`
    Hash { threshold: u64, modulo: u64, seed: u64 },
}

impl CustomMatch {
    pub(super) fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (name, any) = extension(proto, cx)?;
        match any.type_name() {
            "envoy.extensions.matching.input_matchers.ip.v3.Ip" => {
                let proto = unpack::<Ip>(&any, cx)?;
                coverage!(cx, proto => Ip {
                    supported { cidr_ranges }
                    ignored { stat_prefix: "inputs that are no address are not counted" }
                });
                let ranges = cx.each("cidr_ranges", cidr_ranges, cidr_range)?;
                Ok(Self::Ip(ranges))
            }
            "envoy.extensions.matching.input_matchers.metadata.v3.Metadata" => {
                let proto = unpack::<Metadata>(&any, cx)?;
                coverage!(cx, proto => Metadata { supported { value, invert } });
                Ok(Self::Metadata {
                    value: cx.required("value", value, ValueMatcher::build)?,
                    invert,
                })
            }
            "envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing" => {
                let proto = unpack::<ConsistentHashing>(&any, cx)?;
                coverage!(cx, proto => ConsistentHashing { supported { threshold, modulo, seed } });
                Ok(Self::Hash {
                    threshold: threshold.into(),
                    modulo: u64::from(modulo).max(1),
                    seed,
                })
            }
            "envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction" => {
                let proto = unpack::<RuntimeFraction>(&any, cx)?;
                coverage!(cx, proto => RuntimeFraction { supported { runtime_fraction, seed } });
                Ok(Self::Fraction {
                    share: cx.required("runtime_fraction", runtime_fraction, RuntimeFractionalPercent::build)?,
                    seed,
                })
            }
            "xds.type.matcher.v3.CelMatcher" => {
                let proto = unpack::<CelMatcher>(&any, cx)?;
                coverage!(cx, proto => CelMatcher {
                    supported { expr_match }
                    ignored { description: "for people" }
                });
                let expr = cx.required("expr_match", expr_match, cel)?;
                Ok(Self::Cel(Box::new(expr)))
            }
            other => Err(cx.error(unknown(&name, other))),
        }
    }

    pub(super) fn matches(&self, data: &Data<'_>, cx: &MatchCx<'_>) -> bool {
        match self {
            Self::Ip(ranges) => data.ip().is_some_and(|ip| ranges.iter().any(|r| r.contains(&ip))),
            Self::Metadata { value, invert } => match data {
                Data::Value(v) => value.matches(Some(v)) != *invert,
                _ => false,
            },
            Self::Cel(expr) => *data == Data::Attributes && expr.matches(cx),
            Self::Fraction { share, seed } => data
                .text()
                .is_some_and(|text| share.hit(XxHash64::oneshot(*seed, &text))),
            Self::Hash {
                threshold,
                modulo,
                seed,
            } => data
                .text()
                .is_some_and(|text| XxHash64::oneshot(*seed, &text) % modulo >= *threshold),
        }
    }
}

/// A tree, of either package, checked or not. Envoy does not read texts here.
fn cel(proto: CelProto, cx: &mut BuildCx<'_>) -> ConfigResult<CelExpression> {
    coverage!(cx, proto => CelProto {
        supported { cel_expr_parsed, cel_expr_checked, expr_specifier }
        ignored { cel_expr_string: "Envoy evaluates parsed expressions only" }
    });
    let options = CelOptions::default();
    if let Some(expr) = cel_expr_checked
        .and_then(|e| e.expr)
        .or(cel_expr_parsed.and_then(|e| e.expr))
    {
        return CelExpression::build(expr, options, cx);
    }
    let old: Option<v1alpha1::Expr> = match expr_specifier {
        Some(ExprSpecifier::ParsedExpr(e)) => e.expr,
        Some(ExprSpecifier::CheckedExpr(e)) => e.expr,
        None => None,
    };
    match old {
        Some(expr) => CelExpression::build_v1alpha1(expr, options, cx),
        None => Err(cx.error("failed to create an expression: CEL expression not set.")),
    }
}
