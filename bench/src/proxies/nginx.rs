//! nginx with one process, keep-alive on both sides, and a buffered log, as Envoy's is.

use std::path::Path;

use super::{Ports, Setup};

/// Debian keeps the stream module apart.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Whether nginx can proxy TCP here.
pub fn has_stream() -> bool {
    Path::new(STREAM_MODULE).exists()
}

/// The whole configuration.
pub fn config(setup: &Setup, ports: Ports, stem: &str) -> String {
    let scratch = setup.scratch.display();
    let log = if setup.log {
        format!("access_log {scratch}/{stem}.access bench buffer=64k flush=1s;")
    } else {
        "access_log off;".to_string()
    };
    let (load, stream) = if has_stream() {
        let stream = format!(
            "stream {{ upstream echo {{ server 127.0.0.1:{}; }}
  server {{ listen 127.0.0.1:{}; proxy_pass echo; tcp_nodelay on; }} }}",
            setup.echo_backend, ports.tcp
        );
        (format!("load_module {STREAM_MODULE};"), stream)
    } else {
        (String::new(), String::new())
    };
    format!(
        r#"{load}
daemon off; master_process off; worker_processes 1;
pid {scratch}/{stem}.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
{stream}
http {{
  log_format bench '[$time_iso8601] "$request_method $request_uri $server_protocol" $status - $request_length $body_bytes_sent $request_time $upstream_response_time "$http_x_forwarded_for" "$http_user_agent" "$http_x_request_id" "$host" "$upstream_addr"';
  {log}
  client_body_temp_path {scratch}/{stem}.body; proxy_temp_path {scratch}/{stem}.proxy;
  fastcgi_temp_path {scratch}/{stem}.fcgi; uwsgi_temp_path {scratch}/{stem}.uwsgi; scgi_temp_path {scratch}/{stem}.scgi;
  keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_max_temp_file_size 0;
  ssl_certificate {chain}; ssl_certificate_key {key};
  ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:bench:10m;
  server {{ listen 127.0.0.1:{http1}; location / {{ proxy_pass http://backend; }} }}
  server {{ listen 127.0.0.1:{http2} http2; location / {{ proxy_pass http://backend; }} }}
  server {{ listen 127.0.0.1:{tls} ssl http2; location / {{ proxy_pass http://backend; }} }}
}}
"#,
        backend = setup.http_backend,
        chain = setup.certs.chain.display(),
        key = setup.certs.key.display(),
        http1 = ports.http1,
        http2 = ports.http2,
        tls = ports.tls,
    )
}
