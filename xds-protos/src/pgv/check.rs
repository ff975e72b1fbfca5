//! Running compiled rules over a message.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost_reflect::{DynamicMessage, MapKey, Value};

use super::compile::rules_of;
use super::rules::{Bytes, Check, Child, FieldRule, Known, MessageRules, Nanos, Number, Scalar, Size, Text};
use super::text::quoted;

/// The longest duration protobuf allows, in seconds; about 10,000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

/// A broken rule, on its way from the field to the outermost message.
pub(super) struct Failure {
    pub reason: String,
    /// The steps to the field, innermost first.
    steps: Vec<String>,
}

impl Failure {
    pub fn path(&self) -> String {
        self.steps
            .iter()
            .rev()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".")
    }
}

/// What is wrong with a value, before the field's name is put to it.
enum Fault {
    Reason(String),
    Within(Failure),
    /// In an item of a list or a value of a map.
    Item(String, Box<Fault>),
    /// In a key of a map.
    Key(String, String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Reason(reason)
    }
}

/// Checks a message of the type whose rules these are.
pub(super) fn message(rules: &MessageRules, message: &DynamicMessage) -> Result<(), Failure> {
    for rule in &rules.fields {
        field(rules, rule, message)?;
    }
    for oneof in &rules.oneofs {
        match oneof.members.iter().find(|rule| message.has_field(&rule.field)) {
            Some(rule) => field(rules, rule, message)?,
            None if oneof.required && !oneof.fields.iter().any(|field| message.has_field(field)) => {
                let reason = format!("field: {}, reason: is required", quoted(&oneof.name));
                return Err(Failure {
                    reason,
                    steps: vec![oneof.name.clone()],
                });
            }
            None => {}
        }
    }
    Ok(())
}

fn field(rules: &MessageRules, rule: &FieldRule, message: &DynamicMessage) -> Result<(), Failure> {
    let set = message.has_field(&rule.field);
    if rule.only_if_set && !set {
        return Ok(());
    }
    let result = match &rule.check {
        Check::Wrapper { required, .. } if !set => absent(*required, "value is required and must not be nil."),
        Check::Message { required, .. } | Check::Any { required, .. } | Check::Duration { required, .. } if !set => {
            absent(*required, "value is required")
        }
        check => match message.get_field(&rule.field) {
            Cow::Borrowed(value) => item(check, value),
            Cow::Owned(value) => item(check, &value),
        },
    };
    result.map_err(|fault| name_fault(rules, rule, fault))
}

fn absent(required: bool, reason: &str) -> Result<(), Fault> {
    if required {
        Err(Fault::Reason(reason.to_owned()))
    } else {
        Ok(())
    }
}

/// Puts the message and the field before what is wrong, in Envoy's words.
fn name_fault(rules: &MessageRules, rule: &FieldRule, fault: Fault) -> Failure {
    let (prefix, index, fault) = match fault {
        Fault::Item(index, fault) => ("", format!("[{index}]"), *fault),
        Fault::Key(key, reason) => ("key for ", format!("[{key}]"), Fault::Reason(reason)),
        fault => ("", String::new(), fault),
    };
    let field = format!("{prefix}{}ValidationError.{}{index}", rules.name, rule.camel);
    let step = format!("{}{index}", rule.field.name());
    match fault {
        Fault::Within(mut inner) => {
            inner.reason = format!(
                "{field}: embedded message failed validation | caused by {}",
                inner.reason
            );
            inner.steps.push(step);
            inner
        }
        Fault::Reason(reason) => Failure {
            reason: format!("{field}: {reason}"),
            steps: vec![step],
        },
        // Lists of lists do not exist.
        Fault::Item(_, _) | Fault::Key(_, _) => Failure {
            reason: field,
            steps: vec![step],
        },
    }
}

