//! A stream as its script sees it: what the handle and the objects from it read and write, and what the script waits
//! for.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use xds_protos::google::protobuf::{Struct, Value};

use super::{
    call::Call,
    config::{Config, LuaStats},
    vm::message,
};
use crate::{
    http::{
        ConnectionInfo, LocalReply, RequestHead, ResponseHead, Scheme,
        filter::{FilterCx, OverrideHost},
        stream_info::{FilterState, Metadata},
    },
    net::Address,
    route::RouteMatch,
    server::Worker,
    stats::Stats,
    tracing::Span,
};

/// What a coroutine has yielded for.
pub(super) enum Op {
    /// The whole body; whether an empty one is an object as well.
    Body { always: bool },
    /// The next part of the body.
    Chunk,
    /// The trailers.
    Trailers,
    /// The answer of a call.
    Call(Box<Call>),
    /// Nothing more: the script has answered.
    Respond(Box<LocalReply>),
}

/// The head that the script runs on.
pub(super) enum Head {
    Request(RequestHead),
    Response(ResponseHead),
}

/// What is taken out of the stream while the script runs, and put back when it stops.
pub(super) struct Loan {
    pub head: Head,
    pub metadata: Metadata,
    pub filter_state: FilterState,
}

/// Facts that do not change.
pub(super) struct Facts {
    pub worker: Rc<Worker>,
    pub span: Option<Span>,
    pub connection: Rc<ConnectionInfo>,
    pub protocol: Option<Version>,
    pub remote_address: Address,
    pub route: Option<RouteMatch>,
    pub virtual_cluster: Option<Arc<str>>,
    pub filter_name: Arc<str>,
    /// `filter_context`
    pub context: Arc<Struct>,
    pub clears_route_cache: bool,
    pub stats: Stats<LuaStats>,
}

/// What the script wants of the stream besides changed headers.
#[derive(Default)]
pub(super) struct Wishes {
    pub clear_route_cache: bool,
    pub override_host: Option<OverrideHost>,
    pub drain: bool,
}

/// One direction of a stream, shared by the handle, its objects and whoever resumes the script.
pub(super) struct Stream {
    pub facts: Facts,
    /// Whether this is the request.
    pub request: bool,
    /// None while the script does not run: its objects are of no use then.
    pub loan: RefCell<Option<Loan>>,
    pub op: RefCell<Option<Op>>,
    pub wishes: RefCell<Wishes>,
    /// Counts the runs: objects are good for the run that made them.
    pub epoch: Cell<u64>,
    /// No more of the body will come.
    pub ended: Cell<bool>,
    /// Some of the body has come.
    pub saw_body: Cell<bool>,
    /// The body was asked for as a whole.
    pub whole: Cell<bool>,
    /// The head has gone on: it can no longer be changed.
    pub continued: Cell<bool>,
    pub body: RefCell<Option<Rc<RefCell<Bytes>>>>,
    pub trailers: RefCell<Option<HeaderMap>>,
    /// Metadata set after the head had gone on: filter, key, value.
    pub late: RefCell<Vec<(String, String, Value)>>,
    /// The script goes through the headers: they cannot be changed.
    pub iterating: Rc<Cell<bool>>,
}

impl Stream {
    /// A stream whose head has just come; `end` when no body follows.
    pub fn new(cx: &FilterCx, request: bool, end: bool, context: Arc<Struct>, config: &Config) -> Rc<Self> {
        let info = &cx.info;
        Rc::new(Self {
            facts: Facts {
                worker: cx.worker.clone(),
                span: cx.span.clone(),
                connection: info.connection.clone(),
                protocol: info.protocol,
                remote_address: info.remote_address().clone(),
                route: cx.route.clone(),
                virtual_cluster: info.virtual_cluster.clone(),
                filter_name: cx.filter_name.clone(),
                context,
                clears_route_cache: config.clear_route_cache,
                stats: config.stats.clone(),
            },
            request,
            loan: RefCell::default(),
            op: RefCell::default(),
            wishes: RefCell::default(),
            epoch: Cell::new(0),
            ended: Cell::new(end),
            saw_body: Cell::new(false),
            whole: Cell::new(false),
            continued: Cell::new(false),
            body: RefCell::default(),
            trailers: RefCell::default(),
            late: RefCell::default(),
            iterating: Rc::default(),
        })
    }

    /// Counts and logs that the script has failed.
    pub fn fail(&self, error: &mlua::Error) {
        self.facts.stats.local().errors.inc();
        tracing::error!(target: "lua", "script log: {}", message(error));
    }

    /// Runs `f` on what is lent; an error when the script uses an object outside of its stream.
    pub fn with<T>(&self, f: impl FnOnce(&mut Loan) -> mlua::Result<T>) -> mlua::Result<T> {
        match self.loan.borrow_mut().as_mut() {
            Some(loan) => f(loan),
            None => Err(out_of_scope()),
        }
    }

    /// Fails unless the object was made in this run.
    pub fn check(&self, epoch: u64) -> mlua::Result<()> {
        match self.epoch.get() == epoch && self.loan.borrow().is_some() {
            true => Ok(()),
            false => Err(out_of_scope()),
        }
    }
}

pub(super) fn out_of_scope() -> mlua::Error {
    mlua::Error::runtime("object used outside of proper scope")
}

/// A head to stand in while the real one is lent.
pub(super) fn empty_request() -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: None,
        path: None,
        protocol: None,
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        spelling: None,
    }
}

/// Likewise.
pub(super) fn empty_response() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}
