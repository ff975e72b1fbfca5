//! URI templates (`envoy.path.match.uri_template`, `envoy.path.rewrite.uri_template`): `/{lang}/videos/*.m4s`.

use regex::bytes::Regex;
use xds_protos::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::path::{
        r#match::uri_template::v3::UriTemplateMatchConfig, rewrite::uri_template::v3::UriTemplateRewriteConfig,
    },
};

use crate::config::{AnyExt, BuildCx, ConfigResult, unpack};
use crate::http::Path;
use xds_protos::prost::Name;

/// A compiled template. `*` is one path segment, `**` any number and the last wildcard, `{name}` or
/// `{name=pattern}` a part with a name.
#[derive(Debug, Clone)]
pub struct PathTemplate(Regex);

/// A new path made of literals and named parts of the old one.
#[derive(Debug, Clone)]
pub(super) struct TemplateRewrite {
    template: PathTemplate,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Variable(String),
}

/// Characters of a path segment, without those a template gives a meaning to.
const SEGMENT: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@";

impl PathTemplate {
    /// Builds the match of `path_match_policy`.
    pub fn build(policy: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto: UriTemplateMatchConfig = open(policy, cx)?;
        coverage!(cx, proto => UriTemplateMatchConfig { supported { path_template } });
        let pattern = pattern(&path_template).map_err(|e| {
            cx.error(format!(
                "path_match_policy.path_template {path_template} is invalid: {e}"
            ))
        })?;
        Regex::new(&format!(r"\A{pattern}\z")).map(Self).map_err(|e| {
            cx.error(format!(
                "path_match_policy.path_template {path_template} is invalid: {e}"
            ))
        })
    }

    /// Whether the path, without its query, matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.is_match(path)
    }
}

impl TemplateRewrite {
    /// Builds the rewrite of `path_rewrite_policy`, for a route that matches by a template.
    pub(super) fn build(
        policy: TypedExtensionConfig,
        template: Option<&PathTemplate>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let name = policy.name.clone();
        let proto: UriTemplateRewriteConfig = open(policy, cx)?;
        coverage!(cx, proto => UriTemplateRewriteConfig { supported { path_template_rewrite } });
        let Some(template) = template else {
            return Err(cx.error(format!(
                "unable to use {name} extension without envoy.path.match.uri_template.uri_template_matcher extension"
            )));
        };
        let parts = parts(&path_template_rewrite)
            .filter(|parts| {
                let known = |name: &str| template.0.capture_names().flatten().any(|n| n == name);
                parts
                    .iter()
                    .all(|p| matches!(p, Part::Literal(_)) || matches!(p, Part::Variable(v) if known(v)))
            })
            .ok_or_else(|| cx.error(format!("path_template_rewrite {path_template_rewrite} is invalid")))?;
        Ok(Self {
            template: template.clone(),
            parts,
        })
    }

    /// The new path with `query` (its `?` included) behind it; none when the path does not match.
    pub(super) fn apply(&self, path: &str, query: &str) -> Option<Path> {
        let groups = self.template.0.captures(path.as_bytes())?;
        let mut new = Vec::with_capacity(path.len() + query.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => new.extend_from_slice(text.as_bytes()),
                Part::Variable(name) => new.extend_from_slice(groups.name(name)?.as_bytes()),
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

/// The regular expression of a template; what is wrong with it otherwise.
fn pattern(template: &str) -> Result<String, &'static str> {
    if !template.starts_with('/') {
        return Err("Invalid pattern");
    }
    let mut out = String::new();
    let mut rest = template;
    let mut text_glob = false;
    while !rest.is_empty() {
        rest = match rest.strip_prefix('{') {
            Some(variable) => {
                let (inside, after) = variable.split_once('}').ok_or("Unmatched variable bracket")?;
                let (name, value) = inside.split_once('=').unwrap_or((inside, "*"));
                if !is_variable_name(name) {
                    return Err("Invalid variable name");
                }
                out.push_str(&format!("(?P<{name}>"));
                let mut value = value;
                while !value.is_empty() {
                    value = piece(value, &mut out, &mut text_glob)?;
                }
                out.push(')');
                after
            }
            None => piece(rest, &mut out, &mut text_glob)?,
        };
    }
    Ok(out)
}

/// Translates a wildcard or a literal character; what is left behind it.
fn piece<'t>(text: &'t str, out: &mut String, text_glob: &mut bool) -> Result<&'t str, &'static str> {
    if text.starts_with('*') {
        if std::mem::replace(text_glob, text.starts_with("**")) {
            return Err("Glob after text glob.");
        }
        return Ok(match text.strip_prefix("**") {
            Some(after) => {
                out.push_str(&format!("[{SEGMENT}/]*"));
                after
            }
            None => {
                out.push_str(&format!("[{SEGMENT}]+"));
                text.trim_start_matches('*')
            }
        });
    }
    let first = text.chars().next().ok_or("Invalid literal")?;
    if !(first.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@/".contains(first)) {
        return Err("Invalid literal");
    }
    out.push_str(&regex::escape(&text[..1]));
    Ok(&text[1..])
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 16
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The parts of a rewrite; none when it is malformed.
fn parts(rewrite: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = rewrite;
    while let Some((literal, variable)) = rest.split_once('{') {
        let (name, after) = variable.split_once('}')?;
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        parts.push(Part::Variable(name.to_owned()));
        rest = after;
    }
    if rest.contains('}') {
        return None;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    rewrite.starts_with('/').then_some(parts)
}
