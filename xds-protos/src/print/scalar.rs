//! Strings, numbers and times as protobuf's JSON writer spells them.

use std::fmt::{self, Write};

/// A string in quotes. Besides what JSON demands, what could end a script or hide in a terminal is escaped.
pub(super) fn string(out: &mut dyn Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut written = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_escaped(*c)) {
        out.write_str(&text[written..at])?;
        written = at + c.len_utf8();
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c => c
                .encode_utf16(&mut [0; 2])
                .iter()
                .try_for_each(|unit| write!(out, "\\u{unit:04x}"))?,
        }
    }
    out.write_str(&text[written..])?;
    out.write_char('"')
}

fn is_escaped(c: char) -> bool {
    matches!(c, '"' | '\\' | '<' | '>' | '\u{0}'..='\u{1f}' | '\u{7f}')
        || !c.is_ascii()
            && matches!(
                c,
                '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{6dd}' | '\u{70f}' | '\u{17b4}' | '\u{17b5}' | '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
                    | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
            )
}

/// Bytes in base64, in quotes.
pub(super) fn bytes(out: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.write_char('"')?;
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let sextet = (word >> (18 - 6 * digit)) & 63;
            let padding = digit > chunk.len();
            out.write_char(if padding {
                '='
            } else {
                char::from(ALPHABET[sextet as usize])
            })?;
        }
    }
    out.write_char('"')
}

/// The shortest of 15 and 17 digits that reads back as the same number.
pub(super) fn double(value: f64) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    let short = general(value, 15);
    if short.parse() == Ok(value) {
        short
    } else {
        general(value, 17)
    }
}

/// The shortest of 6 and 9 digits that reads back as the same number.
pub(super) fn float(value: f32) -> String {
    if let Some(special) = special(f64::from(value)) {
        return special.to_owned();
    }
    let short = general(f64::from(value), 6);
    if short.parse() == Ok(value) {
        short
    } else {
        general(f64::from(value), 9)
    }
}

/// JSON has no such numbers: they are strings.
fn special(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("\"NaN\""),
        f64::INFINITY => Some("\"Infinity\""),
        f64::NEG_INFINITY => Some("\"-Infinity\""),
        _ => None,
    }
}

/// C's `%.{digits}g`.
fn general(value: f64, digits: usize) -> String {
    let scientific = format!("{value:.*e}", digits - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |number: &str| match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number.to_owned(),
    };
    match usize::try_from(exponent) {
        Ok(whole) if whole < digits => trimmed(&format!("{value:.*}", digits - 1 - whole)),
        Err(_) if exponent >= -4 => trimmed(&format!("{value:.*}", digits - 1 + exponent.unsigned_abs() as usize)),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs())
        }
    }
}

/// `1s`, `0.250s`, `-1.000001s`: no decimals, or three, six or nine.
pub(super) fn duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), decimals(nanos.unsigned_abs()))
}

/// `2024-02-29T12:30:00.250Z`
pub(super) fn timestamp(seconds: i64, nanos: i32) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let decimals = decimals(nanos.unsigned_abs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{decimals}Z")
}

fn decimals(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        nanos if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    }
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar, whose year here begins in March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
