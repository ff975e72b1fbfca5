//! Where tokens stand in a request, and how they are taken out of it.

use std::collections::BTreeMap;

use http::{HeaderName, header};

use super::provider::Provider;
use crate::{
    http::RequestHead,
    matching::{cookie, query_parameter, remove_query_parameter},
};

/// A place for tokens. The order is the one in which they are looked for; the last found is checked first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Location {
    /// A header's name, and what stands before the token.
    Header(String, String),
    Parameter(String),
    Cookie(String),
}

/// The places of some providers, each with the issuers whose tokens may stand there; an empty one: all.
#[derive(Debug, Default)]
pub(super) struct Locations(BTreeMap<Location, Vec<String>>);

/// A token as text, and where it was.
pub(super) struct Found<'a> {
    pub text: String,
    pub location: &'a Location,
    issuers: &'a [String],
}

impl Found<'_> {
    /// Whether a token of this issuer may stand here.
    pub fn allows(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known.is_empty() || known == issuer)
    }
}

impl Locations {
    pub fn of<'a>(providers: impl IntoIterator<Item = &'a Provider>) -> Self {
        let mut all = BTreeMap::<_, Vec<String>>::new();
        for provider in providers {
            for location in &provider.locations {
                all.entry(location.clone()).or_default().push(provider.issuer.clone());
            }
        }
        Self(all)
    }

    /// All tokens of a request.
    pub fn extract(&self, head: &RequestHead) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for (location, issuers) in &self.0 {
            let texts: Vec<String> = match location {
                Location::Header(name, prefix) => {
                    let values = head.headers.get_all(name.as_str()).iter();
                    let texts = values.filter_map(|v| std::str::from_utf8(v.as_bytes()).ok());
                    texts
                        .filter_map(|text| after(text, prefix))
                        .map(str::to_owned)
                        .collect()
                }
                Location::Parameter(name) => {
                    let value = head.query().and_then(|query| query_parameter(query, name));
                    value.map(str::to_owned).into_iter().collect()
                }
                Location::Cookie(name) => {
                    let value = cookie(&head.headers, name).and_then(|v| std::str::from_utf8(v).ok());
                    value.map(str::to_owned).into_iter().collect()
                }
            };
            found.extend(texts.into_iter().map(|text| Found {
                text,
                location,
                issuers,
            }));
        }
        found
    }
}

impl Location {
    /// Where tokens stand unless the provider says otherwise.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::Header(header::AUTHORIZATION.as_str().to_owned(), "Bearer ".to_owned()),
            Self::Parameter("access_token".to_owned()),
        ]
    }

    /// Takes the token out of the request. A cookie stays, as in Envoy.
    pub fn remove(&self, head: &mut RequestHead) {
        match self {
            Self::Header(name, _) => {
                if let Ok(name) = HeaderName::try_from(name.as_str()) {
                    head.headers.remove(name);
                }
            }
            Self::Parameter(name) => remove_query_parameter(head, name),
            Self::Cookie(_) => {}
        }
    }
}

/// What comes after the prefix, wherever that stands, from the first character that a token can have.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(text);
    }
    let rest = text.get(text.find(prefix)? + prefix.len()..)?;
    let start = rest.find(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
    // As in Envoy: without such a character the whole value is the token, which then is none.
    Some(start.and_then(|at| rest.get(at..)).unwrap_or(text))
}
