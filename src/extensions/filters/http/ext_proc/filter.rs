//! One stream that a service sees.

use std::{mem, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Version, header};
use xds_protos::{
    envoy::{
        extensions::filters::http::ext_proc::v3::{
            ProcessingMode,
            external_processor::RouteCacheAction,
            processing_mode::{BodySendMode, HeaderSendMode},
        },
        service::ext_proc::v3::{
            CommonResponse, HeadersResponse, ProcessingResponse, common_response::ResponseStatus,
            processing_response::Response,
        },
    },
    google::protobuf::{Struct, value::Kind},
};

use super::{
    body::{Kept, Side, Task, body_answer, change_trailers, upload},
    config::{Config, PerRoute, Settings},
    message, mutation,
    session::{Lane, Session, Stop},
    whole::{Whole, drain, unsized_body},
};
use crate::{
    extensions::filters::http::view::View,
    http::{
        Body, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        hcm::join_body,
    },
};

/// The filter's configuration.
pub(super) struct ExtProcFilter(pub Arc<Config>);

impl HttpFilterConfig for ExtProcFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            settings: None,
            mode: ProcessingMode::default(),
            session: None,
            request: None,
            response: None,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// None where the route wants no processing, and before the request has come.
    settings: Option<Arc<Settings>>,
    /// As configured, and as the service wants it since.
    mode: ProcessingMode,
    session: Option<Rc<Session>>,
    request: Option<Lane>,
    response: Option<Lane>,
}

/// The head of a direction.
enum Head<'a> {
    Request(&'a mut RequestHead),
    Response(&'a RequestHead, &'a mut ResponseHead),
}

impl Head<'_> {
    fn view(&mut self) -> View<'_> {
        match self {
            Self::Request(head) => View::request(head),
            Self::Response(_, head) => View::response(head),
        }
    }

    fn headers(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(head) => &mut head.headers,
            Self::Response(_, head) => &mut head.headers,
        }
    }

    fn is_request(&self) -> bool {
        matches!(self, Self::Request(_))
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, _: bool) -> Step<'a> {
        self.settle(cx);
        Step::Continue
    }

    fn takes_request(&self) -> bool {
        self.settings.is_some()
    }

    fn request_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        Step::Wait(Box::pin(async move { self.run(cx, Head::Request(head), body).await }))
    }

    fn takes_response(&self) -> bool {
        self.settings.is_some()
    }

    fn response_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        request: &'a RequestHead,
        head: &'a mut ResponseHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        self.take_late(cx);
        Step::Wait(Box::pin(async move {
            self.run(cx, Head::Response(request, head), body).await
        }))
    }

    fn on_complete(&mut self, cx: &mut FilterCx) {
        self.take_late(cx);
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}

impl Filter {
    /// What holds on this route: all levels, the most specific last.
    fn settle(&mut self, cx: &FilterCx) {
        let mut settings = self.config.settings.clone();
        let mut disabled = false;
        for of_route in cx.route_configs::<PerRoute>() {
            match of_route {
                PerRoute::Disabled => disabled = true,
                PerRoute::Overrides(overrides) => {
                    disabled = false;
                    overrides.apply(Arc::make_mut(&mut settings));
                }
            }
        }
        self.mode = settings.mode;
        self.settings = (!disabled).then_some(settings);
    }

