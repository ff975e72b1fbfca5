//! Statistics of gRPC calls, by service and method, under the cluster they go to: what `grpc_stats` and `grpc_web`
//! count.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use crate::{http::filter::FilterCx, stats::Unit, upstream::ClusterInfo};

/// Service and method of a call: the two parts of its path.
pub(super) fn service_and_method(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), None) => Some((service, method)),
        _ => None,
    }
}

/// The cluster a call goes to.
pub(super) fn cluster(cx: &FilterCx) -> Option<Arc<ClusterInfo>> {
    let route = cx.route.as_ref().filter(|route| route.forward().is_some())?;
    Some(cx.worker.clusters.get(route.cluster_name())?.info.clone())
}

/// The statistics of one method: `cluster.<name>.<protocol>.<service>.<method>.`
///
/// Counters are found by name at each use: a short lock on the cluster's scope, as Envoy's dynamic names cost too.
#[derive(Clone)]
pub(super) struct CallStats {
    cluster: Arc<ClusterInfo>,
    prefix: String,
}

impl CallStats {
    /// Of a method; without one, of all calls by this protocol (`grpc`, `grpc-web`).
    pub fn new(cluster: Arc<ClusterInfo>, protocol: &str, method: Option<(&str, &str)>) -> Self {
        let prefix = match method {
            Some((service, method)) => format!("{protocol}.{service}.{method}."),
            None => format!("{protocol}."),
        };
        Self { cluster, prefix }
    }

    /// Counts a call that ended with this status, if the headers or trailers have it.
    pub fn status(&self, headers: &HeaderMap) {
        let Some(status) = headers.get("grpc-status").and_then(|v| v.to_str().ok()) else {
            return;
        };
        self.count(status, 1);
        self.count(if status == "0" { "success" } else { "failure" }, 1);
        self.count("total", 1);
    }

    /// Adds to a counter of the method.
    pub fn count(&self, name: &str, n: u64) {
        self.cluster.scope.counter(&format!("{}{name}", self.prefix)).add(n);
    }

    /// Records how long the upstream took.
    pub fn upstream_time(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let name = format!("{}upstream_rq_time", self.prefix);
        self.cluster.scope.histogram(&name, Unit::Milliseconds).record(millis);
    }
}

/// Finds the messages in a stream of them: one byte of flags, four of length.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of the head that were seen.
    head: usize,
    /// Length of the message, as far as it is known; then bytes of it that are to come.
    left: u32,
}

impl Frames {
    /// Splits off what belongs to one message, and says whether the message begins or ends in it.
    pub fn next<'d>(&mut self, data: &mut &'d [u8]) -> Option<Piece<'d>> {
        if data.is_empty() {
            return None;
        }
        let begins = self.head == 0;
        let mut taken = 0;
        while self.head < 5 && taken < data.len() {
            if self.head > 0 {
                self.left = self.left << 8 | u32::from(data[taken]);
            }
            self.head += 1;
            taken += 1;
        }
        if self.head == 5 {
            let body = (data.len() - taken).min(self.left as usize);
            self.left -= body as u32;
            taken += body;
        }
        let (bytes, rest) = data.split_at(taken);
        *data = rest;
        let ends = self.head == 5 && self.left == 0;
        if ends {
            *self = Self::default();
        }
        Some(Piece { bytes, begins, ends })
    }

    /// How many messages begin in these bytes. What has other flags than "compressed" is no message, and nothing after
    /// it is counted.
    pub fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while self.head > 0 || data.first().is_some_and(|flags| *flags <= 1) {
            let Some(piece) = self.next(&mut data) else { break };
            begun += u64::from(piece.begins);
        }
        begun
    }
}

/// A part of a message, with its head.
pub(super) struct Piece<'d> {
    pub bytes: &'d [u8],
    pub begins: bool,
    pub ends: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_two_parts() {
        assert_eq!(service_and_method("/pkg.Svc/Call"), Some(("pkg.Svc", "Call")));
        assert_eq!(service_and_method("/pkg.Svc/Call/x"), None);
        assert_eq!(service_and_method("/pkg.Svc"), None);
    }

    #[test]
    fn messages_are_found_however_the_bytes_come() {
        let stream = [0, 0, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9];
        assert_eq!(Frames::default().count(&stream), 3);
        assert_eq!(Frames::default().count(b"plain text"), 0);
        let mut frames = Frames::default();
        let (mut begun, mut ended) = (0, 0);
        for byte in stream {
            let byte = [byte];
            let piece = frames.next(&mut byte.as_slice()).unwrap();
            begun += u32::from(piece.begins);
            ended += u32::from(piece.ends);
        }
        assert_eq!((begun, ended), (3, 3));
    }
}
