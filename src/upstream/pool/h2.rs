//! HTTP/2 connections, on the h2 library.
//!
//! [`drive`] is a connection's task; [`send`] a request over it, whose body is sent beside the response. What the
//! library keeps to itself is seen by the [`Observer`] under it.

mod body;
mod drive;
mod request;
mod stream;

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::Response;

use super::{
    UpstreamResponse,
    lease::{Hold, Informed, NotSent},
};
use crate::{
    http::{
        Body, RequestHead, ResponseHead,
        codec::http2::{Observer, Pump, Pumped},
    },
    upstream::UpstreamFailure,
};

use stream::{Outgoing, Phase, StreamGuard};

pub(super) use self::{body::ResponseBody, drive::drive};

/// What requests are sent through; one for all streams of a connection.
#[derive(Clone)]
pub(super) struct Sender {
    requests: SendRequest<Bytes>,
    link: Rc<Link>,
}

/// What a connection's task and its streams share.
struct Link {
    seen: Rc<Observer>,
    /// The task has ended, or ends.
    closed: Cell<bool>,
    /// When the upstream last sent a frame.
    last_read: Cell<Instant>,
    /// A PING goes out ahead of the next stream.
    ping: Cell<bool>,
    /// `connection_idle_interval` asks for it.
    watched: bool,
}

impl Sender {
    /// No further request may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.link.closed.get() || self.link.seen.goaway().is_some()
    }
}

/// Sends a request and waits for the head of its response. With `only_tunnel` the stream is to be a tunnel, whatever the
/// method: an answer that opens none is a failure.
pub(super) async fn send(
    hold: Hold,
    sender: Sender,
    head: RequestHead,
    body: Body,
    informed: Informed<'_>,
    only_tunnel: bool,
) -> Result<UpstreamResponse, NotSent> {
    let mut guard = StreamGuard {
        hold: Some(hold),
        phase: Phase::Unsent,
        outgoing: None,
    };
    let Sender { mut requests, link } = sender;
    if link.watched {
        link.ping.set(true);
    }
    if poll_fn(|cx| requests.poll_ready(cx)).await.is_err() {
        return Err(NotSent::Unsent(Box::new((head, body))));
    }
    let upgrade = match only_tunnel {
        true => None,
        false => request::upgrade_of(&head),
    };
    let tunnels = only_tunnel || upgrade.is_some() || head.method == http::Method::CONNECT;
    let ends = !tunnels && http_body::Body::is_end_stream(&body);
    let request = match &guard.hold {
        Some(hold) => request::of(head, upgrade.as_ref(), &hold.pool),
        None => return Err(UpstreamFailure::ConnectionTermination.into()),
    };
    guard.phase = Phase::InFlight;
    let (mut response, stream) = match requests.send_request(request, ends) {
        Ok(sent) => sent,
        Err(error) => return Err(guard.fail(UpstreamFailure::of_http2(&error)).into()),
    };
    drop(requests);
    let outgoing = Outgoing::new(stream, ends);
    let (stream, sent) = (outgoing.stream.clone(), outgoing.sent.clone());
    guard.outgoing = Some(outgoing);
    if tunnels {
        let head = poll_fn(|cx| poll_head(&mut response, informed, cx)).await;
        let head = head.map_err(|error| guard.fail_with(&error))?;
        guard.outgoing = None;
        let Some(stream) = Rc::into_inner(stream) else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        return guard.tunnel(head, stream.into_inner(), upgrade, only_tunnel);
    }
    if ends {
        let head = poll_fn(|cx| poll_head(&mut response, informed, cx)).await;
        let head = head.map_err(|error| guard.fail_with(&error))?;
        return guard.response(head);
    }
    // The body and the response go their own ways.
    let mut body = body;
    let mut pump = Pump::new(None);
    let mut pumping = true;
    let head = poll_fn(|cx| {
        if pumping {
            match pump.poll(cx, &mut stream.borrow_mut(), &mut body) {
                Poll::Ready(Pumped::Broken) => return Poll::Ready(Err(None)),
                Poll::Ready(pumped) => {
                    pumping = false;
                    sent.set(pumped == Pumped::Sent);
                }
                Poll::Pending => {}
            }
        }
        poll_head(&mut response, informed, cx).map_err(Some)
    })
    .await;
    let head = match head {
        Ok(head) => head,
        Err(Some(error)) => return Err(guard.fail_with(&error)),
        Err(None) => {
            stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
            let failure = UpstreamFailure::RequestBody("the request broke off".into());
            return Err(guard.fail(failure).into());
        }
    };
    if pumping && let Some(outgoing) = &mut guard.outgoing {
        outgoing.rest = Some(tokio::task::spawn_local(async move {
            let pumped = poll_fn(|cx| pump.poll(cx, &mut stream.borrow_mut(), &mut body)).await;
            match pumped {
                Pumped::Broken => stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR),
                pumped => sent.set(pumped == Pumped::Sent),
            }
        }));
    }
    guard.response(head)
}

fn poll_head(
    response: &mut ResponseFuture,
    informed: &mut (impl FnMut(ResponseHead) + ?Sized),
    cx: &mut Context<'_>,
) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        informed(head_of(interim.into_parts().0));
    }
    Pin::new(response).poll(cx)
}

fn head_of(parts: http::response::Parts) -> ResponseHead {
    ResponseHead {
        status: parts.status,
        version: http::Version::HTTP_2,
        headers: parts.headers,
        spelling: None,
    }
}

/// A lease was dropped without a request.
pub(super) fn unused(hold: Hold) {
    drop(StreamGuard {
        hold: Some(hold),
        phase: Phase::Unsent,
        outgoing: None,
    });
}