/// Checks a value that is present.
fn item(check: &Check, value: &Value) -> Result<(), Fault> {
    match check {
        Check::Scalar(rules) => Ok(scalar(rules, value)?),
        Check::Wrapper { inner, .. } => {
            let wrapped = value.as_message().and_then(|message| message.get_field_by_number(1));
            Ok(wrapped.map_or(Ok(()), |value| scalar(inner, &value))?)
        }
        Check::Message { child, .. } => match (child, value.as_message()) {
            (Some(child), Some(inner)) => message(rules_of_child(child), inner).map_err(Fault::Within),
            _ => Ok(()),
        },
        Check::Any { list, .. } => {
            let url = value
                .as_message()
                .and_then(|any| Some(any.get_field_by_number(1)?.as_str()?.to_owned()));
            Ok(list.check(&url.unwrap_or_default(), "type URL", Clone::clone)?)
        }
        Check::Duration { range, list, .. } => {
            let nanos = duration(value)?;
            range.check(&nanos)?;
            Ok(list.check(&nanos, "value", Nanos::to_string)?)
        }
        Check::Repeated {
            size,
            unique,
            ignore_empty,
            item,
        } => repeated(size, *unique, *ignore_empty, item.as_deref(), value),
        Check::Map {
            size,
            ignore_empty,
            key,
            value: item,
        } => map(size, *ignore_empty, key.as_ref(), item.as_deref(), value),
    }
}

fn rules_of_child(child: &Child) -> &MessageRules {
    child.rules.get_or_init(|| rules_of(&child.descriptor))
}

fn repeated(size: &Size, unique: bool, ignore_empty: bool, check: Option<&Check>, value: &Value) -> Result<(), Fault> {
    let items = value.as_list().unwrap_or_default();
    if ignore_empty && items.is_empty() {
        return Ok(());
    }
    count(size, items.len(), "item(s)", "items")?;
    let mut seen = HashSet::new();
    for (index, value) in items.iter().enumerate() {
        let named = |fault: Fault| Fault::Item(index.to_string(), Box::new(fault));
        if unique && !seen.insert(value.to_string()) {
            return Err(named(Fault::Reason("repeated value must contain unique items".into())));
        }
        if let Some(check) = check {
            item(check, value).map_err(named)?;
        }
    }
    Ok(())
}

fn map(
    size: &Size,
    ignore_empty: bool,
    key_rules: Option<&Scalar>,
    check: Option<&Check>,
    value: &Value,
) -> Result<(), Fault> {
    let Some(entries) = value.as_map() else { return Ok(()) };
    if ignore_empty && entries.is_empty() {
        return Ok(());
    }
    count(size, entries.len(), "pair(s)", "pairs")?;
    for (key, value) in entries {
        if let Some(rules) = key_rules {
            let value = Value::from(key.clone());
            scalar(rules, &value).map_err(|reason| Fault::Key(key_text(key), reason))?;
        }
        if let Some(check) = check {
            item(check, value).map_err(|fault| Fault::Item(key_text(key), Box::new(fault)))?;
        }
    }
    Ok(())
}

fn key_text(key: &MapKey) -> String {
    key.as_str()
        .map_or_else(|| Value::from(key.clone()).to_string(), str::to_owned)
}

fn count(size: &Size, length: usize, plural: &str, range_plural: &str) -> Result<(), String> {
    let length = length as u64;
    match (size.min.filter(|min| *min > 0), size.max) {
        (Some(min), Some(max)) if min == max && length != min => {
            Err(format!("value must contain exactly {min} {plural}"))
        }
        (Some(min), Some(max)) if length < min || length > max => Err(format!(
            "value must contain between {min} and {max} {range_plural}, inclusive"
        )),
        (Some(min), None) if length < min => Err(format!("value must contain at least {min} {plural}")),
        (None, Some(max)) if length > max => Err(format!("value must contain no more than {max} {plural}")),
        _ => Ok(()),
    }
}

