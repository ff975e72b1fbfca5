//! The grammar: literals, `%%`, and `%COMMAND(arguments):length%`.

use super::{Op, Scope, command::Command};
use crate::config::ConfigResult;

/// Compiles a text; errors in Envoy's words.
pub(super) fn parse(format: &str, scope: &mut Scope<'_, '_>) -> ConfigResult<Vec<Op>> {
    let mut ops = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(unescaped) = after.strip_prefix('%') {
            literal.push('%');
            rest = unescaped;
            continue;
        }
        let token = Token::read(after).ok_or_else(|| {
            let position = format.len() - rest.len() + at;
            scope.cx.error(format!(
                "Incorrect configuration: {format}. Couldn't find valid command at position {position}"
            ))
        })?;
        flush(&mut literal, &mut ops);
        ops.push(Op::Command(Command::build_in(
            scope,
            token.command,
            token.arguments,
            token.length,
        )?));
        rest = token.rest;
    }
    literal.push_str(rest);
    flush(&mut literal, &mut ops);
    Ok(ops)
}

fn flush(literal: &mut String, ops: &mut Vec<Op>) {
    if !literal.is_empty() {
        ops.push(Op::Literal(std::mem::take(literal).into()));
    }
}

struct Token<'f> {
    command: &'f str,
    arguments: &'f str,
    length: Option<usize>,
    rest: &'f str,
}

impl<'f> Token<'f> {
    /// Reads what follows a percent sign. Arguments end at the first parenthesis that leads to the closing sign.
    fn read(text: &'f str) -> Option<Self> {
        let end = text
            .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .filter(|end| *end > 0)?;
        let (command, after) = text.split_at(end);
        let Some(inside) = after.strip_prefix('(') else {
            let (length, rest) = Self::tail(after)?;
            return Some(Self {
                command,
                arguments: "",
                length,
                rest,
            });
        };
        inside.match_indices(')').find_map(|(close, _)| {
            let (length, rest) = Self::tail(&inside[close + 1..])?;
            Some(Self {
                command,
                arguments: &inside[..close],
                length,
                rest,
            })
        })
    }

    /// `:length%` or `%`.
    fn tail(text: &'f str) -> Option<(Option<usize>, &'f str)> {
        if let Some(rest) = text.strip_prefix('%') {
            return Some((None, rest));
        }
        let (length, rest) = text.strip_prefix(':')?.split_once('%')?;
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // A length that no number holds makes it no command.
        Some((Some(length.parse().ok()?), rest))
    }
}
