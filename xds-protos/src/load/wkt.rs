//! The well-known types, which have a form of their own in JSON: `Any`, `Duration`, `Struct`, the wrappers and the like.

use prost::Message;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};

use super::build::Builder;
use super::error::Problem;
use super::node::{Node, NodeKind};
use super::scalar;

/// The longest duration protobuf allows, in seconds.
const MAX_DURATION_SECONDS: i64 = 3_652_500 * 86_400;

/// Reads `node` into `message` if that is of a well-known type; false if it is to be read field by field.
///
/// Durations, timestamps, wrappers and lists may also be written as the plain messages they are (`{seconds: 5}`).
pub(super) fn fill<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) -> bool {
    let descriptor = message.descriptor();
    let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") else {
        return false;
    };
    let is_map = matches!(node.kind, NodeKind::Map(_));
    match name {
        "Any" => any(builder, message, node),
        "Value" => value(builder, message, node),
        "Struct" => strukt(builder, message, node),
        _ if is_map => return false,
        "ListValue" => list_value(builder, message, node),
        "Duration" => with_string(builder, message, node, duration),
        "Timestamp" => with_string(builder, message, node, timestamp),
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" => wrapper(builder, message, node),
        _ => return false,
    }
    true
}

/// What null means for a kind, where it does not mean "not set".
pub(super) fn null_of(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Message(descriptor) if descriptor.full_name() == "google.protobuf.Value" => {
            let mut value = DynamicMessage::new(descriptor.clone());
            value.set_field_by_name("null_value", Value::EnumNumber(0));
            Some(Value::Message(value))
        }
        Kind::Enum(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => Some(Value::EnumNumber(0)),
        _ => None,
    }
}

/// Whether a list is a value of this kind, so that a list of lists is not flattened.
pub(super) fn is_list_like(kind: &Kind) -> bool {
    let Kind::Message(descriptor) = kind else { return false };
    matches!(
        descriptor.full_name(),
        "google.protobuf.Value" | "google.protobuf.ListValue"
    )
}

/// `{"@type": url, field: ...}`; the fields of a well-known type stand together under `value`.
fn any<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) {
    let NodeKind::Map(entries) = &node.kind else {
        return builder.wrong_type(node, "a map with \"@type\"".into());
    };
    let mut types = entries.iter().filter(|(key, _)| key.name == "@type");
    let Some((_, url_node)) = types.next() else {
        // An empty Any is accepted, and is what is left when everything in it is left out.
        if !entries.is_empty() {
            builder.error(node.at, Problem::MissingType);
        }
        return;
    };
    if let Some((key, _)) = types.next() {
        return builder.error(key.at, Problem::RepeatedKey(key.name.clone()));
    }
    let url = match scalar::string(url_node) {
        Ok(url) => url,
        Err(problem) => return builder.error(url_node.at, problem),
    };
    let Some((host, name)) = url.rsplit_once('/').filter(|(host, _)| !host.is_empty()) else {
        return builder.error(url_node.at, Problem::BadTypeUrl(url.to_owned()));
    };
    debug_assert!(!host.is_empty());
    let Some(descriptor) = crate::message(name) else {
        return builder.error(url_node.at, Problem::UnknownType(url.to_owned()));
    };
    let mut inner = DynamicMessage::new(descriptor.clone());
    let well_known = is_well_known(name);
    for (key, value) in entries.iter().filter(|(key, _)| key.name != "@type") {
        if !well_known {
            builder.field(&mut inner, &descriptor, key, value);
        } else if key.name == "value" {
            builder.fill(&mut inner, value);
        } else {
            let reason = "fields in a well-known-typed Any must be @type or value".into();
            builder.error(key.at, Problem::Syntax(reason));
        }
    }
    message.set_field_by_name("type_url", Value::String(url.to_owned()));
    message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
}

/// Whether the type's JSON form is not a map of its fields.
pub(crate) fn is_well_known(full_name: &str) -> bool {
    let Some(name) = full_name.strip_prefix("google.protobuf.") else {
        return false;
    };
    matches!(
        name,
        "Any" | "Value" | "Struct" | "ListValue" | "Duration" | "Timestamp" | "FieldMask"
    ) || matches!(
        name,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
    ) || matches!(name, "BoolValue" | "StringValue" | "BytesValue")
}

fn value<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) {
    let (field, plain) = match &node.kind {
        NodeKind::Null => ("null_value", Value::EnumNumber(0)),
        NodeKind::Bool(value) => ("bool_value", Value::Bool(*value)),
        NodeKind::Number(text) => ("number_value", Value::F64(text.parse().unwrap_or_default())),
        NodeKind::String(text) => ("string_value", Value::String(text.clone())),
        NodeKind::Map(_) => return nested(builder, message, "struct_value", node, strukt),
        NodeKind::List(_) => return nested(builder, message, "list_value", node, list_value),
    };
    message.set_field_by_name(field, plain);
}

