//! `RegexMatcher` and `RegexMatchAndSubstitute`: RE2's syntax and meaning on the `regex` crate, which
//! shares RE2's promise of linear time.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex, RegexBuilder};
use xds_protos::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute as ProtoSubstitution, RegexMatcher as ProtoRegex, regex_matcher as proto,
};

use crate::config::{BuildCx, ConfigResult};

/// A regular expression that must match the whole text, as `RE2::FullMatch`.
#[derive(Debug, Clone)]
pub struct RegexMatcher(Regex);

impl RegexMatcher {
    /// Compiles `RegexMatcher.regex`.
    pub fn build(proto: ProtoRegex, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let pattern = pattern(proto, cx)?;
        let translated = translate(&pattern);
        if pattern.contains(')') {
            // What closes a group that it did not open must not close ours.
            compile(&translated, &pattern, cx)?;
        }
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
            compile(&translate(&text), &text, cx)
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
    RegexBuilder::new(translated)
        .build()
        .map_err(|e| cx.error_at("regex", re2_error(&e.to_string(), pattern)))
}

/// What is wrong with a pattern, in RE2's words.
fn re2_error(error: &str, pattern: &str) -> String {
    let from = |c: char| pattern.rfind(c).map_or(pattern, |at| &pattern[at..]);
    // The last line of a syntax error says what it is.
    match error.lines().last().unwrap_or_default().trim_start_matches("error: ") {
        "unclosed group" => format!("missing ): {pattern}"),
        "unopened group" => format!("unexpected ): {pattern}"),
        "unclosed character class" => format!("missing ]: {}", from('[')),
        "repetition operator missing expression" => format!("no argument for repetition operator: {pattern}"),
        "invalid character class range, the start must be <= the end" => {
            format!("invalid character class range: {}", from('['))
        }
        other => format!("invalid regex '{pattern}': {other}"),
    }
}

/// Rewrites what RE2 and the `regex` crate read differently: ASCII-only classes and word boundaries, literal
/// braces, `\Q..\E`, and the set operators and nested classes that RE2 does not have.
fn translate(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(['\\', '[', '{']) {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut class_start: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let in_class = class_start.is_some();
        if let Some(escaped) = rest.strip_prefix('\\') {
            let Some(e) = escaped.chars().next() else {
                out.push('\\');
                break;
            };
            rest = &escaped[e.len_utf8()..];
            match e {
                'd' => out.push_str("[0-9]"),
                'D' => out.push_str("[^0-9]"),
                'w' => out.push_str("[0-9A-Za-z_]"),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                's' => out.push_str(r"[\t\n\x0C\r ]"),
                'S' => out.push_str(r"[^\t\n\x0C\r ]"),
                'b' if !in_class => out.push_str(r"(?-u:\b)"),
                'B' if !in_class => out.push_str(r"(?-u:\B)"),
                'Q' if !in_class => {
                    let (literal, after) = rest.split_once(r"\E").unwrap_or((rest, ""));
                    out.push_str(&regex::escape(literal));
                    rest = after;
                }
                _ => {
                    out.push('\\');
                    out.push(e);
                }
            }
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match (c, class_start) {
            ('[', None) => {
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A bracket in the first place is a literal.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str(r"\]");
                    rest = after;
                }
                class_start = Some(out.len());
            }
            ('[', Some(_)) => match rest.split_once(":]").filter(|_| rest.starts_with(':')) {
                Some((name, after)) => {
                    out.push('[');
                    out.push_str(name);
                    out.push_str(":]");
                    rest = after;
                }
                None => out.push_str(r"\["),
            },
            (']', Some(_)) => {
                out.push(']');
                class_start = None;
            }
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some(_)) if rest.starts_with('-') => out.push_str(r"\-"),
            ('{', None) if !is_repetition(rest) => out.push_str(r"\{"),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether what follows a brace makes it a repetition: `3}`, `3,}`, `3,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else {
        return false;
    };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit())
}
