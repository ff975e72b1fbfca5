//! A connection's task, from its preface to its end.

use std::{cell::Cell, future::poll_fn, pin::Pin, rc::Rc, task::Poll, time::Instant};

use bytes::Bytes;
use h2::client;

use super::{
    super::{
        conn::{self, Conn},
        io::Counted,
        open::OpenGuard,
    },
    Link, Sender,
};
use crate::{
    http::codec::http2::{self, Observed, Observer, Pinger},
    net::{Deadline, Stream},
    upstream::ConnectFailure,
};

/// What waits for a slow upstream, of one stream.
const SEND_BUFFER: usize = 256 * 1024;

/// Tells streams that their connection is over, however its task ends.
struct Closes(Rc<Link>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.closed.set(true);
    }
}

/// Serves requests over a stream until it closes.
pub(in super::super) async fn drive(
    open: &mut OpenGuard,
    stream: Stream,
    conn: Rc<Conn>,
) -> Result<(), ConnectFailure> {
    let cluster = open.pool.cluster.clone();
    let options = &cluster.http.http2;
    let seen = Observer::client(cluster.scope.block(), options.floods);
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .header_table_size(options.hpack_table_size)
        .initial_max_send_streams(options.max_concurrent_streams as usize)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(http2::library_limit(
            cluster.http.max_response_headers_kb as usize * 1024,
        ));
    let io = Observed::new(Counted::new(stream, cluster.clone()), seen.clone());
    let (requests, mut connection) = builder
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|e| ConnectFailure::Remote {
            reason: e.to_string().into(),
        })?;
    let link = Rc::new(Link {
        seen: seen.clone(),
        closed: Cell::new(false),
        last_read: Cell::new(Instant::now()),
        ping: Cell::new(false),
        watched: options.keepalive.is_some_and(|k| k.idle_interval.is_some()),
    });
    let _closes = Closes(link.clone());
    let mut pinger = options
        .keepalive
        .and_then(|config| Some(Pinger::new(config, connection.ping_pong()?)));
    conn.max_streams.set(connection.max_concurrent_send_streams());
    let sender = Sender {
        requests,
        link: link.clone(),
    };
    open.ready(conn::Sender::H2(sender), conn.clone());

    let stats = cluster.stats.local();
    let mut timer = open.check_timers(&conn).map(Deadline::at);
    let mut frames = 0;
    let ended = poll_fn(|cx| {
        if link.ping.take()
            && let Some(pinger) = &mut pinger
            && pinger.wants_ping(link.last_read.get())
        {
            pinger.ping(&seen);
        }
        let polled = Pin::new(&mut connection).poll(cx);
        if seen.goaway().is_some() && !conn.retired.get() {
            stats.upstream_cx_close_notify.inc();
            open.pool.retire(&conn);
        }
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(ended.err().map(|error| error.to_string()));
        }
        if std::mem::replace(&mut frames, seen.frames_read()) != frames && link.watched {
            link.last_read.set(Instant::now());
        }
        for (_, code) in seen.take_library_resets() {
            if h2::Reason::from(code) == h2::Reason::PROTOCOL_ERROR {
                seen.stats.local().rx_messaging_error.inc();
            }
        }
        open.streams_allowed(&conn, connection.max_concurrent_send_streams());
        if let Some(pinger) = &mut pinger
            && pinger.poll(cx, &seen).is_ready()
        {
            seen.stats.local().keepalive_timeout.inc();
            conn.closed_locally.set(true);
            return Poll::Ready(Some("no answer to a PING".to_owned()));
        }
        while timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready()) {
            timer = open.check_timers(&conn).map(Deadline::at);
        }
        Poll::Pending
    })
    .await;
    if let Some(error) = ended {
        tracing::debug!(cluster = %cluster.name, %error, "upstream connection ended");
    }
    Ok(())
}
