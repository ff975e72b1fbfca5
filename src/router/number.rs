//! Header values as Envoy reads them: repeated ones are one list, and numbers may stand among spaces.

use http::{HeaderMap, HeaderName};

/// A number as `absl::SimpleAtoi` reads it: spaces around it and a plus sign are no fault.
pub(super) fn unsigned(text: &str) -> Option<u64> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    text.parse().ok()
}

/// All values of a header as one, joined by commas; bytes that are no text read as nothing.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let mut text = values.next()?.to_str().unwrap_or_default().to_owned();
    for value in values {
        text.push(',');
        text.push_str(value.to_str().unwrap_or_default());
    }
    Some(text)
}

/// The same, and the header is gone.
pub(super) fn take(headers: &mut HeaderMap, name: &HeaderName) -> Option<String> {
    let text = joined(headers, name)?;
    headers.remove(name);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_among_spaces() {
        for (text, number) in [
            ("12", Some(12)),
            (" 12 ", Some(12)),
            ("+12", Some(12)),
            ("012", Some(12)),
            ("-1", None),
            ("1 2", None),
            ("", None),
            ("12x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(unsigned(text), number, "{text:?}");
        }
    }

    #[test]
    fn repeated_values_are_a_list() {
        let name = HeaderName::from_static("x-a");
        let mut headers = HeaderMap::new();
        assert_eq!(take(&mut headers, &name), None);
        headers.append(&name, "1".parse().unwrap());
        headers.append(&name, "2".parse().unwrap());
        assert_eq!(take(&mut headers, &name).as_deref(), Some("1,2"));
        assert!(headers.is_empty());
    }
}
