//! The routes of one virtual host: first match wins, found without looking at every route.

use std::{collections::HashMap, ops::Range};

use smallvec::SmallVec;
use xds_protos::{
    envoy::config::route::v3::{Route as RouteProto, RouteList},
    google::protobuf::Any,
    prost::Name,
    xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use super::{Route, path::PathMatch, route_entry::RouteCx};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::{RequestHead, StreamInfo},
    matching::tree::{MatchCx, MatchTarget, Matcher},
};

/// Below this many routes a plain loop is faster than an index.
const INDEX_FROM: usize = 16;

/// Routes in order, with an index over those that match by a case-sensitive path or prefix.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    index: Option<Index>,
    /// `VirtualHost.matcher`: which of the routes are asked, instead of all.
    tree: Option<Matcher<Range<u32>>>,
}

type ByText = HashMap<Box<str>, Vec<u32>>;

/// Which routes may match a path, by what they begin with. Every list is in route order.
#[derive(Debug, Default)]
struct Index {
    exact: ByText,
    /// Prefixes by length.
    prefixes: Vec<(usize, ByText)>,
    /// What can only be found by trying.
    others: Vec<u32>,
}

impl Routes {
    pub(super) fn new(routes: Vec<Route>) -> Self {
        let index = (routes.len() >= INDEX_FROM).then(|| Index::new(&routes));
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
        let matches = |i: u32| {
            let route = self.routes.get(i as usize);
            route.is_some_and(|r| r.matcher.matches(head, info, random, ignore_parameters))
        };
        if let Some(tree) = &self.tree {
            let mut chosen = tree.find(&MatchCx::request(info, head))?.clone();
            return chosen.find(|i| matches(*i));
        }
        match &self.index {
            None => (0..self.routes.len() as u32).find(|i| matches(*i)),
            Some(index) => index
                .candidates(head, ignore_parameters)
                .into_iter()
                .find(|i| matches(*i)),
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

impl Index {
    fn new(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (i, route) in routes.iter().enumerate() {
            let i = i as u32;
            let matcher = &route.matcher;
            let list = match &matcher.path {
                _ if !matcher.case_sensitive => &mut index.others,
                PathMatch::Exact(path) => index.exact.entry(path.as_str().into()).or_default(),
                PathMatch::Prefix(path) | PathMatch::Separated(path) => {
                    let at = match index.prefixes.binary_search_by_key(&path.len(), |(len, _)| *len) {
                        Ok(at) => at,
                        Err(at) => {
                            index.prefixes.insert(at, (path.len(), HashMap::new()));
                            at
                        }
                    };
                    index.prefixes[at].1.entry(path.as_str().into()).or_default()
                }
                PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect => &mut index.others,
            };
            list.push(i);
        }
        index
    }

    /// All routes that may match, in order.
    fn candidates(&self, head: &RequestHead, ignore_parameters: bool) -> SmallVec<[u32; 32]> {
        let mut path = head.path_only();
        if ignore_parameters {
            path = path.split(';').next().unwrap_or(path);
        }
        let mut found: SmallVec<[u32; 32]> = SmallVec::from_slice(&self.others);
        if head.path.is_some() {
            found.extend_from_slice(self.exact.get(path).map_or(&[], Vec::as_slice));
            for (len, prefixes) in &self.prefixes {
                let Some(start) = path.get(..*len) else {
                    // Longer than the path; a length inside a character matches no prefix either.
                    if *len > path.len() {
                        break;
                    }
                    continue;
                };
                found.extend_from_slice(prefixes.get(start).map_or(&[], Vec::as_slice));
            }
        }
        found.sort_unstable();
        found
    }
}
