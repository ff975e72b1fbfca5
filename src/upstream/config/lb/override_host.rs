//! `override_host`: the request names the hosts it wants (endpoint pickers say so in a header or in metadata); another
//! policy picks where it names none that is there.

use http::HeaderName;
use xds_protos::{
    envoy::{
        extensions::load_balancing_policies::override_host::v3::{
            OverrideHost as Proto, override_host::OverrideHostSource,
        },
        r#type::metadata::v3::{MetadataKey, metadata_key::path_segment::Segment},
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{LbConfig, list};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, stream_info::Metadata},
};

/// Where a request names its hosts, and where the choice is noted.
#[derive(Debug, Clone)]
pub struct OverrideHosts {
    sources: Vec<Source>,
    selected: Option<Path>,
}

#[derive(Debug, Clone)]
enum Source {
    Header(HeaderName),
    Metadata(Path),
}

/// A namespace of metadata and the keys down from there, which are at least one.
#[derive(Debug, Clone)]
struct Path {
    namespace: String,
    keys: Vec<String>,
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto { supported { override_host_sources, selected_host_key, fallback_policy } });
    let hosts = OverrideHosts {
        sources: cx.each("override_host_sources", override_host_sources, source)?,
        selected: cx.opt("selected_host_key", selected_host_key, path)?,
    };
    let mut config = cx.required("fallback_policy", fallback_policy, list::build_fallback)?;
    config.override_hosts = Some(hosts.into());
    Ok(config)
}

fn source(proto: OverrideHostSource, cx: &mut BuildCx<'_>) -> ConfigResult<Source> {
    coverage!(cx, proto => OverrideHostSource { supported { header, metadata } });
    match (header.as_str(), metadata) {
        ("", None) => Err(cx.error("Empty override source")),
        ("", Some(metadata)) => Ok(Source::Metadata(cx.field("metadata", |cx| path(metadata, cx))?)),
        (_, Some(_)) => Err(cx.error("Only one override source must be set")),
        (name, None) => HeaderName::from_bytes(name.as_bytes())
            .map(Source::Header)
            .map_err(|_| cx.error_at("header", "not a name of a header")),
    }
}

fn path(proto: MetadataKey, cx: &mut BuildCx<'_>) -> ConfigResult<Path> {
    coverage!(cx, proto => MetadataKey { supported { key, path } });
    let keys = path.into_iter().filter_map(|p| match p.segment? {
        Segment::Key(key) => Some(key),
        Segment::Index(_) => None,
    });
    Ok(Path {
        namespace: key,
        keys: keys.collect(),
    })
}

impl OverrideHosts {
    /// The hosts that a request names, in the order of the sources: addresses with ports.
    pub fn named(&self, head: &RequestHead, metadata: &Metadata) -> Vec<String> {
        let said = self.sources.iter().filter_map(|source| match source {
            Source::Header(name) => head.headers.get(name)?.to_str().ok(),
            Source::Metadata(path) => path.text(metadata),
        });
        said.flat_map(|text| text.split(','))
            .map(|host| host.trim_ascii().to_owned())
            .filter(|host| !host.is_empty())
            .collect()
    }

    /// Notes the host that was chosen, whoever chose it.
    pub fn note(&self, address: impl FnOnce() -> String, metadata: &mut Metadata) {
        let Some(Path { namespace, keys }) = &self.selected else {
            return;
        };
        let address = Value {
            kind: Some(Kind::StringValue(address())),
        };
        let Some((first, rest)) = keys.split_first() else {
            return;
        };
        let value = rest.iter().rev().fold(address, |inner, key| Value {
            kind: Some(Kind::StructValue(Struct {
                fields: [(key.clone(), inner)].into(),
            })),
        });
        let own = metadata.entry(namespace.clone()).or_default();
        own.fields.insert(first.clone(), value);
    }
}

impl Path {
    fn text<'m>(&self, metadata: &'m Metadata) -> Option<&'m str> {
        let (last, inner) = self.keys.split_last()?;
        let mut at = metadata.get(&self.namespace)?;
        for key in inner {
            at = match at.fields.get(key)?.kind.as_ref()? {
                Kind::StructValue(inner) => inner,
                _ => return None,
            };
        }
        match at.fields.get(last)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_found_where_it_was_noted() {
        let path = Path {
            namespace: "envoy.lb".into(),
            keys: vec!["picked".into(), "host".into()],
        };
        let hosts = OverrideHosts {
            sources: Vec::new(),
            selected: Some(path.clone()),
        };
        let mut metadata = Metadata::new();
        hosts.note(|| "10.0.0.1:80".into(), &mut metadata);
        assert_eq!(path.text(&metadata), Some("10.0.0.1:80"));
        hosts.note(|| "10.0.0.2:80".into(), &mut metadata);
        assert_eq!(path.text(&metadata), Some("10.0.0.2:80"));
    }
}
