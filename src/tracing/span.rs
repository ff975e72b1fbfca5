//! A span: what one request, attempt or call was, and where it stands in its trace.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::HeaderMap;

use super::{Config, Tracer};
use crate::http::RequestHead;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The callee's.
    Server,
    /// The caller's.
    Client,
}

/// `traffic_direction` of the listener, as tracing sees it: what has none comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To services behind this proxy.
    Ingress,
    /// Of the services before this proxy.
    Egress,
}

/// Where a span stands in its trace, and what goes on to the next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// 128 bits, or 64 of them.
    pub trace_id: u128,
    /// The trace's id is one of 128 bits.
    pub wide: bool,
    /// Never 0.
    pub span_id: u64,
    /// The span above.
    pub parent: Option<u64>,
    /// Whether the span above is somebody else's.
    pub remote: bool,
    /// Whether it is reported.
    pub sampled: bool,
    /// `tracestate`
    pub state: String,
    /// B3 came in one header, and goes on so.
    pub single_header: bool,
}

/// What a tracer starts the span of a request from.
pub struct Root<'a> {
    /// The request's head.
    pub head: &'a RequestHead,
    /// When it came.
    pub start: SystemTime,
    /// The proxy's own decision whether it is traced.
    pub traced: bool,
    /// How it relates to the spans of attempts.
    pub relation: Relation,
}

/// What a span's kind depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// The listener's direction; calls of the proxy's own go out.
    pub direction: Direction,
    /// `spawn_upstream_span`: attempts have spans of their own, so that the proxy is a hop by itself.
    pub independent: bool,
}

/// What is told of a span.
#[derive(Debug, Clone)]
pub struct SpanData {
    /// Its place in the trace.
    pub context: Context,
    /// What it did.
    pub name: String,
    /// Which side it is.
    pub kind: Kind,
    /// Wall clock at its start.
    pub start: SystemTime,
    /// The monotonic clock then, or as near as it was known.
    pub started: Instant,
    /// Wall clock at its end.
    pub end: SystemTime,
    /// Names and values; names are unique.
    pub tags: Vec<(Cow<'static, str>, String)>,
    /// Moments within it, in order.
    pub events: Vec<(SystemTime, &'static str)>,
}

impl SpanData {
    /// A span that starts now.
    pub fn new(context: Context, name: &str, kind: Kind, start: SystemTime) -> Self {
        Self {
            context,
            name: name.to_owned(),
            kind,
            start,
            started: Instant::now(),
            end: start,
            tags: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// A span that runs. Clones are the same span.
#[derive(Clone)]
pub struct Span(Rc<Inner>);

struct Inner {
    tracer: Arc<dyn Tracer>,
    config: Arc<Config>,
    worker: usize,
    context: Context,
    sampled: Cell<bool>,
    /// None: it is finished.
    data: RefCell<Option<SpanData>>,
}

impl Span {
    /// The span of a request; none when nobody traces, or its headers are malformed.
    pub fn start(config: &Arc<Config>, worker: usize, root: &Root<'_>) -> Option<Self> {
        let tracer = config.tracer.clone()?;
        let data = tracer.start(root)?;
        Some(Self::of(data, tracer, config.clone(), worker))
    }

    fn of(data: SpanData, tracer: Arc<dyn Tracer>, config: Arc<Config>, worker: usize) -> Self {
        Self(Rc::new(Inner {
            tracer,
            config,
            worker,
            sampled: Cell::new(data.context.sampled),
            context: data.context.clone(),
            data: RefCell::new(Some(data)),
        }))
    }

    /// A span below this one.
    pub fn child(&self, name: &str, relation: Relation) -> Self {
        let inner = &self.0;
        let data = inner.tracer.child(&self.context(), name, relation);
        Self::of(data, inner.tracer.clone(), inner.config.clone(), inner.worker)
    }

    fn context(&self) -> Context {
        Context {
            sampled: self.0.sampled.get(),
            ..self.0.context.clone()
        }
    }

    /// The connection manager's `tracing`.
    pub fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    /// Whether it will be reported: otherwise there is no use in telling it anything.
    pub fn is_sampled(&self) -> bool {
        self.0.sampled.get()
    }

    /// Decides anew whether it is reported, and what comes after it.
    pub fn set_sampled(&self, sampled: bool) {
        self.0.sampled.set(sampled);
    }

    /// Renames it.
    pub fn set_operation(&self, name: &str) {
        if let Some(data) = &mut *self.0.data.borrow_mut() {
            name.clone_into(&mut data.name);
        }
    }

    /// Sets a tag, in place of one of that name.
    pub fn set_tag(&self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        if !self.is_sampled() {
            return;
        }
        let name = name.into();
        if let Some(data) = &mut *self.0.data.borrow_mut() {
            match data.tags.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value.into(),
                None => data.tags.push((name, value.into())),
            }
        }
    }

    /// Notes a moment.
    pub fn event(&self, at: SystemTime, name: &'static str) {
        if let Some(data) = &mut *self.0.data.borrow_mut() {
            data.events.push((at, name));
        }
    }

    /// Tells whoever receives these headers of it, unless `no_context_propagation` forbids.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if !self.0.config.no_context_propagation {
            self.0.tracer.inject(&self.context(), headers);
        }
    }

    /// `%TRACE_ID%` and `%SPAN_ID%`
    pub fn ids(&self) -> (String, Option<String>) {
        let (tracer, context) = (&self.0.tracer, &self.0.context);
        (tracer.trace_id(context), tracer.span_id(context))
    }

    /// Ends it. It is reported if it is sampled; a second time has no effect.
    pub fn finish(&self) {
        let Some(mut data) = self.0.data.borrow_mut().take() else {
            return;
        };
        if self.is_sampled() {
            data.context.sampled = true;
            data.end = SystemTime::now();
            self.0.tracer.report(data, self.0.worker);
        }
    }
}
