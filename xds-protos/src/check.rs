//! What a message should not have in it: unknown fields, deprecated ones, and what is still work in progress.
//!
//! Envoy looks for these in every message it loads and in every `Any` it unpacks. What follows from them is the caller's
//! affair: unknown fields are errors in static configuration and, by `--reject-unknown-dynamic-fields`, in dynamic;
//! deprecated fields are warnings and counted, or errors once they are disallowed by default.
//!
//! Unknown fields of a text are found by [`load`](crate::load) already, with their line; those found here came as bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, ReflectMessage, Value};

use crate::descriptors::PerType;
use crate::dynamic::{self, Path, Visit};

/// One thing found, with the message it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The full name of the message that has it.
    pub message: String,
    /// Where that message is, as in `static_resources.clusters[0]`; empty for the outermost.
    pub path: String,
    /// What it is.
    pub kind: FindingKind,
}

/// What was found in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Fields with numbers that the message does not have.
    Unknown {
        /// The numbers.
        numbers: Vec<u32>,
    },
    /// A deprecated field, or a field with a deprecated value.
    Deprecated {
        /// The full name of the field.
        field: String,
        /// The enum value, if it is that which is deprecated.
        value: Option<String>,
        /// The value was not set: it is the enum's default that is deprecated.
        default: bool,
        /// The file that defines the field.
        file: String,
        /// Envoy refuses it unless the runtime permits it.
        disallowed: bool,
    },
    /// A field, or a message, that may still change.
    WorkInProgress {
        /// The full name of the field or message.
        name: String,
    },
}

