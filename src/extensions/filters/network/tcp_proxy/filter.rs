//! One proxied connection: connected, copied, and ended as either side ends it.

use std::{borrow::Cow, io, pin::pin, rc::Rc, sync::Arc, time::Duration};

use super::{
    alarm::Alarm,
    client::Client,
    config::Config,
    connect::{Connecting, Kind, Opened},
    drain_close,
    session::Session,
    shed::Shed,
};
use crate::{
    http::{
        ConnectionInfo, Flag,
        codec::{TunnelEnd, TunnelState},
        stream_info::DetectedClose,
    },
    net::{CopyEnd, Copying, Rest},
    network_filter::Connection,
    server::Worker,
    upstream::TcpCounted,
};

/// Filter state of the idle timeout, in milliseconds.
const IDLE_TIMEOUT: &str = "envoy.tcp_proxy.per_connection_idle_timeout_ms";

/// Connects upstream and copies until either side is done. The log line is written even when the future is dropped.
pub(super) async fn serve(config: Arc<Config>, worker: Rc<Worker>, connection: Connection) {
    let mut shed = Shed::of(&connection.listener, &worker);
    let mut session = Session::new(config.clone(), connection.info);
    session.stats().downstream_cx_total.inc();
    if shed.refuses(&mut session) {
        return;
    }
    let mut alarm = Alarm::new(&config, idle_timeout(&session));
    if config.log_moments.on_start {
        session.log("TcpConnectionStart");
    }
    let stream = match config.check_drain_close {
        true => drain_close::checked(connection.stream, connection.drain, worker.server.clone()),
        false => connection.stream,
    };
    let mut client = Client::new(shed.watched(stream), config.max_early_data);
    // Boxed: what it takes to connect is not kept as long as the connection.
    let connecting = Box::pin(
        Connecting {
            session: &mut session,
            alarm: &mut alarm,
            client: &mut client,
            worker: &worker,
        }
        .run(),
    );
    let Some(Opened { stream, kind }) = connecting.await else {
        return;
    };
    drop(worker);
    session.tell_upstream();
    session.info.connection.upstream_ready(&session.info.upstream);
    if config.log_moments.on_connected {
        session.log("TcpUpstreamConnected");
    }
    let mut copying = Copying::new(client.stream, stream);
    if !client.early.is_empty() || client.ended {
        copying = copying.with_early(client.early, client.ended);
    }
    let end = {
        let progress = session.progress.clone();
        let mut running = pin!(copying.run(&progress));
        loop {
            let rang = tokio::select! {
                biased;
                end = running.as_mut() => break Some(end),
                rang = alarm.next(&progress) => rang,
            };
            if !session.rang(rang) {
                break None;
            }
        }
    };
    shed.ended(&mut session);
    match kind {
        Kind::Plain(counted) => plain_ended(&mut session, copying, end, counted, alarm.idle).await,
        Kind::Tunnel(tunnel) => tunnel_ended(&mut session, copying, end, &tunnel, alarm.idle).await,
    }
}

/// The line of a connection that a filter before this one closed.
pub(super) fn refused(config: &Arc<Config>, info: &Rc<ConnectionInfo>, flag: Option<Flag>) {
    let mut session = Session::new(config.clone(), info.clone());
    session.stats().downstream_cx_total.inc();
    if let Some(flag) = flag {
        session.info.flags.set(flag);
    }
}

/// `idle_timeout`, or what filters have set for this connection.
fn idle_timeout(session: &Session) -> Option<Duration> {
    let state = session.info.connection.filter_state.borrow();
    let own = state.get(IDLE_TIMEOUT).and_then(|object| object.as_text());
    match own.and_then(|text| text.parse().ok()) {
        Some(own) => Some(Duration::from_millis(own)),
        None => session.config.idle_timeout,
    }
}

async fn plain_ended(
    session: &mut Session,
    copying: Copying,
    end: Option<CopyEnd>,
    mut counted: TcpCounted,
    idle: Option<Duration>,
) {
    match end {
        // The upstream has closed its half, and then the client: the rest is this side's to close.
        Some(CopyEnd::Finished { second_first }) => counted.closed_locally = second_first,
        Some(CopyEnd::FirstFailed(drain_close::CLOSED)) => {
            counted.closed_locally = true;
            drained(session, copying, idle).await;
        }
        Some(CopyEnd::FirstFailed(error)) => {
            counted.closed_locally = true;
            client_left(session, error);
            if copying.left_for_second() > 0 {
                let flushing = flush_upstream(session.config.clone(), copying.into_second(), counted, idle);
                tokio::task::spawn_local(flushing);
            }
        }
        Some(CopyEnd::SecondFailed(io::ErrorKind::ConnectionReset)) => pass_reset_on(session, copying),
        Some(CopyEnd::SecondFailed(_)) => flush_downstream(session, copying, idle).await,
        None => counted.closed_locally = true,
    }
}

async fn tunnel_ended(
    session: &mut Session,
    copying: Copying,
    end: Option<CopyEnd>,
    tunnel: &TunnelEnd,
    idle: Option<Duration>,
) {
    if let (Some(tunneling), Some(trailers)) = (&session.config.tunneling, tunnel.trailers()) {
        tunneling.ended(trailers, &session.info.connection);
    }
    match end {
        Some(CopyEnd::FirstFailed(drain_close::CLOSED)) => drained(session, copying, idle).await,
        Some(CopyEnd::FirstFailed(error)) => client_left(session, error),
        Some(CopyEnd::SecondFailed(_)) if tunnel.state() == TunnelState::RemoteReset => {
            pass_reset_on(session, copying);
        }
        Some(CopyEnd::SecondFailed(_)) => flush_downstream(session, copying, idle).await,
        Some(CopyEnd::Finished { .. }) | None => {}
    }
}

/// The listener drains: the client gets what there is, and then the end.
async fn drained(session: &mut Session, copying: Copying, idle: Option<Duration>) {
    session.stats().downstream_cx_drain_close.inc();
    let reason = Some(Cow::Borrowed("tcp_proxy_drain_close"));
    if session.upstream.is_some() {
        session.info.upstream.close.local_reason.clone_from(&reason);
    }
    session.info.close.local_reason = reason;
    flush_downstream(session, copying, idle).await;
}

fn client_left(session: &mut Session, error: io::ErrorKind) {
    if error == io::ErrorKind::ConnectionReset {
        session.info.close.detected = DetectedClose::RemoteReset;
    }
}

/// The upstream's reset is the client's.
fn pass_reset_on(session: &mut Session, copying: Copying) {
    let info = &mut session.info;
    info.flags.set(Flag::UpstreamRemoteReset);
    info.upstream.close.detected = DetectedClose::RemoteReset;
    info.close.detected = DetectedClose::LocalReset;
    copying.first().reset_on_drop();
}

/// The client gets what came before the upstream broke.
async fn flush_downstream(session: &mut Session, copying: Copying, idle: Option<Duration>) {
    let (sent, _) = copying.into_first().flush(idle, false).await;
    session.progress.back.set(session.progress.back.get() + sent);
}

/// The upstream gets what a client has sent that is gone.
async fn flush_upstream(config: Arc<Config>, rest: Rest, counted: TcpCounted, idle: Option<Duration>) {
    let stats = config.stats.local();
    stats.upstream_flush_total.inc();
    stats.upstream_flush_active.inc();
    let (sent, timed_out) = rest.flush(idle, true).await;
    counted.flushed(sent);
    if timed_out {
        stats.idle_timeout.inc();
    }
    stats.upstream_flush_active.dec();
}
