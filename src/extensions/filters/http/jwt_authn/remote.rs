//! Keys that are fetched over a cluster (`RemoteJwks`): on demand by the worker that needs them, or ahead of time by
//! the control thread (`async_fetch`).

use std::{
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header::USER_AGENT};
use http_body_util::{BodyExt, Limited};
use tokio::sync::watch;
use xds_protos::envoy::{
    config::core::v3::{BackoffStrategy, HttpUri, RetryPolicy, http_uri::HttpUpstreamType},
    extensions::filters::http::jwt_authn::v3::{JwksAsyncFetch, RemoteJwks as Proto},
};

use super::{filter::JwtStats, jwks::Jwks, status::Status};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt, InitTarget},
    http::{Body, Path, RequestHead, Scheme},
    server::Worker,
    stats::Stats,
    upstream::client::{ClusterChannel, mark_own},
};

/// `cache_duration` unless it is set.
const CACHE_DURATION: Duration = Duration::from_secs(600);
/// How long before they run out keys are fetched ahead.
const AHEAD: Duration = Duration::from_secs(5);
/// `failed_refetch_duration` unless it is set.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Most bytes of a key set.
const MAX_SET: usize = 4 * 1024 * 1024;

/// Where the keys of a provider are fetched, and those that were.
#[derive(Debug)]
pub(super) struct Remote {
    cluster: Arc<str>,
    authority: String,
    path: Path,
    timeout: Duration,
    cache_duration: Duration,
    retries: u32,
    /// Shortest and longest pause before a retry.
    back_off: (Duration, Duration),
    /// How long one try may take: as long as the longest pause, as in Envoy.
    per_try: Duration,
    slot: ArcSwapOption<Fetched>,
    stats: Stats<JwtStats>,
    /// Closes when the configuration is gone: the task that fetches ahead ends.
    _alive: watch::Sender<()>,
}

/// An answer with a key set in it, or with none that can be used.
#[derive(Debug)]
pub(super) struct Fetched {
    pub keys: Result<Jwks, Status>,
    until: Instant,
}

impl Remote {
    pub fn build(proto: Proto, stats: Stats<JwtStats>, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        coverage!(cx, proto => Proto { supported { http_uri, cache_duration, async_fetch, retry_policy } });
        let uri = http_uri.ok_or_else(|| cx.error_at("http_uri", "value is required"))?;
        let HttpUri {
            uri,
            timeout,
            http_upstream_type,
        } = uri;
        let cluster = match http_upstream_type {
            Some(HttpUpstreamType::Cluster(name)) if !name.is_empty() => name,
            _ => return Err(cx.error_at("http_uri.cluster", "value is required")),
        };
        let rest = uri.split_once("://").map_or(&*uri, |(_, rest)| rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let timeout = timeout.or_duration(Duration::from_secs(5));
        let (retries, back_off) = cx
            .opt("retry_policy", retry_policy, |proto, cx| {
                coverage!(cx, proto => RetryPolicy {
                    supported { num_retries, retry_back_off }
                    ignored {
                        retry_on: "every failed fetch is retried",
                        retry_priority: "a fetch has no priorities",
                        retry_host_predicate: "the balancer picks another host",
                        host_selection_retry_max_attempts: "the balancer picks another host",
                    }
                });
                Ok((num_retries.map_or(1, |n| n.value), back_off(retry_back_off)))
            })?
            .unwrap_or((0, (timeout, timeout)));
        let (alive, watched) = watch::channel(());
        let remote = Arc::new(Self {
            cluster: cluster.into(),
            authority: authority.to_owned(),
            path: path.parse().map_err(|_| cx.error_at("http_uri.uri", "not a URI"))?,
            timeout,
            per_try: back_off.1,
            cache_duration: cache_duration.or_duration(CACHE_DURATION),
            retries,
            back_off,
            slot: ArcSwapOption::empty(),
            stats,
            _alive: alive,
        });
        if let Some(ahead) = async_fetch {
            fetch_ahead(&remote, ahead, watched, cx);
        }
        Ok(remote)
    }

    /// The keys, while they are fresh.
    pub fn fresh(&self) -> Option<Arc<Fetched>> {
        self.slot.load_full().filter(|fetched| fetched.until > Instant::now())
    }

    /// Fetches the keys; none when there was no answer with a key set in it.
    pub async fn fetch(&self, worker: &Rc<Worker>) -> Option<Arc<Fetched>> {
        let channel = ClusterChannel::new(worker.clone(), self.cluster.clone(), Some(&self.authority));
        let text = tokio::time::timeout(self.timeout, self.get_with_retries(&channel)).await;
        let stats = self.stats.local();
        let text = text.unwrap_or_else(|_| {
            channel.timed_out();
            None
        });
        let Some(text) = text else {
            stats.jwks_fetch_failed.inc();
            tracing::warn!(cluster = %self.cluster, path = %self.path, "JSON web keys could not be fetched");
            return None;
        };
        let keys = Jwks::parse(&text);
        match &keys {
            Ok(_) => stats.jwks_fetch_success.inc(),
            Err(_) => stats.jwks_fetch_failed.inc(),
        }
        let fetched = Arc::new(Fetched {
            keys: keys.map_err(|_| Status::FetchFail),
            until: Instant::now() + self.cache_duration,
        });
        if fetched.keys.is_ok() {
            self.slot.store(Some(fetched.clone()));
        }
        Some(fetched)
    }

    /// What Envoy sends with its own requests.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static("Go-browser"))]);
        mark_own(&mut headers, Some(self.timeout.min(self.per_try)));
        headers
    }

