//! One stream that may have to show tokens.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode, header};

use super::{
    OfRoute,
    config::{Asked, Config},
    provider::Left,
    remote::{Fetched, Remote},
    requirement::{CacheUse, Exam, Requirement, Unmet},
    status::Status,
};
use crate::http::{
    LocalReply, RequestHead,
    filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.jwt_authn.` statistics
    pub(super) struct JwtStats {
        counter allowed, "Requests that may go on";
        counter cors_preflight_bypassed, "Preflight requests that were not looked at";
        counter denied, "Requests that were refused";
        counter jwks_fetch_failed, "Fetches of keys that failed";
        counter jwks_fetch_success, "Fetches of keys";
        counter jwt_cache_hit, "Tokens found in the cache";
        counter jwt_cache_miss, "Tokens that were not in the cache";
    }
}

/// Namespace of the dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// Most bytes of a path in `www-authenticate`.
const MAX_REALM_PATH: usize = 256;

/// The filter's configuration.
pub(super) struct JwtAuthn(pub Arc<Config>);

impl HttpFilterConfig for JwtAuthn {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            fetched: Vec::new(),
        }))
    }
}

/// Keys for a request: at hand, or fetched for it; none when they could not be.
pub(super) type FetchedKeys = Vec<(Arc<Remote>, Option<Arc<Fetched>>)>;

struct Filter {
    config: Arc<Config>,
    fetched: FetchedKeys,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        match self.examine(cx, head) {
            Ok(step) => step,
            Err(needed) => Step::Wait(Box::pin(async move {
                let mut needed = needed;
                loop {
                    let keys = needed.fetch(&cx.worker).await;
                    self.fetched.push((needed, keys));
                    match self.examine(cx, head) {
                        Ok(step) => return step,
                        Err(another) => needed = another,
                    }
                }
            })),
        }
    }
}

impl Filter {
    /// Decides, or says which keys it needs for that.
    fn examine(&self, cx: &mut FilterCx, head: &mut RequestHead) -> Result<Step<'static>, Arc<Remote>> {
        let config = &*self.config;
        let stats = config.stats.local();
        let requirement = match config.asked(cx.route_config::<OfRoute>(), head, &cx.info) {
            Asked::Requirement(requirement) => requirement,
            Asked::Unknown(reason) => {
                stats.denied.inc();
                return Ok(Step::Reply(Box::new(self.misconfigured(&reason))));
            }
            asked => {
                if matches!(asked, Asked::Preflight) {
                    stats.cors_preflight_bypassed.inc();
                }
                config.sanitize(head);
                stats.allowed.inc();
                return Ok(Step::Continue);
            }
        };
        let realm = realm(head);
        let (outcome, left, cache) = self.verify(requirement, head)?;
        stats.jwt_cache_hit.add(cache.hits);
        stats.jwt_cache_miss.add(cache.misses);
        if !left.metadata.fields.is_empty() {
            let ours = cx.info.metadata.entry(NAMESPACE.to_owned()).or_default();
            ours.fields.extend(left.metadata.fields);
        }
        Ok(match outcome {
            Ok(()) => {
                cx.clear_route_cache |= left.clear_route_cache;
                stats.allowed.inc();
                Step::Continue
            }
            Err(status) => {
                stats.denied.inc();
                Step::Reply(Box::new(self.refusal(status, &realm)))
            }
        })
    }

    /// Tries the requirement. When keys are missing that turn out to be needed, the head is as it was.
    fn verify(
        &self,
        requirement: &Requirement,
        head: &mut RequestHead,
    ) -> Result<(Result<(), Status>, Left, CacheUse), Arc<Remote>> {
        self.config.sanitize(head);
        let keys = self.config.keys_at_hand(&self.fetched);
        let before = (!self.config.are_all(&keys)).then(|| head.clone());
        let mut exam = Exam {
            head: &mut *head,
            left: Left::default(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            cache: CacheUse::default(),
            keys: &keys,
        };
        let outcome = match requirement.verify(&mut exam) {
            Ok(()) => Ok(()),
            Err(Unmet::Status(status)) => Err(status),
            Err(Unmet::Fetch(remote)) => {
                if let Some(before) = before {
                    *head = before;
                }
                return Err(remote);
            }
        };
        let Exam { left, cache, .. } = exam;
        Ok((outcome, left, cache))
    }

    fn refusal(&self, status: Status, realm: &str) -> LocalReply {
        let code = match status {
            Status::AudienceNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let details = details(status.text());
        if self.config.strip {
            return LocalReply::new(code, "", details);
        }
        let mut reply = LocalReply::new(code, status.text(), details);
        let error = match status {
            Status::Missing => "",
            _ => ", error=\"invalid_token\"",
        };
        if let Ok(value) = HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}")) {
            reply.headers.insert(header::WWW_AUTHENTICATE, value);
        }
        reply
    }

    fn misconfigured(&self, reason: &str) -> LocalReply {
        let body = match self.config.strip {
            true => String::new(),
            false => format!("Failed JWT authentication: {reason}"),
        };
        LocalReply::new(StatusCode::FORBIDDEN, body, details(reason))
    }
}

fn details(reason: &str) -> String {
    let joined: String = reason
        .chars()
        .map(|c| if c.is_ascii_whitespace() { '_' } else { c })
        .collect();
    format!("jwt_authn_access_denied{{{joined}}}")
}

/// The URL that the client asked for.
fn realm(head: &RequestHead) -> String {
    let original = head.headers.get("x-envoy-original-path").and_then(|v| v.to_str().ok());
    let path = original.unwrap_or_else(|| head.path());
    let path = path.get(..MAX_REALM_PATH).unwrap_or(path);
    format!("{}://{}{path}", head.scheme.as_str(), head.host())
}
