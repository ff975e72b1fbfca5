//! `json_format`: a tree of texts and literal values, written with its keys in order.

use std::{borrow::Cow, io::Write};

use xds_protos::google::protobuf::{Struct, Value, value::Kind as ValueKind};

use super::{
    FormatCx, Op, Scope, UNSPECIFIED,
    command::{Command, Kind},
    parse::parse,
};
use crate::config::ConfigResult;

/// A compiled JSON format.
#[derive(Debug, Clone)]
pub(super) enum Json {
    /// Keys are JSON strings already, with their quotes.
    Object(Vec<(Box<str>, Json)>),
    List(Vec<Json>),
    /// A literal, written as it is.
    Literal(Box<[u8]>),
    /// A single operator keeps its value's type.
    Typed(Command),
    /// Several pieces make a string.
    Text(Vec<Op>),
}

impl Json {
    /// Compiles the struct; errors in Envoy's words.
    pub(super) fn build(proto: Struct, scope: &mut Scope<'_, '_>) -> ConfigResult<Self> {
        let mut fields: Vec<_> = proto.fields.into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let fields = fields.into_iter().map(|(key, value)| {
            let mut quoted = Vec::new();
            write_string(key.as_bytes(), &mut quoted);
            let quoted = String::from_utf8_lossy(&quoted).into_owned();
            Ok((quoted.into(), Self::of(value, scope)?))
        });
        fields.collect::<ConfigResult<_>>().map(Self::Object)
    }

    fn of(value: Value, scope: &mut Scope<'_, '_>) -> ConfigResult<Self> {
        Ok(match value.kind {
            Some(ValueKind::StructValue(s)) => Self::build(s, scope)?,
            Some(ValueKind::ListValue(l)) => {
                let values = l.values.into_iter().map(|v| Self::of(v, scope));
                Self::List(values.collect::<ConfigResult<_>>()?)
            }
            Some(ValueKind::StringValue(text)) => Self::text(&text, scope)?,
            literal => {
                let mut out = Vec::new();
                write_value(&Value { kind: literal }, &mut out);
                Self::Literal(out.into())
            }
        })
    }

    fn text(text: &str, scope: &mut Scope<'_, '_>) -> ConfigResult<Self> {
        let mut ops = parse(text, scope)?;
        Ok(match (ops.pop(), ops.is_empty()) {
            (Some(Op::Command(command)), true) => Self::Typed(command),
            (Some(Op::Literal(text)), true) => literal(&text),
            (None, _) => literal(""),
            (Some(last), false) => {
                ops.push(last);
                Self::Text(ops)
            }
        })
    }

    /// Writes the value; `omit_empty` leaves out keys whose value is missing.
    pub(super) fn write(&self, omit_empty: bool, out: &mut Vec<u8>, cx: &FormatCx<'_>) {
        self.write_with(omit_empty, out, &mut Vec::new(), cx);
    }

