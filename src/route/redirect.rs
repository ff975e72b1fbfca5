//! `RedirectAction`: an answer that sends the client elsewhere.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode};
use xds_protos::envoy::config::route::v3::{
    RedirectAction as Proto,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
};

use super::rewrite::{PathRewrite, request_cx};
use crate::{
    config::{BuildCx, ConfigResult},
    formatter::Format,
    http::{Path, RequestHead, StreamInfo},
    matching::RegexSubstitution,
};

/// Redirects the client.
#[derive(Debug, Clone)]
pub struct RedirectAction {
    /// Status; default 301.
    pub status: StatusCode,
    scheme: Option<String>,
    host: String,
    port: Option<u32>,
    path: RedirectPath,
    strip_query: bool,
}

#[derive(Debug, Clone)]
enum RedirectPath {
    /// The request's own path, perhaps rewritten.
    Rewrite(PathRewrite),
    /// This path; when it has a query of its own, that replaces the request's.
    Replace(String),
    /// The request's scheme becomes https and nothing else changes (`require_tls`).
    RequireTls,
}

impl RedirectAction {
    /// The redirect of `require_tls`.
    pub(super) fn require_tls() -> Self {
        Self {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: Some("https".to_owned()),
            host: String::new(),
            port: None,
            path: RedirectPath::RequireTls,
            strip_query: false,
        }
    }

    /// Builds the action.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let status = match proto.response_code() {
            RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            RedirectResponseCode::Found => StatusCode::FOUND,
            RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
            RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        };
        coverage!(cx, proto => Proto {
            supported {
                host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier,
                path_rewrite_specifier,
            }
        });
        let _ = response_code;
        let path = match path_rewrite_specifier {
            Some(PathRewriteSpecifier::PathRedirect(p)) if !p.is_empty() => RedirectPath::Replace(p),
            Some(PathRewriteSpecifier::PrefixRewrite(p)) if !p.is_empty() => {
                RedirectPath::Rewrite(PathRewrite::Prefix(p))
            }
            Some(PathRewriteSpecifier::RegexRewrite(r)) => RedirectPath::Rewrite(PathRewrite::Regex(
                cx.field("regex_rewrite", |cx| RegexSubstitution::build(r, cx))?,
            )),
            Some(PathRewriteSpecifier::PathRewrite(f)) if !f.is_empty() => RedirectPath::Rewrite(PathRewrite::Format(
                cx.field("path_rewrite", |cx| Format::parse_omit_empty(&f, cx))?,
            )),
            _ => RedirectPath::Rewrite(PathRewrite::None),
        };
        Ok(Self {
            status,
            scheme: match scheme_rewrite_specifier {
                Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
                Some(SchemeRewriteSpecifier::SchemeRedirect(s)) if !s.is_empty() => Some(s),
                _ => None,
            },
            host: host_redirect,
            port: Some(port_redirect).filter(|p| *p != 0),
            path,
            strip_query,
        })
    }

    /// The `location`; `matched` is how much of the path the route matched.
    pub(super) fn location(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
        matched: Option<usize>,
    ) -> Option<HeaderValue> {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme.as_str());
        let host = match (&self.path, self.host.as_str()) {
            (RedirectPath::RequireTls, _) => head.host(),
            (_, "") => self.request_host(head, scheme),
            (_, host) => host,
        };
        let port = self.port.map_or(String::new(), |p| format!(":{p}"));
        let (path, own_query) = self.path(head, info, matched);
        let path = match path.split_once('?') {
            Some((path, _)) if self.strip_query && !own_query => path,
            _ => &path,
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        HeaderValue::try_from(format!("{scheme}://{host}{port}{slash}{path}")).ok()
    }

    /// The path that the request itself gets, and logs and header formats see: none when it is not rewritten.
    pub(super) fn rewritten(&self, head: &RequestHead, info: &StreamInfo, matched: Option<usize>) -> Option<Path> {
        match &self.path {
            // A format is of the location alone.
            RedirectPath::Rewrite(PathRewrite::Format(_)) => None,
            RedirectPath::Rewrite(rewrite) => rewrite.apply(head, info, matched),
            RedirectPath::Replace(_) | RedirectPath::RequireTls => None,
        }
    }

    /// The new path, and whether its query is the configuration's own.
    fn path<'h>(&'h self, head: &'h RequestHead, info: &StreamInfo, matched: Option<usize>) -> (Cow<'h, str>, bool) {
        match &self.path {
            RedirectPath::Replace(path) if path.contains('?') => (path.into(), true),
            RedirectPath::Replace(path) => match head.query() {
                Some(query) => (format!("{path}?{query}").into(), false),
                None => (path.into(), false),
            },
            RedirectPath::Rewrite(PathRewrite::Format(format)) => match text(format, head, info) {
                Some(path) if path.contains('?') => (path.into(), true),
                Some(path) => match head.query() {
                    Some(query) => (format!("{path}?{query}").into(), false),
                    None => (path.into(), false),
                },
                None => (head.path().into(), false),
            },
            RedirectPath::Rewrite(rewrite) => match rewrite.apply(head, info, matched) {
                Some(path) => (path.as_str().to_owned().into(), false),
                None => (head.path().into(), false),
            },
            RedirectPath::RequireTls => (head.path().into(), false),
        }
    }

    /// The request's host, without its port when another is configured, or when it is the old scheme's default
    /// and the scheme changes.
    fn request_host<'h>(&self, head: &'h RequestHead, scheme: &str) -> &'h str {
        let host = head.host();
        let end = if host.starts_with('[') {
            host.rfind("]:").map(|at| at + 1)
        } else {
            host.rfind(':')
        };
        let Some((host_only, port)) = end.and_then(|end| host.split_at_checked(end)) else {
            return host;
        };
        let old = head.scheme.as_str();
        let default = matches!((old, port), ("http", ":80") | ("https", ":443"));
        if self.port.is_some() || (scheme != old && default) {
            host_only
        } else {
            host
        }
    }
}

/// A format's text for this request; none when it is empty.
fn text(format: &Format, head: &RequestHead, info: &StreamInfo) -> Option<String> {
    let mut text = Vec::new();
    format.write(&mut text, &request_cx(head, info));
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}
