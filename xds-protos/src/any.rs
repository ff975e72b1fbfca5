//! `google.protobuf.Any`: how Envoy names and carries every extension's configuration.
//!
//! Envoy reads a type URL by what follows its last `/`; the host before it is not looked at. Control planes that lack a
//! message's definition send a `TypedStruct` instead, the message in its JSON form; [`unpack`] does not tell the two
//! apart, so that no extension has to.

use prost::{DecodeError, Message, Name};
use prost_reflect::DynamicMessage;

use crate::dynamic::{self, DynamicError};
use crate::google::protobuf::{Any, Struct};
use crate::load::{self, LoadErrors, LoadOptions};
use crate::udpa::r#type::v1::TypedStruct as UdpaTypedStruct;
use crate::xds::r#type::v3::TypedStruct;

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
    /// The `Struct` in a `TypedStruct` does not describe a message of the named type.
    #[error("cannot convert TypedStruct '{type_url}': {source}")]
    Struct {
        /// The type URL in the `TypedStruct`.
        type_url: String,
        /// What is wrong in the `Struct`.
        source: LoadErrors,
    },
    /// The API has no message of the named type.
    #[error("could not find @type '{0}'")]
    UnknownType(String),
}

impl From<DynamicError> for AnyError {
    fn from(error: DynamicError) -> AnyError {
        match error {
            DynamicError::UnknownType(name) => AnyError::UnknownType(name),
            DynamicError::Decode { type_name, source } => AnyError::Decode {
                type_url: type_name,
                source,
            },
        }
    }
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

/// Reads an `Any` as a `T`, whether it holds one or a `TypedStruct` that describes one. Unknown fields in a
/// `TypedStruct` are errors.
///
/// ```
/// use xds_protos::any;
/// use xds_protos::envoy::config::core::v3::Locality;
/// use xds_protos::google::protobuf::{Struct, Value, value::Kind};
/// use xds_protos::xds::r#type::v3::TypedStruct;
///
/// let zone = Value { kind: Some(Kind::StringValue("z1".into())) };
/// let typed_struct = TypedStruct {
///     type_url: xds_protos::type_url::<Locality>(),
///     value: Some(Struct { fields: [("zone".to_owned(), zone)].into() }),
/// };
/// assert_eq!(any::unpack::<Locality>(&any::pack(&typed_struct))?.zone, "z1");
/// # Ok::<(), any::AnyError>(())
/// ```
///
/// # Errors
/// When it holds another type, or nothing that can be read as one.
pub fn unpack<T: Message + Name + Default>(any: &Any) -> Result<T, AnyError> {
    let Some((type_url, value)) = typed_struct(any)? else {
        return decode(any);
    };
    if type_name(&type_url) != T::full_name() {
        return Err(AnyError::WrongType {
            expected: T::full_name(),
            found: type_url,
        });
    }
    Ok(dynamic::to_typed(&from_struct(type_url, &value)?)?)
}

/// The full name of the message that an `Any` holds, or that the `TypedStruct` in it describes. This is what an
/// extension is found by.
///
/// # Errors
/// When the bytes are not those of the `TypedStruct` they should be.
pub fn inner_type_name(any: &Any) -> Result<String, AnyError> {
    let described = typed_struct(any)?.map(|(type_url, _)| type_url);
    Ok(type_name(described.as_ref().unwrap_or(&any.type_url)).to_owned())
}

/// Reads an `Any` as the message it holds, or that the `TypedStruct` in it describes.
///
/// # Errors
/// When the type is not part of the API, or what is there cannot be read as one.
pub fn resolve(any: &Any) -> Result<DynamicMessage, AnyError> {
    match typed_struct(any)? {
        Some((type_url, value)) => from_struct(type_url, &value),
        None => Ok(dynamic::from_any(any)?),
    }
}

/// The type URL and the `Struct` of an `Any` that holds a `TypedStruct` of either spelling.
fn typed_struct(any: &Any) -> Result<Option<(String, Struct)>, AnyError> {
    if is::<TypedStruct>(any) {
        let TypedStruct { type_url, value } = decode(any)?;
        return Ok(Some((type_url, value.unwrap_or_default())));
    }
    if is::<UdpaTypedStruct>(any) {
        let UdpaTypedStruct { type_url, value } = decode(any)?;
        return Ok(Some((type_url, value.unwrap_or_default())));
    }
    Ok(None)
}

fn from_struct(type_url: String, value: &Struct) -> Result<DynamicMessage, AnyError> {
    if crate::message(type_name(&type_url)).is_none() {
        return Err(AnyError::UnknownType(type_url));
    }
    load::from_struct(value, type_name(&type_url), &LoadOptions::default())
        .map(|loaded| loaded.message)
        .map_err(|source| AnyError::Struct { type_url, source })
}

#[cfg(test)]
mod tests;
