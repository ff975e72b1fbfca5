//! The routes of one virtual host: first match wins, found without looking at every route.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Route, path::PathMatch};
use crate::http::{RequestHead, StreamInfo};

/// Below this many routes a plain loop is faster than an index.
const INDEX_FROM: usize = 16;

/// Routes in order, with an index over those that match by a case-sensitive path or prefix.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    index: Option<Index>,
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
        Self { routes, index }
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
        match &self.index {
            None => (0..self.routes.len() as u32).find(|i| matches(*i)),
            Some(index) => index
                .candidates(head, ignore_parameters)
                .into_iter()
                .find(|i| matches(*i)),
        }
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
