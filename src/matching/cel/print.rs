//! Values as `%CEL(..)%` and `%TYPED_CEL(..)%` show them.

use base64::{Engine, engine::general_purpose::STANDARD};
use cel::{Value, objects::Key};
use xds_protos::google::protobuf::{ListValue, Struct, Value as Json, value::Kind};

/// A value as text; none for those that have none.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(u) => u.to_string(),
        Value::Float(f) => six_digits(*f),
        Value::String(s) => s.to_string(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Duration(d) => duration(d.num_nanoseconds()?),
        Value::Timestamp(t) => t.format("%Y-%m-%dT%H:%M:%S%.f%:z").to_string(),
        Value::List(_) => "CelList value".to_owned(),
        Value::Map(_) => "CelMap value".to_owned(),
        Value::Null => "NULL".to_owned(),
        _ => return None,
    })
}

/// A value as JSON has it; none for those that JSON has nothing for.
pub(super) fn json(value: &Value) -> Option<Json> {
    let kind = match value {
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Int(i) => Kind::NumberValue(*i as f64),
        Value::UInt(u) => Kind::NumberValue(*u as f64),
        Value::Float(f) => Kind::NumberValue(*f),
        Value::String(s) => Kind::StringValue(s.to_string()),
        Value::Bytes(b) => Kind::StringValue(STANDARD.encode(b.as_slice())),
        Value::Duration(d) => Kind::StringValue(seconds(d.num_nanoseconds()?)),
        Value::Timestamp(t) => Kind::StringValue(format!("{}Z", t.to_utc().format("%Y-%m-%dT%H:%M:%S%.f"))),
        Value::List(list) => Kind::ListValue(ListValue {
            values: list.iter().map(json).collect::<Option<_>>()?,
        }),
        Value::Map(map) => Kind::StructValue(Struct {
            fields: map
                .map
                .iter()
                .map(|(key, value)| Some((name(key), json(value)?)))
                .collect::<Option<_>>()?,
        }),
        Value::Null => Kind::NullValue(0),
        _ => return None,
    };
    Some(Json { kind: Some(kind) })
}

fn name(key: &Key) -> String {
    match key {
        Key::Int(i) => i.to_string(),
        Key::Uint(u) => u.to_string(),
        Key::Bool(b) => b.to_string(),
        Key::String(s) => s.to_string(),
    }
}

/// A number with six digits, as C's `%g` has it.
fn six_digits(n: f64) -> String {
    if !n.is_finite() {
        return n.to_string().to_ascii_lowercase();
    }
    let scientific = format!("{n:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        return trim(&format!("{n:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(digits), exponent.abs())
}

/// A duration in Go's manner: `1h1m1.5s`, `500ms`, `199.472us`.
fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |n: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", n % unit);
        match rest.trim_end_matches('0') {
            _ if unit == 1 => format!("{n}{name}"),
            "" => format!("{}{name}", n / unit),
            rest => format!("{}.{rest}{name}", n / unit),
        }
    };
    const SECOND: u64 = 1_000_000_000;
    let text = match n {
        0 => return "0".to_owned(),
        n if n < 1_000 => fraction(n, 1, "ns"),
        n if n < 1_000_000 => fraction(n, 1_000, "us"),
        n if n < SECOND => fraction(n, 1_000_000, "ms"),
        n => {
            let (hours, minutes, rest) = (n / (3600 * SECOND), n / (60 * SECOND) % 60, n % (60 * SECOND));
            let mut text = String::new();
            if hours > 0 {
                text.push_str(&format!("{hours}h"));
            }
            if minutes > 0 {
                text.push_str(&format!("{minutes}m"));
            }
            if rest > 0 {
                text.push_str(&fraction(rest, SECOND, "s"));
            }
            text
        }
    };
    format!("{sign}{text}")
}

/// A duration as protobuf's JSON has it: `1.500s`, with three, six or nine digits or none.
fn seconds(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, rest) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    match rest {
        0 => format!("{sign}{whole}s"),
        rest if rest % 1_000_000 == 0 => format!("{sign}{whole}.{:03}s", rest / 1_000_000),
        rest if rest % 1_000 == 0 => format!("{sign}{whole}.{:06}s", rest / 1_000),
        rest => format!("{sign}{whole}.{rest:09}s"),
    }
}
