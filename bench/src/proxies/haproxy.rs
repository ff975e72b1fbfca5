//! HAProxy with one thread and keep-alive on both sides. It logs to its standard output, which is a
//! file here: it has no file log of its own.

use super::{Ports, Setup};

/// The whole configuration.
pub fn config(setup: &Setup, ports: Ports) -> String {
    let (target, log) = if setup.log {
        ("log stdout format raw local0 info", "log global\n  option httplog")
    } else {
        ("", "")
    };
    format!(
        "global
  nbthread 1
  maxconn 8000
  ssl-default-bind-options ssl-min-ver TLSv1.2
  tune.ssl.default-dh-param 2048
  {target}
defaults
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
frontend http
  mode http
  {log}
  bind 127.0.0.1:{http1}
  bind 127.0.0.1:{http2} proto h2
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1
  default_backend backend
backend backend
  mode http
  http-reuse always
  server one 127.0.0.1:{backend}
frontend tcp
  mode tcp
  bind 127.0.0.1:{tcp}
  default_backend echo
backend echo
  mode tcp
  server one 127.0.0.1:{echo}
",
        http1 = ports.http1,
        http2 = ports.http2,
        tls = ports.tls,
        tcp = ports.tcp,
        both = setup.certs.both.display(),
        backend = setup.http_backend,
        echo = setup.echo_backend,
    )
}
