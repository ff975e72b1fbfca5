//! Bodies that the service sees as they stream: each has a task that talks to the service and hands on what comes of it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::{sync::mpsc, task::JoinHandle};
use xds_protos::envoy::{
    extensions::filters::http::ext_proc::v3::ProcessingMode,
    service::ext_proc::v3::{
        BodyResponse, CommonResponse, ProcessingResponse, TrailersResponse, body_mutation::Mutation,
        processing_response::Response,
    },
};

use super::{
    message, mutation,
    session::{Lane, Session, Stop, broken},
};
use crate::{
    extensions::filters::http::view::View,
    http::{Body, BodyError},
};

/// Frames that wait for a reader.
const FRAMES: usize = 4;

type Frames = mpsc::Sender<Result<Frame<Bytes>, BodyError>>;

/// Trailers that were sent to the service, until they are handed on.
pub(super) type Kept = Rc<RefCell<Option<HeaderMap>>>;

/// A task that ends with whoever holds it.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(task))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a task hands on.
struct TaskBody {
    frames: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
    _tasks: Vec<Task>,
}

impl HttpBody for TaskBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().frames.poll_recv(cx)
    }
}

/// One direction of a stream, as its task has it.
pub(super) struct Side {
    pub session: Rc<Session>,
    pub lane: Lane,
    pub mode: ProcessingMode,
    pub request: bool,
    pub trailers: bool,
    /// The body comes over HTTP/1, whose end is a message of its own, as in Envoy.
    pub http1: bool,
}

impl Side {
    /// `inner` as the service changes it, part by part (`STREAMED`); with `parts` false only its trailers.
    pub fn streamed(self, inner: Body, parts: bool) -> Body {
        body_of(
            |frames| async move { self.stream(inner, parts, &frames).await },
            Vec::new(),
        )
    }

    /// What the service makes of the body that `uploader` sends it (`FULL_DUPLEX_STREAMED`).
    pub fn duplex(self, uploader: Task, kept: Kept) -> Body {
        body_of(
            |frames| async move { self.download(&kept, &frames).await },
            vec![uploader],
        )
    }

    async fn stream(mut self, mut inner: Body, parts: bool, frames: &Frames) {
        let mut ended = false;
        loop {
            let frame = match inner.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let _ = frames.send(Err(error)).await;
                    return;
                }
                // The end came after the last byte.
                None if parts && !ended => Frame::data(Bytes::new()),
                None => return,
            };
            let result = match frame.into_data() {
                Ok(data) if parts => {
                    ended = (inner.is_end_stream() && !self.http1) || data.is_empty();
                    self.part(data.clone(), ended)
                        .await
                        .map_or_else(|stop| Err((stop, Frame::data(data))), |b| Ok(Frame::data(b)))
                }
                Ok(data) => Ok(Frame::data(data)),
                Err(frame) => {
                    ended = true;
                    match frame.into_trailers() {
                        Ok(trailers) => {
                            let original = trailers.clone();
                            self.last(trailers).await.map_or_else(
                                |stop| Err((stop, Frame::trailers(original))),
                                |t| Ok(Frame::trailers(t)),
                            )
                        }
                        Err(_) => continue,
                    }
                }
            };
            match result {
                Ok(frame) => {
                    let empty = frame.data_ref().is_some_and(Bytes::is_empty);
                    if !empty && frames.send(Ok(frame)).await.is_err() {
                        return;
                    }
                    if ended && empty {
                        return;
                    }
                }
                Err((Stop::Ignore, frame)) => {
                    if frames.send(Ok(frame)).await.is_ok() {
                        pass(inner, frames).await;
                    }
                    return;
                }
                Err((Stop::Reply(reply), _)) => {
                    self.give_up(Stop::Reply(reply), frames).await;
                    return;
                }
            }
        }
    }

    async fn part(&mut self, data: Bytes, end: bool) -> Result<Bytes, Stop> {
        let session = self.session.clone();
        let request = message::body(&data, self.request, end);
        let answer = session
            .exchange(&mut self.lane, message::message(&session, &self.mode, request))
            .await?;
        if session.config.observability {
            return Ok(data);
        }
        let common = self.body_answer(answer)?;
        session.counted();
        Ok(mutation::body(common.body_mutation).map_or(data, Bytes::from))
    }

    async fn last(&mut self, mut trailers: HeaderMap) -> Result<HeaderMap, Stop> {
        if !self.trailers {
            return Ok(trailers);
        }
        let session = self.session.clone();
        let request = message::trailers(&mut trailers, self.request, &session.config.forward);
        let answer = session
            .exchange(&mut self.lane, message::message(&session, &self.mode, request))
            .await?;
        if !session.config.observability {
            change_trailers(&session, self.request, answer, &mut trailers)?;
        }
        Ok(trailers)
    }

    fn body_answer(&self, answer: ProcessingResponse) -> Result<CommonResponse, Stop> {
        body_answer(&self.session, self.request, answer)
    }

    async fn download(mut self, kept: &Kept, frames: &Frames) {
        let session = self.session.clone();
        loop {
            let stop = match session.receive(&mut self.lane).await {
                Ok(answer) => match self.received(answer, kept) {
                    Ok((frame, end)) => {
                        let empty = frame.data_ref().is_some_and(Bytes::is_empty);
                        if (!empty && frames.send(Ok(frame)).await.is_err()) || end {
                            return;
                        }
                        continue;
                    }
                    Err(stop) => stop,
                },
                Err(stop) => stop,
            };
            self.give_up(stop, frames).await;
            return;
        }
    }

    /// What an answer hands on, and whether it is the last.
    fn received(&self, answer: ProcessingResponse, kept: &Kept) -> Result<(Frame<Bytes>, bool), Stop> {
        let session = &self.session;
        let trailers = matches!(
            answer.response,
            Some(Response::RequestTrailers(_) | Response::ResponseTrailers(_))
        );
        if trailers {
            let mut trailers = kept.take().ok_or_else(|| session.spurious("spurious message"))?;
            change_trailers(session, self.request, answer, &mut trailers)?;
            return Ok((Frame::trailers(trailers), true));
        }
        let common = self.body_answer(answer)?;
        match common.body_mutation.and_then(|m| m.mutation) {
            Some(Mutation::StreamedResponse(part)) => {
                session.counted();
                Ok((Frame::data(part.body.into()), part.end_of_stream))
            }
            _ => Err(session.spurious(
                "spurious message: Normal body mutation response is received while body_mode_ is FULL_DUPLEX_STREAMED",
            )),
        }
    }

    /// The stream cannot go on: the client is answered if it can be, and the body breaks off.
    async fn give_up(&self, stop: Stop, frames: &Frames) {
        if let (Stop::Reply(reply), true) = (stop, self.request) {
            self.session.progress.interrupt.reply(*reply);
        }
        let _ = frames.send(Err(broken())).await;
    }
}

