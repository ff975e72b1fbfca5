//! Path normalisation: what a route, a filter and an upstream must not see in two ways. The order is Envoy's: fragment,
//! escaped slashes, RFC 3986, double slashes.

use http::{HeaderValue, StatusCode, header};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction as Slashes;

use super::stats::HcmStats;
use crate::{
    config::BuildCx,
    http::{LocalReply, Path, RequestHead},
    runtime::Key,
};

/// What is done to paths.
#[derive(Debug, Default)]
pub struct PathOptions {
    /// `normalize_path`, or the runtime's `http_connection_manager.normalize_path`.
    normalize: bool,
    /// `merge_slashes`
    merge_slashes: bool,
    /// `path_with_escaped_slashes_action`, or the runtime's.
    escaped_slashes: Slashes,
    /// `envoy.reloadable_features.http_reject_path_with_fragment`: whether a fragment is refused, or else cut off.
    reject_fragment: Key,
    /// `envoy.reloadable_features.strip_dotdot_segments_with_parameters`
    strip_parameters: Key,
}

impl PathOptions {
    /// The configuration, where it says something, or else the runtime as of now.
    pub(super) fn build(normalize: Option<bool>, merge_slashes: bool, escaped: i32, cx: &BuildCx<'_>) -> Self {
        let runtime = &cx.server.runtime;
        let percent = |key: &str, default| runtime.key(key).percent_feature(default, fastrand::u64(..));
        let escaped_slashes = match Slashes::try_from(escaped).unwrap_or_default() {
            _ if !percent("http_connection_manager.path_with_escaped_slashes_action_enabled", 100) => {
                Slashes::KeepUnchanged
            }
            Slashes::ImplementationSpecificDefault => {
                let key = runtime.key("http_connection_manager.path_with_escaped_slashes_action");
                let action = i32::try_from(key.integer(Slashes::KeepUnchanged as u64));
                action.ok().and_then(|a| Slashes::try_from(a).ok()).unwrap_or_default()
            }
            said => said,
        };
        Self {
            normalize: normalize.unwrap_or_else(|| percent("http_connection_manager.normalize_path", 0)),
            merge_slashes,
            escaped_slashes,
            reject_fragment: runtime.key("envoy.reloadable_features.http_reject_path_with_fragment"),
            strip_parameters: runtime.key("envoy.reloadable_features.strip_dotdot_segments_with_parameters"),
        }
    }

    /// Normalises the path as configured. The reply is a rejection, or a redirect to the path unescaped.
    pub(super) fn apply(&self, head: &mut RequestHead, stats: &HcmStats) -> Result<(), Box<LocalReply>> {
        let Some(path) = &head.path else { return Ok(()) };
        let path = path.as_str();
        if self.is_settled(path) {
            return Ok(());
        }
        let (mut path, outcome) = self.transformed(path);
        let redirect = match outcome {
            Outcome::Continue => false,
            Outcome::Redirect => !head.is_grpc(),
            Outcome::Reject => false,
        };
        let refused = outcome == Outcome::Reject || (outcome == Outcome::Redirect && !redirect);
        // What is refused is logged as far as it was normalised.
        match Path::new(std::mem::take(&mut path)) {
            Some(path) => head.path = Some(path),
            None => return Err(refusal(stats)),
        }
        if refused {
            return Err(refusal(stats));
        }
        if redirect {
            stats.downstream_rq_redirected_with_normalized_path.inc();
            let mut reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", "path_normalization_failed");
            if let Ok(location) = HeaderValue::from_str(head.path()) {
                reply.headers.insert(header::LOCATION, location);
            }
            return Err(Box::new(reply));
        }
        Ok(())
    }

    /// Whether nothing can have to be done: what holds for most paths is seen without a copy.
    fn is_settled(&self, path: &str) -> bool {
        let asked = self.normalize
            || self.merge_slashes
            || !matches!(
                self.escaped_slashes,
                Slashes::KeepUnchanged | Slashes::ImplementationSpecificDefault
            );
        if !asked {
            return !path.contains('#');
        }
        let mut before = 0;
        path == "*"
            || path.bytes().all(|b| {
                let plain = match b {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'=' | b'&' => true,
                    b'/' => before != b'/',
                    _ => false,
                };
                before = b;
                plain
            })
    }