fn duration(value: &Value) -> Result<Nanos, String> {
    let part = |number: u32| {
        value
            .as_message()
            .and_then(|message| message.get_field_by_number(number))
    };
    let seconds = part(1).and_then(|seconds| seconds.as_i64()).unwrap_or_default();
    let nanos = part(2).and_then(|nanos| nanos.as_i32()).unwrap_or_default();
    if seconds.abs() > MAX_DURATION_SECONDS || nanos.abs() > 999_999_999 {
        return Err("value is not a valid duration".into());
    }
    Ok(Nanos(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)))
}

fn scalar(rules: &Scalar, value: &Value) -> Result<(), String> {
    match rules {
        Scalar::Int { rules, ignore_empty } => {
            let value = match value {
                Value::I32(value) => i128::from(*value),
                Value::I64(value) => i128::from(*value),
                Value::U32(value) => i128::from(*value),
                Value::U64(value) => i128::from(*value),
                _ => return Ok(()),
            };
            if *ignore_empty && value == 0 {
                Ok(())
            } else {
                number(rules, &value)
            }
        }
        Scalar::Float { rules, ignore_empty } => {
            let value = match value {
                Value::F32(value) => f64::from(*value),
                Value::F64(value) => *value,
                _ => return Ok(()),
            };
            if *ignore_empty && value == 0.0 {
                Ok(())
            } else {
                number(rules, &value)
            }
        }
        Scalar::Bool { equal } if value.as_bool() != Some(*equal) => Err(format!("value must equal {equal}")),
        Scalar::Bool { .. } => Ok(()),
        Scalar::Text(rules) => value.as_str().map_or(Ok(()), |value| text(rules, value)),
        Scalar::Bytes(rules) => value.as_bytes().map_or(Ok(()), |value| bytes(rules, value)),
        Scalar::Enum {
            descriptor,
            defined_only,
            equal,
            list,
        } => {
            let Some(value) = value.as_enum_number() else {
                return Ok(());
            };
            let name = |number: &i32| {
                descriptor
                    .get_value(*number)
                    .map(|v| v.name().to_owned())
                    .unwrap_or_default()
            };
            if let Some(equal) = equal.filter(|equal| *equal != value) {
                return Err(format!("value must equal {}", name(&equal)));
            }
            list.check(&value, "value", name)?;
            if *defined_only && descriptor.get_value(value).is_none() {
                return Err("value must be one of the defined enum values".into());
            }
            Ok(())
        }
    }
}

fn number<T: PartialOrd + std::fmt::Display>(rules: &Number<T>, value: &T) -> Result<(), String> {
    if let Some(equal) = rules.equal.as_ref().filter(|equal| *equal != value) {
        return Err(format!("value must equal {equal}"));
    }
    rules.range.check(value)?;
    rules.list.check(value, "value", T::to_string)
}

fn text(rules: &Text, value: &str) -> Result<(), String> {
    if rules.ignore_empty && value.is_empty() {
        return Ok(());
    }
    if let Some(equal) = rules.equal.as_ref().filter(|equal| *equal != value) {
        return Err(format!("value must equal {}", quoted(equal)));
    }
    if !rules.list.allowed.is_empty() || !rules.list.forbidden.is_empty() {
        rules.list.check(&value.to_owned(), "value", Clone::clone)?;
    }
    if rules.characters.min.is_some() || rules.characters.max.is_some() {
        characters(&rules.characters, value.chars().count() as u64)?;
    }
    byte_length(&rules.bytes, value.len())?;
    let broken = |found: bool, words: &str, part: &Option<String>| match part {
        Some(part) if !found => Err(format!("value {words} {}", quoted(part))),
        _ => Ok(()),
    };
    let holds = |part: &Option<String>, test: fn(&str, &str) -> bool| part.as_deref().is_none_or(|p| test(value, p));
    broken(
        holds(&rules.prefix, |v, p| v.starts_with(p)),
        "does not have prefix",
        &rules.prefix,
    )?;
    broken(
        holds(&rules.suffix, |v, p| v.ends_with(p)),
        "does not have suffix",
        &rules.suffix,
    )?;
    broken(
        holds(&rules.contains, |v, p| v.contains(p)),
        "does not contain substring",
        &rules.contains,
    )?;
    broken(
        holds(&rules.not_contains, |v, p| !v.contains(p)),
        "contains substring",
        &rules.not_contains,
    )?;
    if let Some((pattern, _)) = rules.pattern.as_ref().filter(|(_, matcher)| !matcher.is_match(value)) {
        return Err(format!("value does not match regex pattern {}", quoted(pattern)));
    }
    rules.known.map_or(Ok(()), |known| known_format(known, value))
}

