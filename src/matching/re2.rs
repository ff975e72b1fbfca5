//! RE2's syntax, read as RE2 reads it and written as the `regex` crate takes it.
//!
//! Envoy compiles patterns with RE2 in Latin-1: every byte is a character. What RE2 refuses is refused here in its
//! words; what it takes comes out as a pattern for `regex::bytes` without Unicode, in which nothing is left to differ
//! (`\s`, `[a&&b]`, `(?x)`, `a**`, names of groups).

use std::fmt::Write;

/// What RE2 says about a pattern that it does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Re2Error {
    #[error("missing ]: {0}")]
    MissingBracket(String),
    #[error("missing ): {0}")]
    MissingParen(String),
    #[error("unexpected ): {0}")]
    UnexpectedParen(String),
    #[error("trailing \\")]
    TrailingBackslash,
    #[error("no argument for repetition operator: {0}")]
    RepeatArgument(String),
    #[error("invalid repetition size: {0}")]
    RepeatSize(String),
    #[error("bad repetition operator: {0}")]
    RepeatOperator(String),
    #[error("invalid perl operator: {0}")]
    PerlOperator(String),
    #[error("invalid named capture group: {0}")]
    NamedCapture(String),
    #[error("invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid character class range: {0}")]
    CharRange(String),
}

/// The most that repetitions within each other may multiply to.
const MAX_REPEAT: u64 = 1000;

/// Reads a pattern of RE2 and writes it for `regex::bytes::RegexBuilder::unicode(false)`.
pub(super) fn translate(pattern: &str) -> Result<String, Re2Error> {
    let mut parser = Parser {
        pattern,
        at: 0,
        out: String::with_capacity(pattern.len() + 16),
        groups: vec![Group::default()],
    };
    parser.run()?;
    Ok(parser.out)
}

struct Parser<'p> {
    pattern: &'p str,
    at: usize,
    out: String,
    /// The pattern itself, and the groups that are open in it.
    groups: Vec<Group>,
}

/// A sequence that is being read.
#[derive(Default)]
struct Group {
    /// How often the last item may repeat what is deepest in it; none when there is no item to repeat.
    last: Option<u64>,
    /// The most of all items before.
    most: u64,
    /// Where the repetition operator starts that stands right before.
    operator: Option<usize>,
}

impl Group {
    fn push(&mut self, repeats: u64) {
        self.most = self.most.max(self.last.unwrap_or(1));
        self.last = Some(repeats);
        self.operator = None;
    }

