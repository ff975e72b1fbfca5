//! One stream with a script.

use std::{rc::Rc, sync::Arc};

use xds_protos::google::protobuf::Struct;

use super::{
    config::{Config, PerRoute, Script},
    run::{Done, HeadMut, Run, put_back},
    stream::{Op, Stream},
    vm::Vm,
};
use crate::http::{
    Body, RequestHead, ResponseHead,
    filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
};

/// The filter's configuration.
pub(super) struct LuaFilter(pub Arc<Config>);

impl HttpFilterConfig for LuaFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            chosen: None,
            waiting: None,
            made: None,
            streaming: None,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// The script of the request's route, which is the response's as well; none before the request has come.
    chosen: Option<(Arc<Script>, Arc<Struct>)>,
    /// The script that waits in the phase that runs.
    waiting: Option<Run>,
    /// The stream of a script that has ended, with a body of its own.
    made: Option<Rc<Stream>>,
    /// The request, when its script has gone on with its body.
    streaming: Option<Rc<Stream>>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        self.chosen = self.config.choose(cx.route_config::<PerRoute>());
        self.start(cx, HeadMut::Request(head), true, end)
    }

    fn takes_request(&self) -> bool {
        self.waiting.is_some() || self.made.is_some()
    }

    fn request_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        Step::Wait(Box::pin(
            async move { self.finish(cx, HeadMut::Request(head), body).await },
        ))
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        self.take_late(cx);
        // A request that was answered before it came here has chosen none.
        if self.chosen.is_none() {
            self.chosen = self.config.choose(cx.route_config::<PerRoute>());
        }
        self.waiting = None;
        self.start(cx, HeadMut::Response(head), false, end)
    }

    fn takes_response(&self) -> bool {
        self.waiting.is_some() || self.made.is_some()
    }

    fn response_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        Step::Wait(Box::pin(
            async move { self.finish(cx, HeadMut::Response(head), body).await },
        ))
    }

    fn on_complete(&mut self, cx: &mut FilterCx) {
        self.take_late(cx);
    }
}

impl Filter {
    fn start(&mut self, cx: &mut FilterCx, head: HeadMut<'_>, request: bool, end: bool) -> Step<'static> {
        let Some((script, context)) = &self.chosen else {
            return Step::Continue;
        };
        if !(if request { script.on_request } else { script.on_response }) {
            return Step::Continue;
        }
        self.config.stats.local().executions.inc();
        let stream = Stream::new(cx, request, end, context.clone(), &self.config);
        let started = Vm::of(script).and_then(|vm| Run::start(vm, stream.clone(), cx, head));
        match started {
            Ok(Some(run)) => {
                let op = run.stream.op.take();
                if let Some(Op::Respond(reply)) = op {
                    return Step::Reply(reply);
                }
                run.stream.op.replace(op);
                self.waiting = Some(run);
            }
            // It may have made a body where there was none.
            Ok(None) if stream.body.borrow().is_some() => self.made = Some(stream),
            Ok(None) => {}
            Err(error) => stream.fail(&error),
        }
        Step::Continue
    }

    async fn finish(&mut self, cx: &mut FilterCx, head: HeadMut<'_>, body: &mut Body) -> Step<'static> {
        if let Some(stream) = self.made.take() {
            put_back(&stream, body);
        }
        let Some(run) = self.waiting.take() else {
            return Step::Continue;
        };
        let stream = run.stream.clone();
        match run.finish(cx, head, body).await {
            Ok(Done::Finished) => {}
            Ok(Done::Streams) => self.streaming = Some(stream),
            Ok(Done::Reply(reply)) => return Step::Reply(reply),
            Err(error) => stream.fail(&error),
        }
        Step::Continue
    }

    /// Takes over the metadata that a script has set since its head went on.
    fn take_late(&mut self, cx: &mut FilterCx) {
        if let Some(stream) = &self.streaming {
            for (filter, key, value) in stream.late.take() {
                cx.info.metadata.entry(filter).or_default().fields.insert(key, value);
            }
        }
    }
}
