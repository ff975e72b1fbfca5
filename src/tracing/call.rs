//! The span of a call that the proxy makes by itself on behalf of a request: authorization, rate limits and the like.

use std::time::Duration;

use http::{HeaderMap, Version};
use tonic::{Response, Status};

use super::{
    Relation, Span,
    span::Direction,
    tags::{self, ERROR, GRPC_STATUS, UPSTREAM_ADDRESS, UPSTREAM_CLUSTER},
};
use crate::net::Address;

/// A call's span, or nothing where nobody traces. It ends when it is dropped.
pub struct CallSpan(Option<Span>);

/// As in Envoy, a call of the proxy's own goes out, whichever way the request goes.
const OUT: Relation = Relation {
    direction: Direction::Egress,
    independent: false,
};

impl CallSpan {
    /// A gRPC call of `method` (`package.Service.Method`) over `cluster`; `authority` is what it is asked by.
    pub fn grpc(parent: Option<&Span>, method: &str, cluster: &str, authority: &str) -> Self {
        let span = parent.map(|span| span.child(&format!("async {method} egress"), OUT));
        if let Some(span) = &span {
            span.set_tag(UPSTREAM_CLUSTER, cluster);
            span.set_tag(UPSTREAM_ADDRESS, authority);
            span.set_tag("component", "proxy");
        }
        Self(span)
    }

    /// An HTTP request over `cluster`.
    pub fn http(parent: Option<&Span>, cluster: &str) -> Self {
        Self::named(parent, || format!("async {cluster} egress"), cluster, cluster)
    }

    /// A copy of a request; `observed` is the cluster's name for statistics.
    pub fn mirror(parent: Option<&Span>, cluster: &str, observed: &str) -> Self {
        Self::named(parent, || "mirror".to_owned(), cluster, observed)
    }

    fn named(parent: Option<&Span>, name: impl FnOnce() -> String, cluster: &str, observed: &str) -> Self {
        let span = parent.map(|span| span.child(&name(), OUT));
        if let Some(span) = &span {
            span.set_tag(UPSTREAM_CLUSTER, cluster);
            span.set_tag("upstream_cluster.name", observed);
            span.set_tag("component", "proxy");
        }
        Self(span)
    }

    /// It is told of, and not reported.
    #[must_use]
    pub fn silent_if(self, silent: bool) -> Self {
        if let Some(span) = self.0.as_ref().filter(|_| silent) {
            span.set_sampled(false);
        }
        self
    }

    /// Tells the service of it.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.0 {
            span.inject(headers);
        }
    }

    /// Sets a tag.
    pub fn tag(&self, name: &'static str, value: impl Into<String>) {
        if let Some(span) = &self.0 {
            span.set_tag(name, value);
        }
    }

    /// This side has ended it.
    pub fn canceled(&self) {
        self.tag("status", "canceled");
    }

    /// The answer of a gRPC call and its status; none when there is none within `limit`, or an error.
    pub async fn answer_of<T>(
        &self,
        limit: Option<Duration>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<T> {
        let answer = match limit {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
        };
        self.grpc_status(answer.as_ref().err().map_or(0, |status| status.code() as i32));
        answer.ok().map(Response::into_inner)
    }

    /// How a gRPC call ended; `code` is its status.
    pub fn grpc_status(&self, code: i32) {
        self.tag(GRPC_STATUS, code.to_string());
        if code != 0 {
            self.tag(ERROR, "true");
        }
    }

    /// What came of an HTTP request: its status, and who answered in which protocol.
    pub fn http_answer(&self, status: u16, protocol: Version, address: &Address) {
        if self.0.is_none() {
            return;
        }
        self.tag("http.protocol", tags::protocol(Some(protocol)));
        self.tag(tags::HTTP_STATUS, status.to_string());
        self.tag("response_flags", "-");
        self.tag(UPSTREAM_ADDRESS, address.to_string());
        self.tag(tags::PEER_ADDRESS, address.to_string());
        if status >= 500 {
            self.tag(ERROR, "true");
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if let Some(span) = &self.0 {
            span.finish();
        }
    }
}
