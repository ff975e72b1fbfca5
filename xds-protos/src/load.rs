//! Configuration text to messages, by Envoy's reading rules.
//!
//! ```text
//! YAML (yaml.rs) or JSON (json.rs) -> Node tree (node.rs) -> DynamicMessage (build.rs, scalar.rs, wkt.rs)
//! ```
//!
//! What is accepted is what Envoy 1.40 accepts, oddities included: a port in quotes, a single value for a list, `yes`
//! for `true`, an enum in lower case. What is refused names the line, the column, the field and the way out, and all
//! that is wrong is reported at once.
//!
//! ```
//! use xds_protos::envoy::config::cluster::v3::Cluster;
//! use xds_protos::load::{self, LoadOptions, Syntax};
//!
//! let cluster: Cluster = load::typed("{name: backend, connect_timeout: 0.25s}", Syntax::Yaml, &LoadOptions::default())?;
//! assert_eq!(cluster.connect_timeout.map(|d| d.nanos), Some(250_000_000));
//!
//! let wrong = load::typed::<Cluster>("name: backend\nconect_timeout: 1s", Syntax::Yaml, &LoadOptions::default());
//! let error = wrong.unwrap_err();
//! assert_eq!((error.errors[0].line, error.errors[0].path.as_str()), (2, "conect_timeout"));
//! assert!(error.to_string().contains("did you mean 'connect_timeout'?"));
//! # Ok::<(), load::LoadErrors>(())
//! ```

mod build;
mod error;
mod flow;
mod json;
mod node;
mod pbtext;
mod scalar;
mod wkt;
mod yaml;

use std::path::Path;

use prost::{DecodeError, Message, Name};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage};

pub use error::{LoadError, LoadErrors, Problem};
pub(crate) use wkt::is_well_known;

use crate::check;
use crate::google::protobuf::Struct;
use node::{Node, NodeKind};

/// The languages a configuration can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `.yaml`, `.yml`, and `--config-yaml`.
    Yaml,
    /// `.json`, and every other ending.
    Json,
    /// `.pb_text`: protobuf's text format.
    PbText,
    /// `.pb`: protobuf's binary format.
    Pb,
}

impl Syntax {
    /// The syntax that Envoy takes a file of this name to have; case does not matter.
    pub fn of_path(path: &Path) -> Syntax {
        match path
            .extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
            .as_deref()
        {
            Some("yaml" | "yml") => Syntax::Yaml,
            Some("pb_text") => Syntax::PbText,
            Some("pb") => Syntax::Pb,
            _ => Syntax::Json,
        }
    }
}

/// What to do about fields and enum values that the API does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are errors: Envoy's default for static configuration.
    #[default]
    Reject,
    /// They are left out and listed in [`Loaded::unknown_fields`]: `--allow-unknown-static-fields`.
    Allow,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// What to do about unknown fields.
    pub unknown_fields: UnknownFields,
}

/// A message that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The message. Its bytes (`encode_to_vec`) are what a typed message decodes.
    pub message: DynamicMessage,
    /// What was left out because the API does not have it; empty unless unknown fields are allowed.
    pub unknown_fields: Vec<LoadError>,
}

/// Reads `text` as the message of this full name.
///
/// # Errors
/// Everything that is wrong with the text, up to a few dozen things.
pub fn from_str(
    text: &str,
    syntax: Syntax,
    message_full_name: &str,
    options: &LoadOptions,
) -> Result<Loaded, LoadErrors> {
    from_bytes(text.as_bytes(), syntax, message_full_name, options)
}

/// Reads a `Struct` as the message of this full name: what a `TypedStruct` holds. Its errors have a path but no line.
///
/// # Errors
/// As [`from_str`].
pub fn from_struct(value: &Struct, message_full_name: &str, options: &LoadOptions) -> Result<Loaded, LoadErrors> {
    let descriptor = crate::message(message_full_name).ok_or_else(|| {
        one_error(
            message_full_name,
            unplaced(Problem::UnknownType(message_full_name.into())),
        )
    })?;
    from_node(&Node::from(value), descriptor, options)
}

/// Reads a file as the message of this full name, in the syntax of [`Syntax::of_path`].
///
/// # Errors
/// As [`from_str`], and when the file cannot be read.
pub fn from_file(path: &Path, message_full_name: &str, options: &LoadOptions) -> Result<Loaded, LoadErrors> {
    let bytes = std::fs::read(path).map_err(|error| {
        let problem = Problem::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        one_error(message_full_name, unplaced(problem))
    })?;
    from_bytes(&bytes, Syntax::of_path(path), message_full_name, options)
}