fn characters(size: &Size, length: u64) -> Result<(), String> {
    match (size.min, size.max) {
        (Some(min), Some(max)) if min == max && length != min => Err(format!("value must be {min} characters")),
        (Some(min), Some(max)) if length < min || length > max => {
            Err(format!("value must have between {min} and {max} characters inclusive"))
        }
        (Some(min), None) if length < min => Err(format!("value length must be at least {min} characters")),
        (None, Some(max)) if length > max => Err(format!("value length must be at most {max} characters")),
        _ => Ok(()),
    }
}

fn byte_length(size: &Size, length: usize) -> Result<(), String> {
    let length = length as u64;
    match (size.min, size.max) {
        (Some(min), Some(max)) if min == max && length != min => Err(format!("value length must be {min} bytes")),
        (Some(min), Some(max)) if length < min || length > max => {
            Err(format!("value length must be between {min} and {max} bytes, inclusive"))
        }
        (Some(min), None) if length < min => Err(format!("value length must be at least {min} bytes")),
        (None, Some(max)) if length > max => Err(format!("value length must be at most {max} bytes")),
        _ => Ok(()),
    }
}

fn known_format(known: Known, value: &str) -> Result<(), String> {
    let is_ip = |value: &str| value.parse::<IpAddr>().is_ok();
    let (good, what) = match known {
        Known::Ip => (is_ip(value), "value must be a valid IP Address"),
        Known::Ipv4 => (value.parse::<Ipv4Addr>().is_ok(), "value must be a valid IPv4 Address"),
        Known::Ipv6 => (value.parse::<Ipv6Addr>().is_ok(), "value must be a valid IPv6 Address"),
        Known::Address => (
            is_hostname(value) || is_ip(value),
            "value must be an ip address, or a hostname.",
        ),
        Known::Hostname => (is_hostname(value), "value must be a valid hostname"),
        Known::Uuid => (is_uuid(value), "value must be a valid UUID"),
    };
    if good { Ok(()) } else { Err(what.to_owned()) }
}

fn is_hostname(value: &str) -> bool {
    let part_is_good = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    value.len() <= 253 && value.strip_suffix('.').unwrap_or(value).split('.').all(part_is_good)
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn bytes(rules: &Bytes, value: &[u8]) -> Result<(), String> {
    if rules.ignore_empty && value.is_empty() {
        return Ok(());
    }
    byte_length(&rules.size, value.len())?;
    let printed = |part: &[u8]| {
        format!(
            "\"{}\"",
            part.iter().map(|byte| format!("\\x{byte:X}")).collect::<String>()
        )
    };
    if let Some(prefix) = rules.prefix.as_deref().filter(|prefix| !value.starts_with(prefix)) {
        return Err(format!("value does not have prefix {}", printed(prefix)));
    }
    if let Some(suffix) = rules.suffix.as_deref().filter(|suffix| !value.ends_with(suffix)) {
        return Err(format!("value does not have suffix {}", printed(suffix)));
    }
    let lacks = |part: &&[u8]| !part.is_empty() && !value.windows(part.len()).any(|window| window == *part);
    if let Some(part) = rules.contains.as_deref().filter(lacks) {
        return Err(format!("value does not contain substring {}", printed(part)));
    }
    if let Some((pattern, _)) = rules.pattern.as_ref().filter(|(_, matcher)| !matcher.is_match(value)) {
        return Err(format!("value does not match regex pattern {}", quoted(pattern)));
    }
    Ok(())
}
