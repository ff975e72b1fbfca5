//! `envoy.network.dns_resolver.cares`: asks name servers, as Envoy does with the c-ares library.
//!
//! The queries are hickory's. Which are made, of whom, and what an answer means is Envoy's and c-ares' way: a name
//! without records or without existence is an answer, not a failure; after a failure the next name server is asked.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hickory_resolver::{
    Resolver,
    config::{ResolverConfig, ResolverOpts},
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};

use super::{
    Answer, DnsFamily, Resolved,
    hosts::{self, HostsFile},
    runtime::Runtime,
};
use crate::stats::Stats;

crate::stats_block! {
    /// `dns.cares.`
    pub(super) struct CaresStats {
        counter get_addr_failure, "Questions that no name server answered";
        counter not_found, "Names without records";
        gauge pending_resolutions, "Questions under way";
        counter reinits, "Times the sockets were opened anew after a failure";
        counter resolve_total, "Questions";
        counter timeouts, "Questions that timed out";
    }
}

/// What names of this machine hold for: c-ares gives them no TTL.
const LOCAL_TTL: Duration = Duration::ZERO;

/// The resolver.
pub struct Cares {
    /// Search domains with one name server each, in the order they are asked.
    pub(super) servers: Vec<ResolverConfig>,
    /// Timeouts and the like.
    pub(super) options: ResolverOpts,
    /// `query_tries`: how often all of them are asked.
    pub(super) tries: u32,
    /// `rotate_nameservers`: which one is asked first, one after the other; without it always the first one.
    pub(super) rotation: Option<AtomicUsize>,
    /// `filter_unroutable_families`
    pub(super) filter_unroutable: bool,
    pub(super) stats: Stats<CaresStats>,
    pub(super) state: Mutex<State>,
}

/// What is made at the first question.
#[derive(Default)]
pub(super) struct State {
    /// One for each server.
    resolvers: Vec<Resolver<Runtime>>,
    hosts: HostsFile,
}

