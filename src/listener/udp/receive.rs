//! A UDP socket on one worker: from the socket to the filters.

use std::{convert::Infallible, io, net::SocketAddr, os::fd::AsFd, rc::Rc};

use tokio::{io::Interest, net::UdpSocket};

use super::{
    Datagram, DatagramNext, UdpListenerStats,
    filter::{UdpDownstream, UdpFilterCx, UdpReadFilter},
};
use crate::{
    listener::active::Active,
    net::{DatagramReader, prefer_gro},
    server::{Worker, hot_restart::SharedSocket},
    stats::Stats,
};

/// How many batches are taken before others of the worker have their turn.
const BATCHES: usize = 8;

/// Serves a socket until its listener stops. A new configuration of the listener keeps the socket, and with it what
/// waits there; the filters, and whatever sessions they have, are made anew, as in Envoy.
pub(in crate::listener) fn spawn(
    socket: std::net::UdpSocket,
    shared: Option<SharedSocket>,
    active: Rc<Active>,
    worker: Rc<Worker>,
) {
    let stop = active.stop.listen();
    tokio::task::spawn_local(async move {
        // The next process may have the socket for as long as this one receives from it.
        let _shared = shared;
        let socket = match UdpSocket::from_std(socket) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                let name = &active.config().name;
                tracing::error!(listener = %name, %error, "a UDP socket could not be used");
                return;
            }
        };
        loop {
            let serving = serve(&socket, &active, &worker);
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = active.changed.notified() => {}
                _ = serving => return,
            }
        }
    });
}

/// Serves with the present configuration.
async fn serve(socket: &Rc<UdpSocket>, active: &Rc<Active>, worker: &Rc<Worker>) -> Option<Infallible> {
    let config = active.config();
    let udp = config.udp.as_ref()?;
    let local = socket.local_addr().ok()?;
    if udp.datagrams.gro {
        prefer_gro(&**socket);
    }
    let cx = UdpFilterCx {
        worker: worker.clone(),
        listener: config.clone(),
        downstream: UdpDownstream::new(socket.clone()),
    };
    if udp.filters.is_empty() {
        tracing::warn!(listener = %config.name, "a UDP listener without filters: its datagrams are dropped");
    }
    let stats = worker.server.stats.scope(&format!("listener.{}.", config.stat_prefix));
    let mut receiver = Receiver {
        filters: udp.filters.iter().map(|filter| filter.create(&cx)).collect(),
        reader: DatagramReader::new(udp.datagrams.max, udp.datagrams.gro),
        stats: stats.block(),
        overflowed: 0,
        local,
    };
    loop {
        if socket.ready(Interest::READABLE).await.is_err() {
            return None;
        }
        receiver.take(socket);
        tokio::task::yield_now().await;
    }
}

struct Receiver {
    filters: Vec<Box<dyn UdpReadFilter>>,
    reader: DatagramReader,
    stats: Stats<UdpListenerStats>,
    /// What the kernel had dropped when it last said so.
    overflowed: u32,
    local: SocketAddr,
}

impl Receiver {
    /// Takes some batches, or what waits.
    fn take(&mut self, socket: &UdpSocket) {
        for _ in 0..BATCHES {
            let Self {
                filters, reader, local, ..
            } = self;
            let mut batch = None;
            let read = socket.try_io(Interest::READABLE, || {
                let taken = reader.receive(socket.as_fd(), |datagram| {
                    let datagram = Datagram {
                        local: SocketAddr::new(datagram.to.unwrap_or(local.ip()), local.port()),
                        peer: datagram.from,
                        bytes: datagram.bytes,
                    };
                    ask(filters, |filter| filter.on_data(&datagram));
                })?;
                batch = Some(taken);
                match taken.drained {
                    // Makes the reactor wait for the next ones without another call.
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            if let Some(batch) = batch {
                self.count(batch.truncated, batch.overflowed);
            }
            match read {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => ask(&mut self.filters, |filter| filter.on_receive_error(&e)),
            }
        }
    }

    fn count(&mut self, truncated: u64, overflowed: Option<u32>) {
        let dropped = &self.stats.local().downstream_rx_datagram_dropped;
        if truncated > 0 {
            dropped.add(truncated);
        }
        if let Some(total) = overflowed {
            dropped.add(total.wrapping_sub(self.overflowed).into());
            self.overflowed = total;
        }
    }
}

fn ask(filters: &mut [Box<dyn UdpReadFilter>], mut each: impl FnMut(&mut dyn UdpReadFilter) -> DatagramNext) {
    for filter in filters {
        if each(filter.as_mut()) == DatagramNext::Stop {
            return;
        }
    }
}
