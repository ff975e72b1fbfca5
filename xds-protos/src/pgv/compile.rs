//! From the options of a message's fields to rules that can be run.

use std::sync::{Arc, LazyLock, OnceLock};

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};
use regex::{Regex, bytes};

use super::rules::{
    Bytes, Check, Child, FieldRule, Known, List, MessageRules, Nanos, Number, OneofRule, Range, Scalar, Size, Text,
};
use super::text::camel;
use crate::descriptors::PerType;
use crate::google::protobuf::Duration;
use crate::validate::field_rules::Type;
use crate::validate::string_rules::WellKnown;
use crate::validate::{BytesRules, DurationRules, FieldRules, KnownRegex, StringRules};

/// The rules of a message type, compiled at its first use.
pub(super) fn rules_of(descriptor: &MessageDescriptor) -> Arc<MessageRules> {
    static COMPILED: PerType<MessageRules> = PerType::new();
    COMPILED.get(descriptor, compile)
}

/// The extensions in which the rules are written.
struct Extensions {
    rules: ExtensionDescriptor,
    required: ExtensionDescriptor,
    disabled: ExtensionDescriptor,
}

fn extensions() -> Option<&'static Extensions> {
    static EXTENSIONS: LazyLock<Option<Extensions>> = LazyLock::new(|| {
        let get = |name: &str| crate::pool().get_extension_by_name(name);
        Some(Extensions {
            rules: get("validate.rules")?,
            required: get("validate.required")?,
            disabled: get("validate.disabled")?,
        })
    });
    EXTENSIONS.as_ref()
}

fn flag(options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
    options.get_extension(extension).as_bool().unwrap_or_default()
}

fn compile(descriptor: &MessageDescriptor) -> MessageRules {
    let mut rules = MessageRules {
        name: descriptor.name().to_owned(),
        fields: Vec::new(),
        oneofs: Vec::new(),
    };
    let Some(extensions) = extensions() else { return rules };
    if flag(&descriptor.options(), &extensions.disabled) {
        return rules;
    }
    let (optional, plain): (Vec<_>, Vec<_>) = descriptor
        .fields()
        .filter(|field| field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic()))
        .partition(|field| field.containing_oneof().is_some());
    rules.fields = plain
        .into_iter()
        .chain(optional)
        .filter_map(|field| field_rule(extensions, field))
        .collect();
    let oneofs = descriptor.oneofs().filter(|oneof| !oneof.is_synthetic());
    rules.oneofs = oneofs.map(|oneof| oneof_rule(extensions, &oneof)).collect();
    rules.oneofs.retain(|oneof| oneof.required || !oneof.members.is_empty());
    rules
}

fn oneof_rule(extensions: &Extensions, oneof: &OneofDescriptor) -> OneofRule {
    OneofRule {
        name: oneof.name().to_owned(),
        required: flag(&oneof.options(), &extensions.required),
        members: oneof
            .fields()
            .filter_map(|field| field_rule(extensions, field))
            .collect(),
        fields: oneof.fields().collect(),
    }
}

fn field_rule(extensions: &Extensions, field: FieldDescriptor) -> Option<FieldRule> {
    let options = field.options();
    let rules = options.get_extension(&extensions.rules);
    let rules = rules
        .as_message()
        .and_then(|rules| rules.transcode_to::<FieldRules>().ok())
        .unwrap_or_default();
    let check = if field.is_map() {
        map(&field, rules)
    } else if field.is_list() {
        repeated(&field, rules)
    } else {
        single(&field.kind(), rules)
    }?;
    let only_if_set = field.containing_oneof().is_some_and(|oneof| oneof.is_synthetic());
    Some(FieldRule {
        camel: camel(field.name()),
        only_if_set,
        field,
        check,
    })
}