fn body_of<F: Future<Output = ()> + 'static>(task: impl FnOnce(Frames) -> F, mut tasks: Vec<Task>) -> Body {
    let (sender, frames) = mpsc::channel(FRAMES);
    tasks.push(Task::spawn(task(sender)));
    Body::boxed(TaskBody { frames, _tasks: tasks })
}

/// Hands on a body as it is.
async fn pass(mut inner: Body, frames: &Frames) {
    while let Some(frame) = inner.frame().await {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Sends a body to the service as it comes, with its trailers. `of`: whether it is the request's, and comes over HTTP/1.
pub(super) async fn upload(session: Rc<Session>, mode: ProcessingMode, of: (bool, bool), mut inner: Body, kept: Kept) {
    let (request, http1) = of;
    let mut ended = false;
    loop {
        let part = match inner.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    ended = inner.is_end_stream() && !http1;
                    message::body(&data, request, ended)
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else {
                        continue;
                    };
                    ended = true;
                    let part = message::trailers(&mut trailers, request, &session.config.forward);
                    *kept.borrow_mut() = Some(trailers);
                    part
                }
            },
            None if !ended => {
                ended = true;
                message::body(&[], request, true)
            }
            // The other side's bodies end by themselves; there is nobody to tell of one that broke.
            None | Some(Err(_)) => return,
        };
        session.send(message::message(&session, &mode, part)).await;
        if ended {
            return;
        }
    }
}

/// The answer to a body.
pub(super) fn body_answer(
    session: &Session,
    request: bool,
    answer: ProcessingResponse,
) -> Result<CommonResponse, Stop> {
    if let Some(metadata) = answer.dynamic_metadata {
        session.late.borrow_mut().push(metadata);
    }
    match answer.response {
        Some(Response::RequestBody(BodyResponse { response })) if request => Ok(response.unwrap_or_default()),
        Some(Response::ResponseBody(BodyResponse { response })) if !request => Ok(response.unwrap_or_default()),
        _ => Err(session.spurious("spurious message")),
    }
}

/// Changes trailers as the service has answered.
pub(super) fn change_trailers(
    session: &Session,
    request: bool,
    answer: ProcessingResponse,
    trailers: &mut HeaderMap,
) -> Result<(), Stop> {
    if let Some(metadata) = answer.dynamic_metadata {
        session.late.borrow_mut().push(metadata);
    }
    let mutation = match answer.response {
        Some(Response::RequestTrailers(TrailersResponse { header_mutation })) if request => header_mutation,
        Some(Response::ResponseTrailers(TrailersResponse { header_mutation })) if !request => header_mutation,
        _ => return Err(session.spurious("spurious message")),
    };
    if let Some(mutation) = mutation {
        let rejected = || session.config.stats.local().rejected_header_mutations.inc();
        mutation::headers(
            &mutation,
            View::trailers(trailers),
            &session.config.rules,
            false,
            false,
            rejected,
        )
        .map_err(|why| session.invalid(&why))?;
    }
    session.counted();
    Ok(())
}