    async fn get_with_retries(&self, channel: &ClusterChannel) -> Option<Bytes> {
        for attempt in 0..=self.retries {
            if attempt > 0 {
                let (base, longest) = self.back_off;
                let pause = base.saturating_mul(1 << attempt.min(16)).min(longest);
                tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            }
            let answer = tokio::time::timeout(self.per_try, self.get(channel)).await;
            match answer {
                Ok(Some(text)) => return Some(text),
                Ok(None) => {}
                // A try that is followed by another is no request's end.
                Err(_) if attempt < self.retries => {}
                Err(_) => channel.timed_out(),
            }
        }
        None
    }

    async fn get(&self, channel: &ClusterChannel) -> Option<Bytes> {
        let head = RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: HeaderValue::from_str(&self.authority).ok(),
            path: Some(self.path.clone()),
            protocol: None,
            version: Version::HTTP_11,
            headers: self.headers(),
            spelling: None,
        };
        let answer = channel.send(head, Body::Empty).await;
        let answer = answer
            .inspect_err(|error| tracing::debug!(%error, "fetching JSON web keys"))
            .ok()?;
        if answer.head.status != StatusCode::OK {
            return None;
        }
        let whole = Limited::new(answer.body, MAX_SET).collect().await.ok()?;
        Some(whole.to_bytes())
    }
}

fn back_off(proto: Option<BackoffStrategy>) -> (Duration, Duration) {
    let base = proto
        .as_ref()
        .and_then(|b| b.base_interval)
        .or_duration(Duration::from_secs(1));
    let longest = proto.and_then(|b| b.max_interval).or_duration(base.saturating_mul(10));
    (base, longest)
}

/// Keeps the keys fresh from the control thread. The listener waits for the first answer, good or not, unless it
/// is told not to.
fn fetch_ahead(remote: &Arc<Remote>, proto: JwksAsyncFetch, watched: watch::Receiver<()>, cx: &mut BuildCx<'_>) {
    let JwksAsyncFetch {
        fast_listener,
        failed_refetch_duration,
    } = proto;
    let (ready, receiver) = watch::channel(fast_listener);
    if !fast_listener {
        cx.wait_for(InitTarget {
            name: format!("JSON web keys of {}", remote.authority),
            ready: receiver,
        });
    }
    let after_failure = failed_refetch_duration.or_duration(AFTER_FAILURE);
    let remote = Arc::downgrade(remote);
    cx.server.mailboxes.run_on_control(move |worker| {
        tokio::task::spawn_local(keep_fresh(worker.clone(), remote, after_failure, watched, ready));
    });
}

async fn keep_fresh(
    worker: Rc<Worker>,
    remote: Weak<Remote>,
    after_failure: Duration,
    mut watched: watch::Receiver<()>,
    ready: watch::Sender<bool>,
) {
    loop {
        let Some(remote) = remote.upgrade() else { return };
        let fetched = remote.fetch(&worker).await;
        let pause = match fetched.is_some_and(|f| f.keys.is_ok()) {
            true => remote
                .cache_duration
                .checked_sub(AHEAD)
                .unwrap_or(remote.cache_duration),
            false => after_failure,
        };
        drop(remote);
        ready.send_replace(true);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The configuration is gone.
            _ = watched.changed() => return,
        }
    }
}
