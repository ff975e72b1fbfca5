//! `RegexMatcher` and `RegexMatchAndSubstitute`: RE2's syntax and meaning on the `regex` crate, which
//! shares RE2's promise of linear time. As in Envoy, every byte of a text is a character.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex, RegexBuilder};
use xds_protos::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute as ProtoSubstitution, RegexMatcher as ProtoRegex, regex_matcher as proto,
};

use super::re2::translate;
use crate::config::{BuildCx, ConfigResult};

/// A regular expression that must match the whole text, as `RE2::FullMatch`.
#[derive(Debug, Clone)]
pub struct RegexMatcher(Regex);

impl RegexMatcher {
    /// Compiles `RegexMatcher.regex`.
    pub fn build(proto: ProtoRegex, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let pattern = pattern(proto, cx)?;
        let translated = translated(&pattern, cx)?;
        Ok(Self(compile(&format!(r"\A(?:{translated})\z"), &pattern, cx)?))
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// A pattern and what replaces each of its matches (`RE2::GlobalReplace`); `\0` to `\9` are groups.
#[derive(Debug, Clone)]
pub struct RegexSubstitution {
    regex: Regex,
    substitution: Vec<u8>,
}

impl RegexSubstitution {
    /// Compiles a pattern with its substitution.
    pub fn build(proto: ProtoSubstitution, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoSubstitution { supported { pattern, substitution } });
        let regex = cx.required("pattern", pattern, |p, cx| {
            let text = self::pattern(p, cx)?;
            compile(&translated(&text, cx)?, &text, cx)
        })?;
        Ok(Self {
            regex,
            substitution: substitution.into_bytes(),
        })
    }

    /// `text` with every match replaced; borrowed when there is none.
    pub fn replace_all<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.regex
            .replace_all(text, |groups: &Captures<'_>| self.expand(groups))
    }

    fn expand(&self, groups: &Captures<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.substitution.len());
        let mut bytes = self.substitution.iter();
        while let Some(&b) = bytes.next() {
            match b {
                b'\\' => match bytes.next() {
                    Some(d) if d.is_ascii_digit() => {
                        if let Some(group) = groups.get(usize::from(d - b'0')) {
                            out.extend_from_slice(group.as_bytes());
                        }
                    }
                    Some(&other) => out.push(other),
                    None => {}
                },
                _ => out.push(b),
            }
        }
        out
    }
}

/// A pattern that has to match a whole text; none when RE2 would not take it.
pub fn full_match(pattern: &str) -> Option<Regex> {
    let pattern = format!(r"\A(?:{})\z", translate(pattern).ok()?);
    builder(&pattern).build().ok()
}

fn pattern(proto: ProtoRegex, cx: &mut BuildCx<'_>) -> ConfigResult<String> {
    coverage!(cx, proto => ProtoRegex { supported { regex, engine_type } });
    if let Some(proto::EngineType::GoogleRe2(re2)) = engine_type {
        coverage!(cx, re2 => proto::GoogleRe2 {
            supported {}
            ignored { max_program_size: "the compiled size is bounded for every pattern" }
        });
    }
    Ok(regex)
}

fn compile(translated: &str, pattern: &str, cx: &BuildCx<'_>) -> ConfigResult<Regex> {
    builder(translated)
        .build()
        .map_err(|e| cx.error_at("regex", format!("invalid regex '{pattern}': {e}")))
}

fn builder(translated: &str) -> RegexBuilder {
    /// RE2's own limit.
    const MAX_NESTING: u32 = 1000;
    let mut builder = RegexBuilder::new(translated);
    builder.unicode(false).nest_limit(MAX_NESTING);
    builder
}

fn translated(pattern: &str, cx: &BuildCx<'_>) -> ConfigResult<String> {
    translate(pattern).map_err(|e| cx.error_at("regex", e.to_string()))
}
