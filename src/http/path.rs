//! `:path` as it came: any byte that Envoy takes stays, also those that no URI library would (`<`, `>`, a quote).

use std::{
    fmt::{self, Write},
    str::FromStr,
};

use bytes::Bytes;
use bytestring::ByteString;
use http::uri::PathAndQuery;

/// `:path` with its query. Never empty, and without spaces and control characters, so that it can stand in a request
/// line as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(ByteString);

impl Path {
    /// A path of these bytes; none when they are no text or hold what a request line cannot.
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let text = ByteString::try_from(bytes.into()).ok()?;
        let fine = !text.is_empty() && text.bytes().all(|b| b > b' ' && b != 0x7f);
        fine.then_some(Self(text))
    }

    /// A path that is known to be one: `/`, `*`, the name of a method.
    pub const fn from_static(text: &'static str) -> Self {
        Self(ByteString::from_static(text))
    }

    /// With the query.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the query.
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(&*self.0, |(path, _)| path)
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    /// For libraries that know paths only as part of a URI: what these do not take is percent-encoded, and a slash put
    /// in front of a path without one.
    pub fn to_uri(&self) -> Option<PathAndQuery> {
        if !self.0.starts_with('/') && &*self.0 != "*" {
            return Self(format!("/{}", self.0).into()).to_uri();
        }
        if let Ok(path) = PathAndQuery::from_maybe_shared(self.0.as_bytes().clone()) {
            // A library drops a fragment without a word.
            if path.as_str().len() == self.0.len() {
                return Some(path);
            }
        }
        let mut text = String::with_capacity(self.0.len() + 8);
        for c in self.0.chars() {
            match c {
                '<' | '>' | '"' | '`' | '#' | '{' | '}' | '\\' | '^' | '|' => {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "%{:02X}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        PathAndQuery::try_from(text).ok()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What [`Path::new`] does not take.
#[derive(Debug, thiserror::Error)]
#[error("not a path")]
pub struct InvalidPath;

impl FromStr for Path {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        Self::new(Bytes::copy_from_slice(text.as_bytes())).ok_or(InvalidPath)
    }
}

impl From<PathAndQuery> for Path {
    fn from(path: PathAndQuery) -> Self {
        match path.as_str() {
            "" => Self::from_static("/"),
            text => Self(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_line_cannot_hold_is_no_path() {
        for bad in ["", "/a b", "/a\r\n", "/\0", "/\x7f", "/\t"] {
            assert_eq!(Path::new(bad), None, "{bad:?}");
        }
        assert_eq!(Path::new(&b"/\xff"[..]), None);
        assert!(Path::new("/<a>`\"{}|\\^?<b>").is_some());
    }

    #[test]
    fn path_and_query() {
        let path = Path::from_static("/a?b?c");
        assert_eq!((path.path(), path.query()), ("/a", Some("b?c")));
        let path = Path::from_static("/a");
        assert_eq!((path.path(), path.query()), ("/a", None));
    }

    #[test]
    fn a_uri_has_it_encoded() {
        let uri = |text: &'static str| Path::from_static(text).to_uri().unwrap().to_string();
        assert_eq!(uri("/a?b=c"), "/a?b=c");
        assert_eq!(uri("/<a>?b=`#"), "/%3Ca%3E?b=%60%23");
        assert_eq!(uri("a?b"), "/a?b");
    }
}
