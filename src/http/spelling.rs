//! How a message spelled its header names, where the `preserve_case` formatter keeps it.

use bytes::Bytes;

/// The names of a message's headers as they came, and what the formatter is to do with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spelling {
    /// In order; of several spellings of a name the first counts.
    names: Vec<Bytes>,
    /// `formatter_type_on_envoy_headers: PROPER_CASE`: names that did not come are written so.
    pub proper_others: bool,
    /// The reason phrase of a response, with `forward_reason_phrase`.
    pub reason: Option<Bytes>,
}

impl Spelling {
    /// No name yet.
    pub fn new(proper_others: bool) -> Self {
        Self {
            proper_others,
            ..Self::default()
        }
    }

    /// Notes a name.
    pub fn add(&mut self, name: Bytes) {
        if self.find(&name).is_none() {
            self.names.push(name);
        }
    }

    /// How a name was spelled; none when it did not come.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.names.iter().find(|n| n.eq_ignore_ascii_case(name));
        found.map(|n| &**n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_spelling_counts() {
        let mut spelling = Spelling::new(false);
        spelling.add(Bytes::from_static(b"X-aB"));
        spelling.add(Bytes::from_static(b"x-AB"));
        assert_eq!(spelling.find(b"x-ab"), Some(&b"X-aB"[..]));
        assert_eq!(spelling.find(b"x-other"), None);
    }
}
