//! The query of a path, to be changed as Envoy changes it: parameters come back sorted by name, each with its `=`.

use std::collections::BTreeMap;

use crate::http::RequestHead;

/// The parameters of a query by name, values of one name in their order.
#[derive(Debug, Default)]
pub struct QueryParameters(BTreeMap<String, Vec<String>>);

impl QueryParameters {
    /// Those of a request, as they are written.
    pub fn of(head: &RequestHead) -> Self {
        Self::parse(head, str::to_owned)
    }

    /// Those of a request; names and values are decoded where that makes a text.
    pub fn decoded_of(head: &RequestHead) -> Self {
        Self::parse(head, decoded)
    }

    fn parse(head: &RequestHead, read: fn(&str) -> String) -> Self {
        let mut all = Self::default();
        let query = head.query().unwrap_or_default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.add(&read(name), read(value));
        }
        all
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Adds a value to those of this name.
    pub fn add(&mut self, name: &str, value: String) {
        self.0.entry(name.to_owned()).or_default().push(value);
    }

    /// Puts one value in the place of all of this name.
    pub fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), vec![value]);
    }

    /// Removes all of this name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Gives them to the request. Envoy writes decoded texts as they are; here those that would break the request
    /// line are encoded again.
    pub fn write_to(&self, head: &mut RequestHead) {
        let mut path = head.path_only().to_owned();
        let mut delimiter = '?';
        for (name, value) in self.0.iter().flat_map(|(n, values)| values.iter().map(move |v| (n, v))) {
            path.push(delimiter);
            push_printable(&mut path, name);
            path.push('=');
            push_printable(&mut path, value);
            delimiter = '&';
        }
        if let Ok(path) = path.parse() {
            head.path = Some(path);
        }
    }
}

/// Takes the parameters of this name out of a request's path, which stays as it is when there is none.
pub fn remove_query_parameter(head: &mut RequestHead, name: &str) {
    let mut parameters = QueryParameters::of(head);
    if parameters.remove(name) {
        parameters.write_to(head);
    }
}

/// What is no text once it is decoded stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&b) = bytes.next() {
        let hex = (b == b'%').then(|| bytes.as_slice().get(..2)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                bytes.nth(1);
            }
            None => out.push(b),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn push_printable(out: &mut String, text: &str) {
    for b in text.bytes() {
        match b {
            b'#' => out.push_str("%23"),
            b'!'..=b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
}
