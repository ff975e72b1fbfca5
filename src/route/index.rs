//! Which routes of a virtual host may match a path, found without looking at each.
//!
//! Routes are known by their rank, their place in the configuration. Exact paths stand in a hash map; prefixes in one
//! sorted list in which every prefix knows the next shorter one that it begins with, so that one binary search finds
//! all prefixes of a path. What can only be found by trying (regular expressions, templates) is a list of its own.
//! The lists are merged by rank as the search goes on: the first match wins, as if every route had been tried.

use std::{collections::HashMap, ops::ControlFlow};

use smallvec::SmallVec;

use super::path::PathMatch;

/// Ranks in order.
type Ranks = Vec<u32>;

/// The index over the routes of one virtual host.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<[u8]>, Ranks>,
    prefixes: Prefixes,
    /// Those with `case_sensitive: false`, in lower case.
    folded_exact: HashMap<Box<[u8]>, Ranks>,
    folded_prefixes: Prefixes,
    /// What can only be found by trying.
    others: Ranks,
}

/// Prefixes in lexical order.
#[derive(Debug, Default)]
struct Prefixes(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    ranks: Ranks,
    /// The longest other prefix that this one begins with.
    shorter: Option<u32>,
}

impl Index {
    /// Indexes matches, given in order with whether they are case-sensitive.
    pub(super) fn new<'m>(matches: impl Iterator<Item = (&'m PathMatch, bool)>) -> Self {
        let mut index = Self::default();
        let mut prefixes: HashMap<Box<[u8]>, Ranks> = HashMap::new();
        let mut folded: HashMap<Box<[u8]>, Ranks> = HashMap::new();
        for (rank, (path, case_sensitive)) in matches.enumerate() {
            let key = |text: &str| match case_sensitive {
                true => Box::from(text.as_bytes()),
                false => text.to_ascii_lowercase().into_bytes().into_boxed_slice(),
            };
            let list = match (path, case_sensitive) {
                (PathMatch::Exact(text), true) => index.exact.entry(key(text)).or_default(),
                (PathMatch::Exact(text), false) => index.folded_exact.entry(key(text)).or_default(),
                (PathMatch::Prefix(text) | PathMatch::Separated(text), true) => prefixes.entry(key(text)).or_default(),
                (PathMatch::Prefix(text) | PathMatch::Separated(text), false) => folded.entry(key(text)).or_default(),
                (PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect, _) => &mut index.others,
            };
            list.push(rank as u32);
        }
        index.prefixes = Prefixes::new(prefixes);
        index.folded_prefixes = Prefixes::new(folded);
        index
    }

    /// The first rank, in order, of those that may match `path` and for which `matches` says so. A request without a
    /// path can only match what has to be tried.
    pub(super) fn find(&self, path: Option<&[u8]>, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut lists: SmallVec<[&[u32]; 16]> = SmallVec::new();
        let folded;
        lists.push(&self.others);
        if let Some(path) = path {
            lists.extend(self.exact.get(path).map(Vec::as_slice));
            self.prefixes.collect(path, &mut lists);
            if !self.folded_exact.is_empty() || !self.folded_prefixes.0.is_empty() {
                folded = path.to_ascii_lowercase();
                lists.extend(self.folded_exact.get(folded.as_slice()).map(Vec::as_slice));
                self.folded_prefixes.collect(&folded, &mut lists);
            }
        }
        let found = merged(lists, |rank| match matches(rank) {
            true => ControlFlow::Break(rank),
            false => ControlFlow::Continue(()),
        });
        found.break_value()
    }
}

/// Visits the ranks of sorted lists in order.
fn merged<B>(mut lists: SmallVec<[&[u32]; 16]>, mut visit: impl FnMut(u32) -> ControlFlow<B>) -> ControlFlow<B> {
    loop {
        let heads = lists.iter_mut().filter(|list| !list.is_empty());
        let Some(least) = heads.min_by_key(|list| list.first().copied()) else {
            return ControlFlow::Continue(());
        };
        if let Some((rank, rest)) = least.split_first() {
            *least = rest;
            visit(*rank)?;
        }
    }
}

impl Prefixes {
    fn new(by_text: HashMap<Box<[u8]>, Ranks>) -> Self {
        let mut all: Vec<Prefix> = by_text
            .into_iter()
            .map(|(text, ranks)| Prefix {
                text,
                ranks,
                shorter: None,
            })
            .collect();
        all.sort_unstable_by(|a, b| a.text.cmp(&b.text));
        // What a text begins with stands before it: the open ones are a stack.
        let mut open: Vec<u32> = Vec::new();
        for at in 0..all.len() {
            while let Some(&last) = open.last() {
                if all[at].text.starts_with(&all[last as usize].text) {
                    break;
                }
                open.pop();
            }
            all[at].shorter = open.last().copied();
            open.push(at as u32);
        }
        Self(all)
    }

    /// Adds the ranks of every prefix of `path`.
    fn collect<'i>(&'i self, path: &[u8], into: &mut SmallVec<[&'i [u32]; 16]>) {
        // Whatever the path begins with is the last text that is not greater, or one that this begins with.
        let after = self.0.partition_point(|prefix| *prefix.text <= *path);
        let mut at = after.checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.0.get(at)) {
            if path.starts_with(&prefix.text) {
                into.push(&prefix.ranks);
            }
            at = prefix.shorter.map(|at| at as usize);
        }
    }
}
