//! Requests and streams for the tests of routes, matchers and formats.

use std::{
    rc::Rc,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use xds_protos::envoy::config::bootstrap::v3::Bootstrap;

use crate::{
    cli::Cli,
    http::{ConnectionInfo, RequestHead, Scheme, StreamInfo},
    net::Address,
    server::ServerContext,
};

/// A server without configuration; one for all tests, which only read it.
pub(crate) fn server() -> Arc<ServerContext> {
    static SERVER: OnceLock<Arc<ServerContext>> = OnceLock::new();
    let new = || {
        let cli = Cli::read(["nuncio", "--concurrency", "1"].map(Into::into)).unwrap();
        ServerContext::new(Bootstrap::default(), &cli).unwrap()
    };
    SERVER.get_or_init(new).clone()
}

/// A request of `GET path` to `host`, with headers.
pub(crate) fn request(host: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: Some(HeaderValue::from_str(host).unwrap()),
        path: Some(path.parse().unwrap()),
        protocol: None,
        version: Version::HTTP_11,
        headers: map,
        spelling: None,
    }
}

/// A stream of a plain-text connection from 10.0.0.1:1000.
pub(crate) fn stream() -> StreamInfo {
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let connection = ConnectionInfo {
        id: 7,
        local_address: address("10.0.0.9:80"),
        local_address_restored: false,
        remote_address: address("10.0.0.1:1000"),
        direct_remote_address: address("10.0.0.1:1000"),
        start_time: SystemTime::now(),
        server_name: None,
        tls: None,
        ja3: None,
        ja4: None,
        original_source: None,
        listener: "l".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        protocol: Default::default(),
        direction: Default::default(),
        buffer_limit: 1 << 20,
        filter_chain: "".into(),
        metadata: Default::default(),
        filter_state: Default::default(),
        transport_failure: Default::default(),
        flags: Default::default(),
        code_details: Default::default(),
        local_close: Default::default(),
        held: Default::default(),
        outcome: Default::default(),
        termination_details: Default::default(),
        told: None,
        upstream_watchers: Default::default(),
    };
    StreamInfo::new(Rc::new(connection), Some(Version::HTTP_11))
}
