//! `RouteMatch.path_specifier`: how a route matches the path.

use std::borrow::Cow;

use http::Method;

use super::path_template::PathTemplate;
use crate::{http::RequestHead, matching::RegexMatcher};

/// How a route matches the path (without its query).
#[derive(Debug, Clone)]
pub(super) enum PathMatch {
    Prefix(String),
    Exact(String),
    /// The path, or the path with a slash and more behind it.
    Separated(String),
    Regex(RegexMatcher),
    /// A URI template.
    Template(PathTemplate),
    /// CONNECT requests, and CONNECT-UDP.
    Connect,
}

/// A request's path as routes look at it.
pub(super) struct PathView<'h> {
    /// Without the query; none when the request has no path.
    raw: Option<&'h str>,
    /// Without its parameters too, where these are ignored.
    plain: Option<Cow<'h, str>>,
}

impl<'h> PathView<'h> {
    /// The path of a request. `ignore_parameters` takes what stands behind a `;` off every segment.
    pub(super) fn new(head: &'h RequestHead, ignore_parameters: bool) -> Self {
        let raw = head.path.as_ref().map(|path| path.path());
        Self {
            raw,
            plain: raw.map(|path| match ignore_parameters && path.contains(';') {
                true => Cow::Owned(without_parameters(path)),
                false => Cow::Borrowed(path),
            }),
        }
    }

    /// What prefixes, exact paths and regular expressions are matched with.
    pub(super) fn for_match(&self) -> Option<&[u8]> {
        self.plain.as_ref().map(|path| path.as_bytes())
    }
}

fn without_parameters(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for segment in path.split_inclusive('/') {
        match segment.split_once(';') {
            Some((name, _)) => {
                plain.push_str(name);
                if segment.ends_with('/') {
                    plain.push('/');
                }
            }
            None => plain.push_str(segment),
        }
    }
    plain
}

impl PathMatch {
    /// Whether the path matches.
    pub(super) fn matches(&self, view: &PathView<'_>, head: &RequestHead, case_sensitive: bool) -> bool {
        if let Self::Connect = self {
            return is_connect(head);
        }
        let (Some(raw), Some(path)) = (view.raw, view.for_match()) else {
            return false;
        };
        let same = |a: &[u8], b: &str| same(a, b, case_sensitive);
        match self {
            Self::Prefix(p) => path.get(..p.len()).is_some_and(|start| same(start, p)),
            Self::Exact(p) => same(path, p),
            Self::Separated(p) => {
                path.get(..p.len()).is_some_and(|start| same(start, p))
                    && matches!(path.get(p.len()), None | Some(b'/'))
            }
            Self::Regex(r) => r.matches(path),
            Self::Template(t) => t.matches(raw.as_bytes()),
            Self::Connect => true,
        }
    }

    /// How many bytes of the path a prefix rewrite replaces; none when the path does not begin with what matched,
    /// because of path parameters or because a filter changed it.
    pub(super) fn matched_len(&self, head: &RequestHead, case_sensitive: bool) -> Option<usize> {
        match self {
            Self::Prefix(p) | Self::Exact(p) | Self::Separated(p) => {
                let start = head.path().as_bytes().get(..p.len())?;
                same(start, p, case_sensitive).then_some(p.len())
            }
            Self::Regex(_) | Self::Template(_) | Self::Connect => Some(head.path_only().len()),
        }
    }
}

fn same(a: &[u8], b: &str, case_sensitive: bool) -> bool {
    if case_sensitive {
        a == b.as_bytes()
    } else {
        a.eq_ignore_ascii_case(b.as_bytes())
    }
}

fn is_connect(head: &RequestHead) -> bool {
    let upgrade_is_udp = || {
        let upgrade = head.headers.get(http::header::UPGRADE);
        upgrade.is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"connect-udp"))
    };
    match &head.protocol {
        // Extended CONNECT of another protocol is an upgrade, matched by its path.
        Some(protocol) => protocol.eq_ignore_ascii_case("connect-udp"),
        None => head.method == Method::CONNECT || upgrade_is_udp(),
    }
}
