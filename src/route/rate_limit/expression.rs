//! `envoy.rate_limit_descriptors.expr`: an entry whose value a CEL expression gives.

use std::sync::Arc;

use xds_protos::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::rate_limit_descriptors::expr::v3::{Descriptor as Proto, descriptor::ExprSpecifier},
    },
    prost::Name,
};

use super::DescriptorCx;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    matching::{
        cel::{CelExpression, CelOptions},
        tree::MatchCx,
    },
};

/// The expression and its entry's key.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub(super) key: String,
    skip_if_error: bool,
    expression: Arc<CelExpression>,
}

impl Expression {
    pub(super) fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = plain(proto.typed_config.unwrap_or_default(), cx)?;
        if any.type_name() != Proto::full_name() {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{}' with type URL: '{}'",
                proto.name,
                any.type_name()
            )));
        }
        let proto: Proto = unpack(&any, cx)?;
        coverage!(cx, proto => Proto { supported { descriptor_key, skip_if_error, expr_specifier } });
        let options = CelOptions::default();
        let expression = match expr_specifier {
            Some(ExprSpecifier::Text(text)) => CelExpression::parse(&text, options, cx)?,
            Some(ExprSpecifier::Parsed(expr)) => CelExpression::build_v1alpha1(expr, options, cx)?,
            None => return Err(cx.error("Rate limit descriptor extension failed: expression specifier is not set")),
        };
        Ok(Self {
            key: descriptor_key,
            skip_if_error,
            expression: Arc::new(expression),
        })
    }

    /// The value. Where the expression has none: `Some(None)` when the entry is left out, none when there is no
    /// descriptor then.
    pub(super) fn value(&self, cx: &DescriptorCx<'_>) -> Option<Option<String>> {
        match self.expression.text(&MatchCx::request(cx.info, cx.head)) {
            Some(text) => Some(Some(text)),
            None => self.skip_if_error.then_some(None),
        }
    }
}
