//! Messages as JSON, in the format of Envoy's admin endpoints.
//!
//! `/config_dump` prints what is set, `/server_info`, `/certs` and `/memory` print defaults too; all of them use protobuf
//! field names in the order of their numbers and indent by one space. Envoy prints maps in no order at all; here they are
//! sorted, so that a text stands for a message.
//!
//! ```
//! use xds_protos::envoy::config::cluster::v3::Cluster;
//! use xds_protos::google::protobuf::Duration;
//! use xds_protos::{dynamic, print};
//!
//! let timeout = Duration { seconds: 0, nanos: 250_000_000 };
//! let cluster = Cluster { name: "c".into(), connect_timeout: Some(timeout), ..Default::default() };
//! let json = print::json(&dynamic::from_typed(&cluster)?, print::PrintOptions::default());
//! assert_eq!(json, "{\n \"name\": \"c\",\n \"connect_timeout\": \"0.250s\"\n}");
//! # Ok::<(), dynamic::DynamicError>(())
//! ```

mod scalar;

use std::fmt::{self, Write};
use std::sync::Arc;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use crate::descriptors::PerType;
use crate::dynamic;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Print scalars, lists and maps that are not set, with their defaults, as `/server_info` does.
    pub always_print_defaults: bool,
    /// Print `[redacted]` for strings in fields that the API calls sensitive, and leave out numbers, as `/config_dump`
    /// does.
    pub redact_sensitive: bool,
    /// One value a line, indented by one space; otherwise all in one line.
    pub pretty: bool,
}

impl Default for PrintOptions {
    /// What `/config_dump` does.
    fn default() -> PrintOptions {
        PrintOptions {
            always_print_defaults: false,
            redact_sensitive: true,
            pretty: true,
        }
    }
}

/// A message as JSON.
pub fn json(message: &DynamicMessage, options: PrintOptions) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_json(&mut out, message, options);
    out
}

/// Writes a message as JSON.
///
/// # Errors
/// Those of `out`.
pub fn write_json(out: &mut dyn Write, message: &DynamicMessage, options: PrintOptions) -> fmt::Result {
    Printer { out, options, depth: 0 }.message(message, false)
}

struct Printer<'w> {
    out: &'w mut dyn Write,
    options: PrintOptions,
    depth: usize,
}

