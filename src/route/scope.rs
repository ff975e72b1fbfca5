//! `scope_key_builder`: the key of a request's scope, out of its headers.

use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::{
    ScopeKeyBuilder as Proto,
    scope_key_builder::{
        FragmentBuilder as FragmentProto,
        fragment_builder::{
            HeaderValueExtractor, Type,
            header_value_extractor::{ExtractType, KvElement},
        },
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::RequestHead,
};

/// The values of a scope's key, in the order of the fragments.
pub type ScopeKey = Vec<String>;

/// Makes keys.
#[derive(Debug)]
pub struct ScopeKeyBuilder(Vec<Fragment>);

#[derive(Debug)]
struct Fragment {
    header: String,
    // Between elements; empty: the whole value is the one element.
    separator: String,
    extract: Extract,
}

#[derive(Debug)]
enum Extract {
    Index(usize),
    Element { separator: String, key: String },
}

impl ScopeKeyBuilder {
    /// Reads the fragments.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { fragments } });
        cx.each("fragments", fragments, |fragment, cx| {
            let FragmentProto { r#type } = fragment;
            match r#type {
                Some(Type::HeaderValueExtractor(extractor)) => {
                    cx.field("header_value_extractor", |cx| Fragment::build(extractor, cx))
                }
                None => Err(cx.error_at("type", "value is required")),
            }
        })
        .map(Self)
    }

    /// The request's key; none when a fragment finds nothing, and then the request is in no scope.
    pub fn key(&self, head: &RequestHead) -> Option<ScopeKey> {
        self.0.iter().map(|fragment| fragment.value(head)).collect()
    }
}

impl Fragment {
    fn build(proto: HeaderValueExtractor, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HeaderValueExtractor { supported { name, element_separator, extract_type } });
        let extract = match extract_type {
            Some(ExtractType::Index(index)) => {
                if index > 0 && element_separator.is_empty() {
                    return Err(cx.error_at("index", "Index > 0 for empty string element separator."));
                }
                Extract::Index(index as usize)
            }
            Some(ExtractType::Element(KvElement { separator, key })) => Extract::Element { separator, key },
            None => return Err(cx.error_at("extract_type", "HeaderValueExtractor extract_type not set")),
        };
        Ok(Self {
            header: name.to_ascii_lowercase(),
            separator: element_separator,
            extract,
        })
    }

    fn value(&self, head: &RequestHead) -> Option<String> {
        let value = head.get_str(&self.header)?;
        let elements: Vec<&str> = if self.separator.is_empty() {
            vec![value]
        } else {
            value.split(self.separator.as_str()).collect()
        };
        let found = match &self.extract {
            Extract::Index(index) => elements.get(*index).copied(),
            Extract::Element { separator, key } => elements.into_iter().find_map(|element| {
                let (k, v) = element.split_once(separator.as_str()).unwrap_or((element, ""));
                (k == key).then_some(v)
            }),
        };
        found.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use xds_protos::load::{LoadOptions, Syntax, from_str};

    use super::*;

    fn fragment(yaml: &str) -> Fragment {
        let name = "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor";
        let loaded = from_str(yaml, Syntax::Yaml, name, &LoadOptions::default()).unwrap();
        let proto: HeaderValueExtractor = loaded.message.transcode_to().unwrap();
        let extract = match proto.extract_type.unwrap() {
            ExtractType::Index(i) => Extract::Index(i as usize),
            ExtractType::Element(e) => Extract::Element {
                separator: e.separator,
                key: e.key,
            },
        };
        Fragment {
            header: proto.name,
            separator: proto.element_separator,
            extract,
        }
    }

    fn head(value: &str) -> RequestHead {
        let mut head = RequestHead {
            method: http::Method::GET,
            scheme: crate::http::Scheme::Http,
            authority: None,
            path: None,
            protocol: None,
            version: http::Version::HTTP_11,
            headers: http::HeaderMap::new(),
            spelling: None,
        };
        head.headers.insert("x-scope", value.parse().unwrap());
        head
    }

    #[test]
    fn a_value_is_taken_by_index_or_by_key() {
        let whole = fragment("{ name: x-scope, index: 0 }");
        assert_eq!(whole.value(&head("a,b")).as_deref(), Some("a,b"));
        let second = fragment("{ name: x-scope, element_separator: ',', index: 1 }");
        assert_eq!(second.value(&head("a,b")).as_deref(), Some("b"));
        assert_eq!(second.value(&head("a")), None);
        let keyed = fragment("{ name: x-scope, element_separator: ';', element: { separator: '=', key: v } }");
        assert_eq!(keyed.value(&head("u=1;v=2=3")).as_deref(), Some("2=3"));
        assert_eq!(keyed.value(&head("u=1")), None);
        let missing = fragment("{ name: x-other, index: 0 }");
        assert_eq!(missing.value(&head("a")), None);
    }
}