    fn repeats(&self) -> u64 {
        self.most.max(self.last.unwrap_or(1)).max(1)
    }
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), Re2Error> {
        while let Some(byte) = self.peek() {
            match byte {
                b'(' if self.rest().starts_with("(?") => self.perl_group()?,
                b'(' => {
                    self.take_as("(", 1);
                    self.groups.push(Group::default());
                }
                b'|' => {
                    self.take_as("|", 1);
                    let group = self.group();
                    group.most = group.repeats();
                    (group.last, group.operator) = (None, None);
                }
                b')' => self.close()?,
                b'^' => self.item("^", 1),
                b'$' => self.item("$", 1),
                b'.' => self.item(".", 1),
                b'[' => {
                    self.class()?;
                    self.group().push(1);
                }
                b'*' | b'+' | b'?' => self.repeat(1, None)?,
                b'{' => match bounds(self.rest()) {
                    Some((len, low, high)) => self.repeat(len, Some((low, high)))?,
                    None => self.item(r"\{", 1),
                },
                b'\\' => self.backslash()?,
                other => {
                    self.at += 1;
                    self.literal(other);
                }
            }
        }
        match self.groups.len() {
            1 => Ok(()),
            _ => Err(Re2Error::MissingParen(self.pattern.to_owned())),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.pattern.as_bytes().get(self.at).copied()
    }

    /// What is left. Empty where a character was cut in two, which only an escape of a byte can do.
    fn rest(&self) -> &str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    /// The pattern from `start` to here.
    fn since(&self, start: usize) -> String {
        let bytes = self.pattern.as_bytes().get(start..self.at).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn group(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn take_as(&mut self, text: &str, len: usize) {
        self.out.push_str(text);
        self.at += len;
    }

    fn item(&mut self, text: &str, len: usize) {
        self.take_as(text, len);
        self.group().push(1);
    }

    fn literal(&mut self, byte: u8) {
        write_byte(&mut self.out, byte);
        self.group().push(1);
    }

    fn close(&mut self) -> Result<(), Re2Error> {
        if self.groups.len() < 2 {
            return Err(Re2Error::UnexpectedParen(self.pattern.to_owned()));
        }
        let repeats = self.groups.pop().map_or(1, |group| group.repeats());
        self.take_as(")", 1);
        self.group().push(repeats);
        Ok(())
    }

    /// `*`, `+`, `?` or a count, and the `?` that may follow.
    fn repeat(&mut self, len: usize, count: Option<(u64, Option<u64>)>) -> Result<(), Re2Error> {
        let start = self.at;
        self.at += len;
        if self.peek() == Some(b'?') {
            self.at += 1;
        }
        if let Some(before) = self.group().operator {
            return Err(Re2Error::RepeatOperator(self.since(before)));
        }
        let operator = self.since(start);
        let Some(within) = self.group().last else {
            return Err(Re2Error::RepeatArgument(operator));
        };
        let mut repeats = within;
        if let Some((low, high)) = count {
            let most = high.unwrap_or(low);
            repeats *= most.max(1);
            let counts = low >= 2 || most >= 2;
            if low > MAX_REPEAT || most > MAX_REPEAT || most < low || (counts && repeats > MAX_REPEAT) {
                return Err(Re2Error::RepeatSize(operator));
            }
        }
        self.out.push_str(&operator);
        let group = self.group();
        group.last = Some(repeats);
        group.operator = Some(start);
        Ok(())
    }

    /// `(?...`: a group with a name or without a capture, or flags.
    fn perl_group(&mut self) -> Result<(), Re2Error> {
        let text = self.rest().to_owned();
        let bytes = text.as_bytes();
        let look = |at: usize| matches!(bytes.get(at), Some(b'=' | b'!')) && bytes.len() > at + 1;
        if look(2) || (bytes.get(2) == Some(&b'<') && look(3)) {
            let len = if bytes.get(2) == Some(&b'<') { 4 } else { 3 };
            return Err(Re2Error::PerlOperator(text[..len].to_owned()));
        }
        let named = (text.starts_with("(?P<") && text.len() > 4) || (text.starts_with("(?<") && text.len() > 3);
        if named {
            let begin = if text.starts_with("(?P") { 4 } else { 3 };
            let Some(end) = text.find('>') else {
                return Err(Re2Error::NamedCapture(text));
            };
            let name = &text[begin..end];
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80)
            {
                return Err(Re2Error::NamedCapture(text[..=end].to_owned()));
            }
            // Names are not asked for, and may come twice.
            self.take_as("(", end + 1);
            self.groups.push(Group::default());
            return Ok(());
        }
        let (mut negated, mut flagged) = (false, false);
        for (at, flag) in bytes.iter().enumerate().skip(2) {
            let bad = || Re2Error::PerlOperator(String::from_utf8_lossy(&bytes[..=at]).into_owned());
            match flag {
                b'i' | b'm' | b's' | b'U' => flagged = true,
                b'-' if !negated => (negated, flagged) = (true, false),
                b':' | b')' if negated && !flagged => return Err(bad()),
                b':' => {
                    self.take_as(&text[..=at], at + 1);
                    self.groups.push(Group::default());
                    return Ok(());
                }
                b')' => {
                    // `(?)` says nothing, and the other syntax does not have it.
                    let flags = if at == 2 { "" } else { &text[..=at] };
                    self.take_as(flags, at + 1);
                    self.group().operator = None;
                    return Ok(());
                }
                _ => return Err(bad()),
            }
        }
        Err(Re2Error::PerlOperator(text))
    }

    fn backslash(&mut self) -> Result<(), Re2Error> {
        match self.pattern.as_bytes().get(self.at + 1) {
            Some(b'b') => self.item(r"\b", 2),
            Some(b'B') => self.item(r"\B", 2),
            Some(b'A') => self.item(r"\A", 2),
            Some(b'z') => self.item(r"\z", 2),
            Some(b'C') => self.item("(?s:.)", 2),
            Some(b'Q') => {
                self.at += 2;
                while !self.rest().is_empty() && !self.rest().starts_with(r"\E") {
                    if let Some(byte) = self.peek() {
                        self.literal(byte);
                    }
                    self.at += 1;
                    // Only at the boundary of a character can `\E` follow.
                    while !self.pattern.is_char_boundary(self.at) {
                        if let Some(byte) = self.peek() {
                            self.literal(byte);
                        }
                        self.at += 1;
                    }
                }
                self.at = (self.at + 2).min(self.pattern.len());
            }
            _ => {
                if let Some(set) = self.escaped_set()? {
                    let _ = write!(self.out, "[{set}]");
                    self.group().push(1);
                } else {
                    let byte = self.escape()?;
                    self.literal(byte);
                }
            }
        }
        Ok(())
    }

    /// `\d`, `\pL` and the like: the inside of a class.
    fn escaped_set(&mut self) -> Result<Option<String>, Re2Error> {
        let rest = self.rest();
        let Some(kind) = rest.strip_prefix('\\').and_then(|r| r.bytes().next()) else {
            return Ok(None);
        };
        let set = match kind {
            b'd' => r"0-9",
            b'D' => r"\x00-/:-\xff",
            b'w' => r"0-9A-Za-z_",
            b'W' => r"\x00-/:-@\[-\^`\{-\xff",
            b's' => r"\t\n\x0c\r\x20",
            b'S' => r"\x00-\x08\x0b\x0e-\x1f!-\xff",
            b'p' | b'P' => return self.unicode_set(kind == b'P').map(Some),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(set.to_owned()))
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`: what of it is Latin-1.
    fn unicode_set(&mut self, mut negated: bool) -> Result<String, Re2Error> {
        let start = self.at;
        let rest = self.rest().to_owned();
        let body = rest.get(2..).unwrap_or_default();
        let name = match body.strip_prefix('{') {
            Some(braced) => {
                let Some(end) = braced.find('}') else {
                    return Err(Re2Error::CharRange(rest));
                };
                self.at += 2 + 1 + end + 1;
                braced[..end].to_owned()
            }
            None => {
                let one: String = body.chars().take(1).collect();
                self.at += 2 + one.len();
                one
            }
        };
        let plain = match name.strip_prefix('^') {
            Some(plain) => {
                negated = !negated;
                plain
            }
            None => &name,
        };
        let known = plain == "Any" || (plain.len() <= 2 || is_script(plain));
        let class = if plain == "Any" {
            "(?s:.)".to_owned()
        } else {
            format!(r"\p{{{plain}}}")
        };
        let class = known
            .then(|| regex::Regex::new(&format!(r"\A{class}\z")).ok())
            .flatten();
        let Some(class) = class else {
            return Err(Re2Error::CharRange(self.since(start)));
        };
        let mut set = String::new();
        let mut buffer = [0; 4];
        for byte in 0..=u8::MAX {
            if class.is_match(char::from(byte).encode_utf8(&mut buffer)) != negated {
                let _ = write!(set, r"\x{byte:02x}");
            }
        }
        // An empty class matches nothing: everything and not everything.
        Ok(if set.is_empty() { r"\x00&&\x01".to_owned() } else { set })
    }

    /// `[...]`
    fn class(&mut self) -> Result<(), Re2Error> {
        let start = self.at;
        let missing = |this: &Self| Re2Error::MissingBracket(this.pattern[start..].to_owned());
        self.take_as("[", 1);
        if self.peek() == Some(b'^') {
            self.take_as("^", 1);
        }
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(missing(self)),
                Some(b']') if !first => break,
                Some(_) => first = false,
            }
            if let Some(name) = self.posix_name() {
                let plain = name
                    .trim_start_matches("[:")
                    .trim_start_matches('^')
                    .trim_end_matches(":]");
                if !POSIX.contains(&plain) {
                    return Err(Re2Error::CharRange(name));
                }
                let len = name.len();
                self.take_as(&name, len);
                continue;
            }
            if let Some(set) = self.escaped_set()? {
                // A set of its own, lest a `-` behind it makes a range.
                let _ = write!(self.out, "[{set}]");
                continue;
            }
            let from = self.at;
            let low = self.class_byte(start)?;
            let mut high = low;
            let rest = self.pattern.as_bytes().get(self.at..).unwrap_or_default();
            if rest.first() == Some(&b'-') && rest.len() >= 2 && rest.get(1) != Some(&b']') {
                self.at += 1;
                high = self.class_byte(start)?;
                if high < low {
                    return Err(Re2Error::CharRange(self.since(from)));
                }
            }
            write_byte(&mut self.out, low);
            if high > low {
                self.out.push('-');
                write_byte(&mut self.out, high);
            }
        }
        self.take_as("]", 1);
        Ok(())
    }

    fn class_byte(&mut self, class: usize) -> Result<u8, Re2Error> {
        match self.peek() {
            None => Err(Re2Error::MissingBracket(self.pattern[class..].to_owned())),
            Some(b'\\') => self.escape(),
            Some(byte) => {
                self.at += 1;
                Ok(byte)
            }
        }
    }

    /// `[:alpha:]`, or what stands in its place.
    fn posix_name(&self) -> Option<String> {
        let rest = self.rest();
        let inside = rest.strip_prefix("[:")?;
        let end = inside.find(":]")?;
        Some(rest[..2 + end + 2].to_owned())
    }

    /// A character behind a backslash.
    fn escape(&mut self) -> Result<u8, Re2Error> {
        let start = self.at;
        self.at += 1;
        let Some(kind) = self.peek() else {
            return Err(Re2Error::TrailingBackslash);
        };
        self.at += 1;
        let octal = |this: &Self| this.peek().filter(|b| (b'0'..=b'7').contains(b));
        let byte = match kind {
            // One digit alone would be a reference to a group.
            b'1'..=b'7' if octal(self).is_none() => None,
            b'0'..=b'7' => {
                let mut code = u32::from(kind - b'0');
                for _ in 0..2 {
                    let Some(digit) = octal(self) else { break };
                    code = code * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                u8::try_from(code).ok()
            }
            b'x' => self.hexadecimal(),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'a' => Some(0x07),
            b'f' => Some(0x0c),
            b'v' => Some(0x0b),
            other => Some(other).filter(|b| b.is_ascii() && !b.is_ascii_alphanumeric() && *b != b'_'),
        };
        byte.ok_or_else(|| Re2Error::Escape(self.since(start)))
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        let next = |this: &mut Self| {
            let byte = this.peek()?;
            this.at += 1;
            Some(byte)
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let first = next(self)?;
        if first != b'{' {
            let second = next(self)?;
            return u8::try_from(digit(first)? * 16 + digit(second)?).ok();
        }
        let mut code = None;
        loop {
            let byte = next(self)?;
            match digit(byte) {
                Some(value) => code = Some(u8::try_from(u32::from(code.unwrap_or(0u8)) * 16 + value).ok()?),
                None if byte == b'}' => return code,
                None => return None,
            }
        }
    }
}

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Whether RE2 has it: scripts have it in capitals, and long names of categories it does not know.
fn is_script(name: &str) -> bool {
    const CATEGORIES: [&str; 9] = [
        "Letter",
        "Mark",
        "Number",
        "Other",
        "Punctuation",
        "Separator",
        "Symbol",
        "Alphabetic",
        "Assigned",
    ];
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
        && !CATEGORIES.iter().any(|category| name.ends_with(category))
}

/// `{2}`, `{2,}` or `{2,3}` at the start: its length and bounds.
fn bounds(text: &str) -> Option<(usize, u64, Option<u64>)> {
    let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
    let number = |digits: &str| {
        let fine = !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        digits.parse().ok().filter(|_| fine && !leading_zero)
    };
    let (low, high) = match inside.split_once(',') {
        None => {
            let exactly = number(inside)?;
            (exactly, Some(exactly))
        }
        Some((low, "")) => (number(low)?, None),
        Some((low, high)) => (number(low)?, Some(number(high)?)),
    };
    Some((inside.len() + 2, low, high))
}

fn write_byte(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_') {
        out.push(char::from(byte));
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, r"\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests;
