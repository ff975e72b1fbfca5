//! JSON as protobuf's reader takes it from Envoy: keys may be bare words, strings may have single quotes, and a comma
//! may trail. Comments are not accepted.

use super::error::{LoadError, Problem};
use super::node::{Key, Mark, Node, NodeKind};

/// How deep lists and maps may nest: protobuf's limit.
const MAX_DEPTH: usize = 100;

/// Reads the one value that `text` holds.
pub(super) fn parse(text: &str) -> Result<Node, LoadError> {
    let mut lexer = Lexer {
        rest: text,
        line: 1,
        column: 1,
    };
    let node = lexer.value(0)?;
    lexer.skip_space();
    if lexer.rest.is_empty() {
        Ok(node)
    } else {
        Err(lexer.error("extraneous characters after end of JSON object"))
    }
}

struct Lexer<'t> {
    rest: &'t str,
    line: u32,
    column: u32,
}

impl<'t> Lexer<'t> {
    fn value(&mut self, depth: usize) -> Result<Node, LoadError> {
        self.skip_space();
        if depth > MAX_DEPTH {
            return Err(self.error("JSON content was too deeply nested"));
        }
        let at = self.mark();
        let kind = match self.rest.chars().next() {
            Some('{') => self.map(depth)?,
            Some('[') => self.list(depth)?,
            Some('"' | '\'') => NodeKind::String(self.string()?),
            Some('-' | '0'..='9') => NodeKind::Number(self.number()?),
            Some('t') => self.word("true", NodeKind::Bool(true))?,
            Some('f') => self.word("false", NodeKind::Bool(false))?,
            Some('n') => self.word("null", NodeKind::Null)?,
            Some(c) => return Err(self.error(&format!("unexpected character: '{c}'"))),
            None => return Err(self.error("unexpected EOF")),
        };
        Ok(Node { at, kind })
    }

    fn map(&mut self, depth: usize) -> Result<NodeKind, LoadError> {
        self.bump();
        let mut entries = Vec::new();
        while !self.take('}') {
            let at = self.mark();
            let name = match self.rest.chars().next() {
                Some('"' | '\'') => self.string()?,
                _ => self.bare_word()?,
            };
            if !self.take(':') {
                return Err(self.error("expected ':' after a key"));
            }
            entries.push((Key { at, name }, self.value(depth + 1)?));
            if !self.take(',') && !self.peek('}') {
                return Err(self.error("expected ',' or '}'"));
            }
        }
        Ok(NodeKind::Map(entries))
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, LoadError> {
        self.bump();
        let mut items = Vec::new();
        while !self.take(']') {
            items.push(self.value(depth + 1)?);
            if !self.take(',') && !self.peek(']') {
                return Err(self.error("expected ',' or ']'"));
            }
        }
        Ok(NodeKind::List(items))
    }

    fn bare_word(&mut self) -> Result<String, LoadError> {
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let length = self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..length];
        let reserved = matches!(word, "null" | "true" | "false");
        if reserved || !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$') {
            return Err(self.error("expected a key"));
        }
        self.advance(length);
        Ok(word.to_owned())
    }

    fn word(&mut self, word: &str, kind: NodeKind) -> Result<NodeKind, LoadError> {
        if !self.rest.starts_with(word) {
            return Err(self.error(&format!("expected '{word}'")));
        }
        self.advance(word.len());
        Ok(kind)
    }

    fn number(&mut self) -> Result<String, LoadError> {
        let in_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let length = self.rest.find(|c| !in_number(c)).unwrap_or(self.rest.len());
        let digits = &self.rest[..length];
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        let well_formed = match unsigned.as_bytes() {
            [b'0', b'0'..=b'9', ..] => false,
            [b'0'..=b'9', ..] => !digits.ends_with('.') && !digits.contains(".e") && !digits.contains(".E"),
            _ => false,
        };
        if !well_formed || !digits.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(self.error(&format!("invalid number: '{digits}'")));
        }
        self.advance(length);
        Ok(digits.to_owned())
    }

    fn string(&mut self) -> Result<String, LoadError> {
        let quote = if self.peek('"') { '"' } else { '\'' };
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                None => return Err(self.error("unexpected EOF in a string")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => {
                    let c = self.escape()?;
                    text.push(c);
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, LoadError> {
        Ok(match self.bump() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(c @ ('"' | '\'' | '\\' | '/')) => c,
            Some('u' | 'U') => return self.unicode_escape(),
            Some(c) => return Err(self.error(&format!("invalid escape char: '{c}'"))),
            None => return Err(self.error("unexpected EOF in a string")),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, LoadError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !self.rest.starts_with("\\u") {
                return Err(self.error("a high surrogate must be followed by a low one"));
            }
            self.advance(2);
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error("invalid low surrogate"));
            }
            0x10000 + ((first & 0x3ff) << 10 | (second & 0x3ff))
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("invalid Unicode escape"))
    }

    fn hex4(&mut self) -> Result<u32, LoadError> {
        let hex = self
            .rest
            .get(..4)
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let code = code.ok_or_else(|| self.error("invalid Unicode escape"))?;
        self.advance(4);
        Ok(code)
    }

    fn skip_space(&mut self) {
        while self.rest.starts_with([' ', '\t', '\r', '\n']) {
            self.bump();
        }
    }

    fn peek(&mut self, c: char) -> bool {
        self.skip_space();
        self.rest.starts_with(c)
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.peek(c);
        if found {
            self.bump();
            self.skip_space();
        }
        found
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    /// Moves over ASCII that holds no line break.
    fn advance(&mut self, length: usize) {
        self.rest = &self.rest[length..];
        self.column += u32::try_from(length).unwrap_or(u32::MAX);
    }

    fn mark(&self) -> Mark {
        Mark {
            line: self.line,
            column: self.column,
        }
    }

    fn error(&self, reason: &str) -> LoadError {
        LoadError {
            line: self.line,
            column: self.column,
            path: String::new(),
            problem: Problem::Syntax(reason.into()),
        }
    }
}