impl Printer<'_> {
    fn message(&mut self, message: &DynamicMessage, sensitive: bool) -> fmt::Result {
        let descriptor = message.descriptor();
        let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") else {
            return self.ordinary(message, None, sensitive);
        };
        let field = |number: u32| message.get_field_by_number(number);
        match name {
            "Any" => self.any(message, sensitive),
            "Duration" | "Timestamp" => {
                let seconds = field(1)
                    .and_then(|seconds| seconds.as_i64())
                    .filter(|_| !sensitive)
                    .unwrap_or_default();
                let nanos = field(2)
                    .and_then(|nanos| nanos.as_i32())
                    .filter(|_| !sensitive)
                    .unwrap_or_default();
                match name {
                    "Duration" => write!(self.out, "\"{}\"", scalar::duration(seconds, nanos)),
                    _ => write!(self.out, "\"{}\"", scalar::timestamp(seconds, nanos)),
                }
            }
            "Struct" => match (field(1), descriptor.get_field(1)) {
                (Some(fields), Some(descriptor)) => self.map(&descriptor, &fields, sensitive),
                _ => self.out.write_str("{}"),
            },
            "ListValue" => match (field(1), descriptor.get_field(1)) {
                (Some(values), Some(descriptor)) => self.list(&descriptor, &values, sensitive),
                _ => self.out.write_str("[]"),
            },
            "Value" => match message.fields().next() {
                Some((field, value)) if !sensitive || is_redactable(&field.kind()) => {
                    self.value(&field.kind(), value, sensitive)
                }
                _ => self.out.write_str("null"),
            },
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => match (descriptor.get_field(1), field(1)) {
                (Some(field), Some(_)) if sensitive && !is_redactable(&field.kind()) => {
                    self.value(&field.kind(), &field.default_value(), false)
                }
                (Some(field), Some(value)) => self.value(&field.kind(), &value, sensitive),
                _ => self.out.write_str("null"),
            },
            _ => self.ordinary(message, None, sensitive),
        }
    }

    /// A message field by field; that in an `Any` begins with its type.
    fn ordinary(&mut self, message: &DynamicMessage, type_url: Option<&str>, sensitive: bool) -> fmt::Result {
        let mut first = true;
        self.open('{')?;
        if let Some(url) = type_url {
            self.entry(&mut first, Some("@type"))?;
            scalar::string(self.out, url)?;
        }
        let descriptor = message.descriptor();
        let secrets = if self.options.redact_sensitive {
            sensitive_fields(&descriptor)
        } else {
            Arc::default()
        };
        let redacted = |field: &FieldDescriptor| sensitive || secrets.contains(&field.number());
        if self.options.always_print_defaults {
            let mut fields: Vec<_> = descriptor.fields().collect();
            fields.sort_by_key(FieldDescriptor::number);
            for field in fields
                .iter()
                .filter(|field| !field.supports_presence() || message.has_field(field))
            {
                self.field(&mut first, field, &message.get_field(field), redacted(field))?;
            }
        } else {
            for (field, value) in message.fields() {
                self.field(&mut first, &field, value, redacted(&field))?;
            }
        }
        self.close('}', first)
    }

    fn field(&mut self, first: &mut bool, field: &FieldDescriptor, value: &Value, sensitive: bool) -> fmt::Result {
        let kind = field.kind();
        if sensitive && !is_redactable(&kind) {
            if !self.options.always_print_defaults || field.supports_presence() {
                return Ok(());
            }
            self.entry(first, Some(field.name()))?;
            return self.field_value(field, &field.default_value(), false);
        }
        self.entry(first, Some(field.name()))?;
        self.field_value(field, value, sensitive)
    }

    fn field_value(&mut self, field: &FieldDescriptor, value: &Value, sensitive: bool) -> fmt::Result {
        if field.is_map() {
            self.map(field, value, sensitive)
        } else if field.is_list() {
            self.list(field, value, sensitive)
        } else {
            self.value(&field.kind(), value, sensitive)
        }
    }

    fn list(&mut self, field: &FieldDescriptor, value: &Value, sensitive: bool) -> fmt::Result {
        let (mut first, kind) = (true, field.kind());
        self.open('[')?;
        for item in value.as_list().unwrap_or_default() {
            self.entry(&mut first, None)?;
            self.value(&kind, item, sensitive)?;
        }
        self.close(']', first)
    }

    fn map(&mut self, field: &FieldDescriptor, value: &Value, sensitive: bool) -> fmt::Result {
        let Kind::Message(entry) = field.kind() else {
            return Ok(());
        };
        let (mut first, kind) = (true, entry.map_entry_value_field().kind());
        let mut entries: Vec<_> = value.as_map().into_iter().flatten().collect();
        entries.sort_by_key(|(key, _)| *key);
        self.open('{')?;
        for (key, value) in entries {
            match key {
                MapKey::String(key) => self.entry(&mut first, Some(key))?,
                key => self.entry(&mut first, Some(&Value::from(key.clone()).to_string()))?,
            }
            self.value(&kind, value, sensitive)?;
        }
        self.close('}', first)
    }

    fn value(&mut self, kind: &Kind, value: &Value, sensitive: bool) -> fmt::Result {
        match value {
            Value::String(_) if sensitive => scalar::string(self.out, REDACTED),
            Value::Bytes(_) if sensitive => scalar::bytes(self.out, REDACTED.as_bytes()),
            Value::String(text) => scalar::string(self.out, text),
            Value::Bytes(bytes) => scalar::bytes(self.out, bytes),
            Value::Bool(value) => write!(self.out, "{value}"),
            Value::I32(value) => write!(self.out, "{value}"),
            Value::U32(value) => write!(self.out, "{value}"),
            // A double does not hold every 64-bit number, and JSON numbers are doubles to most readers.
            Value::I64(value) => write!(self.out, "\"{value}\""),
            Value::U64(value) => write!(self.out, "\"{value}\""),
            Value::F32(value) => self.out.write_str(&scalar::float(*value)),
            Value::F64(value) => self.out.write_str(&scalar::double(*value)),
            Value::EnumNumber(number) => match kind.as_enum() {
                Some(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => self.out.write_str("null"),
                Some(descriptor) => match descriptor.get_value(*number) {
                    Some(value) => write!(self.out, "\"{}\"", value.name()),
                    None => write!(self.out, "{number}"),
                },
                None => write!(self.out, "{number}"),
            },
            Value::Message(message) => self.message(message, sensitive),
            // Fields of these shapes are printed by `list` and `map`.
            Value::List(_) | Value::Map(_) => self.out.write_str("null"),
        }
    }

    /// `{"@type": url, fields...}`; a type that is not part of the API keeps its bytes.
    fn any(&mut self, any: &DynamicMessage, sensitive: bool) -> fmt::Result {
        let url = any.get_field_by_number(1);
        let url = url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
        let bytes = any.get_field_by_number(2);
        let bytes = bytes
            .as_ref()
            .and_then(|bytes| bytes.as_bytes())
            .map(AsRef::as_ref)
            .unwrap_or_default();
        if url.is_empty() && bytes.is_empty() {
            return self.out.write_str("{}");
        }
        let name = crate::any::type_name(url);
        if let (true, Some(described)) = (
            self.options.redact_sensitive && name.ends_with(".TypedStruct"),
            dynamic::unpacked(any),
        ) {
            return self.typed_struct(url, &described, sensitive);
        }
        match dynamic::from_bytes(name, bytes) {
            Ok(inner) if crate::load::is_well_known(name) => {
                let mut first = true;
                self.any_head(&mut first, url)?;
                self.entry(&mut first, Some("value"))?;
                self.message(&inner, sensitive)?;
                self.close('}', first)
            }
            Ok(inner) => self.ordinary(&inner, Some(url), sensitive),
            Err(_) => {
                let mut first = true;
                self.any_head(&mut first, url)?;
                self.entry(&mut first, Some("value"))?;
                let redacted = if sensitive { REDACTED.as_bytes() } else { bytes };
                scalar::bytes(self.out, redacted)?;
                self.close('}', first)
            }
        }
    }

    /// A `TypedStruct` by way of the message it describes: a `Struct` does not know which of its fields are sensitive.
    fn typed_struct(&mut self, url: &str, described: &DynamicMessage, sensitive: bool) -> fmt::Result {
        let mut first = true;
        self.any_head(&mut first, url)?;
        self.entry(&mut first, Some("type_url"))?;
        scalar::string(
            self.out,
            &format!("{}{}", crate::TYPE_URL_PREFIX, described.descriptor().full_name()),
        )?;
        self.entry(&mut first, Some("value"))?;
        self.message(described, sensitive)?;
        self.close('}', first)
    }

    fn any_head(&mut self, first: &mut bool, url: &str) -> fmt::Result {
        self.open('{')?;
        self.entry(first, Some("@type"))?;
        scalar::string(self.out, url)
    }

    fn open(&mut self, bracket: char) -> fmt::Result {
        self.depth += 1;
        self.out.write_char(bracket)
    }

    /// What stands before an item, and its key.
    fn entry(&mut self, first: &mut bool, key: Option<&str>) -> fmt::Result {
        if !std::mem::replace(first, false) {
            self.out.write_char(',')?;
        }
        self.line()?;
        let Some(key) = key else { return Ok(()) };
        scalar::string(self.out, key)?;
        self.out.write_str(if self.options.pretty { ": " } else { ":" })
    }

    fn close(&mut self, bracket: char, empty: bool) -> fmt::Result {
        self.depth -= 1;
        if !empty {
            self.line()?;
        }
        self.out.write_char(bracket)
    }

    fn line(&mut self) -> fmt::Result {
        if self.options.pretty {
            self.out.write_char('\n')?;
            (0..self.depth).try_for_each(|_| self.out.write_char(' '))?;
        }
        Ok(())
    }
}

/// Whether a sensitive field of this kind is printed redacted; others are left out.
fn is_redactable(kind: &Kind) -> bool {
    matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}

/// The numbers of the fields of a message type that are annotated `udpa.annotations.sensitive`; mostly there are none.
fn sensitive_fields(descriptor: &MessageDescriptor) -> Arc<Vec<u32>> {
    static SENSITIVE: PerType<Vec<u32>> = PerType::new();
    SENSITIVE.get(descriptor, |descriptor| {
        let Some(sensitive) = crate::pool().get_extension_by_name("udpa.annotations.sensitive") else {
            // Without the annotation nobody can say what is harmless.
            return descriptor.fields().map(|field| field.number()).collect();
        };
        let is_sensitive = |field: &FieldDescriptor| field.options().get_extension(&sensitive).as_bool() == Some(true);
        descriptor
            .fields()
            .filter(is_sensitive)
            .map(|field| field.number())
            .collect()
    })
}

#[cfg(test)]
mod tests;
