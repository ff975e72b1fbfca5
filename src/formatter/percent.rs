//! Percent encoding, undone.

use std::borrow::Cow;

/// Undoes percent encoding; a broken escape stays as it is.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        match (b, hex(bytes.get(i + 1)), hex(bytes.get(i + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                i += 3;
            }
            _ => {
                out.push(b);
                i += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// Undoes percent encoding where a visible character comes out of it, and drops the percent sign of a broken escape:
/// what Envoy's URL library does to a whole query.
pub(super) fn decode_visible(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let digits = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            // Too near the end to be an escape.
            None if after.len() < 2 => {
                out.push('%');
                rest = after;
            }
            Some(b @ b'!'..=b'~') if !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'{' | b'|' | b'}') => {
                out.push(char::from(b));
                rest = &after[2..];
            }
            Some(_) => {
                out.push_str(&rest[at..at + 3]);
                rest = &after[2..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}