impl Finding {
    /// The runtime key that permits a disallowed deprecated field: `envoy.deprecated_features:` and the field's name.
    pub fn runtime_key(&self) -> Option<String> {
        match &self.kind {
            FindingKind::Deprecated { field, value: None, .. } => Some(format!("envoy.deprecated_features:{field}")),
            FindingKind::Deprecated {
                field,
                value: Some(value),
                ..
            } => {
                // An enum value is named in the scope of the message around its enum.
                let scope = field.rsplit_once('.').map_or("", |(scope, _)| scope);
                Some(format!("envoy.deprecated_features:{scope}.{value}"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FindingKind::Unknown { numbers } => {
                let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
                let numbers = numbers.join(", ");
                write!(
                    f,
                    "Protobuf message (type {} with unknown field set {{{numbers}}}) has unknown fields",
                    self.message
                )
            }
            FindingKind::Deprecated {
                field,
                value: None,
                file,
                ..
            } => {
                write!(f, "Using deprecated option '{field}' from file {file}")?;
                f.write_str(". This configuration will be removed from Envoy soon.")
            }
            FindingKind::Deprecated {
                field,
                value: Some(value),
                default,
                file,
                ..
            } => {
                let (which, fix) = match default {
                    true => ("the default now-", " so a non-default value must now be explicitly set"),
                    false => ("", ""),
                };
                write!(
                    f,
                    "Using {which}deprecated value {value} for enum '{field}' from file {file}"
                )?;
                write!(f, ". This enum value will be removed from Envoy soon{fix}.")
            }
            FindingKind::WorkInProgress { name } => {
                write!(
                    f,
                    "'{name}' is marked as work-in-progress and may change without notice"
                )
            }
        }
    }
}

/// Everything of note in a message, in its fields and in every `Any` of a type of the API.
pub fn findings(message: &DynamicMessage) -> Vec<Finding> {
    let mut found = Vec::new();
    dynamic::visit(message, &mut |visit| {
        let (Visit::Message { message, path } | Visit::Packed { message, path }) = visit;
        look_at(message, path, &mut found);
        true
    });
    found
}

/// The unknown fields of a message and all that is in it.
pub fn unknown(message: &DynamicMessage) -> Vec<Finding> {
    let mut found = findings(message);
    found.retain(|finding| matches!(finding.kind, FindingKind::Unknown { .. }));
    found
}

/// The deprecated fields and enum values of a message and all that is in it.
pub fn deprecated(message: &DynamicMessage) -> Vec<Finding> {
    let mut found = findings(message);
    found.retain(|finding| matches!(finding.kind, FindingKind::Deprecated { .. }));
    found
}

fn look_at(message: &DynamicMessage, path: &Path<'_>, found: &mut Vec<Finding>) {
    let notes = notes_of(&message.descriptor());
    let mut push = |kind: FindingKind| {
        found.push(Finding {
            message: message.descriptor().full_name().to_owned(),
            path: path.to_string(),
            kind,
        });
    };
    let numbers: Vec<_> = message
        .unknown_fields()
        .map(prost_reflect::UnknownField::number)
        .collect();
    if !numbers.is_empty() {
        push(FindingKind::Unknown { numbers });
    }
    if notes.work_in_progress {
        push(FindingKind::WorkInProgress {
            name: message.descriptor().full_name().to_owned(),
        });
    }
    for note in &notes.fields {
        note.findings(message, &mut push);
    }
}

/// What is noted about a message type; most types have nothing noted.
#[derive(Default)]
struct Notes {
    work_in_progress: bool,
    fields: Vec<FieldNote>,
}

struct FieldNote {
    field: FieldDescriptor,
    work_in_progress: bool,
    /// Deprecated, and whether it is disallowed.
    deprecated: Option<bool>,
    /// Deprecated enum values, and whether they are disallowed.
    values: HashMap<i32, (String, bool)>,
}

impl FieldNote {
    fn findings(&self, message: &DynamicMessage, push: &mut impl FnMut(FindingKind)) {
        let set = message.has_field(&self.field);
        let file = || {
            self.field
                .parent_file()
                .name()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let field = || self.field.full_name().to_owned();
        if let Some(disallowed) = self.deprecated.filter(|_| set) {
            push(FindingKind::Deprecated {
                field: field(),
                value: None,
                default: false,
                file: file(),
                disallowed,
            });
        }
        if self.work_in_progress && set {
            push(FindingKind::WorkInProgress { name: field() });
        }
        // A field that is not set has its default, which can be what is deprecated.
        if self.values.is_empty() || !set && self.field.supports_presence() {
            return;
        }
        let value = message.get_field(&self.field);
        let items = match value.as_ref() {
            Value::List(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        for (name, disallowed) in items.iter().filter_map(|item| self.values.get(&item.as_enum_number()?)) {
            let (value, disallowed) = (Some(name.clone()), *disallowed);
            push(FindingKind::Deprecated {
                field: field(),
                value,
                default: !set,
                file: file(),
                disallowed,
            });
        }
    }
}

fn notes_of(descriptor: &MessageDescriptor) -> Arc<Notes> {
    static NOTES: PerType<Notes> = PerType::new();
    NOTES.get(descriptor, read_notes)
}

/// The extensions in which the notes are written.
struct Extensions {
    field_status: ExtensionDescriptor,
    message_status: ExtensionDescriptor,
    file_status: ExtensionDescriptor,
    disallowed: ExtensionDescriptor,
    disallowed_enum: ExtensionDescriptor,
}

fn extensions() -> Option<&'static Extensions> {
    static EXTENSIONS: LazyLock<Option<Extensions>> = LazyLock::new(|| {
        let get = |name: &str| crate::pool().get_extension_by_name(name);
        Some(Extensions {
            field_status: get("xds.annotations.v3.field_status")?,
            message_status: get("xds.annotations.v3.message_status")?,
            file_status: get("xds.annotations.v3.file_status")?,
            disallowed: get("envoy.annotations.disallowed_by_default")?,
            disallowed_enum: get("envoy.annotations.disallowed_by_default_enum")?,
        })
    });
    EXTENSIONS.as_ref()
}

fn read_notes(descriptor: &MessageDescriptor) -> Notes {
    let Some(extensions) = extensions() else {
        return Notes::default();
    };
    let status = |options: &DynamicMessage, extension: &ExtensionDescriptor| {
        let status = options.get_extension(extension);
        let flag = status
            .as_message()
            .and_then(|status| status.get_field_by_name("work_in_progress")?.as_bool());
        flag.unwrap_or_default()
    };
    let is = |options: &DynamicMessage, extension| options.get_extension(extension).as_bool().unwrap_or_default();
    let note = |field: FieldDescriptor| {
        let options = field.options();
        let deprecated = is_deprecated(&options).then(|| is(&options, &extensions.disallowed));
        let mut values = HashMap::new();
        for value in field
            .kind()
            .as_enum()
            .into_iter()
            .flat_map(|e| e.values().collect::<Vec<_>>())
        {
            let options = value.options();
            if is_deprecated(&options) {
                let name = value.name().to_owned();
                values.insert(value.number(), (name, is(&options, &extensions.disallowed_enum)));
            }
        }
        let work_in_progress = status(&options, &extensions.field_status);
        (work_in_progress || deprecated.is_some() || !values.is_empty()).then_some(FieldNote {
            field,
            work_in_progress,
            deprecated,
            values,
        })
    };
    Notes {
        work_in_progress: status(&descriptor.options(), &extensions.message_status)
            || status(&descriptor.parent_file().options(), &extensions.file_status),
        fields: descriptor.fields().filter_map(note).collect(),
    }
}

fn is_deprecated(options: &DynamicMessage) -> bool {
    options
        .get_field_by_name("deprecated")
        .and_then(|flag| flag.as_bool())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
