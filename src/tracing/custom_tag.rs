//! `envoy.type.tracing.v3.CustomTag`: tags that configuration asks for.

use http::HeaderName;
use xds_protos::envoy::r#type::{
    metadata::v3::{MetadataKey, metadata_key::path_segment::Segment, metadata_kind::Kind},
    tracing::v3::{
        CustomTag as Proto,
        custom_tag::{Environment, Header, Metadata, Type},
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
};

/// A tag and where its value comes from.
#[derive(Debug, Clone)]
pub struct CustomTag {
    name: String,
    source: Source,
    /// What stands for a missing value; empty: there is no tag then.
    default: String,
}

#[derive(Debug, Clone)]
enum Source {
    Fixed(String),
    Header(HeaderName),
    Format(Box<Format>),
}

impl CustomTag {
    /// Builds a tag.
    ///
    /// # Errors
    /// A format that is malformed, or metadata keys that formats cannot name.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { tag, r#type } });
        let (source, default) = match r#type {
            Some(Type::Literal(literal)) => (Source::Fixed(literal.value), String::new()),
            Some(Type::Environment(Environment { name, default_value })) => {
                // As in Envoy, the environment is read once.
                let found = std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
                (Source::Fixed(found.unwrap_or(default_value)), String::new())
            }
            Some(Type::RequestHeader(Header { name, default_value })) => {
                let name = HeaderName::try_from(name.to_ascii_lowercase());
                let name = name.map_err(|_| cx.error_at("request_header.name", "not a header's name"))?;
                (Source::Header(name), default_value)
            }
            Some(Type::Metadata(Metadata {
                kind,
                metadata_key,
                default_value,
            })) => {
                let text = metadata(kind.and_then(|k| k.kind), metadata_key.unwrap_or_default(), cx)?;
                let format = cx.field("metadata", |cx| Format::parse_omit_empty(&text, cx))?;
                (Source::Format(Box::new(format)), default_value)
            }
            Some(Type::Value(text)) => {
                let format = cx.field("value", |cx| Format::parse_omit_empty(&text, cx))?;
                (Source::Format(Box::new(format)), String::new())
            }
            None => return Err(cx.error_at("type", "value is required")),
        };
        Ok(Self {
            name: tag,
            source,
            default,
        })
    }

    fn value(&self, cx: &FormatCx<'_>) -> Option<(String, String)> {
        let value = match &self.source {
            Source::Fixed(text) => text.clone(),
            Source::Header(name) => {
                let value = cx.request.and_then(|head| head.get(name.as_str()));
                value.map_or_else(|| self.default.clone(), |v| String::from_utf8_lossy(v).into_owned())
            }
            Source::Format(format) => {
                let mut out = Vec::new();
                format.write(&mut out, cx);
                match out.is_empty() {
                    true => self.default.clone(),
                    false => String::from_utf8_lossy(&out).into_owned(),
                }
            }
        };
        (!value.is_empty()).then(|| (self.name.clone(), value))
    }
}

/// The tags of a connection manager and of a route, which come before those of the same name.
pub fn values(manager: &[CustomTag], route: &[CustomTag], cx: &FormatCx<'_>) -> Vec<(String, String)> {
    let manager = manager.iter().filter(|t| !route.iter().any(|r| r.name == t.name));
    manager.chain(route).filter_map(|tag| tag.value(cx)).collect()
}

/// The operator that reads the same.
fn metadata(kind: Option<Kind>, key: MetadataKey, cx: &BuildCx<'_>) -> ConfigResult<String> {
    let kind = match kind {
        Some(Kind::Request(_)) | None => "DYNAMIC",
        Some(Kind::Route(_)) => "ROUTE",
        Some(Kind::Cluster(_)) => "CLUSTER",
        Some(Kind::Host(_)) => "UPSTREAM_HOST",
    };
    let mut keys = vec![key.key];
    keys.extend(key.path.into_iter().filter_map(|segment| match segment.segment {
        Some(Segment::Key(key)) => Some(key),
        // Envoy's lookup knows names only.
        Some(Segment::Index(_)) | None => None,
    }));
    if keys.iter().any(|k| k.is_empty() || k.contains([':', ')', '%'])) {
        return Err(cx.error_at(
            "metadata.metadata_key",
            "not supported: keys that are empty or contain : ) or %",
        ));
    }
    Ok(format!("%METADATA({kind}:{})%", keys.join(":")))
}
