//! `MatcherTree`: one input, many keys, found without looking at each.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use xds_protos::xds::r#type::matcher::v3::{
    IpMatcher, ServerNameMatcher,
    ip_matcher::IpRangeMatcher,
    matcher::{
        OnMatch as OnMatchProto,
        matcher_tree::{MatchMap, TreeType},
    },
    server_name_matcher::DomainMatcher,
};

use super::{Data, MatchCx, MatchTarget, OnMatch, extension, unknown};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    net::xds_cidr_range,
};

#[derive(Debug)]
pub(super) enum Lookup<A> {
    /// `exact_match_map`
    Exact(HashMap<Box<[u8]>, OnMatch<A>>),
    /// `prefix_match_map`: the longest one first, shorter ones when it leads nowhere.
    Prefix {
        map: HashMap<Box<[u8]>, OnMatch<A>>,
        lengths: BTreeSet<usize>,
    },
    /// `IPMatcher`: the longest prefix first. One table for each prefix length that is used.
    Ip(Vec<(IpNet, Range)>, Vec<OnMatch<A>>),
    /// `ServerNameMatcher`: the name, then wildcards from the longest, then `*`.
    Domain(HashMap<Box<str>, usize>, Vec<OnMatch<A>>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    then: usize,
    exclusive: bool,
}

impl<A> Lookup<A> {
    pub(super) fn build<T: MatchTarget<Action = A>>(
        proto: Option<TreeType>,
        target: &mut T,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        match proto {
            Some(TreeType::ExactMatchMap(map)) => cx
                .field("exact_match_map", |cx| self::map(map, target, cx))
                .map(Self::Exact),
            Some(TreeType::PrefixMatchMap(map)) => {
                let map = cx.field("prefix_match_map", |cx| self::map(map, target, cx))?;
                let lengths = map.keys().map(|k| k.len()).collect();
                Ok(Self::Prefix { map, lengths })
            }
            Some(TreeType::CustomMatch(custom)) => cx.field("custom_match", |cx| {
                let (name, any) = extension(custom, cx)?;
                match any.type_name() {
                    "xds.type.matcher.v3.IPMatcher" => Self::ip(unpack(&any, cx)?, target, cx),
                    "xds.type.matcher.v3.ServerNameMatcher" => Self::domain(unpack(&any, cx)?, target, cx),
                    other => Err(cx.error(unknown(&name, other))),
                }
            }),
            None => Err(cx.error_at("tree_type", "value is required")),
        }
    }

    fn ip<T: MatchTarget<Action = A>>(proto: IpMatcher, target: &mut T, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => IpMatcher { supported { range_matchers } });
        let mut all = Vec::new();
        let thens = cx.each("range_matchers", range_matchers, |m, cx| {
            coverage!(cx, m => IpRangeMatcher { supported { ranges, on_match, exclusive } });
            let then = all.iter().map(|(_, r): &(IpNet, Range)| r.then + 1).max().unwrap_or(0);
            all.extend(cx.each("ranges", ranges, |r, cx| {
                Ok((xds_cidr_range(r, cx)?, Range { then, exclusive }))
            })?);
            on_match_of(on_match, target, cx)
        })?;
        // Stable: of equal ranges the first one wins.
        all.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Ok(Self::Ip(all, thens))
    }

    fn domain<T: MatchTarget<Action = A>>(
        proto: ServerNameMatcher,
        target: &mut T,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        coverage!(cx, proto => ServerNameMatcher { supported { domain_matchers } });
        let mut names = HashMap::new();
        let mut next = 0;
        let thens = cx.each("domain_matchers", domain_matchers, |m, cx| {
            coverage!(cx, m => DomainMatcher { supported { domains, on_match } });
            for domain in domains {
                if domain.is_empty() {
                    return Err(cx.error_at("domains", "Empty domain in ServerNameMatcher"));
                }
                let rest = domain.strip_prefix("*.").unwrap_or(&domain);
                if domain != "*" && rest.contains('*') {
                    return Err(cx.error_at(
                        "domains",
                        format!("Invalid wildcard domain format: {domain}. Multiple wildcards are not supported"),
                    ));
                }
                if names.insert(domain.to_ascii_lowercase().into(), next).is_some() {
                    return Err(cx.error_at("domains", format!("duplicate domain: {domain}")));
                }
            }
            next += 1;
            on_match_of(on_match, target, cx)
        })?;
        Ok(Self::Domain(names, thens))
    }

    pub(super) fn find(&self, data: &Data<'_>, cx: &MatchCx<'_>) -> Option<&A> {
        match self {
            Self::Exact(map) => map.get(&*data.text()?)?.find(cx),
            Self::Prefix { map, lengths } => {
                let text = data.text()?;
                let mut prefixes = lengths.range(..=text.len()).rev().filter_map(|len| text.get(..*len));
                prefixes.find_map(|prefix| map.get(prefix)?.find(cx))
            }
            Self::Ip(ranges, thens) => by_ip(ranges, thens, data.ip()?, cx),
            Self::Domain(names, thens) => {
                let text = data.text()?;
                let name = std::str::from_utf8(&text).ok()?.to_ascii_lowercase();
                let then = |key: &str| names.get(key).and_then(|i| thens.get(*i)).and_then(|t| t.find(cx));
                let wildcards = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
                then(&name)
                    .or_else(|| wildcards.into_iter().find_map(|w| then(&w)))
                    .or_else(|| then("*"))
            }
        }
    }
}

fn by_ip<'a, A>(ranges: &[(IpNet, Range)], thens: &'a [OnMatch<A>], ip: IpAddr, cx: &MatchCx<'_>) -> Option<&'a A> {
    let having = ranges.iter().filter(|(net, _)| net.contains(&ip));
    // An exclusive range is not for addresses that a more precise one has, whatever that leads to.
    let considered = having.enumerate().filter(|(i, (_, range))| *i == 0 || !range.exclusive);
    considered
        .map(|(_, (_, range))| range)
        .find_map(|range| thens.get(range.then)?.find(cx))
}

/// What follows each value of an input.
type ByValue<A> = HashMap<Box<[u8]>, OnMatch<A>>;

fn map<T: MatchTarget>(proto: MatchMap, target: &mut T, cx: &mut BuildCx<'_>) -> ConfigResult<ByValue<T::Action>> {
    coverage!(cx, proto => MatchMap { supported { map } });
    map.into_iter()
        .map(|(key, value)| {
            let then = cx.field(&format!("map[{key}]"), |cx| OnMatch::build(value, target, cx))?;
            Ok((key.into_bytes().into_boxed_slice(), then))
        })
        .collect()
}

fn on_match_of<T: MatchTarget>(
    proto: Option<OnMatchProto>,
    target: &mut T,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<OnMatch<T::Action>> {
    cx.required("on_match", proto, |m, cx| OnMatch::build(m, target, cx))
}
