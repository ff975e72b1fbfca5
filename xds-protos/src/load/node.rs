//! The tree between text and message: what YAML and JSON have in common, with the place of every value.

use crate::google::protobuf::value::Kind;
use crate::google::protobuf::{Struct, Value};

/// A place in the text; line and column count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Mark,
    pub kind: NodeKind,
}

/// A JSON value; a number keeps its digits, because only the field's type says how to read them.
#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    List(Vec<Node>),
    /// In the order of the text. YAML has let the last duplicate win already; JSON keeps duplicates.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub at: Mark,
    pub name: String,
}

impl Node {
    /// What the value is, for an error message.
    pub fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Null => "null".into(),
            NodeKind::Bool(value) => format!("the boolean {value}"),
            NodeKind::Number(digits) => format!("the number {digits}"),
            NodeKind::String(text) => format!("the string {:?}", shortened(text)),
            NodeKind::List(_) => "a list".into(),
            NodeKind::Map(_) => "a map".into(),
        }
    }
}

impl From<&Struct> for Node {
    /// A `Struct` has no places, and no order either: its keys are sorted so that errors are.
    fn from(value: &Struct) -> Node {
        let mut entries: Vec<_> = value.fields.iter().collect();
        entries.sort_by_key(|(name, _)| *name);
        let key = |name: &String| Key {
            at: Mark::default(),
            name: name.clone(),
        };
        let entries = entries
            .into_iter()
            .map(|(name, value)| (key(name), Node::from(value)))
            .collect();
        Node {
            at: Mark::default(),
            kind: NodeKind::Map(entries),
        }
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Node {
        let kind = match &value.kind {
            None | Some(Kind::NullValue(_)) => NodeKind::Null,
            Some(Kind::BoolValue(value)) => NodeKind::Bool(*value),
            Some(Kind::NumberValue(value)) if value.is_finite() => NodeKind::Number(value.to_string()),
            // JSON has no other way to write these.
            Some(Kind::NumberValue(value)) if value.is_nan() => NodeKind::String("NaN".into()),
            Some(Kind::NumberValue(value)) if *value > 0.0 => NodeKind::String("Infinity".into()),
            Some(Kind::NumberValue(_)) => NodeKind::String("-Infinity".into()),
            Some(Kind::StringValue(text)) => NodeKind::String(text.clone()),
            Some(Kind::ListValue(list)) => NodeKind::List(list.values.iter().map(Node::from).collect()),
            Some(Kind::StructValue(value)) => return Node::from(value),
        };
        Node {
            at: Mark::default(),
            kind,
        }
    }
}

/// Enough of a string to recognise it: values can be whole certificates.
pub(super) fn shortened(text: &str) -> &str {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
