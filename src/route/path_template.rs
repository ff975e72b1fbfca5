//! URI templates (`envoy.path.match.uri_template`, `envoy.path.rewrite.uri_template`): `/{lang}/videos/*.m4s`.

use std::sync::Arc;

use regex::bytes::Regex;
use xds_protos::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::path::{
        r#match::uri_template::v3::UriTemplateMatchConfig, rewrite::uri_template::v3::UriTemplateRewriteConfig,
    },
};

use xds_protos::prost::Name;

use super::template;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::Path,
    matching::full_match,
};

/// A compiled template. `*` is one path segment, `**` any number and the last wildcard, `{name}` or
/// `{name=pattern}` a part with a name, perhaps with text around it.
#[derive(Debug, Clone)]
pub struct PathTemplate {
    text: Arc<str>,
    /// None for what parses as a template and is no regular expression then (`/a**`): it matches nothing.
    regex: Option<Regex>,
    /// Names of the groups of `regex`, in order.
    names: Vec<String>,
}

/// A new path made of literals and named parts of the old one.
#[derive(Debug, Clone)]
pub(super) struct TemplateRewrite {
    template: PathTemplate,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    /// Group of the template's expression.
    Variable(usize),
}

impl PathTemplate {
    /// Builds the match of `path_match_policy`.
    pub fn build(policy: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto: UriTemplateMatchConfig = open(policy, cx)?;
        coverage!(cx, proto => UriTemplateMatchConfig { supported { path_template } });
        let (pattern, names) = template::parse(&path_template).map_err(|e| {
            cx.error(format!(
                "path_match_policy.path_template {path_template} is invalid: {e}"
            ))
        })?;
        Ok(Self {
            text: path_template.into(),
            regex: full_match(&pattern),
            names,
        })
    }

    /// Whether the path, without its query, matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

impl TemplateRewrite {
    /// Builds the rewrite of `path_rewrite_policy`, for a route that matches by a template.
    pub(super) fn build(
        policy: TypedExtensionConfig,
        template: Option<&PathTemplate>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let proto: UriTemplateRewriteConfig = open(policy, cx)?;
        coverage!(cx, proto => UriTemplateRewriteConfig { supported { path_template_rewrite } });
        let parts = template::parse_rewrite(&path_template_rewrite).ok_or_else(|| {
            cx.error(format!(
                "path_rewrite_policy.path_template_rewrite {path_template_rewrite} is invalid"
            ))
        })?;
        let Some(template) = template else {
            return Err(cx.error(
                "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without \
                 envoy.path.match.uri_template.uri_template_matcher extension",
            ));
        };
        let known = |part| match part {
            template::Piece::Literal(text) => Some(Part::Literal(text)),
            template::Piece::Variable(name) => {
                let at = template.names.iter().position(|known| *known == name)?;
                Some(Part::Variable(at + 1))
            }
        };
        let parts: Option<Vec<_>> = parts.into_iter().map(known).collect();
        let parts = parts.filter(|_| template.regex.is_some()).ok_or_else(|| {
            cx.error(format!(
                "mismatch between variables in path_match_policy {} and path_rewrite_policy {path_template_rewrite}",
                template.text
            ))
        })?;
        Ok(Self {
            template: template.clone(),
            parts,
        })
    }

    /// The new path with `query` (its `?` included) behind it; none when the path does not match.
    pub(super) fn apply(&self, path: &str, query: &str) -> Option<Path> {
        let groups = self.template.regex.as_ref()?.captures(path.as_bytes())?;
        let mut new = Vec::with_capacity(path.len() + query.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => new.extend_from_slice(text.as_bytes()),
                Part::Variable(group) => new.extend_from_slice(groups.get(*group)?.as_bytes()),
            }
        }
        new.extend_from_slice(query.as_bytes());
        Path::new(new)
    }
}

/// Opens the one extension there is of each kind.
fn open<T: xds_protos::prost::Message + Name + Default>(
    policy: TypedExtensionConfig,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<T> {
    let TypedExtensionConfig { name, typed_config } = policy;
    let any = typed_config.unwrap_or_default();
    if any.type_name() != T::full_name() {
        return Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{}'",
            any.type_name()
        )));
    }
    unpack(&any, cx)
}
