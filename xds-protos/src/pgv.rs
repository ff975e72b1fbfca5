//! The validation rules that are written beside the fields of the API (protoc-gen-validate), with Envoy's error texts.
//!
//! Envoy validates the bootstrap and every xDS resource when it arrives, and the message inside an `Any` when the
//! extension that owns it unpacks it. [`validate`] checks one message as it stands, [`validate_with_anys`] follows every
//! `Any` of a type that is part of the API.
//!
//! The rules of a message type are compiled when it is first met and kept, so a large assignment costs little more than
//! the walk over its fields.
//!
//! ```
//! use xds_protos::load::{self, LoadOptions, Syntax};
//! use xds_protos::pgv;
//!
//! let text = "static_resources: {clusters: [{connect_timeout: 1s}]}";
//! let loaded = load::from_str(text, Syntax::Yaml, "envoy.config.bootstrap.v3.Bootstrap", &LoadOptions::default())?;
//! let violation = pgv::validate(&loaded.message).unwrap_err();
//! assert_eq!(violation.path, "static_resources.clusters[0].name");
//! assert!(violation.to_string().ends_with("ClusterValidationError.Name: value length must be at least 1 characters)"));
//! # Ok::<(), load::LoadErrors>(())
//! ```

mod check;
mod compile;
mod rules;
mod text;

use std::fmt;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, ReflectMessage};

use crate::dynamic::{self, Visit};

/// A rule that a message breaks: the first one, in Envoy's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The full name of the message that was validated; inside an `Any` that of the packed message.
    pub message: String,
    /// The field, as in `static_resources.clusters[0].name`, from the outermost message on.
    pub path: String,
    /// Envoy's account of it: `ClusterValidationError.Name: value length must be at least 1 characters`, with the
    /// messages around it in front.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proto constraint validation failed ({})", self.reason)
    }
}

impl std::error::Error for Violation {}

/// Checks a message and those within it, but not what is packed in an `Any`.
///
/// # Errors
/// The first rule that is broken.
pub fn validate(message: &DynamicMessage) -> Result<(), Violation> {
    let descriptor = message.descriptor();
    check::message(&compile::rules_of(&descriptor), message).map_err(|failure| Violation {
        message: descriptor.full_name().to_owned(),
        path: failure.path(),
        reason: failure.reason,
    })
}

/// Checks a typed message as [`validate`] does. A type that is not part of the API has no rules.
///
/// # Errors
/// The first rule that is broken.
pub fn validate_typed<T: Message + Name>(message: &T) -> Result<(), Violation> {
    match dynamic::from_typed(message) {
        Ok(message) => validate(&message),
        Err(_) => Ok(()),
    }
}

/// Checks a message and everything packed in an `Any` within it, at any depth.
///
/// An `Any` of a type that is not part of the API is passed over; so is `typed_filter_metadata`, which Envoy unpacks only
/// for filters that ask for it.
///
/// # Errors
/// The first rule that is broken; that of an outer message before those of the messages packed in it.
pub fn validate_with_anys(message: &DynamicMessage) -> Result<(), Violation> {
    validate(message)?;
    let mut result = Ok(());
    dynamic::visit(message, &mut |visit| {
        if let (Visit::Packed { message, path }, Ok(())) = (visit, &result) {
            result = validate(message).map_err(|mut violation| {
                violation.path = format!("{path}.{}", violation.path);
                violation
            });
        }
        result.is_ok()
    });
    result
}

#[cfg(test)]
mod tests;