    fn write_with(&self, omit_empty: bool, out: &mut Vec<u8>, scratch: &mut Vec<u8>, cx: &FormatCx<'_>) {
        match self {
            Self::Literal(text) => out.extend_from_slice(text),
            Self::Typed(command) => {
                scratch.clear();
                match command.write_json(scratch, cx) {
                    None => out.extend_from_slice(b"null"),
                    Some(Kind::Text) => write_string(scratch, out),
                    Some(Kind::Number | Kind::Json) => out.extend_from_slice(scratch),
                }
            }
            Self::Text(ops) => {
                scratch.clear();
                for op in ops {
                    match op {
                        Op::Literal(text) => scratch.extend_from_slice(text.as_bytes()),
                        Op::Command(command) => {
                            if command.write(scratch, cx).is_none() && !omit_empty {
                                scratch.extend_from_slice(UNSPECIFIED);
                            }
                        }
                    }
                }
                write_string(scratch, out);
            }
            Self::List(values) => {
                out.push(b'[');
                let mut first = true;
                for value in values {
                    if omit_empty && value.is_missing(scratch, cx) {
                        continue;
                    }
                    separate(&mut first, out);
                    value.write_with(omit_empty, out, scratch, cx);
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                let mut first = true;
                for (key, value) in fields {
                    if omit_empty && value.is_missing(scratch, cx) {
                        continue;
                    }
                    separate(&mut first, out);
                    out.extend_from_slice(key.as_bytes());
                    out.push(b':');
                    value.write_with(omit_empty, out, scratch, cx);
                }
                out.push(b'}');
            }
        }
    }

    fn is_missing(&self, scratch: &mut Vec<u8>, cx: &FormatCx<'_>) -> bool {
        match self {
            Self::Typed(command) => {
                scratch.clear();
                command.write_json(scratch, cx).is_none()
            }
            Self::Literal(text) => &**text == b"null",
            // A struct of which nothing is left is left out too.
            Self::Object(fields) => fields.iter().all(|(_, value)| value.is_missing(scratch, cx)),
            Self::List(_) | Self::Text(_) => false,
        }
    }
}

fn literal(text: &str) -> Json {
    let mut out = Vec::new();
    write_string(text.as_bytes(), &mut out);
    Json::Literal(out.into())
}

fn separate(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

/// Writes a JSON string with its quotes. In what is not UTF-8, bytes beyond ASCII are written as if they were Latin-1.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let plain = |b: &u8| *b >= 0x20 && *b != b'"' && *b != b'\\';
    if text.is_ascii() && text.iter().all(plain) {
        out.extend_from_slice(text);
    } else {
        let (text, latin) = match std::str::from_utf8(text) {
            Ok(text) => (Cow::Borrowed(text), false),
            Err(_) => (text.iter().map(|b| char::from(*b)).collect::<String>().into(), true),
        };
        for c in text.chars() {
            // Writing to a Vec cannot fail.
            let _ = match c {
                '"' => out.write_all(b"\\\""),
                '\\' => out.write_all(b"\\\\"),
                '\n' => out.write_all(b"\\n"),
                '\r' => out.write_all(b"\\r"),
                '\t' => out.write_all(b"\\t"),
                '\u{8}' => out.write_all(b"\\b"),
                '\u{c}' => out.write_all(b"\\f"),
                c if c < ' ' || latin && !c.is_ascii() => write!(out, "\\u{:04x}", u32::from(c)),
                c => write!(out, "{c}"),
            };
        }
    }
    out.push(b'"');
}

/// Writes a number with as few digits as tell it apart, with an exponent where that is shorter: 100000 is `1e+05`.
pub(super) fn write_number(n: f64, out: &mut Vec<u8>) {
    if !n.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let plain = match n.fract() == 0.0 {
        true => format!("{n:.0}"),
        false => format!("{n}"),
    };
    let scientific = format!("{n:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    let scientific = format!("{digits}e{sign}{exponent:0>2}");
    let shorter = if scientific.len() < plain.len() {
        scientific
    } else {
        plain
    };
    out.extend_from_slice(shorter.as_bytes());
}

/// Writes a struct as a JSON object with its keys in order.
pub(super) fn write_struct(root: &Struct, out: &mut Vec<u8>) {
    let mut fields: Vec<_> = root.fields.iter().collect();
    fields.sort_by(|a, b| a.0.cmp(b.0));
    out.push(b'{');
    let mut first = true;
    for (key, value) in fields {
        separate(&mut first, out);
        write_string(key.as_bytes(), out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

/// Writes any value as JSON.
pub(super) fn write_value(value: &Value, out: &mut Vec<u8>) {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(ValueKind::BoolValue(b)) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Some(ValueKind::NumberValue(n)) => write_number(*n, out),
        Some(ValueKind::StringValue(s)) => write_string(s.as_bytes(), out),
        Some(ValueKind::StructValue(s)) => write_struct(s, out),
        Some(ValueKind::ListValue(l)) => {
            out.push(b'[');
            let mut first = true;
            for value in &l.values {
                separate(&mut first, out);
                write_value(value, out);
            }
            out.push(b']');
        }
    }
}
