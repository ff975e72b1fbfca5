//! The syntax of URI templates and of their rewrites, refused in Envoy's words where it is wrong.

use std::fmt::Write;

/// Characters of a path segment, as the inside of a class.
const LITERAL: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*";
const MAX_VARIABLES: usize = 5;
const MAX_NAME: usize = 16;

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("Invalid pattern: \"{0}\"")]
    Pattern(String),
    #[error("Invalid literal: \"{0}\"")]
    Literal(String),
    #[error("Invalid suffix literal: \"{0}\"")]
    Suffix(String),
    #[error("Unmatched variable bracket in mixed pattern: \"{0}\"")]
    Bracket(String),
    #[error("Invalid variable name: \"{0}\"")]
    Name(String),
    #[error("Invalid variable name length (length of \"{0}\" should be at least 1 and no more than {MAX_NAME})")]
    NameLength(String),
    #[error("Repeated variable name: \"{0}\"")]
    Repeated(String),
    #[error("Exceeded variable count limit ({MAX_VARIABLES})")]
    TooMany,
    #[error("Empty variable match")]
    EmptyMatch,
    #[error("Invalid variable match: \"{0}\"")]
    Match(String),
    #[error("Prefix match not supported.")]
    Prefix,
    #[error("Glob after text glob.")]
    Glob,
    #[error("Implicit variable path glob after text glob.")]
    ImplicitGlob,
}

/// A part of a rewrite.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Variable(String),
}

/// A template that is being read.
#[derive(Default)]
struct Template {
    regex: String,
    names: Vec<String>,
    text_glob: bool,
    /// A wildcard where none may be; told only when everything else is right.
    misplaced: Option<TemplateError>,
}

/// The regular expression of a template, in RE2's syntax, and the names of its groups.
pub(super) fn parse(text: &str) -> Result<(String, Vec<String>), TemplateError> {
    let Some(mut rest) = text
        .strip_prefix('/')
        .filter(|t| t.bytes().all(|b| b.is_ascii_graphic()))
    else {
        return Err(TemplateError::Pattern(text.to_owned()));
    };
    let mut template = Template::default();
    template.regex.push('/');
    while !rest.is_empty() {
        rest = match rest.starts_with('*') {
            true => template.operator(rest, false),
            false => template.segment(rest)?,
        };
        rest = match rest.strip_prefix('/') {
            Some(after) => {
                template.regex.push('/');
                after
            }
            None if rest.is_empty() => rest,
            // Text behind a wildcard ends the template.
            None => {
                template.literal(rest.split('/').next().unwrap_or_default(), TemplateError::Literal)?;
                if rest.contains('/') {
                    return Err(TemplateError::Prefix);
                }
                ""
            }
        };
    }
    template.check()
}

impl Template {
    /// `*` or `**`, at the start of `text`; what is behind it.
    fn operator<'t>(&mut self, text: &'t str, implicit: bool) -> &'t str {
        let (regex, rest) = match text.strip_prefix("**") {
            Some(rest) => (format!("[{LITERAL}/]*"), rest),
            None => (format!("[{LITERAL}]+"), text.get(1..).unwrap_or_default()),
        };
        if self.text_glob && self.misplaced.is_none() {
            self.misplaced = Some(match implicit {
                true => TemplateError::ImplicitGlob,
                false => TemplateError::Glob,
            });
        }
        self.text_glob = text.starts_with("**");
        self.regex.push_str(&regex);
        rest
    }

    fn literal(&mut self, text: &str, error: fn(String) -> TemplateError) -> Result<(), TemplateError> {
        if text.is_empty() || !text.bytes().all(is_literal) {
            return Err(error(text.to_owned()));
        }
        for c in text.chars() {
            // A star stays what it is in an expression, as in Envoy.
            if matches!(c, '$' | '(' | ')' | '+' | '.') {
                self.regex.push('\\');
            }
            self.regex.push(c);
        }
        Ok(())
    }

    /// A segment of text, with a variable in it perhaps; what is behind it.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, TemplateError> {
        let end = text.find('/').unwrap_or(text.len());
        let Some(open) = text[..end].find('{').filter(|open| *open == 0 || text.contains('}')) else {
            self.literal(&text[..end], TemplateError::Literal)?;
            return Ok(&text[end..]);
        };
        let Some((variable, behind)) = text[open + 1..].split_once('}') else {
            return Err(TemplateError::Bracket(text.to_owned()));
        };
        let end = behind.find('/').unwrap_or(behind.len());
        let suffix = &behind[..end];
        if !suffix.bytes().all(is_literal) {
            return Err(TemplateError::Suffix(suffix.to_owned()));
        }
        if open > 0 {
            self.literal(&text[..open], TemplateError::Literal)?;
        }
        self.variable(variable)?;
        if !suffix.is_empty() {
            self.literal(suffix, TemplateError::Suffix)?;
        }
        Ok(&behind[end..])
    }

    fn variable(&mut self, text: &str) -> Result<(), TemplateError> {
        let (name, pattern) = match text.split_once('=') {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (text, None),
        };
        if !is_name(name) {
            return Err(TemplateError::Name(name.to_owned()));
        }
        // Writing to a string cannot fail.
        let _ = write!(self.regex, "(?P<{name}>");
        self.names.push(name.to_owned());
        match pattern {
            None => {
                self.operator("*", true);
            }
            Some("") => return Err(TemplateError::EmptyMatch),
            Some(mut rest) => {
                while !rest.is_empty() {
                    rest = match rest.starts_with('*') {
                        true => self.operator(rest, false),
                        false => {
                            let end = rest.find('/').unwrap_or(rest.len());
                            self.literal(&rest[..end], TemplateError::Literal)?;
                            &rest[end..]
                        }
                    };
                    if rest.is_empty() {
                        break;
                    }
                    let Some(after) = rest.strip_prefix('/').filter(|after| !after.is_empty()) else {
                        return Err(TemplateError::Match(rest.to_owned()));
                    };
                    self.regex.push('/');
                    rest = after;
                }
            }
        }
        self.regex.push(')');
        Ok(())
    }

    fn check(self) -> Result<(String, Vec<String>), TemplateError> {
        for (i, name) in self.names.iter().enumerate() {
            if i >= MAX_VARIABLES {
                return Err(TemplateError::TooMany);
            }
            if name.len() > MAX_NAME {
                return Err(TemplateError::NameLength(name.clone()));
            }
            if self.names[..i].contains(name) {
                return Err(TemplateError::Repeated(name.clone()));
            }
        }
        match self.misplaced {
            Some(error) => Err(error),
            None => Ok((self.regex, self.names)),
        }
    }
}

