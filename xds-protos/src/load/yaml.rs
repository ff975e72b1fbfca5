//! YAML as Envoy reads it, which is YAML 1.1 by yaml-cpp's rules and not by any specification.
//!
//! Plain `y yes on true` and `n no off false` are booleans, plain integers (hexadecimal and octal too) are numbers,
//! everything else is a string, floats among them. Tags mean nothing, but `!` makes a string of anything and a key tagged
//! `!ignore` is left out with its value. There are no merge keys, the last of two equal keys wins, and only the first
//! document counts.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::{LoadError, Problem};
use super::flow;
use super::node::{Key, Mark, Node, NodeKind};

/// How deep lists and maps may nest; Envoy's parser gives up at the same order of depth.
const MAX_DEPTH: usize = 500;
/// How many nodes aliases may blow a document up to: the answer to the "billion laughs".
const MAX_ALIASED_NODES: usize = 4_000_000;

/// Reads the first document of `text`.
pub(super) fn parse(text: &str) -> Result<Node, LoadError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    read(text).or_else(|error| match flow::indented(text) {
        Some(indented) => read(&indented).map_err(|_| error),
        None => Err(error),
    })
}

fn read(text: &str) -> Result<Node, LoadError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        aliased: 0,
    };
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd | Event::DocumentEnd, span) => {
                return Err(syntax(mark(&span.start), "the document is empty"));
            }
            (event, span) => return reader.node(event, span, 0),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// What each anchor stands for, with the number of its nodes.
    anchors: HashMap<usize, (Node, usize)>,
    aliased: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), LoadError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Err(syntax(Mark::default(), "the text ends too early")),
        }
    }

    /// Reads the value that `event` begins.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, LoadError> {
        let at = mark(&span.start);
        if depth > MAX_DEPTH {
            return Err(syntax(at, "lists and maps are nested too deeply"));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(text, style, tag.as_deref()), anchor),
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(id) => return self.alias(id, at),
            _ => return Err(syntax(at, "a value is missing")),
        };
        let node = Node { at, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<Node, LoadError> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return Err(syntax(at, "the referenced anchor is not defined here"));
        };
        self.aliased += size;
        if self.aliased > MAX_ALIASED_NODES {
            return Err(syntax(at, "aliases make the document too large"));
        }
        Ok(Node {
            at,
            kind: node.kind.clone(),
        })
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, LoadError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(NodeKind::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<NodeKind, LoadError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(NodeKind::Map(entries));
            }
            let at = mark(&span.start);
            let ignored = matches!(&event, Event::Scalar(_, _, _, Some(tag)) if is_ignore(tag));
            let name = self.key(event, span, depth)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if ignored {
                continue;
            }
            match places.get(&name) {
                Some(&place) => entries[place] = (Key { at, name }, value),
                None => {
                    places.insert(name.clone(), entries.len());
                    entries.push((Key { at, name }, value));
                }
            }
        }
    }

    /// A key is the text of a scalar, whatever a value of that spelling would be; an absent one is called `null`.
    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<String, LoadError> {
        if let Event::Scalar(text, style, 0, tag) = &event {
            let null = is_null(text, *style, tag.as_deref());
            return Ok(if null { "null".into() } else { text.clone().into_owned() });
        }
        let at = mark(&span.start);
        let text = match &event {
            Event::Scalar(text, ..) => Some(text.clone().into_owned()),
            _ => None,
        };
        let node = self.node(event, span, depth + 1)?;
        match (text, node.kind) {
            (_, NodeKind::Null) => Ok("null".into()),
            (Some(text), _) | (None, NodeKind::String(text) | NodeKind::Number(text)) => Ok(text),
            (None, NodeKind::Bool(value)) => Ok(value.to_string()),
            _ => Err(syntax(at, "a key must be a plain value: a list or map cannot be one")),
        }
    }
}

/// What a scalar is by its spelling.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> NodeKind {
    if is_null(&text, style, tag) {
        return NodeKind::Null;
    }
    let string = match tag {
        Some(tag) => tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty(),
        None => style != ScalarStyle::Plain,
    };
    if string {
        return NodeKind::String(text.into_owned());
    }
    match (boolean(&text), integer(&text)) {
        (Some(value), _) => NodeKind::Bool(value),
        // Envoy keeps what fits 32 bits a number and hands the rest on in decimal digits, quoted.
        (None, Some(value)) if i32::try_from(value).is_ok() => NodeKind::Number(value.to_string()),
        (None, Some(value)) => NodeKind::String(value.to_string()),
        (None, None) => NodeKind::String(text.into_owned()),
    }
}

fn is_null(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    match tag {
        Some(tag) => tag.is_yaml_core_schema() && tag.suffix == "null",
        None => style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL"),
    }
}

fn is_ignore(tag: &Tag) -> bool {
    tag.handle == "!" && tag.suffix == "ignore"
}

/// The booleans of YAML 1.1, all lower case, all upper case or capitalised.
fn boolean(text: &str) -> Option<bool> {
    let mut rest = text.chars();
    let first = rest.next()?;
    let lower = |c: char| c.is_ascii_lowercase();
    let upper = |c: char| c.is_ascii_uppercase();
    let consistent =
        lower(first) && rest.clone().all(lower) || upper(first) && (rest.clone().all(lower) || rest.all(upper));
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "on" if consistent => Some(true),
        "n" | "no" | "false" | "off" if consistent => Some(false),
        _ => None,
    }
}

/// An integer as C++ streams read it with the base taken from the prefix: `0x` and `0`.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // from_str_radix would take a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::List(items) => items.iter().map(count).sum(),
        NodeKind::Map(entries) => entries.iter().map(|(_, value)| count(value)).sum(),
        _ => 0,
    }
}

fn mark(marker: &Marker) -> Mark {
    Mark {
        line: clamp(marker.line()),
        column: clamp(marker.col() + 1),
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn scan_error(error: &ScanError) -> LoadError {
    syntax(mark(error.marker()), &format!("YAML: {}", error.info()))
}

fn syntax(at: Mark, reason: &str) -> LoadError {
    LoadError {
        line: at.line,
        column: at.column,
        path: String::new(),
        problem: Problem::Syntax(reason.into()),
    }
}