fn nested<'n>(
    builder: &mut Builder<'n>,
    message: &mut DynamicMessage,
    field: &str,
    node: &'n Node,
    read: fn(&mut Builder<'n>, &mut DynamicMessage, &'n Node),
) {
    if let Some(Value::Message(inner)) = message.get_field_by_name_mut(field) {
        read(builder, inner, node);
    }
}

fn strukt<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) {
    if let Some(fields) = message.descriptor().get_field_by_name("fields") {
        builder.map(message, &fields, node);
    }
}

fn list_value<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) {
    let NodeKind::List(nodes) = &node.kind else {
        return builder.wrong_type(node, "a list".into());
    };
    let Some(values) = message.descriptor().get_field_by_name("values") else {
        return;
    };
    let mut items = Vec::with_capacity(nodes.len());
    builder.list(&values.kind(), nodes, &mut items);
    message.set_field(&values, Value::List(items));
}

fn wrapper<'n>(builder: &mut Builder<'n>, message: &mut DynamicMessage, node: &'n Node) {
    let Some(field) = message.descriptor().get_field_by_name("value") else {
        return;
    };
    match scalar::value(&field.kind(), node) {
        Ok(value) => message.set_field(&field, value),
        Err(problem) => builder.error(node.at, problem),
    }
}

fn with_string(
    builder: &mut Builder<'_>,
    message: &mut DynamicMessage,
    node: &Node,
    read: fn(&mut DynamicMessage, &str) -> Result<(), &'static str>,
) {
    let result = match &node.kind {
        NodeKind::String(text) => read(message, text),
        _ if message.descriptor().name() == "Duration" => Err("a duration with its unit, as in \"5s\" or \"0.25s\""),
        _ => Err("a string"),
    };
    if let Err(expected) = result {
        builder.wrong_type(node, expected.to_owned());
    }
}

fn set_seconds_and_nanos(message: &mut DynamicMessage, seconds: i64, nanos: i32) {
    message.set_field_by_name("seconds", Value::I64(seconds));
    message.set_field_by_name("nanos", Value::I32(nanos));
}

/// `5s`, `0.25s`, `-1.5s`: seconds, at most nine decimals, and nothing but `s` after them.
fn duration(message: &mut DynamicMessage, text: &str) -> Result<(), &'static str> {
    let number = text
        .strip_suffix('s')
        .ok_or("a duration in seconds with the unit s, as in \"5s\" or \"0.25s\"")?;
    let whole_length = number
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(number.len());
    let (whole, fraction) = number.split_at(whole_length);
    let seconds: i64 = whole
        .parse()
        .map_err(|_| "a duration that starts with a whole number, as in \"0.25s\"")?;
    if !(-MAX_DURATION_SECONDS..=MAX_DURATION_SECONDS).contains(&seconds) {
        return Err("a duration of at most 10000 years");
    }
    let nanos = nanos(fraction).ok_or("a duration in seconds with at most nine decimals and the unit s")?;
    set_seconds_and_nanos(message, seconds, if whole.starts_with('-') { -nanos } else { nanos });
    Ok(())
}

/// The nanoseconds of `.5`; nothing is 0.
fn nanos(fraction: &str) -> Option<i32> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits = fraction.strip_prefix('.')?;
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i32 = digits.parse().ok()?;
    Some(value * 10i32.pow(u32::try_from(9 - digits.len()).ok()?))
}

/// RFC 3339 with an upper-case `T` and `Z` or an offset.
fn timestamp(message: &mut DynamicMessage, text: &str) -> Result<(), &'static str> {
    let expected = "a timestamp, as in \"2024-01-31T12:00:00Z\"";
    let (seconds, nanos) = parse_timestamp(text).ok_or(expected)?;
    set_seconds_and_nanos(message, seconds, nanos);
    Ok(())
}

fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| text.as_bytes().get(*at) == Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if year == 0 || month == 0 || day == 0 {
        return None;
    }
    let clock = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let nanos = nanos(&rest[..zone_at])?;
    let offset = match &rest[zone_at..] {
        "Z" => 0,
        zone if zone.len() == 6 && zone.as_bytes()[3] == b':' => {
            let start = 19 + zone_at;
            let minutes = number(start + 1..start + 3)? * 60 + number(start + 4..start + 6)?;
            if zone.starts_with('-') {
                minutes * 60
            } else {
                -minutes * 60
            }
        }
        _ => return None,
    };
    Some((days_from_civil(year, month, day) * 86_400 + clock + offset, nanos))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, whose year here begins in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