/// What became of one lookup.
enum Lookup {
    Found(Vec<Resolved>),
    /// The name servers know of none.
    NoRecords(&'static str),
    Failed(&'static str),
}

impl Cares {
    /// Asks as often as the family needs.
    pub async fn resolve(&self, name: &str, family: DnsFamily) -> Answer {
        let first = match family {
            DnsFamily::V4Only => return answer(vec![self.counted(name, &[RecordType::A]).await]),
            DnsFamily::V6Only => return answer(vec![self.counted(name, &[RecordType::AAAA]).await]),
            DnsFamily::All => {
                return answer(vec![self.counted(name, &[RecordType::A, RecordType::AAAA]).await]);
            }
            DnsFamily::Auto => [RecordType::AAAA, RecordType::A],
            DnsFamily::V4Preferred => [RecordType::A, RecordType::AAAA],
        };
        let mut lookups = Vec::new();
        for (at, kind) in first.into_iter().enumerate() {
            let lookup = self.lookup_all(name, &[kind]).await;
            self.count(&lookup, at == 1);
            let found = matches!(&lookup, Lookup::Found(found) if !found.is_empty());
            lookups.push(lookup);
            if found {
                break;
            }
        }
        answer(lookups)
    }

    async fn counted(&self, name: &str, kinds: &[RecordType]) -> Lookup {
        let lookup = self.lookup_all(name, kinds).await;
        self.count(&lookup, true);
        lookup
    }

    /// `last`: no other lookup follows for this question, so that a failure is one of the sockets.
    fn count(&self, lookup: &Lookup, last: bool) {
        let stats = self.stats.local();
        stats.resolve_total.inc();
        match lookup {
            Lookup::Found(_) => {}
            Lookup::NoRecords(_) => stats.not_found.inc(),
            Lookup::Failed(TIMEOUT) => stats.timeouts.inc(),
            Lookup::Failed(_) => stats.get_addr_failure.inc(),
        }
        if last && matches!(lookup, Lookup::Failed(_)) {
            stats.reinits.inc();
            self.state().resolvers.clear();
        }
    }

    /// All kinds of records beside each other, as one lookup.
    async fn lookup_all(&self, name: &str, kinds: &[RecordType]) -> Lookup {
        self.stats.local().pending_resolutions.inc();
        let lookups = futures_util::future::join_all(kinds.iter().map(|kind| self.lookup(name, *kind))).await;
        self.stats.local().pending_resolutions.dec();
        let mut all = Vec::new();
        let (mut failed, mut none) = (None, NOT_FOUND);
        for lookup in lookups {
            match lookup {
                Lookup::Found(found) => all.extend(found),
                Lookup::NoRecords(why) => none = why,
                Lookup::Failed(why) => failed = Some(why),
            }
        }
        match failed {
            _ if !all.is_empty() => Lookup::Found(DnsFamily::All.choose(all)),
            Some(why) => Lookup::Failed(why),
            None => Lookup::NoRecords(none),
        }
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Lookup {
        if self.filter_unroutable && !routable(kind) {
            return Lookup::Found(Vec::new());
        }
        let local = |ip| Lookup::Found(vec![Resolved { ip, ttl: LOCAL_TTL }]);
        if let Some(ip) = hosts::literal(name, kind) {
            return local(ip);
        }
        let Some(parsed) = parse(name) else {
            return Lookup::Failed("Misformatted domain name");
        };
        let resolvers = {
            let mut state = self.state();
            let here = hosts::in_file(state.hosts.current(), &parsed, kind);
            if !here.is_empty() {
                let local = |ip| Resolved { ip, ttl: LOCAL_TTL };
                return Lookup::Found(here.into_iter().map(local).collect());
            }
            if let Some(ip) = hosts::loopback(name, kind) {
                return local(ip);
            }
            if state.resolvers.is_empty() {
                match self.servers.iter().map(|server| self.build(server)).collect() {
                    Ok(built) => state.resolvers = built,
                    Err(error) => return failure(&error),
                }
            }
            state.resolvers.clone()
        };
        let first = self
            .rotation
            .as_ref()
            .map_or(0, |r| r.fetch_add(1, Relaxed) % resolvers.len().max(1));
        let mut last = Lookup::Failed(NO_SERVERS);
        for _ in 0..self.tries {
            for resolver in resolvers[first..].iter().chain(&resolvers[..first]) {
                last = match resolver.lookup(parsed.clone(), kind).await {
                    Ok(lookup) => records(lookup.answers().iter().map(|r| (&r.data, r.ttl)), kind),
                    Err(error) => failure(&error),
                };
                if !matches!(last, Lookup::Failed(_)) {
                    return last;
                }
            }
        }
        last
    }

    fn build(&self, server: &ResolverConfig) -> Result<Resolver<Runtime>, NetError> {
        let mut builder = Resolver::builder_with_config(server.clone(), Runtime::default());
        *builder.options_mut() = self.options.clone();
        builder.build()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name, if it is one of a host; an address of the wrong kind is none.
fn parse(name: &str) -> Option<Name> {
    let of_host = |b: u8| b.is_ascii_alphanumeric() || b"-._/*".contains(&b);
    Name::from_ascii(name)
        .ok()
        .filter(|_| !name.is_empty() && name.bytes().all(of_host))
}

/// The addresses among the records, none of which lives longer than a name on the way to it.
fn records<'r>(records: impl Iterator<Item = (&'r RData, u32)> + Clone, kind: RecordType) -> Lookup {
    let aliases = records.clone().filter(|(data, _)| matches!(data, RData::CNAME(_)));
    let shortest = aliases.map(|(_, ttl)| ttl).min().unwrap_or(u32::MAX);
    let of_kind = |data: &RData| data.ip_addr().filter(|ip| ip.is_ipv6() == (kind == RecordType::AAAA));
    let found: Vec<Resolved> = records
        .filter_map(|(data, ttl)| {
            of_kind(data).map(|ip| Resolved {
                ip,
                ttl: Duration::from_secs(ttl.min(shortest).into()),
            })
        })
        .collect();
    match found.is_empty() {
        true => Lookup::NoRecords(NO_DATA),
        false => Lookup::Found(found),
    }
}

const NOT_FOUND: &str = "Domain name not found";
const NO_DATA: &str = "DNS server returned answer with no data";
const NO_SERVERS: &str = "Could not contact DNS servers";
const TIMEOUT: &str = "Timeout while contacting DNS servers";

/// The words of c-ares.
fn failure(error: &NetError) -> Lookup {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => Lookup::NoRecords(match none.response_code {
            ResponseCode::NXDomain => NOT_FOUND,
            _ => NO_DATA,
        }),
        NetError::Dns(DnsError::ResponseCode(code)) => Lookup::Failed(match code {
            ResponseCode::FormErr => "DNS server claims query was misformatted",
            ResponseCode::NotImp => "DNS server does not implement requested operation",
            ResponseCode::Refused => "DNS server refused query",
            _ => "DNS server returned general failure",
        }),
        NetError::Timeout => Lookup::Failed(TIMEOUT),
        _ => Lookup::Failed(NO_SERVERS),
    }
}

/// One answer of all lookups for a question: it is one if any of them was.
fn answer(lookups: Vec<Lookup>) -> Answer {
    let (mut completed, mut addresses, mut details) = (false, Vec::new(), String::new());
    for lookup in lookups {
        match lookup {
            Lookup::Found(found) => {
                completed = true;
                addresses.extend(found);
                details = "cares_success:Successful completion".into();
            }
            Lookup::NoRecords(why) => {
                completed = true;
                details = format!("cares_norecords:{why}");
            }
            Lookup::Failed(why) => details = format!("cares_failure:{why}"),
        }
    }
    Answer {
        completed,
        addresses,
        details: details.into(),
    }
}

/// Whether any interface but the loopback has addresses of the kind.
fn routable(kind: RecordType) -> bool {
    let file = match kind {
        RecordType::AAAA => "/proc/net/if_inet6",
        _ => "/proc/net/route",
    };
    let Ok(text) = fs::read_to_string(file) else {
        return kind != RecordType::AAAA;
    };
    let device = |line: &str| match kind {
        RecordType::AAAA => line.split_whitespace().last().map(str::to_owned),
        _ => line.split_whitespace().next().map(str::to_owned),
    };
    text.lines()
        .filter_map(device)
        .any(|name| !name.is_empty() && name != "lo" && name != "Iface")
}
