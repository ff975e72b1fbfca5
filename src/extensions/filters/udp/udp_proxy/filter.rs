//! The proxy at one socket: from a datagram to the sessions of its cluster.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, sync::Arc};

use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::{cluster::ClusterSessions, config::Config};
use crate::{
    access_log::LogCx,
    http::{ConnectionInfo, StreamInfo},
    listener::{Datagram, DatagramNext, UdpDownstream, UdpFilterCx, UdpReadFilter},
    net::{Address, DatagramReader},
    server::Worker,
};

/// What all sessions of a socket share.
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) worker: Rc<Worker>,
    pub(super) downstream: UdpDownstream,
    /// For what comes from hosts; held only while one socket is read.
    pub(super) reader: RefCell<DatagramReader>,
}

pub(super) struct Filter {
    shared: Rc<Shared>,
    clusters: HashMap<Arc<str>, Rc<ClusterSessions>>,
    /// The datagram's addresses, as matchers ask for them.
    asked: ConnectionInfo,
    /// Begun with the filter, for its own log line.
    info: Option<Box<StreamInfo>>,
}

impl Filter {
    pub(super) fn new(config: Arc<Config>, cx: &UdpFilterCx) -> Self {
        let info = || Box::new(StreamInfo::new(Rc::new(ConnectionInfo::of_nobody()), None));
        Self {
            info: (!config.proxy_access_log.is_empty()).then(info),
            shared: Rc::new(Shared {
                reader: RefCell::new(DatagramReader::new(config.datagrams.max, config.datagrams.gro)),
                config,
                worker: cx.worker.clone(),
                downstream: cx.downstream.clone(),
            }),
            clusters: HashMap::new(),
            asked: ConnectionInfo::of_nobody(),
        }
    }

    /// The sessions of the datagram's cluster.
    fn sessions(&mut self, datagram: &Datagram<'_>) -> Option<Rc<ClusterSessions>> {
        self.asked.local_address = Address::Ip(datagram.local);
        self.asked.remote_address = Address::Ip(datagram.peer);
        let name = self.shared.config.route.cluster(&self.asked)?;
        if let Some(known) = self.clusters.get(name).filter(|c| !c.is_gone()) {
            return Some(known.clone());
        }
        match self.shared.worker.clusters.get(name) {
            Some(cluster) => {
                let sessions = ClusterSessions::attach(cluster, self.shared.clone());
                self.clusters.insert(name.clone(), sessions.clone());
                Some(sessions)
            }
            None => {
                self.clusters.remove(name);
                None
            }
        }
    }
}

impl UdpReadFilter for Filter {
    fn on_data(&mut self, datagram: &Datagram<'_>) -> DatagramNext {
        match self.sessions(datagram) {
            Some(sessions) => sessions.on_data(datagram),
            None => self.shared.config.stats.local().downstream_sess_no_route.inc(),
        }
        DatagramNext::Stop
    }

    fn on_receive_error(&mut self, _: &io::Error) -> DatagramNext {
        self.shared.config.stats.local().downstream_sess_rx_errors.inc();
        DatagramNext::Stop
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // The sessions' lines come first.
        for sessions in self.clusters.values() {
            sessions.clear();
        }
        let Some(mut info) = self.info.take() else { return };
        let scope = &self.shared.config.scope;
        let count = |name: &str| {
            let name = format!("{}{name}", scope.prefix());
            scope.store().counter_value(&name).unwrap_or_default()
        };
        let fields = [
            ("bytes_received", "downstream_sess_rx_bytes"),
            ("bytes_sent", "downstream_sess_tx_bytes"),
            ("datagrams_received", "downstream_sess_rx_datagrams"),
            ("datagrams_sent", "downstream_sess_tx_datagrams"),
            ("errors_received", "downstream_sess_rx_errors"),
            ("errors_sent", "downstream_sess_tx_errors"),
            ("idle_timeout", "idle_timeout"),
            ("no_route", "downstream_sess_no_route"),
            ("session_total", "downstream_sess_total"),
        ];
        info.progress.bytes_received.set(count("downstream_sess_rx_bytes"));
        info.progress.bytes_sent.set(count("downstream_sess_tx_bytes"));
        let fields = fields.map(|(field, stat)| (field.to_owned(), number(count(stat))));
        info.metadata.insert(
            "udp.proxy.proxy".to_owned(),
            Struct {
                fields: fields.into_iter().collect(),
            },
        );
        info.end = Some(std::time::Instant::now());
        self.shared.config.proxy_access_log.log(&LogCx {
            request: None,
            response: None,
            info: &info,
        });
    }
}

/// A count in metadata.
pub(super) fn number(value: u64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(value as f64)),
    }
}
