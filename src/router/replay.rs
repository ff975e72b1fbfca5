//! A request body that can be sent again: what was read is kept, up to a limit, while it streams.
//!
//! Memory: at most `limit` bytes per request. Past it the copy is given up, and with it retries
//! (`retry_or_shadow_abandoned`); the attempt that runs goes on unharmed.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
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
    readers: Arc<Readers>,
}

/// Everyone who waits for more of the body: attempts that run beside each other read the same one.
#[derive(Default)]
struct Readers(Mutex<Vec<Waker>>);

impl Readers {
    fn add(&self, waker: &Waker) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

impl Wake for Readers {
    fn wake(self: Arc<Self>) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// How keeping ahead of the readers ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// With the end of the body, or its failure.
    Ended,
    /// It is too large to be kept.
    Outgrown,
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
            readers: Arc::default(),
        })))
    }

    /// A body that starts from the first byte.
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

    /// Reads ahead of the readers, as far as that can be kept.
    pub(super) async fn fill(&self) -> Filled {
        poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            loop {
                if shared.abandoned {
                    return Poll::Ready(Filled::Outgrown);
                }
                if shared.complete {
                    return Poll::Ready(Filled::Ended);
                }
                match std::task::ready!(shared.poll_inner(cx)) {
                    Some(Ok(frame)) => {
                        // Whoever reads finds it among the chunks, also the one that was too many.
                        if let (true, Ok(data)) = (shared.abandoned, frame.into_data()) {
                            shared.chunks.push(data);
                        }
                    }
                    None | Some(Err(_)) => return Poll::Ready(Filled::Ended),
                }
            }
        })
        .await
    }
}

impl Shared {
    /// The next frame of the body itself, kept for those to come.
    fn poll_inner(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.readers.add(cx.waker());
        let everyone = Waker::from(self.readers.clone());
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(&mut Context::from_waker(&everyone)));
        match &frame {
            None => self.complete = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                if self.inner.is_end_stream() {
                    self.complete = true;
                }
            }
            Some(Err(_)) => {}
        }
        everyone.wake();
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &Bytes) {
        if self.abandoned {
            return;
        }
        self.kept += data.len() as u64;
        if self.kept > self.limit {
            self.abandoned = true;
            self.stats.local().retry_or_shadow_abandoned.inc();
        } else {
            self.chunks.push(data.clone());
        }
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
        let abandoned = shared.abandoned;
        if let Some(chunk) = shared.chunks.get_mut(this.at) {
            this.at += 1;
            // Nobody comes after this reader any more.
            let chunk = if abandoned {
                std::mem::take(chunk)
            } else {
                chunk.clone()
            };
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if shared.complete {
            return Poll::Ready(match shared.trailers.clone() {
                Some(trailers) if !std::mem::replace(&mut this.trailers_sent, true) => {
                    Some(Ok(Frame::trailers(trailers)))
                }
                _ => None,
            });
        }
        let frame = std::task::ready!(shared.poll_inner(cx));
        if let Some(Ok(frame)) = &frame {
            if frame.is_trailers() {
                this.trailers_sent = true;
            } else if !shared.abandoned {
                this.at += 1;
            } else if !abandoned {
                // Given up with this very frame: what was read before it is in nobody's way.
                shared.chunks = Vec::new();
                this.at = 0;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.complete && self.at >= shared.chunks.len() && (shared.trailers.is_none() || self.trailers_sent)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
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

#[cfg(test)]
mod tests;
