//! Rewrites of path and host before a request goes upstream.

use http::{HeaderName, HeaderValue};
use xds_protos::envoy::config::route::v3::route_action::HostRewriteSpecifier;

use super::{cluster::host_value, path_template::TemplateRewrite};
use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{Path, RequestHead, StreamInfo},
    matching::{HeaderLookup, RegexSubstitution},
};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the path changes. The query stays.
#[derive(Debug, Clone, Default)]
pub(super) enum PathRewrite {
    #[default]
    None,
    /// The matched part is replaced by this.
    Prefix(String),
    /// Every match in the path is replaced.
    Regex(RegexSubstitution),
    /// The path is replaced by this; by nothing when it is empty.
    Format(Format),
    /// Named parts of the path in a new order.
    Template(TemplateRewrite),
}

impl PathRewrite {
    /// The path after the rewrite; none when there is nothing to rewrite or what comes out is no path.
    pub(super) fn apply(&self, head: &RequestHead, info: &StreamInfo, matched: Option<usize>) -> Option<Path> {
        let path = head.path();
        let just_path = head.path_only();
        let query = path.get(just_path.len()..).unwrap_or_default().as_bytes();
        let mut new: Vec<u8>;
        match self {
            Self::None => return None,
            Self::Template(template) => {
                return template.apply(just_path, path.get(just_path.len()..).unwrap_or_default());
            }
            Self::Prefix(prefix) => {
                let rest = path.as_bytes().get(matched?..).unwrap_or_default();
                new = Vec::with_capacity(prefix.len() + rest.len());
                new.extend_from_slice(prefix.as_bytes());
                new.extend_from_slice(rest);
            }
            Self::Regex(regex) => {
                new = regex.replace_all(just_path.as_bytes()).into_owned();
                if new.is_empty() {
                    return None;
                }
                new.extend_from_slice(query);
            }
            Self::Format(format) => {
                new = Vec::with_capacity(path.len());
                format.write(&mut new, &request_cx(head, info));
                if new.is_empty() {
                    return None;
                }
                new.extend_from_slice(query);
            }
        }
        Path::new(new)
    }
}

pub(super) fn request_cx<'a>(head: &'a RequestHead, info: &'a StreamInfo) -> FormatCx<'a> {
    FormatCx {
        request: Some(head),
        response: None,
        info,
    }
}

/// Where a new host comes from.
#[derive(Debug, Clone, Default)]
pub(super) enum HostRewrite {
    #[default]
    None,
    Literal(HeaderValue),
    Header(HeaderLookup),
    PathRegex(RegexSubstitution),
    Format(Format),
}

impl HostRewrite {
    /// Builds the rewrite, and whether the host becomes the upstream host's name (`auto_host_rewrite`).
    pub(super) fn build(proto: Option<HostRewriteSpecifier>, cx: &mut BuildCx<'_>) -> ConfigResult<(Self, bool)> {
        Ok(match proto {
            Some(HostRewriteSpecifier::HostRewriteLiteral(h)) if !h.is_empty() => {
                (Self::Literal(host_value(&h, "host_rewrite_literal", cx)?), false)
            }
            Some(HostRewriteSpecifier::HostRewriteHeader(h)) if !h.is_empty() => {
                (Self::Header(HeaderLookup::of(&h)), false)
            }
            Some(HostRewriteSpecifier::HostRewritePathRegex(r)) => {
                let regex = cx.field("host_rewrite_path_regex", |cx| RegexSubstitution::build(r, cx))?;
                (Self::PathRegex(regex), false)
            }
            Some(HostRewriteSpecifier::HostRewrite(f)) if !f.is_empty() => (
                Self::Format(cx.field("host_rewrite", |cx| {
                    let format = Format::parse(&f, cx);
                    format.map_err(|e| {
                        cx.error(format!(
                            "Failed to create host rewrite formatter: INVALID_ARGUMENT: {}",
                            e.reason()
                        ))
                    })
                })?),
                false,
            ),
            Some(HostRewriteSpecifier::AutoHostRewrite(b)) => (Self::None, b.value),
            _ => (Self::None, false),
        })
    }

    /// The new host; none when it stays as it is.
    pub(super) fn apply(&self, head: &RequestHead, info: &StreamInfo) -> Option<HeaderValue> {
        let host = match self {
            Self::None => return None,
            Self::Literal(host) => host.clone(),
            Self::Header(name) => HeaderValue::from_bytes(name.first(head)?).ok()?,
            Self::PathRegex(regex) => HeaderValue::from_bytes(&regex.replace_all(head.path_only().as_bytes())).ok()?,
            Self::Format(format) => {
                let mut text = Vec::new();
                format.write(&mut text, &request_cx(head, info));
                HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()?
            }
        };
        (!host.is_empty()).then_some(host)
    }
}

/// Sets a new path and, if asked for, keeps the old one in `x-envoy-original-path`.
pub(super) fn set_path(head: &mut RequestHead, path: Path, keep_original: bool) {
    if let Some(old) = head.path.replace(path).filter(|_| keep_original)
        && let Ok(value) = HeaderValue::from_str(old.as_str())
    {
        head.headers.insert(ORIGINAL_PATH, value);
    }
}

/// Sets a new host; the old one goes into `x-forwarded-host`, unless it stands there last, and `x-envoy-original-host`.
pub(super) fn set_host(head: &mut RequestHead, host: HeaderValue, append_forwarded: bool, keep_original: bool) {
    let Some(old) = head.authority.replace(host).filter(|old| !old.is_empty()) else {
        return;
    };
    if append_forwarded {
        append_forwarded_host(head, &old);
    }
    if keep_original {
        head.headers.insert(ORIGINAL_HOST, old);
    }
}

fn append_forwarded_host(head: &mut RequestHead, old: &HeaderValue) {
    let list = HeaderLookup::Header(FORWARDED_HOST).get(head);
    let value = match list.as_deref() {
        None => old.clone(),
        Some(list) if list.rsplit(|b| *b == b',').find(|h| !h.is_empty()) == Some(old.as_bytes()) => return,
        Some(list) => match HeaderValue::from_bytes(&[list, b",", old.as_bytes()].concat()) {
            Ok(joined) => joined,
            Err(_) => return,
        },
    };
    head.headers.insert(FORWARDED_HOST, value);
}
