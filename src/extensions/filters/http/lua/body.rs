//! A body that its script looks at, and may change, as it passes.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http_body::{Body as HttpBody, Frame};
use mlua::{MultiValue, Value};

use super::{
    buffer::Buffer,
    call::Answer,
    headers::Headers,
    run::Run,
    stream::{Loan, Op},
};
use crate::http::{Body, BodyError};

/// Hands on a body's frames once the script has seen them.
pub(super) struct ScriptBody {
    inner: Body,
    /// None once the script has ended.
    run: Option<Run>,
    loan: Loan,
    /// A call that the script waits for; what came before is held back.
    call: Option<LocalBoxFuture<'static, Answer>>,
    /// The part that the script has in its hands.
    chunk: Option<Rc<RefCell<Bytes>>>,
    ready: VecDeque<Frame<Bytes>>,
}

impl ScriptBody {
    pub fn new(inner: Body, run: Run, loan: Loan) -> Self {
        Self {
            inner,
            run: Some(run),
            loan,
            call: None,
            chunk: None,
            ready: VecDeque::new(),
        }
    }

    /// Goes on with the script; when it has ended or failed, the body passes untouched.
    fn resume(&mut self, args: impl FnOnce(&Run) -> mlua::Result<MultiValue>) {
        let Some(run) = &self.run else { return };
        let result = args(run)
            .and_then(|args| run.resume_with(&mut self.loan, args))
            .and_then(|()| run.ended());
        match result {
            Ok(false) => {
                if matches!(&*run.stream.op.borrow(), Some(Op::Call(_)))
                    && let Some(Op::Call(call)) = run.stream.op.take()
                {
                    self.call = Some(Box::pin(call.perform()));
                }
            }
            Ok(true) => self.run = None,
            Err(error) => {
                run.stream.fail(&error);
                self.run = None;
            }
        }
    }

    /// A part of the body; empty ones only tell the script of the end.
    fn data(&mut self, data: Bytes, end: bool) {
        let Some(run) = &self.run else {
            self.push(data);
            return;
        };
        let stream = run.stream.clone();
        stream.ended.set(end);
        stream.saw_body.set(true);
        let op = stream.op.take();
        match op {
            Some(Op::Chunk) => {
                let chunk = Rc::new(RefCell::new(data));
                self.chunk = Some(chunk.clone());
                self.resume(|run| {
                    let buffer = run.vm.lua.create_userdata(Buffer::part(&run.stream, chunk))?;
                    Ok(MultiValue::from_iter([Value::UserData(buffer)]))
                });
            }
            Some(Op::Trailers) if end => {
                self.resume(|_| Ok(MultiValue::new()));
                self.push(data);
            }
            op => {
                stream.op.replace(op);
                self.push(data);
            }
        }
    }

    fn trailers(&mut self, frame: Frame<Bytes>) {
        let trailers = match (frame.into_trailers(), &self.run) {
            (Ok(trailers), Some(run)) => {
                run.stream.ended.set(true);
                run.stream.trailers.replace(Some(trailers));
                run.stream.clone()
            }
            (Ok(trailers), None) => {
                self.ready.push_back(Frame::trailers(trailers));
                return;
            }
            (Err(_), _) => return,
        };
        if matches!(&*trailers.op.borrow(), Some(Op::Chunk)) {
            trailers.op.take();
            self.resume(|_| Ok(MultiValue::new()));
        }
        if matches!(&*trailers.op.borrow(), Some(Op::Trailers)) {
            trailers.op.take();
            self.resume(|run| {
                let headers = run
                    .vm
                    .lua
                    .create_userdata(Headers::trailers(&run.stream, run.stream.epoch.get() + 1))?;
                Ok(MultiValue::from_iter([Value::UserData(headers)]))
            });
        }
        // Those of a script that still calls somebody go on without it.
        if let Some(trailers) = trailers.trailers.take() {
            self.ready.push_back(Frame::trailers(trailers));
        }
    }

    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.ready.push_back(Frame::data(data));
        }
    }
}

impl HttpBody for ScriptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(call) = &mut this.call {
                let answer = ready!(call.as_mut().poll(cx));
                this.call = None;
                this.resume(|run| answer.push(&run.vm.lua));
                continue;
            }
            if let Some(chunk) = this.chunk.take() {
                this.push(chunk.take());
            }
            if let Some(frame) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_trailers() => this.trailers(frame),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        let end = this.inner.is_end_stream();
                        this.data(data, end);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.run.as_ref().is_some_and(|run| !run.stream.ended.get()) => this.data(Bytes::new(), true),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.run.is_none() && self.chunk.is_none() && self.ready.is_empty() && self.inner.is_end_stream()
    }
}
