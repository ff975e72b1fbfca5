//! One rule that finds a tag in a name.

use std::{ops::Range, sync::OnceLock};

use regex::Regex;

use super::ExtractorScope;

/// A rule that finds one tag in names.
#[derive(Debug, Clone)]
pub(in crate::stats) struct Extractor {
    tag: Box<str>,
    rule: Rule,
    scope: ExtractorScope,
    /// The first token of every name it can match, where it is bound to one: such extractors come after the others.
    first_token: Option<Box<str>>,
    /// A value that does not count.
    except: &'static str,
}

#[derive(Debug, Clone)]
enum Rule {
    /// `cluster.$.**`: `$` is the tag, `*` any token, `**` any number of tokens.
    Tokens(&'static str),
    /// First group: what is taken out. Second group, if any: the value.
    Regex(Box<Regex>),
    /// The same, compiled at its first use: all of Envoy's own together take 20 ms and megabytes.
    Known(Box<Known>),
    /// The same, for patterns with look-around, which the linear engine lacks.
    Backtracking(Box<fancy_regex::Regex>),
    /// Always the same value, and nothing taken out.
    Fixed(Box<str>),
}

/// A pattern of ours, and its regular expression once it was needed.
#[derive(Debug, Clone)]
struct Known {
    pattern: Box<str>,
    regex: OnceLock<Option<Regex>>,
}

/// A pattern that is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("Invalid regex '{pattern}': {reason}")]
pub(in crate::stats) struct InvalidRegex {
    pattern: String,
    reason: String,
}

impl Extractor {
    /// One of Envoy's token patterns. `keyword` tells when it is worth a look, see [`ExtractorScope`].
    pub(super) fn tokens(tag: &str, pattern: &'static str, scope: ExtractorScope) -> Self {
        let first = pattern.split('.').next().filter(|first| !first.contains(['$', '*']));
        Self {
            tag: tag.into(),
            rule: Rule::Tokens(pattern),
            scope,
            first_token: first.map(Into::into),
            except: "",
        }
    }

    /// A regular expression that is known to be one; it finds nothing if it is not.
    pub(super) fn known(tag: &str, pattern: &str, scope: ExtractorScope, except: &'static str) -> Self {
        let rule = Rule::Known(Box::new(Known {
            pattern: pattern.into(),
            regex: OnceLock::new(),
        }));
        Self {
            tag: tag.into(),
            rule,
            scope,
            first_token: first_token(pattern).map(Into::into),
            except,
        }
    }

    /// A regular expression of the user.
    pub(in crate::stats) fn regex(tag: &str, pattern: &str) -> Result<Self, InvalidRegex> {
        let rule = match Regex::new(pattern) {
            Ok(regex) => Rule::Regex(Box::new(regex)),
            Err(_) => Rule::Backtracking(Box::new(fancy_regex::Regex::new(pattern).map_err(|error| {
                InvalidRegex {
                    pattern: pattern.to_owned(),
                    reason: error.to_string(),
                }
            })?)),
        };
        let first_token = first_token(pattern).map(Into::into);
        Ok(Self {
            tag: tag.into(),
            rule,
            scope: ExtractorScope::Name,
            first_token,
            except: "",
        })
    }

    /// A value that every statistic gets.
    pub(in crate::stats) fn fixed(tag: &str, value: &str) -> Self {
        let rule = Rule::Fixed(value.into());
        Self {
            tag: tag.into(),
            rule,
            scope: ExtractorScope::Prefix,
            first_token: None,
            except: "",
        }
    }

    /// Whether the pattern, if it is one of ours, is a regular expression.
    #[cfg(test)]
    pub(super) fn compiles(&self) -> bool {
        !matches!(&self.rule, Rule::Known(known) if Regex::new(&known.pattern).is_err())
    }

    pub(in crate::stats) fn tag(&self) -> &str {
        &self.tag
    }

    pub(super) fn scope(&self) -> ExtractorScope {
        self.scope
    }

    pub(super) fn first_token(&self) -> Option<&str> {
        self.first_token.as_deref()
    }

    /// What to take out of `name`, and the tag's value.
    pub(super) fn find<'n>(&'n self, name: &'n str) -> Option<(Range<usize>, &'n str)> {
        if let Some(first) = &self.first_token
            && name.split_once('.').is_none_or(|(token, _)| token != &**first)
        {
            return None;
        }
        let (remove, value) = match &self.rule {
            Rule::Tokens(pattern) => find_tokens(pattern, name)?,
            Rule::Regex(regex) => captured(regex, name)?,
            Rule::Known(known) => {
                let regex = known.regex.get_or_init(|| Regex::new(&known.pattern).ok());
                captured(regex.as_ref()?, name)?
            }
            Rule::Backtracking(regex) => {
                // Giving up on a name (a pattern that backtracks too much) leaves it without the tag.
                let groups = regex.captures(name).ok()??;
                let remove = groups.get(1)?;
                let value = groups.get(2).unwrap_or(remove);
                (remove.start()..remove.end(), value.as_str())
            }
            Rule::Fixed(value) => (0..0, &**value),
        };
        (!value.is_empty() && value != self.except).then_some((remove, value))
    }
}

/// What the first group takes out, and the value of the second.
fn captured<'n>(regex: &Regex, name: &'n str) -> Option<(Range<usize>, &'n str)> {
    let groups = regex.captures(name)?;
    let remove = groups.get(1)?;
    let value = groups.get(2).filter(|value| !value.is_empty()).unwrap_or(remove);
    Some((remove.range(), value.as_str()))
}

/// The literal between `^` and the first dot of a pattern, if that is all there is before the dot.
fn first_token(pattern: &str) -> Option<&str> {
    let rest = pattern.strip_prefix('^')?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (token, rest) = rest.split_at(end);
    (!token.is_empty() && (rest.starts_with("\\.") || rest.starts_with("(?=\\.)"))).then_some(token)
}

/// Matches a token pattern; also takes out one of the dots beside the token.
fn find_tokens<'n>(pattern: &str, name: &'n str) -> Option<(Range<usize>, &'n str)> {
    let mut tag = None;
    if !tokens_match(pattern, Some(name), name.len(), &mut tag) {
        return None;
    }
    let token: Range<usize> = tag?;
    let value = &name[token.clone()];
    let remove = if token.end < name.len() {
        token.start..token.end + 1
    } else {
        token.start.saturating_sub(1)..token.end
    };
    Some((remove, value))
}

/// Whether `rest` (`None` past the last token) of a name of `len` bytes matches; sets where `$` stands.
fn tokens_match(pattern: &str, rest: Option<&str>, len: usize, tag: &mut Option<Range<usize>>) -> bool {
    let (expected, pattern_rest) = match pattern.split_once('.') {
        Some((expected, rest)) => (expected, Some(rest)),
        None => (pattern, None),
    };
    let Some(text) = rest else { return false };
    let (token, text_rest) = match text.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (text, None),
    };
    match (expected, pattern_rest) {
        ("**", None) => true,
        ("**", Some(after)) => {
            let mut from = Some(text);
            while let Some(text) = from {
                if tokens_match(after, Some(text), len, tag) {
                    return true;
                }
                from = text.split_once('.').map(|(_, rest)| rest);
            }
            false
        }
        (expected, pattern_rest) => {
            if expected == "$" {
                let start = len - text.len();
                *tag = Some(start..start + token.len());
            } else if expected != "*" && expected != token {
                return false;
            }
            match pattern_rest {
                Some(pattern) => tokens_match(pattern, text_rest, len, tag),
                None => text_rest.is_none(),
            }
        }
    }
}
