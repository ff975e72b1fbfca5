//! `type: ORIGINAL_DST`: hosts are made of the addresses that connections and requests want to go to.
//!
//! A worker that meets a new address makes its host and goes on; control takes the host up, shows it to the other
//! workers, and removes it after `cleanup_interval` without use. Until then the worker that made it remembers it.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use http::HeaderName;
use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use crate::{
    http::StreamInfo,
    net::Address,
    server::{ServerContext, WorkerMsg},
    upstream::{Cluster, ClusterMsg, Host, HostAttributes, HostSet, LbContext, LocalityHosts, WorkerCluster},
};

/// Filter state that says where to go, before everything else.
const FILTER_STATE: &str = "envoy.network.transport_socket.original_dst_address";

type Known = HashMap<SocketAddr, Arc<Entry>, RandomState>;

/// What is configured, and the hosts that all workers know.
#[derive(Debug)]
pub struct OriginalDst {
    /// `use_http_header` and `http_header_name`: whose first value is where to go.
    pub header: Option<HeaderName>,
    /// `metadata_key`: dynamic metadata that says where to go, a name and the keys below it.
    pub metadata_key: Option<(String, Vec<String>)>,
    /// `upstream_port_override`
    pub port: Option<u16>,
    /// `cleanup_interval`, 5 s: hosts go that nobody used for so long.
    pub cleanup_interval: Duration,
    known: ArcSwap<Known>,
}

#[derive(Debug)]
struct Entry {
    host: Arc<Host>,
    /// Since the last clean-up.
    used: AtomicBool,
}

impl OriginalDst {
    /// Without hosts.
    pub fn new(
        header: Option<HeaderName>,
        metadata_key: Option<(String, Vec<String>)>,
        port: Option<u16>,
        cleanup_interval: Duration,
    ) -> Self {
        Self {
            header,
            metadata_key,
            port,
            cleanup_interval,
            known: ArcSwap::default(),
        }
    }

    /// Takes up a host that a worker made, unless another worker was first. Control side.
    pub(super) fn add(&self, to: SocketAddr, host: Arc<Host>, cluster: &Arc<Cluster>, server: &ServerContext) {
        let mut known = Known::clone(&self.known.load());
        if known.contains_key(&to) {
            // Its connections end with the requests they have: from now on the other one is used.
            host.remove();
            return removed(cluster, server);
        }
        cluster.info.membership.local().total_match_count.inc();
        let used = AtomicBool::new(true);
        known.insert(to, Arc::new(Entry { host, used }));
        self.publish(known, cluster, server);
    }

    /// Removes the hosts that were not used since the last time and have no connection. Control side.
    pub fn clean_up(&self, cluster: &Arc<Cluster>, server: &ServerContext) {
        let before = self.known.load();
        let keep = |entry: &Entry| entry.used.swap(false, Relaxed) || entry.host.stats.cx_active.load(Relaxed) > 0;
        let (kept, gone): (Known, Known) = before.iter().map(|(a, e)| (*a, e.clone())).partition(|(_, e)| keep(e));
        if gone.is_empty() {
            return;
        }
        gone.values().for_each(|entry| entry.host.remove());
        self.publish(kept, cluster, server);
        removed(cluster, server);
    }

    fn publish(&self, known: Known, cluster: &Cluster, server: &ServerContext) {
        let hosts = known.values().map(|entry| entry.host.clone()).collect();
        let locality = LocalityHosts::new(Arc::default(), 0, hosts);
        self.known.store(Arc::new(known));
        let set = HostSet::new(vec![locality], 140, false);
        cluster.publish(cluster.host_sets(vec![Arc::new(set)], None, server), server);
        cluster.info.membership.local().membership_change.inc();
    }

    /// Where a request is to go. Errors of headers and metadata count; then the next source is asked.
    fn destination(&self, cluster: &WorkerCluster, cx: &LbContext<'_>) -> Option<SocketAddr> {
        let stream = cx.info?;
        let parsed = |text: &str| {
            let address = text.parse::<SocketAddr>().ok();
            if address.is_none() {
                cluster.info.stats.local().original_dst_host_invalid.inc();
            }
            address
        };
        let by_header = || cx.head?.get_str(self.header.as_ref()?.as_str());
        let mut to = by_filter_state(stream)
            .or_else(|| self.by_metadata(stream).and_then(|text| parsed(&text)))
            .or_else(|| by_header().and_then(parsed))
            .or_else(|| stream.connection.original_destination())?;
        if let Some(port) = self.port {
            to.set_port(port);
        }
        Some(to)
    }

    /// Of the request, else of the connection: a text, or a list that begins with one.
    fn by_metadata(&self, stream: &StreamInfo) -> Option<String> {
        let (name, path) = self.metadata_key.as_ref()?;
        let connection = stream.connection.metadata.borrow();
        [stream.metadata.get(name), connection.get(name)]
            .into_iter()
            .flatten()
            .find_map(|metadata| text(metadata, path))
    }
}

fn by_filter_state(stream: &StreamInfo) -> Option<SocketAddr> {
    let address = |text: Option<std::borrow::Cow<'_, str>>| text?.parse().ok();
    let of_stream = stream.filter_state.get(FILTER_STATE).and_then(|o| address(o.as_text()));
    of_stream.or_else(|| {
        let state = stream.connection.filter_state.borrow();
        state.get(FILTER_STATE).and_then(|o| address(o.as_text()))
    })
}

fn text(metadata: &Struct, path: &[String]) -> Option<String> {
    let (last, above) = path.split_last()?;
    let mut fields = &metadata.fields;
    for key in above {
        match fields.get(key)?.kind.as_ref()? {
            Kind::StructValue(below) => fields = &below.fields,
            _ => return None,
        }
    }
    let first = |value: &Value| match &value.kind {
        Some(Kind::ListValue(list)) => list.values.first().and_then(|v| v.kind.clone()),
        kind => kind.clone(),
    };
    match first(fields.get(last)?)? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Lets the workers close what they have to hosts that are gone.
fn removed(cluster: &Arc<Cluster>, server: &ServerContext) {
    server
        .mailboxes
        .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostsRemoved(cluster.clone())));
}

/// A worker's side.
pub struct OriginalDstLb {
    shared: Arc<OriginalDst>,
    /// Hosts made here that control has not taken up yet.
    fresh: RefCell<HashMap<SocketAddr, Arc<Host>, RandomState>>,
}

impl OriginalDstLb {
    pub fn new(shared: Arc<OriginalDst>) -> Self {
        Self {
            shared,
            fresh: RefCell::default(),
        }
    }

    pub fn pick(&self, cluster: &WorkerCluster, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        let to = self.shared.destination(cluster, cx)?;
        let mut fresh = self.fresh.borrow_mut();
        if let Some(entry) = self.shared.known.load().get(&to) {
            entry.used.store(true, Relaxed);
            fresh.remove(&to);
            return Some(entry.host.clone());
        }
        if let Some(host) = fresh.get(&to).filter(|h| !h.is_removed()) {
            return Some(host.clone());
        }
        // Envoy's name of such a host.
        let name = format!("{}{to}", cluster.info.name);
        let host = Arc::new(Host::new(Address::Ip(to), name, 1, HostAttributes::default()));
        fresh.insert(to, host.clone());
        let (shared, made) = (self.shared.clone(), host.clone());
        let published = cluster.published().clone();
        let take_up = move |server: &ServerContext| shared.add(to, made, &published, server);
        let server = cluster.server();
        server.mailboxes.run_on_control(move |worker| take_up(&worker.server));
        Some(host)
    }
}
