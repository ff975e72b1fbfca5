//! `RouteMatch.path_specifier`: how a route matches the path.

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

impl PathMatch {
    /// Whether the path matches. `ignore_parameters` cuts it at the first `;`.
    pub(super) fn matches(&self, head: &RequestHead, case_sensitive: bool, ignore_parameters: bool) -> bool {
        if let Self::Connect = self {
            return is_connect(head);
        }
        if head.path.is_none() {
            return false;
        }
        let mut path = head.path_only();
        if ignore_parameters {
            path = path.split(';').next().unwrap_or(path);
        }
        let same = |a: &[u8], b: &str| {
            if case_sensitive {
                a == b.as_bytes()
            } else {
                a.eq_ignore_ascii_case(b.as_bytes())
            }
        };
        let path = path.as_bytes();
        match self {
            Self::Prefix(p) => path.get(..p.len()).is_some_and(|start| same(start, p)),
            Self::Exact(p) => same(path, p),
            Self::Separated(p) => {
                path.get(..p.len()).is_some_and(|start| same(start, p))
                    && matches!(path.get(p.len()), None | Some(b'/'))
            }
            Self::Regex(r) => r.matches(path),
            Self::Template(t) => t.matches(path),
            Self::Connect => true,
        }
    }

    /// How many bytes of the path a prefix rewrite replaces.
    pub(super) fn matched_len(&self, head: &RequestHead) -> usize {
        match self {
            Self::Prefix(p) | Self::Exact(p) | Self::Separated(p) => p.len(),
            Self::Regex(_) | Self::Template(_) | Self::Connect => head.path_only().len(),
        }
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
