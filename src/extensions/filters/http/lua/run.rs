//! Running a script on one direction of a stream: lending it the head, and giving it what it waits for.

use std::{mem, rc::Rc};

use http::StatusCode;
use http_body_util::BodyExt;
use mlua::{MultiValue, Thread, ThreadStatus};

use super::{
    body::ScriptBody,
    buffer::Buffer,
    handle::Handle,
    stream::{Head, Loan, Op, Stream, empty_request, empty_response},
    vm::Vm,
};
use crate::http::{
    Body, BodyError, LocalReply, RequestHead, ResponseHead,
    filter::FilterCx,
    hcm::{join_body, read_body},
};

/// Bytes of a body that a script may have as a whole: Envoy's default of a connection's buffer.
const BUFFER_LIMIT: u64 = 1024 * 1024;

/// The head of a stream, wherever it is kept.
pub(super) enum HeadMut<'a> {
    Request(&'a mut RequestHead),
    Response(&'a mut ResponseHead),
}

/// A script on a stream: started, and not done.
pub(super) struct Run {
    pub vm: Rc<Vm>,
    pub thread: Thread,
    pub stream: Rc<Stream>,
}

/// What came of a script that has the stream's body.
pub(super) enum Done {
    /// It has ended.
    Finished,
    /// It goes on with the body as it streams.
    Streams,
    /// It has answered, or the stream cannot go on.
    Reply(Box<LocalReply>),
}

impl Run {
    /// Starts the script's function for this direction. None: it has ended already.
    pub fn start(vm: Rc<Vm>, stream: Rc<Stream>, cx: &mut FilterCx, head: HeadMut<'_>) -> mlua::Result<Option<Self>> {
        let function = if stream.request {
            &vm.on_request
        } else {
            &vm.on_response
        };
        let Some(function) = function.clone() else {
            return Ok(None);
        };
        let handle = vm.lua.create_userdata(Handle(stream.clone()))?;
        let (thread, args) = vm.start(&function, handle)?;
        let run = Self { vm, thread, stream };
        run.resume(cx, head, args)?;
        Ok((run.thread.status() == ThreadStatus::Resumable).then_some(run))
    }

    /// The whole script, from where it waits, with the stream's body in hand.
    pub async fn finish(self, cx: &mut FilterCx, mut head: HeadMut<'_>, body: &mut Body) -> mlua::Result<Done> {
        let stream = self.stream.clone();
        let result = self.drive(cx, &mut head, body).await;
        stream.continued.set(true);
        // The body goes on whatever became of the script.
        put_back(&stream, body);
        result
    }

    async fn drive(self, cx: &mut FilterCx, head: &mut HeadMut<'_>, body: &mut Body) -> mlua::Result<Done> {
        let stream = &self.stream;
        loop {
            let op = stream.op.take();
            let args = match op {
                None if self.thread.status() == ThreadStatus::Resumable => return Err(unexpected_yield()),
                None => return Ok(Done::Finished),
                Some(Op::Respond(reply)) => return Ok(Done::Reply(reply)),
                Some(Op::Call(call)) => call.perform().await.push(&self.vm.lua)?,
                Some(Op::Body { always }) => {
                    match self.read(body).await {
                        Ok(()) => {}
                        Err(reply) => return Ok(Done::Reply(reply)),
                    }
                    self.body_value(always)?
                }
                Some(op @ (Op::Chunk | Op::Trailers)) => {
                    stream.continued.set(true);
                    stream.op.replace(Some(op));
                    let head = match head {
                        HeadMut::Request(head) => Head::Request(head.clone()),
                        HeadMut::Response(head) => Head::Response(head.clone()),
                    };
                    let loan = Loan {
                        head,
                        metadata: cx.info.metadata.clone(),
                        filter_state: cx.info.filter_state.clone(),
                    };
                    *body = Body::boxed(ScriptBody::new(mem::take(body), self, loan));
                    return Ok(Done::Streams);
                }
            };
            let head = match head {
                HeadMut::Request(head) => HeadMut::Request(head),
                HeadMut::Response(head) => HeadMut::Response(head),
            };
            self.resume(cx, head, args)?;
        }
    }

    /// Reads the whole body, and the trailers after it.
    async fn read(&self, body: &mut Body) -> Result<(), Box<LocalReply>> {
        let stream = &self.stream;
        let read = read_body(mem::take(body), BUFFER_LIMIT).await;
        let (bytes, trailers) = read.map_err(|error| Box::new(unreadable(stream.request, &error)))?;
        stream.ended.set(true);
        stream.saw_body.set(true);
        *stream.trailers.borrow_mut() = trailers;
        stream.body.replace((!bytes.is_empty()).then(|| Rc::new(bytes.into())));
        Ok(())
    }

    /// The body as a value for the script; nothing if there is none, unless it is always wanted.
    fn body_value(&self, always: bool) -> mlua::Result<MultiValue> {
        match Buffer::whole(&self.stream, always, self.stream.epoch.get() + 1) {
            Some(buffer) => {
                let buffer = self.vm.lua.create_userdata(buffer)?;
                Ok(MultiValue::from_iter([mlua::Value::UserData(buffer)]))
            }
            None => Ok(MultiValue::new()),
        }
    }

    /// Lends the script the stream until it waits or ends.
    fn resume(&self, cx: &mut FilterCx, head: HeadMut<'_>, args: MultiValue) -> mlua::Result<()> {
        let (lent, head) = match head {
            HeadMut::Request(head) => (
                Head::Request(mem::replace(head, empty_request())),
                HeadMut::Request(head),
            ),
            HeadMut::Response(head) => (
                Head::Response(mem::replace(head, empty_response())),
                HeadMut::Response(head),
            ),
        };
        let mut loan = Loan {
            head: lent,
            metadata: mem::take(&mut cx.info.metadata),
            filter_state: mem::take(&mut cx.info.filter_state),
        };
        let result = self.resume_with(&mut loan, args);
        match (loan.head, head) {
            (Head::Request(lent), HeadMut::Request(head)) => *head = lent,
            (Head::Response(lent), HeadMut::Response(head)) => *head = lent,
            _ => {}
        }
        cx.info.metadata = loan.metadata;
        cx.info.filter_state = loan.filter_state;
        let wishes = self.stream.wishes.take();
        cx.clear_route_cache |= wishes.clear_route_cache && self.stream.request;
        if wishes.override_host.is_some() {
            cx.override_host = wishes.override_host;
        }
        if wishes.drain {
            cx.info.progress.drain.set(true);
        }
        result
    }

    /// The same with what was lent before.
    pub fn resume_with(&self, loan: &mut Loan, args: MultiValue) -> mlua::Result<()> {
        let stream = &self.stream;
        stream.epoch.set(stream.epoch.get() + 1);
        stream.iterating.set(false);
        let empty = Loan {
            head: Head::Response(empty_response()),
            metadata: Default::default(),
            filter_state: Default::default(),
        };
        *stream.loan.borrow_mut() = Some(mem::replace(loan, empty));
        let result = self.vm.resume(&self.thread, args);
        if let Some(lent) = stream.loan.take() {
            *loan = lent;
        }
        result
    }

    /// Whether the script has ended; an error when it waits for nothing that can come.
    pub fn ended(&self) -> mlua::Result<bool> {
        match self.thread.status() {
            ThreadStatus::Resumable if self.stream.op.borrow().is_none() => Err(unexpected_yield()),
            status => Ok(status != ThreadStatus::Resumable),
        }
    }
}

/// The body that the script had, as it left it.
pub(super) fn put_back(stream: &Stream, body: &mut Body) {
    let (whole, trailers) = (stream.body.take(), stream.trailers.take());
    if whole.is_some() || trailers.is_some() {
        *body = join_body(whole.map(|w| w.take()).unwrap_or_default(), trailers);
    }
}

fn unexpected_yield() -> mlua::Error {
    mlua::Error::runtime("script performed an unexpected yield")
}

fn unreadable(request: bool, error: &BodyError) -> LocalReply {
    match (request, error) {
        (true, BodyError::TooLarge { .. }) => LocalReply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "request_payload_too_large",
        ),
        (true, _) => LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error"),
        (false, _) => LocalReply::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "response_payload_too_large",
        ),
    }
}

/// Reads a call's answer, up to `limit` bytes.
pub(super) async fn collect(mut body: Body, limit: usize) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            if whole.len() + data.len() > limit {
                return None;
            }
            whole.extend_from_slice(&data);
        }
    }
    Some(whole)
}
