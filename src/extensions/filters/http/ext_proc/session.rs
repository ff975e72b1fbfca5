//! The gRPC stream of one HTTP stream, and its messages.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{StatusCode, uri::PathAndQuery};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;
use xds_protos::{
    envoy::service::ext_proc::v3::{
        ImmediateResponse, ProcessingRequest, ProcessingResponse, processing_response::Response,
    },
    google::protobuf::Struct,
};

use super::{
    config::{Config, Settings, status},
    mutation,
};
use crate::{
    config::duration,
    extensions::{filters::http::view::View, grpc_service::add_metadata},
    http::{LocalReply, ResponseHead, filter::FilterCx, stream_info::Progress},
    upstream::client::{ChannelError, ClusterChannel},
};

const METHOD: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// The same as spans are named.
const CALL: &str = "envoy.service.ext_proc.v3.ExternalProcessor.Process";

/// Messages that wait for a service that does not read.
const MESSAGES: usize = 8;

/// Why there is no answer, or none that is of use.
pub(super) enum Stop {
    /// The service is not asked any more: the stream goes on without it.
    Ignore,
    /// The stream is answered.
    Reply(Box<LocalReply>),
}

/// How a stream broke.
struct Failure {
    code: i32,
    message: String,
    /// There was nobody to open it to.
    nobody: bool,
}

impl Failure {
    /// With the details that Envoy adds to a status.
    fn new(status: &Status) -> Self {
        use std::error::Error as _;
        let unavailable = Code::Unavailable as i32;
        let nobody = |message: &str| Self {
            code: unavailable,
            message: message.to_owned(),
            nobody: true,
        };
        match status.source().and_then(|e| e.downcast_ref::<ChannelError>()) {
            Some(ChannelError::UnknownCluster(_)) => nobody("Cluster not available"),
            Some(ChannelError::NoHealthyUpstream(_)) => nobody("no healthy upstream{no_healthy_upstream}"),
            Some(ChannelError::Upstream(text)) => {
                let (reason, detail) = text.split_once(": ").unwrap_or((text, ""));
                let details = match detail {
                    "" => reason.to_owned(),
                    detail => format!("{reason}|{detail}"),
                };
                let details = details.replace(' ', "_");
                Self {
                    code: unavailable,
                    message: format!(
                        "upstream connect error or disconnect/reset before headers. reset reason: \
                         {reason}{{upstream_reset_before_response_started{{{details}}}}}"
                    ),
                    nobody: false,
                }
            }
            _ => Self {
                code: status.code() as i32,
                message: match status.message() {
                    "" => "via_upstream".to_owned(),
                    text if text.starts_with("grpc-status header missing") => "via_upstream".to_owned(),
                    text => format!("{text}{{via_upstream}}"),
                },
                nobody: false,
            },
        }
    }
}

/// A lane that waits, as long as this lives.
struct Waits<'a>(&'a Cell<bool>);

