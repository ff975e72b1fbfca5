//! One stream whose headers are changed.

use std::sync::Arc;

use super::{config::Mutations, query};
use crate::{
    formatter::FormatCx,
    http::{
        Body, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        observe::map_trailers,
    },
    route::PreparedMutations,
};

/// The filter's configuration.
pub(super) struct HeaderMutationFilter {
    pub mutations: Arc<Mutations>,
    /// `most_specific_header_mutations_wins`: a route's mutations run last; otherwise the route table's do.
    pub most_specific_wins: bool,
}

impl HttpFilterConfig for HeaderMutationFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            filter: self.mutations.clone(),
            most_specific_wins: self.most_specific_wins,
            levels: None,
            request_trailers: Vec::new(),
            response_trailers: Vec::new(),
        }))
    }
}

struct Filter {
    filter: Arc<Mutations>,
    most_specific_wins: bool,
    /// All that apply, in order; the route is looked at once.
    levels: Option<Vec<Arc<Mutations>>>,
    request_trailers: Vec<PreparedMutations>,
    response_trailers: Vec<PreparedMutations>,
}

impl Filter {
    fn levels(&mut self, cx: &FilterCx) -> &[Arc<Mutations>] {
        self.levels.get_or_insert_with(|| {
            let mut routes: Vec<_> = cx.route_configs::<Arc<Mutations>>().cloned().collect();
            if !self.most_specific_wins {
                routes.reverse();
            }
            std::iter::once(self.filter.clone()).chain(routes).collect()
        })
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        let mut trailers = Vec::new();
        let levels = self.levels(cx);
        for level in levels {
            level.request.apply_to_request(head, &cx.info);
            query::mutate(&level.query, head, &cx.info);
        }
        if !end {
            let format = FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            };
            let levels = levels.iter().filter(|l| !l.request_trailers.is_empty());
            trailers.extend(levels.map(|l| l.request_trailers.prepare(&format)));
        }
        self.request_trailers = trailers;
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        changed(body, std::mem::take(&mut self.request_trailers))
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        request: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        let mut trailers = Vec::new();
        let levels = self.levels(cx);
        for level in levels {
            level.response.apply_to_response(head, request, &cx.info);
        }
        if !end {
            let format = FormatCx {
                request: Some(request),
                response: Some(head),
                info: &cx.info,
            };
            let levels = levels.iter().filter(|l| !l.response_trailers.is_empty());
            trailers.extend(levels.map(|l| l.response_trailers.prepare(&format)));
        }
        self.response_trailers = trailers;
        Step::Continue
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        changed(body, std::mem::take(&mut self.response_trailers))
    }
}

fn changed(body: Body, mutations: Vec<PreparedMutations>) -> Body {
    if mutations.is_empty() {
        return body;
    }
    map_trailers(body, |trailers| {
        for mutation in mutations {
            mutation.apply(trailers);
        }
    })
}
