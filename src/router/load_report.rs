//! Load that backends report in the trailers of their responses (ORCA), where their heads say nothing.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    http::{Body, BodyError},
    upstream::{Host, WorkerCluster},
};

struct Reporting {
    inner: Body,
    cluster: Rc<WorkerCluster>,
    host: Arc<Host>,
}

/// Looks into the trailers of `body`, if the cluster's policy wants reports.
pub(super) fn in_trailers(body: Body, cluster: &Rc<WorkerCluster>, host: &Arc<Host>) -> Body {
    if !cluster.wants_load_reports() || matches!(body, Body::Empty) {
        return body;
    }
    Body::boxed(Reporting {
        inner: body,
        cluster: cluster.clone(),
        host: host.clone(),
    })
}

impl HttpBody for Reporting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.cluster.load_report(&this.host, trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