impl<'a> Waits<'a> {
    fn new(session: &'a Session, index: usize) -> Self {
        let [request, response] = &session.waiting;
        let flag = if index == 0 { request } else { response };
        flag.set(true);
        Self(flag)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// One direction's end of the stream.
pub(super) struct Lane {
    index: usize,
    answers: mpsc::UnboundedReceiver<ProcessingResponse>,
}

/// A stream to the service, shared by both directions.
pub(super) struct Session {
    pub config: Arc<Config>,
    pub settings: Arc<Settings>,
    pub progress: Rc<Progress>,
    messages: RefCell<Option<mpsc::Sender<ProcessingRequest>>>,
    /// How the stream ended, for the lanes that still wait.
    end: RefCell<Option<Result<(), Failure>>>,
    /// Nothing more is asked.
    pub complete: Cell<bool>,
    /// Whether the request's and the response's lane wait for an answer: what is for neither goes to the one that does.
    waiting: [Cell<bool>; 2],
    /// The stream was counted as opened.
    started: Cell<bool>,
    /// The first message says what is to be expected.
    pub first: Cell<bool>,
    /// Metadata of answers to bodies: for the filter to take over when it can.
    pub late: RefCell<Vec<Struct>>,
}

impl Session {
    /// Opens a stream.
    pub fn open(
        config: Arc<Config>,
        settings: Arc<Settings>,
        cx: &FilterCx,
        progress: Rc<Progress>,
    ) -> (Rc<Self>, Lane, Lane) {
        let (messages, outgoing) = mpsc::channel(MESSAGES);
        let (to_request, request) = mpsc::unbounded_channel();
        let (to_response, response) = mpsc::unbounded_channel();
        let session = Rc::new(Self {
            progress,
            messages: RefCell::new(Some(messages)),
            end: RefCell::default(),
            complete: Cell::new(false),
            waiting: Default::default(),
            started: Cell::new(false),
            first: Cell::new(true),
            late: RefCell::default(),
            config,
            settings,
        });
        let service = session.settings.service.clone();
        let channel = service.channel(cx.worker.clone());
        let mut call = service.request(ReceiverStream::new(outgoing), None);
        add_metadata(call.metadata_mut(), &session.settings.initial_metadata);
        let span = service.span(cx.span.as_ref(), CALL, &mut call, session.settings.silent);
        let (limit, known) = (service.max_message, Rc::downgrade(&session));
        tokio::task::spawn_local(async move {
            let read = read(channel, call, limit, |answer| {
                let Some(session) = known.upgrade() else {
                    return false;
                };
                let of_response = matches!(
                    answer.response,
                    Some(Response::ResponseHeaders(_) | Response::ResponseBody(_) | Response::ResponseTrailers(_))
                );
                let of_request = matches!(
                    answer.response,
                    Some(Response::RequestHeaders(_) | Response::RequestBody(_) | Response::RequestTrailers(_))
                );
                session.start();
                let [request, response] = session.waiting.each_ref().map(Cell::get);
                // An answer that is not due is the business of the lane that waits for another.
                let _ = match (of_response, request, response) {
                    (true, true, false) => to_request.send(answer),
                    (true, ..) => to_response.send(answer),
                    (false, false, true) => to_response.send(answer),
                    (false, _, true) if !of_request => to_response.send(answer),
                    (false, ..) => to_request.send(answer),
                };
                true
            });
            let end = read.await;
            if known
                .upgrade()
                .is_none_or(|session| session.messages.borrow().is_none())
            {
                // This side was done first.
                span.canceled();
            } else {
                span.grpc_status(end.as_ref().err().map_or(0, |status| status.code() as i32));
            }
            if let Some(session) = known.upgrade() {
                // The lanes see that their senders are gone, and look here.
                *session.end.borrow_mut() = Some(end.map_err(|status| Failure::new(&status)));
            }
        });
        let lane = |index, answers| Lane { index, answers };
        (session, lane(0, request), lane(1, response))
    }

    /// Sends a message; nobody hears it when the stream is gone.
    pub async fn send(&self, message: ProcessingRequest) {
        let messages = self.messages.borrow().clone();
        if let Some(messages) = messages {
            self.config.stats.local().stream_msgs_sent.inc();
            let _ = messages.send(message).await;
        }
    }

    /// Sends a message and waits for its answer, as long as a message may take.
    pub async fn exchange(&self, lane: &mut Lane, message: ProcessingRequest) -> Result<ProcessingResponse, Stop> {
        if self.complete.get() {
            return Err(Stop::Ignore);
        }
        self.send(message).await;
        if self.config.observability {
            return Ok(ProcessingResponse::default());
        }
        let mut due = Instant::now() + self.config.message_timeout;
        let mut asked = false;
        loop {
            let _waits = Waits::new(self, lane.index);
            let Ok(answer) = timeout_at(due, lane.answers.recv()).await else {
                return Err(self.timed_out());
            };
            let answer = self.received(answer)?;
            match &answer.override_message_timeout {
                None => return Ok(answer),
                Some(more) => {
                    let stats = self.config.stats.local();
                    let more = duration(more);
                    let allowed = more >= Duration::from_millis(1) && more <= self.config.max_message_timeout;
                    if allowed && !std::mem::replace(&mut asked, true) {
                        stats.override_message_timeout_received.inc();
                        due = Instant::now() + more;
                    } else {
                        stats.override_message_timeout_ignored.inc();
                    }
                }
            }
        }
    }

    /// The next answer, however long it takes (`FULL_DUPLEX_STREAMED`).
    pub async fn receive(&self, lane: &mut Lane) -> Result<ProcessingResponse, Stop> {
        let _waits = Waits::new(self, lane.index);
        let answer = lane.answers.recv().await;
        self.received(answer)
    }

    fn received(&self, answer: Option<ProcessingResponse>) -> Result<ProcessingResponse, Stop> {
        let Some(answer) = answer else {
            return Err(self.ended());
        };
        let Some(Response::ImmediateResponse(immediate)) = answer.response else {
            return Ok(answer);
        };
        if self.config.disable_immediate_response {
            return Err(self.spurious("unhandled immediate response due to config disabled it"));
        }
        self.counted();
        self.config.stats.local().immediate_responses_sent.inc();
        if let Some(metadata) = answer.dynamic_metadata {
            self.late.borrow_mut().push(metadata);
        }
        self.close();
        Err(Stop::Reply(Box::new(self.immediate(immediate))))
    }

    /// Counts the stream, once it is known to be one.
    fn start(&self) {
        if !self.started.replace(true) {
            self.config.stats.local().streams_started.inc();
        }
    }

    /// Counts an answer that was due.
    pub fn counted(&self) {
        if !self.config.observability {
            self.config.stats.local().stream_msgs_received.inc();
        }
    }

    /// The stream is over, as far as this side is concerned.
    pub fn close(&self) {
        self.complete.set(true);
        if !matches!(&*self.end.borrow(), Some(Err(failure)) if failure.nobody) {
            self.start();
        }
        if self.messages.take().is_some() && self.end.borrow().is_none() {
            self.config.stats.local().streams_closed.inc();
        }
    }

    /// An answer that was not due.
    pub fn spurious(&self, why: &str) -> Stop {
        let stats = self.config.stats.local();
        stats.spurious_msgs_received.inc();
        self.close();
        match self.settings.failure_mode_allow {
            true => {
                stats.failure_mode_allowed.inc();
                Stop::Ignore
            }
            false => self.error(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }

    /// An answer that cannot be carried out.
    pub fn invalid(&self, why: &str) -> Stop {
        self.counted();
        self.close();
        self.error(StatusCode::INTERNAL_SERVER_ERROR, why)
    }

    fn timed_out(&self) -> Stop {
        let stats = self.config.stats.local();
        stats.message_timeouts.inc();
        self.close();
        match self.settings.failure_mode_allow {
            true => {
                stats.failure_mode_allowed.inc();
                Stop::Ignore
            }
            false => self.error(
                StatusCode::GATEWAY_TIMEOUT,
                "ext_proc_error_per-message_timeout_exceeded",
            ),
        }
    }

    /// What the end of the stream means to whoever waited for an answer.
    fn ended(&self) -> Stop {
        let stats = self.config.stats.local();
        let failure = match self.end.borrow().as_ref() {
            Some(Err(failure)) => Some((failure.code, failure.message.clone(), failure.nobody)),
            _ => None,
        };
        if !failure.as_ref().is_some_and(|(.., nobody)| *nobody) {
            self.start();
        }
        let first = !self.complete.replace(true);
        self.messages.take();
        let Some((code, message, _)) = failure else {
            if first {
                stats.streams_closed.inc();
            }
            return Stop::Ignore;
        };
        if first {
            stats.streams_failed.inc();
        }
        if self.settings.failure_mode_allow {
            if first {
                stats.streams_closed.inc();
                stats.failure_mode_allowed.inc();
            }
            return Stop::Ignore;
        }
        if first {
            stats.streams_closed.inc();
        }
        let details = format!("ext_proc_error_gRPC_error_{code}{{{message}}}");
        self.error(self.config.status_on_error, &details)
    }

    fn error(&self, status: StatusCode, details: &str) -> Stop {
        self.config.stats.local().immediate_responses_sent.inc();
        Stop::Reply(Box::new(LocalReply::new(status, "", without_spaces(details))))
    }

    fn immediate(&self, response: ImmediateResponse) -> LocalReply {
        let ImmediateResponse {
            status: code,
            headers,
            body,
            grpc_status,
            details,
        } = response;
        let code = code.and_then(|s| status(s.code)).unwrap_or(StatusCode::OK);
        let mut reply = LocalReply::new(code, body, without_spaces(&details));
        reply.grpc_status = grpc_status.map(|s| s.status);
        if let Some(mutation) = headers {
            let mut head = ResponseHead::new(code);
            let rejected = || self.config.stats.local().rejected_header_mutations.inc();
            let view = View::response(&mut head);
            if let Err(error) = mutation::headers(&mutation, view, &self.config.rules, false, false, rejected) {
                tracing::debug!("immediate response mutations failed with {error}");
            }
            reply.headers = head.headers;
            reply.status = head.status;
        }
        reply
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

/// As response code details have it.
fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("_")
}

/// Reads answers until the stream ends, or nobody wants them.
async fn read(
    channel: ClusterChannel,
    call: Request<ReceiverStream<ProcessingRequest>>,
    limit: Option<usize>,
    mut take: impl FnMut(ProcessingResponse) -> bool,
) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    if let Some(limit) = limit {
        client = client.max_decoding_message_size(limit);
    }
    client.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
    let codec = ProstCodec::<ProcessingRequest, ProcessingResponse>::default();
    let response = client.streaming(call, PathAndQuery::from_static(METHOD), codec).await?;
    let mut answers = response.into_inner();
    while let Some(answer) = answers.message().await? {
        if !take(answer) {
            break;
        }
    }
    Ok(())
}

/// A body that is broken off.
pub(super) fn broken() -> crate::http::BodyError {
    crate::http::BodyError::Reset("ext_proc")
}
