//! The admin listener and its thread.

use std::{convert::Infallible, fmt, io, net::SocketAddr, pin::pin, sync::Arc, thread};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio_stream::wrappers::ReceiverStream;
use xds_protos::envoy::config::bootstrap::v3::Admin;

use super::{AdminRequest, Reply, connection_stats::AdminStats, endpoints, reply::ReplyBody};
use crate::{
    config::{BuildCx, ConfigError, ConfigResult},
    net::{Address, ListenOptions, ListenSocket, SocketOption, address_from_proto, bind},
    server::{
        ServerContext,
        hot_restart::{AdminState, SocketKind},
    },
};

/// Most bytes of a POST's body.
const MAX_BODY: usize = 1024 * 1024;

/// Binds the admin address of the bootstrap and serves it on a thread of its own; returns where it listens.
pub fn start(proto: Admin, server: &Arc<ServerContext>) -> ConfigResult<Option<Address>> {
    let mut cx = BuildCx::new(server);
    let cx = &mut cx;
    coverage!(cx, proto => Admin {
        supported { address, ignore_global_conn_limit, socket_options }
        ignored {
            access_log: "requests to the admin server are not logged",
            access_log_path: "requests to the admin server are not logged",
            profile_path: "profiles are not written",
        }
        rejected { allow_paths: "a list of allowed admin paths" }
    });
    let _ = ignore_global_conn_limit;
    let Some(address) = address else { return Ok(None) };
    let address = cx.field("admin.address", |cx| address_from_proto(address, cx))?;
    let options = ListenOptions {
        socket_options: cx.each("admin.socket_options", socket_options, SocketOption::build)?,
        ..ListenOptions::default()
    };
    let failed = |e: &dyn fmt::Display| ConfigError::new("", e.to_string());
    let socket = match server.hot_restart.take_admin(&address) {
        Some(socket) => Some(socket),
        None => bind(&address, &options, 1, &"admin".into())
            .map_err(|e| failed(&e))?
            .pop(),
    };
    let Some(socket) = socket else { return Ok(None) };
    socket.listen(&address, &options).map_err(|e| failed(&e))?;
    let bound = socket.local_address(&address);
    let server = server.clone();
    thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    if let Err(error) = runtime.block_on(serve(socket, server)) {
                        tracing::error!(%error, "the admin server ended");
                    }
                }
                Err(error) => tracing::error!(%error, "the admin server could not start"),
            }
        })
        .map_err(|e| failed(&e))?;
    Ok(Some(bound))
}

async fn serve(socket: ListenSocket, server: Arc<ServerContext>) -> io::Result<()> {
    let stats = AdminStats::new(&server.stats);
    let shared = server.hot_restart.share(SocketKind::Admin, &socket);
    match socket {
        ListenSocket::Tcp(s) => {
            let listener = tokio::net::TcpListener::from_std(s)?;
            let accept = async || listener.accept().await.map(|(stream, _)| TokioIo::new(stream));
            accept_while_open(&server, &stats, accept).await;
        }
        // The admin listener is asked for streams alone.
        ListenSocket::Udp(_) => return Ok(()),
        ListenSocket::Unix(s) => {
            let listener = tokio::net::UnixListener::from_std(s)?;
            let accept = async || listener.accept().await.map(|(stream, _)| TokioIo::new(stream));
            accept_while_open(&server, &stats, accept).await;
        }
    }
    // The successor has the socket; connections that are open still are answered.
    drop(shared);
    std::future::pending().await
}

/// Accepts until a successor serves; not while one initialises on the same socket.
async fn accept_while_open<I>(server: &Arc<ServerContext>, stats: &AdminStats, accept: impl AsyncFn() -> io::Result<I>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut gate = server.hot_restart.admin().listen();
    loop {
        let state = *gate.borrow_and_update();
        match state {
            AdminState::Closed => return,
            AdminState::Paused => {
                let _ = gate.changed().await;
            }
            AdminState::Open => {
                tokio::select! {
                    biased;
                    _ = gate.changed() => {}
                    accepted = accept() => match accepted {
                        Ok(io) => connection(io, server.clone(), stats.clone()),
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    },
                }
            }
        }
    }
}

fn connection<I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(
    io: I,
    server: Arc<ServerContext>,
    stats: AdminStats,
) {
    let mut gate = server.hot_restart.admin().listen();
    tokio::spawn(async move {
        let _open = stats.connection();
        let service = service_fn(move |request| {
            let (server, stats) = (server.clone(), stats.clone());
            async move {
                let open = stats.request();
                let response = answer(request, server).await;
                open.answered(response.status());
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(http1::Builder::new().serve_connection(io, service));
        // A client that breaks off is its own affair.
        let handed_over = async { gate.wait_for(|state| *state != AdminState::Open).await.is_ok() };
        let ended = tokio::select! {
            _ = connection.as_mut() => true,
            _ = handed_over => false,
        };
        if !ended {
            // Whoever keeps a connection is to ask the successor from now on.
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    });
}

async fn answer(request: Request<Incoming>, server: Arc<ServerContext>) -> Response<BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map(|b| b.to_bytes())
        .unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let is_form = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v == "application/x-www-form-urlencoded");
    let request = AdminRequest {
        server,
        is_form,
        method: parts.method,
        query,
        body,
    };
    let Reply {
        status,
        content_type,
        nosniff_twice,
        body,
    } = endpoints::dispatch(parts.uri.path(), &request);
    let body = match body {
        // A stream, so that it goes out chunked: Envoy's admin never tells a length.
        ReplyBody::Whole(bytes) => {
            let piece = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
            BodyExt::boxed(StreamBody::new(futures_util::stream::iter(piece)))
        }
        ReplyBody::Pieces(pieces) => {
            BodyExt::boxed(StreamBody::new(ReceiverStream::new(pieces).map(|b| Ok(Frame::data(b)))))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if nosniff_twice {
        headers.append(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
    response
}

/// Writes the admin address to `--admin-address-path`.
pub fn write_address(path: &std::path::Path, address: &Address) -> io::Result<()> {
    let text = match address {
        Address::Ip(a) => SocketAddr::to_string(a),
        other => other.to_string(),
    };
    std::fs::write(path, text)
}
