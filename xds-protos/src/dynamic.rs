//! Messages whose type is known only by its descriptor: to them, from them, and a walk over all that is in one.

use std::fmt;

use prost::{DecodeError, Message, Name};
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use crate::google::protobuf::Any;

/// Why bytes could not become a dynamic message.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DynamicError {
    /// The API has no message of this name.
    #[error("could not find @type '{0}'")]
    UnknownType(String),
    /// The bytes are not a message of the type.
    #[error("cannot decode '{type_name}': {source}")]
    Decode {
        /// The full name of the message.
        type_name: String,
        /// What prost found wrong.
        source: DecodeError,
    },
}

/// A typed message as a dynamic one.
///
/// # Errors
/// When the type is not part of the API.
pub fn from_typed<T: Message + Name>(message: &T) -> Result<DynamicMessage, DynamicError> {
    from_bytes(&T::full_name(), &message.encode_to_vec())
}

/// What is packed in an `Any`, by its type URL.
///
/// # Errors
/// When the type is not part of the API, or the bytes are not of it.
pub fn from_any(any: &Any) -> Result<DynamicMessage, DynamicError> {
    from_bytes(crate::any::type_name(&any.type_url), &any.value)
}

/// Bytes as the message of this full name.
///
/// # Errors
/// When the type is not part of the API, or the bytes are not of it.
pub fn from_bytes(type_name: &str, bytes: &[u8]) -> Result<DynamicMessage, DynamicError> {
    let descriptor = crate::message(type_name).ok_or_else(|| DynamicError::UnknownType(type_name.to_owned()))?;
    DynamicMessage::decode(descriptor, bytes).map_err(|source| DynamicError::Decode {
        type_name: type_name.to_owned(),
        source,
    })
}

/// A dynamic message as a typed one.
///
/// # Errors
/// When the bytes of one are not of the other.
pub fn to_typed<T: Message + Name + Default>(message: &DynamicMessage) -> Result<T, DynamicError> {
    let decoded = T::decode(message.encode_to_vec().as_slice());
    decoded.map_err(|source| DynamicError::Decode {
        type_name: T::full_name(),
        source,
    })
}

/// What a walk comes upon.
#[derive(Clone, Copy, Debug)]
pub enum Visit<'a> {
    /// The message the walk began with, or one in a field of another.
    Message {
        /// The message.
        message: &'a DynamicMessage,
        /// Where it is.
        path: &'a Path<'a>,
    },
    /// A message packed in an `Any`.
    Packed {
        /// The message.
        message: &'a DynamicMessage,
        /// Where the `Any` is.
        path: &'a Path<'a>,
    },
}

/// The way from the outermost message to a field; it prints as `static_resources.clusters[0].name`.
#[derive(Debug)]
pub struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a MapKey),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_top = self.outer.is_none_or(|outer| matches!(outer.step, Step::Root));
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if at_top => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(MapKey::String(key)) => write!(f, "[{key:?}]"),
            Step::Key(key) => write!(f, "[{}]", Value::from(key.clone())),
        }
    }
}

/// Walks over a message, those in its fields and those packed in an `Any` of a type of the API, outer ones first.
///
/// `look` says whether to go on. `typed_filter_metadata` is left out: Envoy does not look into it either.
pub fn visit(message: &DynamicMessage, look: &mut dyn FnMut(Visit<'_>) -> bool) {
    let root = Path {
        outer: None,
        step: Step::Root,
    };
    walk(message, &root, false, look);
}

fn walk(message: &DynamicMessage, path: &Path<'_>, packed: bool, look: &mut dyn FnMut(Visit<'_>) -> bool) -> bool {
    let seen = if packed {
        Visit::Packed { message, path }
    } else {
        Visit::Message { message, path }
    };
    if !look(seen) {
        return false;
    }
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return match unpacked(message) {
            Some(inner) => walk(&inner, path, true, look),
            None => true,
        };
    }
    message.fields().all(|(field, value)| {
        if field.name() == "typed_filter_metadata" {
            return true;
        }
        let path = Path {
            outer: Some(path),
            step: Step::Field(field.name()),
        };
        match value {
            Value::Message(inner) => walk(inner, &path, false, look),
            Value::List(items) => items.iter().enumerate().all(|(index, item)| match item {
                Value::Message(inner) => walk(
                    inner,
                    &Path {
                        outer: Some(&path),
                        step: Step::Index(index),
                    },
                    false,
                    look,
                ),
                _ => true,
            }),
            Value::Map(entries) => entries.iter().all(|(key, item)| match item {
                Value::Message(inner) => walk(
                    inner,
                    &Path {
                        outer: Some(&path),
                        step: Step::Key(key),
                    },
                    false,
                    look,
                ),
                _ => true,
            }),
            _ => true,
        }
    })
}

/// The message in an `Any` that is itself dynamic, or that the `TypedStruct` in it describes; nothing when its type is
/// not part of the API.
pub(crate) fn unpacked(any: &DynamicMessage) -> Option<DynamicMessage> {
    let type_url = any.get_field_by_number(1)?.as_str()?.to_owned();
    if type_url.ends_with(".TypedStruct") {
        return crate::any::resolve(&to_typed(any).ok()?).ok();
    }
    let value = any.get_field_by_number(2)?;
    from_bytes(crate::any::type_name(&type_url), value.as_bytes()?).ok()
}
