//! The routes of one virtual host: first match wins, found without looking at every route.

use std::ops::Range;

use xds_protos::{
    envoy::config::route::v3::{Route as RouteProto, RouteList},
    google::protobuf::Any,
    prost::Name,
    xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use super::{Route, index::Index, path::PathView, route_entry::RouteCx};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::{RequestHead, StreamInfo},
    matching::tree::{MatchCx, MatchTarget, Matcher},
};

/// Below this many routes a plain loop is faster than an index.
const INDEX_FROM: usize = 16;

/// Routes in order, with an index over what they match.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    index: Option<Index>,
    /// `VirtualHost.matcher`: which of the routes are asked, instead of all.
    tree: Option<Matcher<Range<u32>>>,
}

impl Routes {
    pub(super) fn new(routes: Vec<Route>) -> Self {
        let index = (routes.len() >= INDEX_FROM).then(|| {
            let matches = routes.iter().map(|r| (&r.matcher.path, r.matcher.case_sensitive));
            Index::new(matches)
        });
        Self {
            routes,
            index,
            tree: None,
        }
    }

    /// Routes that stand in a matcher tree: an action is a route, or a list of them.
    pub(super) fn of_tree(proto: MatcherProto, with: &RouteCx<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut target = Target {
            with,
            routes: Vec::new(),
        };
        let tree = Matcher::build(proto, &mut target, cx)?;
        Ok(Self {
            routes: target.routes,
            index: None,
            tree: Some(tree),
        })
    }

    pub(super) fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The index of the first route that matches.
    pub(super) fn find(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
        random: u64,
        ignore_parameters: bool,
    ) -> Option<u32> {
        let path = PathView::new(head, ignore_parameters);
        let matches = |i: u32| {
            let route = self.routes.get(i as usize);
            route.is_some_and(|r| r.matcher.matches_path(&path, head, info, random))
        };
        if let Some(tree) = &self.tree {
            let mut chosen = tree.find(&MatchCx::request(info, head))?.clone();
            return chosen.find(|i| matches(*i));
        }
        match &self.index {
            None => (0..self.routes.len() as u32).find(|i| matches(*i)),
            Some(index) => index.find(path.for_match(), matches),
        }
    }
}

/// Builds the routes of a tree as its actions come.
struct Target<'a> {
    with: &'a RouteCx<'a>,
    routes: Vec<Route>,
}

impl MatchTarget for Target<'_> {
    type Action = Range<u32>;

    fn allows(&self, input: &str) -> Result<(), String> {
        match input {
            "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
            | "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput" => Ok(()),
            other => Err(format!("Route table can only match on request headers, saw {other}")),
        }
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Range<u32>> {
        let routes = match config.type_name() {
            kind if kind == RouteProto::full_name() => vec![unpack::<RouteProto>(&config, cx)?],
            kind if kind == RouteList::full_name() => {
                let proto: RouteList = unpack(&config, cx)?;
                coverage!(cx, proto => RouteList { supported { routes } });
                routes
            }
            kind => {
                return Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{kind}'"
                )));
            }
        };
        let first = self.routes.len() as u32;
        let built = cx.each("routes", routes, |r, cx| Route::build(r, self.with, cx))?;
        self.routes.extend(built);
        Ok(first..self.routes.len() as u32)
    }
}
