//! A request body that can be sent again: what was read is kept, up to a limit, while it streams.
//!
//! Memory: at most `limit` bytes per request. Past it the copy is given up, and with it retries
//! (`retry_or_shadow_abandoned`); the attempt that runs goes on unharmed.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    http::{Body, BodyError},
    stats::Stats,
    upstream::ClusterStats,
};

struct Shared {
    inner: Body,
    chunks: Vec<Bytes>,
    kept: u64,
    limit: u64,
    trailers: Option<HeaderMap>,
    complete: bool,
    abandoned: bool,
    stats: Stats<ClusterStats>,
}

/// The keeper of a body; hands out one copy per attempt.
#[derive(Clone)]
pub(super) struct Replay(Rc<RefCell<Shared>>);

impl Replay {
    /// Giving the copy up counts in `stats`.
    pub(super) fn new(inner: Body, limit: u64, stats: Stats<ClusterStats>) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            complete: inner.is_end_stream(),
            inner,
            chunks: Vec::new(),
            kept: 0,
            limit,
            trailers: None,
            abandoned: false,
            stats,
        })))
    }

    /// A body that starts from the first byte. Only one copy may be read at a time.
    pub(super) fn body(&self) -> Body {
        Body::boxed(ReplayBody {
            shared: self.0.clone(),
            at: 0,
            trailers_sent: false,
        })
    }

    /// The copy was given up: no other attempt can be made.
    pub(super) fn abandoned(&self) -> bool {
        self.0.borrow().abandoned
    }
}

struct ReplayBody {
    shared: Rc<RefCell<Shared>>,
    at: usize,
    trailers_sent: bool,
}

impl HttpBody for ReplayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut shared = this.shared.borrow_mut();
        if let Some(chunk) = shared.chunks.get(this.at) {
            this.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if shared.complete {
            return Poll::Ready(match shared.trailers.clone() {
                Some(trailers) if !std::mem::replace(&mut this.trailers_sent, true) => {
                    Some(Ok(Frame::trailers(trailers)))
                }
                _ => None,
            });
        }
        let frame = std::task::ready!(Pin::new(&mut shared.inner).poll_frame(cx));
        match frame {
            None => {
                shared.complete = true;
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if !shared.abandoned {
                        shared.kept += data.len() as u64;
                        if shared.kept > shared.limit {
                            shared.abandoned = true;
                            shared.stats.local().retry_or_shadow_abandoned.inc();
                            shared.chunks = Vec::new();
                        } else {
                            let data = data.clone();
                            shared.chunks.push(data);
                            this.at += 1;
                        }
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    this.trailers_sent = true;
                }
                if shared.inner.is_end_stream() {
                    shared.complete = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(e)) => Poll::Ready(Some(Err(e))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.complete && self.at >= shared.chunks.len() && (shared.trailers.is_none() || self.trailers_sent)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        if shared.abandoned {
            return shared.inner.size_hint();
        }
        let left: u64 = shared.chunks.iter().skip(self.at).map(|c| c.len() as u64).sum();
        if shared.complete {
            return SizeHint::with_exact(left);
        }
        match shared.inner.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(left + rest),
            None => SizeHint::new(),
        }
    }
}