/// Reads `text` as a `T`.
///
/// # Errors
/// As [`from_str`].
pub fn typed<T: Message + Name + Default>(text: &str, syntax: Syntax, options: &LoadOptions) -> Result<T, LoadErrors> {
    let loaded = from_str(text, syntax, &T::full_name(), options)?;
    loaded
        .message
        .transcode_to()
        .map_err(|error| one_error(&T::full_name(), undecodable(&error)))
}

/// Lays `over` onto `base` as protobuf merges messages: scalars and oneofs are replaced, messages merged, lists and maps
/// extended. This is what Envoy does with `--config-yaml` over `-c`.
///
/// # Errors
/// When the two are messages of different types whose bytes do not fit each other.
pub fn merge(base: &mut DynamicMessage, over: &DynamicMessage) -> Result<(), DecodeError> {
    base.merge(over.encode_to_vec().as_slice())
}

fn from_bytes(bytes: &[u8], syntax: Syntax, name: &str, options: &LoadOptions) -> Result<Loaded, LoadErrors> {
    let fail = |error: LoadError| one_error(name, error);
    let descriptor = crate::message(name).ok_or_else(|| fail(unplaced(Problem::UnknownType(name.into()))))?;
    if syntax == Syntax::Pb {
        let message = DynamicMessage::decode(descriptor, bytes).map_err(|error| fail(undecodable(&error)))?;
        let unknown_fields = unknown_numbers(&message);
        return finish(message, Vec::new(), unknown_fields, options);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| fail(not_utf8(bytes, error.valid_up_to())))?;
    let root = match syntax {
        Syntax::Yaml => yaml::parse(text).and_then(container),
        Syntax::PbText => {
            let message = pbtext::parse(&descriptor, text).map_err(fail)?;
            return Ok(Loaded {
                message,
                unknown_fields: Vec::new(),
            });
        }
        Syntax::Json | Syntax::Pb => json::parse(text),
    };
    from_node(&root.map_err(fail)?, descriptor, options)
}

fn from_node(root: &Node, descriptor: MessageDescriptor, options: &LoadOptions) -> Result<Loaded, LoadErrors> {
    let build::Built {
        message,
        errors,
        unknown_fields,
    } = build::build(&descriptor, root);
    finish(message, errors, unknown_fields, options)
}

fn finish(
    message: DynamicMessage,
    mut errors: Vec<LoadError>,
    unknown_fields: Vec<LoadError>,
    options: &LoadOptions,
) -> Result<Loaded, LoadErrors> {
    if options.unknown_fields == UnknownFields::Allow && errors.is_empty() {
        return Ok(Loaded {
            message,
            unknown_fields,
        });
    }
    if options.unknown_fields == UnknownFields::Reject {
        errors.extend(unknown_fields);
    }
    if errors.is_empty() {
        return Ok(Loaded {
            message,
            unknown_fields: Vec::new(),
        });
    }
    errors.sort_by_key(|error| (error.line, error.column));
    Err(LoadErrors {
        message: message.descriptor().full_name().to_owned(),
        errors,
    })
}

fn unknown_numbers(message: &DynamicMessage) -> Vec<LoadError> {
    let found = check::unknown(message).into_iter();
    let error = |finding: check::Finding| match finding.kind {
        check::FindingKind::Unknown { numbers } => {
            let problem = Problem::UnknownNumbers {
                message: finding.message,
                numbers,
            };
            Some(LoadError {
                path: finding.path,
                ..unplaced(problem)
            })
        }
        _ => None,
    };
    found.filter_map(error).collect()
}

/// Envoy refuses a YAML document that is a bare scalar before it looks at the message.
fn container(root: Node) -> Result<Node, LoadError> {
    if matches!(root.kind, NodeKind::Map(_) | NodeKind::List(_)) {
        return Ok(root);
    }
    let problem = Problem::Syntax(format!(
        "Unable to convert YAML as JSON: the document is {}",
        root.describe()
    ));
    Err(LoadError {
        line: root.at.line,
        column: root.at.column,
        path: String::new(),
        problem,
    })
}

fn one_error(message: &str, error: LoadError) -> LoadErrors {
    LoadErrors {
        message: message.to_owned(),
        errors: vec![error],
    }
}

fn unplaced(problem: Problem) -> LoadError {
    LoadError {
        line: 0,
        column: 0,
        path: String::new(),
        problem,
    }
}

fn undecodable(error: &DecodeError) -> LoadError {
    unplaced(Problem::Syntax(format!("not a binary protobuf: {error}")))
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> LoadError {
    let before = &bytes[..valid_up_to];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = valid_up_to - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
    LoadError {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        path: String::new(),
        problem: Problem::Syntax("the text is not UTF-8".into()),
    }
}

#[cfg(test)]
mod tests;