    async fn run(&mut self, cx: &mut FilterCx, head: Head<'_>, body: &mut Body) -> Step<'static> {
        match self.process(cx, head, body).await {
            Ok(()) | Err(Stop::Ignore) => Step::Continue,
            Err(Stop::Reply(reply)) => Step::Reply(reply),
        }
    }

    /// A direction's headers, and as much of its body as is wanted before they go on.
    async fn process(&mut self, cx: &mut FilterCx, mut head: Head<'_>, body: &mut Body) -> Result<(), Stop> {
        let Some(settings) = self.settings.clone() else {
            return Ok(());
        };
        let request = head.is_request();
        let end = matches!(body, Body::Empty);
        let wants = Wants::of(&self.mode, request);
        if !(wants.headers || !end && (wants.body != BodySendMode::None || wants.trailers)) {
            return Ok(());
        }
        let session = self.session(cx, &settings);
        if session.complete.get() {
            return Ok(());
        }
        let lane = if request { &mut self.request } else { &mut self.response };
        let Some(mut lane) = lane.take() else {
            return Ok(());
        };
        let observing = self.config.observability;
        let protocol = match request {
            true => cx.info.protocol,
            false => cx.info.upstream.protocol,
        };
        let http1 = protocol.is_none_or(|p| p < Version::HTTP_2);
        let config = self.config.clone();
        let without_length = |wants: &Wants| wants.changes_length() && !config.keep_content_length && !observing;
        let mut uploader = None;
        let kept = Kept::default();
        if wants.headers {
            let sent = message::headers(&head.view(), request, &self.config.forward, end);
            let mut sent = message::message(&session, &self.mode, sent);
            let (of_request, of_response, attributes) = match &head {
                Head::Request(head) => (Some(&**head), None, &settings.request_attributes),
                Head::Response(request, head) => (Some(*request), Some(&**head), &settings.response_attributes),
            };
            message::describe(&mut sent, &settings, attributes, &cx.info, of_request, of_response);
            if without_length(&wants) && !end {
                head.headers().remove(header::CONTENT_LENGTH);
            }
            let answer = match wants.body == BodySendMode::FullDuplexStreamed && !end && !observing {
                // The service may want the body before it answers the headers.
                true => {
                    session.send(sent).await;
                    let inner = mem::take(body);
                    uploader = Some(Task::spawn(upload(
                        session.clone(),
                        self.mode,
                        (request, http1),
                        inner,
                        kept.clone(),
                    )));
                    session.receive(&mut lane).await?
                }
                false => session.exchange(&mut lane, sent).await?,
            };
            if !observing {
                let replaced = self.headers_answered(cx, &session, &mut head, answer, without_length(&wants))?;
                if let Some(new) = replaced {
                    if let Some(new) = new {
                        head.headers().remove(header::CONTENT_LENGTH);
                        drain(mem::replace(body, unsized_body(new)));
                    }
                    return Ok(());
                }
            }
        }
        let wants = Wants::of(&self.mode, request);
        if end {
            return Ok(());
        }
        if without_length(&wants) {
            head.headers().remove(header::CONTENT_LENGTH);
        }
        let side = |lane: Lane| Side {
            session: session.clone(),
            lane,
            mode: self.mode,
            request,
            trailers: wants.trailers,
            http1,
        };
        match wants.body {
            BodySendMode::None if wants.trailers => *body = side(lane).streamed(mem::take(body), false),
            BodySendMode::None | BodySendMode::Grpc => {}
            BodySendMode::Streamed => *body = side(lane).streamed(mem::take(body), true),
            _ if observing => *body = side(lane).streamed(mem::take(body), true),
            BodySendMode::FullDuplexStreamed => {
                let uploader = uploader.unwrap_or_else(|| {
                    let inner = mem::take(body);
                    Task::spawn(upload(
                        session.clone(),
                        self.mode,
                        (request, http1),
                        inner,
                        kept.clone(),
                    ))
                });
                *body = side(lane).duplex(uploader, kept);
            }
            BodySendMode::Buffered | BodySendMode::BufferedPartial => {
                let whole = Whole::read(body, request, wants.body == BodySendMode::BufferedPartial).await?;
                return self.buffered(&session, &mut lane, &mut head, whole, &wants, body).await;
            }
        }
        Ok(())
    }

    /// The stream to the service, opened when first needed.
    fn session(&mut self, cx: &FilterCx, settings: &Arc<Settings>) -> Rc<Session> {
        if let Some(session) = &self.session {
            return session.clone();
        }
        let progress = cx.info.progress.clone();
        let (session, request, response) = Session::open(self.config.clone(), settings.clone(), cx, progress);
        (self.request, self.response) = (Some(request), Some(response));
        self.session = Some(session.clone());
        session
    }

    /// Carries out the answer to headers. Some: the message is replaced, by this body if there is one.
    fn headers_answered(
        &mut self,
        cx: &mut FilterCx,
        session: &Session,
        head: &mut Head<'_>,
        answer: ProcessingResponse,
        without_length: bool,
    ) -> Result<Option<Option<Bytes>>, Stop> {
        let request = head.is_request();
        let ProcessingResponse {
            response,
            dynamic_metadata,
            mode_override,
            ..
        } = answer;
        let common = match response {
            Some(Response::RequestHeaders(HeadersResponse { response })) if request => response.unwrap_or_default(),
            Some(Response::ResponseHeaders(HeadersResponse { response })) if !request => response.unwrap_or_default(),
            _ => return Err(session.spurious("spurious message")),
        };
        if let Some(mode) = mode_override {
            self.override_mode(&mode);
        }
        if let (Some(metadata), Some(settings)) = (dynamic_metadata, &self.settings) {
            take_metadata(cx, settings, metadata);
        }
        let replacing = common.status() == ResponseStatus::ContinueAndReplace;
        self.change(session, head, &common, replacing, without_length)?;
        self.route_cache(cx, request, &common);
        session.counted();
        Ok(replacing.then(|| mutation::body(common.body_mutation).map(Bytes::from)))
    }

    fn change(
        &self,
        session: &Session,
        head: &mut Head<'_>,
        common: &CommonResponse,
        replacing: bool,
        without_length: bool,
    ) -> Result<(), Stop> {
        let Some(change) = &common.header_mutation else {
            return Ok(());
        };
        let rejected = || self.config.stats.local().rejected_header_mutations.inc();
        mutation::headers(
            change,
            head.view(),
            &self.config.rules,
            replacing,
            without_length,
            rejected,
        )
        .map_err(|why| session.invalid(&why))
    }

    fn route_cache(&self, cx: &mut FilterCx, request: bool, common: &CommonResponse) {
        if !request {
            return;
        }
        let stats = self.config.stats.local();
        match self.config.route_cache {
            RouteCacheAction::Clear => cx.clear_route_cache = true,
            RouteCacheAction::Default if !common.clear_route_cache => {}
            RouteCacheAction::Default if common.header_mutation.is_some() => cx.clear_route_cache = true,
            RouteCacheAction::Default => stats.clear_route_cache_ignored.inc(),
            RouteCacheAction::Retain if common.clear_route_cache => stats.clear_route_cache_disabled.inc(),
            RouteCacheAction::Retain => {}
        }
    }

    /// `mode_override`: for what comes after the headers.
    fn override_mode(&mut self, asked: &ProcessingMode) {
        let duplex = [
            self.config.settings.mode.request_body_mode(),
            self.config.settings.mode.response_body_mode(),
        ]
        .contains(&BodySendMode::FullDuplexStreamed);
        if !self.config.allow_mode_override || duplex {
            return;
        }
        let base = &self.config.settings.mode;
        let or = |asked: i32, base: i32| {
            if asked == HeaderSendMode::Default as i32 {
                base
            } else {
                asked
            }
        };
        let mode = ProcessingMode {
            request_header_mode: base.request_header_mode,
            response_header_mode: or(asked.response_header_mode, base.response_header_mode),
            request_body_mode: asked.request_body_mode,
            response_body_mode: asked.response_body_mode,
            request_trailer_mode: or(asked.request_trailer_mode, base.request_trailer_mode),
            response_trailer_mode: or(asked.response_trailer_mode, base.response_trailer_mode),
        };
        let same = |allowed: &ProcessingMode| {
            ProcessingMode {
                request_header_mode: mode.request_header_mode,
                ..*allowed
            } == mode
        };
        if self.config.allowed_modes.is_empty() || self.config.allowed_modes.iter().any(same) {
            self.mode = mode;
        }
    }

    /// A body that the service sees at once, and the trailers after it.
    async fn buffered(
        &self,
        session: &Rc<Session>,
        lane: &mut Lane,
        head: &mut Head<'_>,
        whole: Whole,
        wants: &Wants,
        body: &mut Body,
    ) -> Result<(), Stop> {
        let request = head.is_request();
        let Whole {
            mut bytes,
            mut trailers,
            rest,
        } = whole;
        let end = trailers.is_none() && rest.is_none();
        let result = async {
            let sent = message::body(&bytes, request, end);
            let answer = session
                .exchange(lane, message::message(session, &self.mode, sent))
                .await?;
            let common = body_answer(session, request, answer)?;
            // Headers that the service was not shown are not its to change.
            if wants.headers {
                self.change(session, head, &common, false, wants.changes_length())?;
            }
            if let Some(new) = mutation::body(common.body_mutation) {
                let length = head.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
                if length.is_some_and(|length| length != new.len()) {
                    return Err(session.invalid("mismatch between content length and the length of the mutated body"));
                }
                bytes = new.into();
            }
            session.counted();
            if let (Some(trailers), true) = (&mut trailers, wants.trailers) {
                let sent = message::trailers(trailers, request, &session.config.forward);
                let answer = session
                    .exchange(lane, message::message(session, &self.mode, sent))
                    .await?;
                change_trailers(session, request, answer, trailers)?;
            }
            Ok(())
        }
        .await;
        *body = match rest {
            None if bytes.is_empty() && trailers.is_none() && !head.headers().contains_key(header::CONTENT_LENGTH) => {
                unsized_body(bytes)
            }
            None => join_body(bytes, trailers),
            Some(rest) => Body::boxed(http_body_util::StreamBody::new(futures_util::StreamExt::chain(
                futures_util::stream::once(std::future::ready(Ok(http_body::Frame::data(bytes)))),
                http_body_util::BodyStream::new(rest),
            ))),
        };
        result
    }

    /// Takes over metadata of answers that came while bodies streamed.
    fn take_late(&self, cx: &mut FilterCx) {
        if let (Some(session), Some(settings)) = (&self.session, &self.settings) {
            for metadata in session.late.take() {
                take_metadata(cx, settings, metadata);
            }
        }
    }
}

/// Sets metadata in the namespaces that may come from the service.
fn take_metadata(cx: &mut FilterCx, settings: &Settings, metadata: Struct) {
    for (name, value) in metadata.fields {
        if let Some(Kind::StructValue(of)) = value.kind
            && settings.metadata.received.contains(&name)
        {
            cx.info.metadata.entry(name).or_default().fields.extend(of.fields);
        }
    }
}

/// What the service sees of a direction.
struct Wants {
    headers: bool,
    body: BodySendMode,
    trailers: bool,
}

impl Wants {
    fn of(mode: &ProcessingMode, request: bool) -> Self {
        let (headers, body, trailers) = match request {
            true => (
                mode.request_header_mode(),
                mode.request_body_mode(),
                mode.request_trailer_mode(),
            ),
            false => (
                mode.response_header_mode(),
                mode.response_body_mode(),
                mode.response_trailer_mode(),
            ),
        };
        Self {
            headers: headers != HeaderSendMode::Skip,
            body,
            trailers: trailers == HeaderSendMode::Send,
        }
    }

    /// Whether the body's length is not known when the headers go on.
    fn changes_length(&self) -> bool {
        match self.body {
            BodySendMode::None | BodySendMode::Grpc => false,
            BodySendMode::Buffered => !self.headers,
            BodySendMode::Streamed | BodySendMode::BufferedPartial | BodySendMode::FullDuplexStreamed => true,
        }
    }
}
