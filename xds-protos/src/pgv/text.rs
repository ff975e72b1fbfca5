//! How Envoy's validators write names, strings and durations: as the Go program that generated them would.

use std::fmt;

use super::rules::Nanos;

/// `http2_protocol_options` -> `Http2ProtocolOptions`: an underscore goes where a lower-case letter follows it.
pub(super) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    let mut upper = true;
    while let Some(c) = chars.next() {
        if c == '_' && chars.peek().is_some_and(char::is_ascii_lowercase) {
            upper = true;
        } else if c == '_' && out.is_empty() {
            out.push('X');
        } else {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            // A digit leaves the next letter to begin a word.
            upper = c.is_ascii_digit();
        }
    }
    out
}

/// A string as a Go literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Nanos {
    /// `1ms`, `5m0s`, `1h0m0.5s`, as Go prints durations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let unit = |per: u128, name: &str| format!("{sign}{}{name}", decimal(nanos, per));
        let text = match nanos {
            0 => "0s".into(),
            1..1_000 => unit(1, "ns"),
            1_000..1_000_000 => unit(1_000, "µs"),
            1_000_000..1_000_000_000 => unit(1_000_000, "ms"),
            _ => {
                let seconds = format!("{}s", decimal(nanos % 60_000_000_000, 1_000_000_000));
                match nanos / 60_000_000_000 {
                    0 => format!("{sign}{seconds}"),
                    minutes if minutes < 60 => format!("{sign}{minutes}m{seconds}"),
                    minutes => format!("{sign}{}h{}m{seconds}", minutes / 60, minutes % 60),
                }
            }
        };
        f.write_str(&text)
    }
}

/// `value / per` without trailing zeros.
fn decimal(value: u128, per: u128) -> String {
    let (whole, rest) = (value / per, value % per);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = per.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0digits$}").trim_end_matches('0'))
}
