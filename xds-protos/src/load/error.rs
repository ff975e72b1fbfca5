//! What can be wrong with a configuration text: always with the place, the field and, where there is one, the fix.

use std::fmt;

/// One thing wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The line, from 1; 0 where the format has no lines (binary protobuf) or the file could not be read.
    pub line: u32,
    /// The column, from 1; 0 as for [`line`](Self::line).
    pub column: u32,
    /// The field, as in `static_resources.clusters[0].connect_timeout`; empty at the top.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at one place of a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file's name.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The text is not well-formed YAML, JSON or protobuf text.
    #[error("{0}")]
    Syntax(String),
    /// The message has no field of this name.
    #[error("no such field: '{field}' in {message}{}", hint(.similar))]
    UnknownField {
        /// The full name of the message.
        message: String,
        /// The name as written.
        field: String,
        /// A field of the message that is spelled alike.
        similar: Option<String>,
    },
    /// The message has no fields of these numbers; found in binary protobuf, which has no names.
    #[error("{message} has no fields with the numbers {numbers:?}")]
    UnknownNumbers {
        /// The full name of the message.
        message: String,
        /// The numbers.
        numbers: Vec<u32>,
    },
    /// The enum has no value of this name.
    #[error("unknown enum value: '{value}' for {enumeration}{}", hint(.similar))]
    UnknownEnumValue {
        /// The full name of the enum.
        enumeration: String,
        /// The name as written.
        value: String,
        /// A value of the enum that is spelled alike.
        similar: Option<String>,
    },
    /// The value is not of the field's type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What the field takes, with an example where the fix is not plain.
        expected: String,
        /// What is written.
        found: String,
    },
    /// The number does not fit the field.
    #[error("{value} is out of range for {kind}")]
    OutOfRange {
        /// The number as written.
        value: String,
        /// The type it does not fit.
        kind: &'static str,
    },
    /// Two members of one `oneof` are set.
    #[error("'{0}' has already been set (either directly or as part of a oneof); remove one of the two")]
    AlreadySet(String),
    /// A key occurs twice in a map.
    #[error("got unexpectedly-repeated map key: '{0}'")]
    RepeatedKey(String),
    /// The `@type` names a message that is not part of the API.
    #[error("could not find @type '{0}'")]
    UnknownType(String),
    /// The `@type` is not a type URL.
    #[error("@type must contain at least one / and a nonempty host; got: '{0}'; write type.googleapis.com/{0}")]
    BadTypeUrl(String),
    /// An `Any` has fields and no `@type`.
    #[error("missing @type in Any; add \"@type\": type.googleapis.com/<message>")]
    MissingType,
}

impl Problem {
    /// Whether Envoy calls this an unknown field, which `--allow-unknown-static-fields` permits.
    pub fn is_unknown_field(&self) -> bool {
        matches!(
            self,
            Problem::UnknownField { .. } | Problem::UnknownNumbers { .. } | Problem::UnknownEnumValue { .. }
        )
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for LoadError {}

/// Everything wrong with a text, in the order of the text; never empty.
///
/// It prints as Envoy's one-line message does, with our places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors {
    /// The full name of the message that was to be read.
    pub message: String,
    /// What was found wrong.
    pub errors: Vec<LoadError>,
}

impl LoadErrors {
    /// Whether unknown fields are all that is wrong.
    pub fn only_unknown_fields(&self) -> bool {
        self.errors.iter().all(|error| error.problem.is_unknown_field())
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = self.only_unknown_fields();
        if unknown {
            write!(f, "Protobuf message (type {} reason INVALID_ARGUMENT: ", self.message)?;
        } else if let [
            LoadError {
                problem: Problem::Unreadable { .. },
                ..
            },
        ] = self.errors.as_slice()
        {
            return self.errors[0].fmt(f);
        } else {
            write!(
                f,
                "Unable to parse JSON as proto (INVALID_ARGUMENT: invalid JSON in {}: ",
                self.message
            )?;
        }
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        f.write_str(if unknown { ") has unknown fields" } else { ")" })
    }
}

impl std::error::Error for LoadErrors {}

fn hint(similar: &Option<String>) -> String {
    similar
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// The candidate spelled most like `name`, if one is near enough to be meant.
pub(super) fn most_similar<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let limit = 1 + name.len() / 4;
    candidates
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// The Levenshtein distance of two names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
