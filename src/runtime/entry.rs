//! One value of the runtime, read in every way it can be read.

use xds_protos::{
    envoy::r#type::v3::fractional_percent::DenominatorType,
    google::protobuf::{Struct, Value, value::Kind},
    load::{LoadOptions, Syntax, typed},
};

use crate::{config::FractionalPercent, stats::render::general};

/// A value as text, and what it is as a number, a share and a truth value. Where it cannot be read as what somebody
/// asks for, that reader takes its default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// As it was written; what `/runtime` shows.
    pub raw: String,
    /// As a number; text that reads as one counts.
    pub double: Option<f64>,
    /// The number without its fraction, if it is not negative.
    pub integer: Option<u64>,
    /// `true` and `false`; a whole number that is not zero is true.
    pub boolean: Option<bool>,
    /// A `FractionalPercent` message.
    pub fraction: Option<FractionalPercent>,
}

impl Entry {
    /// A value of a static or discovered layer; none for lists and nulls, which have no meaning.
    pub(super) fn of_value(value: &Value) -> Option<Self> {
        let mut entry = Self::default();
        match value.kind.as_ref()? {
            Kind::NumberValue(number) => {
                entry.raw = general(*number, 6);
                entry.number(*number);
            }
            Kind::BoolValue(boolean) => {
                entry.raw = boolean.to_string();
                entry.boolean = Some(*boolean);
            }
            Kind::StringValue(text) => {
                entry.raw.clone_from(text);
                entry.text(text);
            }
            Kind::StructValue(value) => {
                entry.raw = shown(value);
                entry.fraction = fraction(value);
            }
            Kind::NullValue(_) | Kind::ListValue(_) => return None,
        }
        Some(entry)
    }

    /// A file of a disk layer, or a value set over the admin interface: YAML, so that a share can be a message.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        let mut entry = match text.trim() {
            "" => Self::default(),
            _ => {
                // The loader takes messages only, so the text becomes the one field of one.
                let field = format!("value:\n  {}", text.replace('\n', "\n  "));
                let read = typed::<Struct>(&field, Syntax::Yaml, &LoadOptions::default());
                let read = read.map_err(|error| error.to_string())?;
                read.fields.get("value").and_then(Self::of_value).unwrap_or_default()
            }
        };
        entry.raw = text.to_owned();
        Ok(entry)
    }

    /// The share that a percentage of requests is: the message, or a whole number of percent.
    pub fn share(&self) -> Option<FractionalPercent> {
        self.fraction.or_else(|| {
            let percent = self.integer?.min(100);
            Some(FractionalPercent::new(percent as u32, 100))
        })
    }

    fn number(&mut self, number: f64) {
        self.double = Some(number);
        if number.fract() == 0.0 && number.abs() < f64::from(i32::MAX) {
            self.boolean = Some(number != 0.0);
        }
        if number >= 0.0 && number <= u64::MAX as f64 {
            self.integer = Some(number as u64);
        }
    }

    fn text(&mut self, text: &str) {
        let text = text.trim();
        if let Some(number) = number(text) {
            self.number(number);
        } else if text.eq_ignore_ascii_case("true") {
            self.boolean = Some(true);
        } else if text.eq_ignore_ascii_case("false") {
            self.boolean = Some(false);
        }
    }
}

/// A number as C reads it: decimal, or hexadecimal digits after `0x`.
fn number(text: &str) -> Option<f64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|n| sign * n as f64),
        None => digits
            .starts_with(|c: char| c.is_ascii_digit() || c == '.')
            .then(|| digits.parse::<f64>().ok())?
            .map(|n| sign * n),
    }
}

/// A message `{numerator, denominator}`; none if it has another field, or a denominator that is no name of one.
fn fraction(value: &Struct) -> Option<FractionalPercent> {
    let (mut numerator, mut denominator) = (0, DenominatorType::Hundred);
    for (name, value) in &value.fields {
        match (name.as_str(), &value.kind) {
            ("numerator", Some(Kind::NumberValue(n))) => numerator = *n as u32,
            ("numerator", _) => {}
            ("denominator", Some(Kind::StringValue(name))) => denominator = DenominatorType::from_str_name(name)?,
            _ => return None,
        }
    }
    Some(FractionalPercent::of(numerator, denominator))
}

/// A message on one line. (Envoy prints its debug form, which it declares unstable.)
fn shown(value: &Struct) -> String {
    let mut fields: Vec<_> = value.fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| match &value.kind {
            Some(Kind::NumberValue(n)) => format!("{name}: {}", general(*n, 6)),
            Some(Kind::StringValue(text)) => format!("{name}: {text}"),
            Some(Kind::BoolValue(b)) => format!("{name}: {b}"),
            _ => format!("{name}: {{}}"),
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}
