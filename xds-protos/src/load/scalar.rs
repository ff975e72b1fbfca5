//! One scalar of a text as a field's type takes it: numbers may be quoted, booleans be spelled out, enums have any case.

use prost_reflect::{EnumDescriptor, Kind, MapKey, Value};

use super::error::{Problem, most_similar};
use super::node::{Node, NodeKind, shortened};

/// Reads a value of a kind that is not a message.
pub(super) fn value(kind: &Kind, node: &Node) -> Result<Value, Problem> {
    Ok(match kind {
        Kind::Double => Value::F64(float(node)?),
        Kind::Float => Value::F32(float32(node)?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(node, "int32")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(node, "int64")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(node, "uint32")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(node, "uint64")?),
        Kind::Bool => Value::Bool(boolean(node)?),
        Kind::String => Value::String(string(node)?.to_owned()),
        Kind::Bytes => Value::Bytes(bytes(node)?.into()),
        Kind::Enum(descriptor) => Value::EnumNumber(enumeration(descriptor, node)?),
        Kind::Message(_) => return Err(wrong_type("a scalar", node)),
    })
}

/// Reads the key of a map; unlike a value it has to be spelled plainly.
pub(super) fn map_key(kind: &Kind, text: &str) -> Result<MapKey, Problem> {
    let key = match kind {
        Kind::String => Some(MapKey::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(MapKey::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text.parse().ok().map(MapKey::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text.parse().ok().map(MapKey::I64),
        Kind::Uint32 | Kind::Fixed32 => text.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => text.parse().ok().map(MapKey::U64),
        Kind::Double | Kind::Float | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => None,
    };
    key.ok_or_else(|| Problem::WrongType {
        expected: format!("a key of type {kind:?}"),
        found: format!("{text:?}"),
    })
}

pub(super) fn string(node: &Node) -> Result<&str, Problem> {
    match &node.kind {
        NodeKind::String(text) => Ok(text),
        NodeKind::Number(text) => Err(wrong_type(&format!("a string: write it in quotes, \"{text}\""), node)),
        NodeKind::Bool(_) => Err(wrong_type("a string: write it in quotes", node)),
        _ => Err(wrong_type("a string", node)),
    }
}

fn boolean(node: &Node) -> Result<bool, Problem> {
    let expected = "'true' or 'false'";
    match &node.kind {
        NodeKind::Bool(value) => Ok(*value),
        NodeKind::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "0" => Ok(false),
            _ => Err(wrong_type(expected, node)),
        },
        _ => Err(wrong_type(expected, node)),
    }
}

/// An integer, of which protobuf also takes a float without fraction (`5.0`, `1e3`) and a quoted hexadecimal number.
fn integer<T: TryFrom<i128>>(node: &Node, kind: &'static str) -> Result<T, Problem> {
    let text = match &node.kind {
        NodeKind::Number(text) => text,
        NodeKind::String(text) if !text.contains(|c: char| c.is_ascii_whitespace()) => text,
        _ => return Err(wrong_type(&format!("a number ({kind})"), node)),
    };
    let number = match text.parse::<i128>() {
        Ok(number) => number,
        Err(_) => match parse_float(text) {
            Some(float) if float.is_finite() && float.fract() == 0.0 && float.abs() <= 1.9e16 => float as i128,
            Some(float) if float.is_finite() && float.fract() == 0.0 => return Err(out_of_range(text, kind)),
            Some(_) => return Err(wrong_type(&format!("a whole number ({kind})"), node)),
            None => return Err(wrong_type(&format!("a number ({kind})"), node)),
        },
    };
    T::try_from(number).map_err(|_| out_of_range(text, kind))
}

fn float(node: &Node) -> Result<f64, Problem> {
    let number = match &node.kind {
        NodeKind::Number(text) => parse_float(text),
        NodeKind::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => parse_float(text),
        },
        _ => None,
    };
    number.ok_or_else(|| wrong_type("a number", node))
}

fn float32(node: &Node) -> Result<f32, Problem> {
    let number = float(node)?;
    let narrowed = number as f32;
    if number.is_finite() && !narrowed.is_finite() {
        return Err(out_of_range(&number.to_string(), "float"));
    }
    Ok(narrowed)
}

/// A float as C reads it, hexadecimal (`0x1p4`) included.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    match unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        Some(hex) => parse_hex_float(hex).map(|value| sign * value),
        None => text.parse().ok(),
    }
}

fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    Some(value * 2f64.powi(exponent.checked_sub(scale)?))
}

fn enumeration(descriptor: &EnumDescriptor, node: &Node) -> Result<i32, Problem> {
    let text = match &node.kind {
        NodeKind::String(text) => text,
        NodeKind::Number(_) => return integer(node, "int32"),
        _ => {
            return Err(wrong_type(
                &format!("a name or number of {}", descriptor.full_name()),
                node,
            ));
        }
    };
    if let Some(value) = descriptor.get_value_by_name(text) {
        return Ok(value.number());
    }
    if let Some(value) = descriptor
        .values()
        .find(|value| value.name().eq_ignore_ascii_case(text))
    {
        return Ok(value.number());
    }
    text.trim().parse().map_err(|_| {
        let values: Vec<_> = descriptor.values().collect();
        Problem::UnknownEnumValue {
            enumeration: descriptor.full_name().to_owned(),
            value: shortened(text).to_owned(),
            similar: most_similar(text, values.iter().map(|value| value.name())),
        }
    })
}

/// Base64 in either alphabet, padded or not.
fn bytes(node: &Node) -> Result<Vec<u8>, Problem> {
    let text = string(node)?;
    decode_base64(text).ok_or_else(|| wrong_type("bytes in base64", node))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let padding = if text.len().is_multiple_of(4) {
        text.bytes().rev().take(2).take_while(|b| *b == b'=').count()
    } else {
        0
    };
    let digits = &text.as_bytes()[..text.len() - padding];
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for digit in chunk {
            word = word << 6 | sextet(*digit)?;
        }
        match chunk.len() {
            4 => out.extend_from_slice(&word.to_be_bytes()[1..]),
            3 => out.extend_from_slice(&(word >> 2).to_be_bytes()[2..]),
            2 => out.push((word >> 4) as u8),
            _ => return None,
        }
    }
    Some(out)
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

fn wrong_type(expected: &str, node: &Node) -> Problem {
    Problem::WrongType {
        expected: expected.to_owned(),
        found: node.describe(),
    }
}

fn out_of_range(value: &str, kind: &'static str) -> Problem {
    Problem::OutOfRange {
        value: value.to_owned(),
        kind,
    }
}