fn repeated(field: &FieldDescriptor, rules: FieldRules) -> Option<Check> {
    let rules = match rules.r#type {
        Some(Type::Repeated(rules)) => *rules,
        _ => Default::default(),
    };
    let (unique, ignore_empty) = (rules.unique(), rules.ignore_empty());
    let item = single(&field.kind(), rules.items.map(|items| *items).unwrap_or_default()).map(Box::new);
    let size = Size {
        min: rules.min_items,
        max: rules.max_items,
    };
    let check = Check::Repeated {
        unique,
        ignore_empty,
        size,
        item,
    };
    match &check {
        Check::Repeated {
            size: Size { min: None, max: None },
            unique: false,
            item: None,
            ..
        } => None,
        _ => Some(check),
    }
}

fn map(field: &FieldDescriptor, rules: FieldRules) -> Option<Check> {
    let rules = match rules.r#type {
        Some(Type::Map(rules)) => *rules,
        _ => Default::default(),
    };
    let Kind::Message(entry) = field.kind() else {
        return None;
    };
    let ignore_empty = rules.ignore_empty();
    let key = scalar(
        &entry.map_entry_key_field().kind(),
        rules.keys.and_then(|keys| keys.r#type),
    );
    let value = single(
        &entry.map_entry_value_field().kind(),
        rules.values.map(|values| *values).unwrap_or_default(),
    );
    let size = Size {
        min: rules.min_pairs,
        max: rules.max_pairs,
    };
    if size.min.is_none() && size.max.is_none() && key.is_none() && value.is_none() {
        return None;
    }
    Some(Check::Map {
        size,
        ignore_empty,
        key,
        value: value.map(Box::new),
    })
}

fn single(kind: &Kind, rules: FieldRules) -> Option<Check> {
    let Kind::Message(descriptor) = kind else {
        return scalar(kind, rules.r#type).map(Check::Scalar);
    };
    let message = rules.message.unwrap_or_default();
    match rules.r#type {
        None => {
            let required = message.required();
            let walk = !message.skip() && !descriptor.full_name().starts_with("google.protobuf.");
            let child = walk.then(|| Child {
                descriptor: descriptor.clone(),
                rules: OnceLock::new(),
            });
            (required || child.is_some()).then_some(Check::Message { required, child })
        }
        Some(Type::Any(rules)) => {
            let required = rules.required();
            Some(Check::Any {
                required,
                list: List {
                    allowed: rules.r#in,
                    forbidden: rules.not_in,
                },
            })
        }
        Some(Type::Duration(rules)) => Some(duration(rules)),
        Some(Type::Timestamp(rules)) => Some(Check::Message {
            required: rules.required(),
            child: None,
        }),
        wrapped => {
            let value = descriptor.get_field_by_name("value")?;
            let inner = scalar(&value.kind(), wrapped)?;
            Some(Check::Wrapper {
                required: message.required(),
                inner,
            })
        }
    }
}

fn duration(rules: DurationRules) -> Check {
    let nanos = |duration: Duration| Nanos(i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos));
    let required = rules.required();
    let equal = rules.r#const.into_iter().map(nanos);
    Check::Duration {
        required,
        range: Range {
            lt: rules.lt.map(nanos),
            lte: rules.lte.map(nanos),
            gt: rules.gt.map(nanos),
            gte: rules.gte.map(nanos),
        },
        list: List {
            allowed: rules.r#in.into_iter().map(nanos).chain(equal).collect(),
            forbidden: rules.not_in.into_iter().map(nanos).collect(),
        },
    }
}

macro_rules! number {
    ($variant:ident, $rules:expr) => {{
        let rules = $rules;
        Scalar::$variant {
            ignore_empty: rules.ignore_empty(),
            rules: Number {
                equal: rules.r#const.map(Into::into),
                range: Range {
                    lt: rules.lt.map(Into::into),
                    lte: rules.lte.map(Into::into),
                    gt: rules.gt.map(Into::into),
                    gte: rules.gte.map(Into::into),
                },
                list: List {
                    allowed: rules.r#in.into_iter().map(Into::into).collect(),
                    forbidden: rules.not_in.into_iter().map(Into::into).collect(),
                },
            },
        }
    }};
}

