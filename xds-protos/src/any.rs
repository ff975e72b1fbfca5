//! `google.protobuf.Any`: how Envoy names and carries every extension's configuration.
//!
//! Envoy reads a type URL by what follows its last `/`; the host before it is not looked at.

use prost::{DecodeError, Message, Name};

use crate::google::protobuf::Any;

/// Why an `Any` could not be read as the type asked for.
#[derive(Debug, thiserror::Error)]
pub enum AnyError {
    /// The type URL names another type, or none.
    #[error("unexpected type_url '{found}', want {expected}")]
    WrongType {
        /// The full name of the type asked for.
        expected: String,
        /// The type URL as it came.
        found: String,
    },
    /// The bytes are not a message of the named type.
    #[error("cannot decode '{type_url}': {source}")]
    Decode {
        /// The type URL as it came.
        type_url: String,
        /// What prost found wrong.
        source: DecodeError,
    },
}

/// Packs a message under its [`type_url`](crate::type_url).
pub fn pack<T: Message + Name>(message: &T) -> Any {
    Any {
        type_url: crate::type_url::<T>(),
        value: message.encode_to_vec(),
    }
}

/// The full message name in a type URL: what follows the last `/`, or all of it.
///
/// ```
/// assert_eq!(xds_protos::any::type_name("type.googleapis.com/google.protobuf.Empty"), "google.protobuf.Empty");
/// ```
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// Whether the `Any` says it holds a `T`.
pub fn is<T: Name>(any: &Any) -> bool {
    type_name(&any.type_url) == T::full_name()
}

/// Decodes an `Any` that must hold exactly a `T`; no `TypedStruct` is unwrapped.
pub fn decode<T: Message + Name + Default>(any: &Any) -> Result<T, AnyError> {
    if !is::<T>(any) {
        return Err(AnyError::WrongType {
            expected: T::full_name(),
            found: any.type_url.clone(),
        });
    }
    T::decode(any.value.as_slice()).map_err(|source| AnyError::Decode {
        type_url: any.type_url.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
