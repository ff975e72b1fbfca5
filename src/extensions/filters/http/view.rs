//! Headers by name, pseudo-headers included, as scripts and external services speak of them.

use std::str::FromStr;

use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::http::{Path, RequestHead, ResponseHead, Scheme, inline_headers};

/// A head or trailers.
pub(super) struct View<'a> {
    pseudo: Option<Pseudo<'a>>,
    headers: &'a mut HeaderMap,
}

enum Pseudo<'a> {
    Request {
        method: &'a mut Method,
        scheme: &'a mut Scheme,
        authority: &'a mut Option<HeaderValue>,
        path: &'a mut Option<Path>,
        protocol: &'a mut Option<ByteString>,
    },
    Response(&'a mut StatusCode),
}

impl<'a> View<'a> {
    /// Of a request.
    pub fn request(head: &'a mut RequestHead) -> Self {
        Self {
            pseudo: Some(Pseudo::Request {
                method: &mut head.method,
                scheme: &mut head.scheme,
                authority: &mut head.authority,
                path: &mut head.path,
                protocol: &mut head.protocol,
            }),
            headers: &mut head.headers,
        }
    }

    /// Of a response.
    pub fn response(head: &'a mut ResponseHead) -> Self {
        Self {
            pseudo: Some(Pseudo::Response(&mut head.status)),
            headers: &mut head.headers,
        }
    }

    /// Of trailers, which have no pseudo-headers.
    pub fn trailers(headers: &'a mut HeaderMap) -> Self {
        Self { pseudo: None, headers }
    }

    /// All values of a header.
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let name = name.to_ascii_lowercase();
        match self.pseudo_value(&name) {
            Some(value) => vec![value],
            None => self
                .headers
                .get_all(name)
                .iter()
                .map(|v| v.as_bytes().to_vec())
                .collect(),
        }
    }

    fn pseudo_value(&self, name: &str) -> Option<Vec<u8>> {
        match self.pseudo.as_ref()? {
            Pseudo::Request {
                method,
                scheme,
                authority,
                path,
                protocol,
            } => match name {
                ":method" => Some(method.as_str().into()),
                ":scheme" => Some(scheme.as_str().into()),
                ":authority" | "host" => authority.as_ref().map(|v| v.as_bytes().to_vec()),
                ":path" => path.as_ref().map(|p| p.as_str().into()),
                ":protocol" => protocol.as_ref().map(|p| p.as_bytes().to_vec()),
                _ => None,
            },
            Pseudo::Response(status) => (name == ":status").then(|| status.as_str().into()),
        }
    }

    /// Every header in its order, pseudo-headers first.
    pub fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let pseudo = [":authority", ":path", ":method", ":scheme", ":protocol", ":status"];
        let pseudo = pseudo
            .iter()
            .filter_map(|name| Some((name.as_bytes().to_vec(), self.pseudo_value(name)?)));
        let headers = self.headers.iter();
        let headers = headers.map(|(n, v)| (n.as_str().as_bytes().to_vec(), v.as_bytes().to_vec()));
        pseudo.chain(headers).collect()
    }

    /// Sets the one value of a header; a value that none can have leaves it as it is.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let Ok(header) = HeaderValue::from_bytes(value) else {
            return;
        };
        if (name.starts_with(':') || name == "host") && self.pseudo.is_some() {
            return self.set_pseudo(&name, header);
        }
        if let Ok(name) = HeaderName::from_str(&name) {
            self.headers.insert(name, header);
        }
    }

    /// Sets a pseudo-header; what is no value of its kind leaves it as it is.
    fn set_pseudo(&mut self, name: &str, value: HeaderValue) {
        let text = value.to_str().unwrap_or_default();
        match &mut self.pseudo {
            Some(Pseudo::Request {
                method,
                scheme,
                authority,
                path,
                protocol,
            }) => match name {
                ":method" => **method = Method::from_str(text).unwrap_or_else(|_| method.clone()),
                ":scheme" if text.eq_ignore_ascii_case("https") => **scheme = Scheme::Https,
                ":scheme" if text.eq_ignore_ascii_case("http") => **scheme = Scheme::Http,
                ":path" => **path = Path::new(text.to_owned()).or_else(|| path.take()),
                ":protocol" => **protocol = Some(text.into()),
                ":authority" | "host" => **authority = Some(value),
                _ => {}
            },
            Some(Pseudo::Response(status)) if name == ":status" => {
                **status = StatusCode::from_str(text).unwrap_or(**status);
            }
            _ => {}
        }
    }

    /// Adds a value; to a header that has only one it is joined.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        if self.pseudo.is_some() && (name.starts_with(':') || name == "host") {
            let mut joined = self.values(&name).first().cloned().unwrap_or_default();
            if !joined.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(value);
            return self.set(&name, &joined);
        }
        let (Ok(name), Ok(value)) = (HeaderName::from_str(&name), HeaderValue::from_bytes(value)) else {
            return;
        };
        self.headers.append(name, value);
        match self.pseudo {
            Some(Pseudo::Request { .. }) => inline_headers::join_request(self.headers),
            Some(Pseudo::Response(_)) => inline_headers::join_response(self.headers),
            None => {}
        }
    }

    /// Removes a header; method, scheme and status stay.
    pub fn remove(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        match (&mut self.pseudo, name.as_str()) {
            (Some(Pseudo::Request { authority, .. }), ":authority" | "host") => **authority = None,
            (Some(Pseudo::Request { path, .. }), ":path") => **path = None,
            (Some(Pseudo::Request { protocol, .. }), ":protocol") => **protocol = None,
            _ => {
                self.headers.remove(name);
            }
        }
    }
}