fn scalar(kind: &Kind, rules: Option<Type>) -> Option<Scalar> {
    Some(match rules? {
        Type::Float(rules) => number!(Float, rules),
        Type::Double(rules) => number!(Float, rules),
        Type::Int32(rules) => number!(Int, rules),
        Type::Int64(rules) => number!(Int, rules),
        Type::Uint32(rules) => number!(Int, rules),
        Type::Uint64(rules) => number!(Int, rules),
        Type::Sint32(rules) => number!(Int, rules),
        Type::Sint64(rules) => number!(Int, rules),
        Type::Fixed32(rules) => number!(Int, rules),
        Type::Fixed64(rules) => number!(Int, rules),
        Type::Sfixed32(rules) => number!(Int, rules),
        Type::Sfixed64(rules) => number!(Int, rules),
        Type::Bool(rules) => Scalar::Bool { equal: rules.r#const? },
        Type::String(rules) => Scalar::Text(text(rules)),
        Type::Bytes(rules) => Scalar::Bytes(bytes(rules)),
        Type::Enum(rules) => Scalar::Enum {
            descriptor: kind.as_enum()?.clone(),
            defined_only: rules.defined_only(),
            equal: rules.r#const,
            list: List {
                allowed: rules.r#in,
                forbidden: rules.not_in,
            },
        },
        Type::Repeated(_) | Type::Map(_) | Type::Any(_) | Type::Duration(_) | Type::Timestamp(_) => return None,
    })
}

fn text(rules: StringRules) -> Text {
    let pattern = rules
        .pattern
        .clone()
        .or_else(|| header_pattern(&rules).map(str::to_owned));
    Text {
        pattern: pattern.and_then(|pattern| {
            let matcher = Regex::new(&format!("\\A(?:{pattern})\\z")).ok()?;
            Some((pattern, matcher))
        }),
        ignore_empty: rules.ignore_empty(),
        known: match rules.well_known {
            Some(WellKnown::Ip(true)) => Some(Known::Ip),
            Some(WellKnown::Ipv4(true)) => Some(Known::Ipv4),
            Some(WellKnown::Ipv6(true)) => Some(Known::Ipv6),
            Some(WellKnown::Address(true)) => Some(Known::Address),
            Some(WellKnown::Hostname(true)) => Some(Known::Hostname),
            Some(WellKnown::Uuid(true)) => Some(Known::Uuid),
            _ => None,
        },
        equal: rules.r#const,
        list: List {
            allowed: rules.r#in,
            forbidden: rules.not_in,
        },
        characters: Size {
            min: rules.len.or(rules.min_len),
            max: rules.len.or(rules.max_len),
        },
        bytes: Size {
            min: rules.len_bytes.or(rules.min_bytes),
            max: rules.len_bytes.or(rules.max_bytes),
        },
        prefix: rules.prefix,
        suffix: rules.suffix,
        contains: rules.contains,
        not_contains: rules.not_contains,
    }
}

/// The pattern behind `well_known_regex`; a field that is not `strict` only keeps out what would break a header block.
fn header_pattern(rules: &StringRules) -> Option<&'static str> {
    let Some(WellKnown::WellKnownRegex(number)) = rules.well_known else {
        return None;
    };
    let known = KnownRegex::try_from(number).ok()?;
    match known {
        KnownRegex::Unknown => None,
        _ if !rules.strict() => Some("^[^\u{0}\n\r]*$"),
        KnownRegex::HttpHeaderName => Some("^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$"),
        KnownRegex::HttpHeaderValue => Some("^[^\u{0}-\u{8}\n-\u{1f}\u{7f}]*$"),
    }
}

fn bytes(rules: BytesRules) -> Bytes {
    Bytes {
        ignore_empty: rules.ignore_empty(),
        size: Size {
            min: rules.len.or(rules.min_len),
            max: rules.len.or(rules.max_len),
        },
        prefix: rules.prefix,
        suffix: rules.suffix,
        contains: rules.contains,
        pattern: rules.pattern.and_then(|pattern| {
            let matcher = bytes::Regex::new(&format!("\\A(?:{pattern})\\z")).ok()?;
            Some((pattern, matcher))
        }),
    }
}