/// The pieces of a rewrite; none when it is malformed.
pub(super) fn parse_rewrite(text: &str) -> Option<Vec<Piece>> {
    if !text.starts_with('/') || text.contains("//") {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (literal, variable) = match rest.split_once('{') {
            Some((literal, variable)) => (literal, Some(variable)),
            None => (rest, None),
        };
        if !literal.is_empty() {
            if !literal.bytes().all(|b| b == b'/' || is_literal(b)) {
                return None;
            }
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        let Some(variable) = variable else { break };
        let (name, after) = variable.split_once('}')?;
        if !is_name(name) {
            return None;
        }
        pieces.push(Piece::Variable(name.to_owned()));
        rest = after;
    }
    Some(pieces)
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&byte)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_as_envoy_says_it() {
        for (template, error) in [
            ("//a", "Invalid literal: \"\""),
            ("/{a}{b}", "Invalid suffix literal: \"{b}\""),
            ("/{a}-{b}", "Invalid suffix literal: \"-{b}\""),
            ("/**/**", "Glob after text glob."),
            ("/**/{a}", "Implicit variable path glob after text glob."),
            ("/{a=**}/{b=**}", "Glob after text glob."),
            ("/{}", "Invalid variable name: \"\""),
            ("/{a=}", "Empty variable match"),
            ("/{a b}", "Invalid pattern: \"/{a b}\""),
            ("/{a=/x}", "Invalid literal: \"\""),
            ("/{a=x/}", "Invalid variable match: \"/\""),
            ("/a}", "Invalid literal: \"a}\""),
            ("/{a}}", "Invalid suffix literal: \"}\""),
            ("/{{a}}", "Invalid suffix literal: \"}\""),
            ("/a?b", "Invalid literal: \"a?b\""),
            ("*", "Invalid pattern: \"*\""),
            ("/{_a}", "Invalid variable name: \"_a\""),
            ("/x{a", "Invalid literal: \"x{a\""),
            ("/{a}/{b", "Unmatched variable bracket in mixed pattern: \"{b\""),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "Exceeded variable count limit (5)"),
            ("/{a}/{a}", "Repeated variable name: \"a\""),
        ] {
            let refused = parse(template).map_err(|e| e.to_string());
            assert_eq!(refused, Err(error.to_owned()), "{template}");
        }
        for template in [
            "/",
            "/a/",
            "/***",
            "/{a=**/x}",
            "/a/{b=**}.txt",
            "/x{a}y",
            "/{a=b=c}",
            "/{a}b/c",
        ] {
            assert!(parse(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn rewrites() {
        for bad in ["{b}/{a}", "/{a}//b", "/{a}#", "/{a}?b", "/}{a}", "/{a=*}", "/{", "/{}"] {
            assert_eq!(parse_rewrite(bad), None, "{bad}");
        }
        let pieces = [Piece::Literal("/x/".into()), Piece::Variable("a".into())];
        assert_eq!(parse_rewrite("/x/{a}"), Some(pieces.into()));
    }
}