    fn transformed(&self, path: &str) -> (String, Outcome) {
        let path = match path.split_once('#') {
            Some(_) if self.reject_fragment.boolean(true) => return (path.to_owned(), Outcome::Reject),
            Some((path, _)) => path,
            None => path,
        };
        let at = path.find('?').unwrap_or(path.len());
        let (path, query) = path.split_at_checked(at).unwrap_or((path, ""));
        let mut path = path.to_owned();
        let mut outcome = Outcome::Continue;
        if matches!(
            self.escaped_slashes,
            Slashes::RejectRequest | Slashes::UnescapeAndRedirect | Slashes::UnescapeAndForward
        ) && let Some(unescaped) = unescape_slashes(&path)
        {
            path = unescaped;
            match self.escaped_slashes {
                Slashes::RejectRequest => return (path + query, Outcome::Reject),
                Slashes::UnescapeAndRedirect => outcome = Outcome::Redirect,
                _ => {}
            }
        }
        // `*` is no path that has segments.
        if self.normalize && path.starts_with('/') {
            match canonical(&path, self.strip_parameters.boolean(true)) {
                Some(canonical) => path = canonical,
                None => return (path + query, Outcome::Reject),
            }
        }
        if self.merge_slashes {
            path = merged(path);
        }
        (path + query, outcome)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Continue,
    Redirect,
    Reject,
}

fn refusal(stats: &HcmStats) -> Box<LocalReply> {
    stats.downstream_rq_failed_path_normalization.inc();
    Box::new(LocalReply::new(
        StatusCode::BAD_REQUEST,
        "",
        "path_normalization_failed",
    ))
}

/// `%2F` and `%5C` as what they stand for; none when there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut found = false;
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at_checked(at)?;
        out.push_str(before);
        let slash = match escape.as_bytes() {
            [_, b'2', b'f' | b'F', ..] => Some('/'),
            [_, b'5', b'c' | b'C', ..] => Some('\\'),
            _ => None,
        };
        found |= slash.is_some();
        out.push(slash.unwrap_or('%'));
        rest = escape.get(if slash.is_some() { 3 } else { 1 }..)?;
    }
    out.push_str(rest);
    found.then_some(out)
}

/// As Chromium's URL library has it, which Envoy takes: backslashes are slashes, unreserved characters are unescaped,
/// what may not stand in a path is escaped, dot segments are resolved. None for an escaped NUL.
fn canonical(path: &str, strip_parameters: bool) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            plain.push('/');
        }
        // What stands behind a semicolon is a parameter for some upstreams, which would resolve the segment.
        let dots = segment.split_once(';').map(|(dots, _)| dots);
        match dots.filter(|dots| strip_parameters && matches!(*dots, "." | "..")) {
            Some(dots) => plain.push_str(dots),
            None => escape_segment(segment, &mut plain)?,
        }
    }
    let mut out: Vec<&str> = Vec::new();
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push(""),
            "." => {}
            ".." => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            s => out.push(s),
        }
    }
    Some(format!("/{}", out.join("/")))
}

fn escape_segment(segment: &str, out: &mut String) -> Option<()> {
    let mut bytes = segment.bytes();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut ahead = bytes.clone();
                let pair = ahead.next().and_then(digit).zip(ahead.next().and_then(digit));
                match pair.map(|(high, low)| high << 4 | low) {
                    Some(0) => return None,
                    Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                        out.push(char::from(b));
                        bytes = ahead;
                    }
                    _ => out.push('%'),
                }
            }
            b'\\' => out.push('/'),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                out.push('%');
                for half in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(half.into(), 16)?.to_ascii_uppercase());
                }
            }
            b => out.push(char::from(b)),
        }
    }
    Some(())
}

/// Empty segments left out; the slashes at both ends stay, also where they are all there is.
fn merged(path: String) -> String {
    if !path.contains("//") {
        return path;
    }
    let mut out = String::with_capacity(path.len());
    out.push_str(if path.starts_with('/') { "/" } else { "" });
    for (i, segment) in path.split('/').filter(|s| !s.is_empty()).enumerate() {
        if i > 0 {
            out.push('/');
        }
        out.push_str(segment);
    }
    out.push_str(if path.ends_with('/') { "/" } else { "" });
    out
}

#[cfg(test)]
mod tests;
