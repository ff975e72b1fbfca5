//! The compiled rules of a message type.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};
use regex::{Regex, bytes};

/// Everything to check in a message, in Envoy's order: fields, optional scalars, oneofs.
pub(super) struct MessageRules {
    /// The message's own name, which begins Envoy's error text.
    pub name: String,
    pub fields: Vec<FieldRule>,
    pub oneofs: Vec<OneofRule>,
}

pub(super) struct FieldRule {
    pub field: FieldDescriptor,
    /// The field's name in Envoy's error text.
    pub camel: String,
    /// A proto3 `optional` scalar is checked only where it is set.
    pub only_if_set: bool,
    pub check: Check,
}

pub(super) struct OneofRule {
    pub name: String,
    pub required: bool,
    pub members: Vec<FieldRule>,
    /// All members, also those that have nothing to check.
    pub fields: Vec<FieldDescriptor>,
}

/// What to check of one field, or of one item of a list or map.
pub(super) enum Check {
    Scalar(Scalar),
    /// A `google.protobuf.UInt32Value` and the like, with the rules of what it wraps.
    Wrapper {
        required: bool,
        inner: Scalar,
    },
    Message {
        required: bool,
        child: Option<Child>,
    },
    Any {
        required: bool,
        list: List<String>,
    },
    Duration {
        required: bool,
        range: Range<Nanos>,
        list: List<Nanos>,
    },
    Repeated {
        size: Size,
        unique: bool,
        ignore_empty: bool,
        item: Option<Box<Check>>,
    },
    Map {
        size: Size,
        ignore_empty: bool,
        key: Option<Scalar>,
        value: Option<Box<Check>>,
    },
}

/// The rules of a message within a message, looked up when first needed because messages may contain themselves.
pub(super) struct Child {
    pub descriptor: MessageDescriptor,
    pub rules: OnceLock<Arc<MessageRules>>,
}

/// The rules of a scalar.
pub(super) enum Scalar {
    Int {
        rules: Number<i128>,
        ignore_empty: bool,
    },
    Float {
        rules: Number<f64>,
        ignore_empty: bool,
    },
    Bool {
        equal: bool,
    },
    Text(Text),
    Bytes(Bytes),
    Enum {
        descriptor: EnumDescriptor,
        defined_only: bool,
        equal: Option<i32>,
        list: List<i32>,
    },
}

pub(super) struct Number<T> {
    pub equal: Option<T>,
    pub range: Range<T>,
    pub list: List<T>,
}

#[derive(Default)]
pub(super) struct Range<T> {
    pub lt: Option<T>,
    pub lte: Option<T>,
    pub gt: Option<T>,
    pub gte: Option<T>,
}

/// `in` and `not_in`; empty lists ask for nothing.
#[derive(Default)]
pub(super) struct List<T> {
    pub allowed: Vec<T>,
    pub forbidden: Vec<T>,
}

/// How many characters, bytes, items or pairs there may be.
#[derive(Default)]
pub(super) struct Size {
    pub min: Option<u64>,
    pub max: Option<u64>,
}

#[derive(Default)]
pub(super) struct Text {
    pub equal: Option<String>,
    pub list: List<String>,
    pub characters: Size,
    pub bytes: Size,
    pub prefix: Option<String>,
    pub suffix: Option<String>,
    pub contains: Option<String>,
    pub not_contains: Option<String>,
    /// The pattern as Envoy prints it, and how to match it.
    pub pattern: Option<(String, Regex)>,
    pub known: Option<Known>,
    pub ignore_empty: bool,
}

/// The formats of strings that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Ip,
    Ipv4,
    Ipv6,
    Address,
    Hostname,
    Uuid,
}

#[derive(Default)]
pub(super) struct Bytes {
    pub size: Size,
    pub prefix: Option<Vec<u8>>,
    pub suffix: Option<Vec<u8>>,
    pub contains: Option<Vec<u8>>,
    pub pattern: Option<(String, bytes::Regex)>,
    pub ignore_empty: bool,
}

/// A duration as one number, so that durations compare; it prints as Go prints durations.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Nanos(pub i128);

impl<T: PartialOrd + Display> Range<T> {
    /// Whether the value lies where it may, or why not. Bounds that cross each other mean "outside".
    pub fn check(&self, value: &T) -> Result<(), String> {
        let Range { lt, lte, gt, gte } = self;
        let upper = lt
            .as_ref()
            .map(|limit| (limit, false))
            .or(lte.as_ref().map(|limit| (limit, true)));
        let lower = gt
            .as_ref()
            .map(|limit| (limit, false))
            .or(gte.as_ref().map(|limit| (limit, true)));
        let below = |(limit, inclusive): (&T, bool)| value < limit || inclusive && value == limit;
        let above = |(limit, inclusive): (&T, bool)| value > limit || inclusive && value == limit;
        match (lower, upper) {
            (Some(lower), Some(upper)) if upper.0 > lower.0 => {
                let (open, close) = (if lower.1 { '[' } else { '(' }, if upper.1 { ']' } else { ')' });
                let reason = || format!("value must be inside range {open}{}, {}{close}", lower.0, upper.0);
                if above(lower) && below(upper) {
                    Ok(())
                } else {
                    Err(reason())
                }
            }
            (Some(lower), Some(upper)) => {
                let (open, close) = (if upper.1 { '(' } else { '[' }, if lower.1 { ')' } else { ']' });
                let reason = || format!("value must be outside range {open}{}, {}{close}", upper.0, lower.0);
                if above(lower) || below(upper) {
                    Ok(())
                } else {
                    Err(reason())
                }
            }
            (None, Some(upper)) if !below(upper) => {
                let words = if upper.1 { "less than or equal to" } else { "less than" };
                Err(format!("value must be {words} {}", upper.0))
            }
            (Some(lower), None) if !above(lower) => {
                let words = if lower.1 {
                    "greater than or equal to"
                } else {
                    "greater than"
                };
                Err(format!("value must be {words} {}", lower.0))
            }
            _ => Ok(()),
        }
    }
}

impl<T: PartialEq> List<T> {
    /// Whether the lists permit the value, or why not; `print` names the members.
    pub fn check(&self, value: &T, what: &str, print: impl Fn(&T) -> String) -> Result<(), String> {
        let members = |list: &[T]| list.iter().map(&print).collect::<Vec<_>>().join(" ");
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            return Err(format!("{what} must be in list [{}]", members(&self.allowed)));
        }
        if self.forbidden.contains(value) {
            return Err(format!("{what} must not be in list [{}]", members(&self.forbidden)));
        }
        Ok(())
    }
}
