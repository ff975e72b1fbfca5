//! The table of endpoints, in Envoy's order and words.

use http::{Method, StatusCode};

use super::{
    AdminRequest, Reply, clusters, config_dump, home, lifecycle, listeners, logging, profiling, runtime, server_info,
    stats,
};

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    /// Whether it changes something, and so must be a POST.
    pub(super) post: bool,
    pub(super) help: &'static str,
    /// Query parameters with their help.
    pub(super) params: &'static [(&'static str, &'static str)],
    pub(super) run: fn(&AdminRequest) -> Reply,
}

const fn get(
    path: &'static str,
    help: &'static str,
    params: &'static [(&'static str, &'static str)],
    run: fn(&AdminRequest) -> Reply,
) -> Endpoint {
    Endpoint {
        path,
        post: false,
        help,
        params,
        run,
    }
}

const fn post(
    path: &'static str,
    help: &'static str,
    params: &'static [(&'static str, &'static str)],
    run: fn(&AdminRequest) -> Reply,
) -> Endpoint {
    Endpoint {
        path,
        post: true,
        help,
        params,
        run,
    }
}

const ENABLE: &[(&str, &str)] = &[("enable", "turns it on or off; One of (y, n)")];

/// All endpoints.
pub(super) static TABLE: &[Endpoint] = &[
    get("/", "Admin home page", &[], home::home),
    post(
        "/allocprofiler",
        "enable/disable the allocation profiler (if supported)",
        ENABLE,
        profiling::profiler,
    ),
    get("/certs", "print certs on machine", &[], certs),
    get(
        "/clusters",
        "upstream cluster status",
        &[(
            "filter",
            "Regular expression (Google re2) for filtering clusters by name",
        )],
        clusters::clusters,
    ),
    get(
        "/config_dump",
        "dump current Envoy configs",
        &[
            ("resource", "The resource to dump"),
            ("mask", "Only these fields; with a resource, of each of its elements"),
            ("name_regex", "Only configurations whose names match"),
            ("include_eds", "Dump endpoints too"),
        ],
        config_dump::config_dump,
    ),
    get(
        "/contention",
        "dump current Envoy mutex contention stats (if enabled)",
        &[],
        profiling::contention,
    ),
    post(
        "/cpuprofiler",
        "enable/disable the CPU profiler",
        ENABLE,
        profiling::profiler,
    ),
    post(
        "/drain_listeners",
        "drain listeners",
        &[
            (
                "graceful",
                "enter a graceful drain period before the listeners close; its length is the drain time",
            ),
            ("skip_exit", "drain the connections but never stop the listeners"),
            ("inboundonly", "only listeners whose traffic_direction is INBOUND"),
        ],
        lifecycle::drain_listeners,
    ),
    post(
        "/healthcheck/fail",
        "cause the server to fail health checks",
        &[],
        lifecycle::healthcheck_fail,
    ),
    post(
        "/healthcheck/ok",
        "cause the server to pass health checks",
        &[],
        lifecycle::healthcheck_ok,
    ),
    get(
        "/heap_dump",
        "dump current Envoy heap (if supported)",
        &[],
        profiling::heap,
    ),
    post(
        "/heapprofiler",
        "enable/disable the heap profiler",
        ENABLE,
        profiling::heap,
    ),
    get("/help", "print out list of admin commands", &[], help),
    get(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        |request| Reply::text(request.server.hot_restart.version()),
    ),
    get(
        "/init_dump",
        "dump current Envoy init manager information (experimental)",
        &[(
            "mask",
            "The desired component to dump unready targets; only 'listener' has some",
        )],
        listeners::init_dump,
    ),
    get(
        "/listeners",
        "print listener info",
        &[("format", "File format to use; One of (text, json)")],
        listeners::listeners,
    ),
    post(
        "/logging",
        "query/change logging levels",
        &[
            ("paths", "set levels of several loggers: <name>:<level>,<name>:<level>"),
            ("group", "set the level of a group of loggers: <group>:<level>"),
            (
                "level",
                "level of all loggers; One of (, trace, debug, info, warning, error, critical, off)",
            ),
        ],
        logging::logging,
    ),
    get(
        "/memory",
        "print current allocation/heap usage",
        &[],
        server_info::memory,
    ),
    get("/memory/tcmalloc", "print TCMalloc stats", &[], profiling::allocator),
    get(
        "/peak_heap_dump",
        "dump peak Envoy heap (if supported)",
        &[],
        profiling::heap,
    ),
    post("/quitquitquit", "exit the server", &[], lifecycle::quit),
    get(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        lifecycle::ready,
    ),
    post("/reopen_logs", "reopen access logs", &[], lifecycle::reopen_logs),
    post(
        "/reset_counters",
        "reset all counters to zero",
        &[],
        stats::reset_counters,
    ),
    get("/runtime", "print runtime values", &[], runtime::runtime),
    post(
        "/runtime_modify",
        "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an \
         empty string as the value; values of other layers can be overridden but not deleted. E.g. \
         ?key1=value1&key2=value2...",
        &[],
        runtime::modify,
    ),
    get(
        "/server_info",
        "print server version/status information",
        &[],
        server_info::server_info,
    ),
    get(
        "/stats",
        "print server stats",
        &[
            (
                "usedonly",
                "Only include stats that have been written by system since restart",
            ),
            ("filter", "Regular expression (Google re2) for filtering stats"),
            ("invert_filter", "Invert the filter regex"),
            ("format", "Format to use; One of (html, active-html, text, json)"),
            (
                "type",
                "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
            ),
            (
                "histogram_buckets",
                "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)",
            ),
        ],
        stats::stats,
    ),
    get(
        "/stats/prometheus",
        "print server stats in prometheus format",
        &[
            (
                "usedonly",
                "Only include stats that have been written by system since restart",
            ),
            (
                "text_readouts",
                "Render text_readouts as new gauges with value 0 (increases Prometheus data size)",
            ),
            ("filter", "Regular expression (Google re2) for filtering stats"),
            ("invert_filter", "Invert the filter regex"),
            (
                "histogram_buckets",
                "Histogram bucket display mode; One of (cumulative, summary)",
            ),
        ],
        stats::prometheus,
    ),
    get(
        "/stats/recentlookups",
        "Show recent stat-name lookups",
        &[],
        stats::recent_lookups,
    ),
    post(
        "/stats/recentlookups/clear",
        "clear list of stat-name lookups and counter",
        &[],
        |_| Reply::text("OK\n"),
    ),
    post(
        "/stats/recentlookups/disable",
        "disable recording of reset stat-name lookup names",
        &[],
        |_| Reply::text("OK\n"),
    ),
    post(
        "/stats/recentlookups/enable",
        "enable recording of reset stat-name lookup names",
        &[],
        |_| Reply::text("OK\n"),
    ),
];

/// Answers a request for `path`.
pub(super) fn dispatch(path: &str, request: &AdminRequest) -> Reply {
    // Launchers join base and path without looking: `//ready` means `/ready`.
    let path = path.trim_start_matches('/');
    match TABLE.iter().find(|e| e.path.trim_start_matches('/') == path) {
        Some(endpoint) if endpoint.post && request.method != Method::POST => Reply::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {} not allowed, POST required.", request.method),
        ),
        Some(endpoint) => (endpoint.run)(request),
        None => Reply::error(StatusCode::NOT_FOUND, format!("invalid path. {}", help_text())),
    }
}

fn certs(request: &AdminRequest) -> Reply {
    Reply::json(config_dump::to_json_with_defaults(&crate::tls::certificates(&request.server)) + "\n")
}

fn help(_: &AdminRequest) -> Reply {
    Reply::text(help_text())
}

fn help_text() -> String {
    let mut out = String::from("admin commands are:\n");
    for endpoint in TABLE {
        let post = if endpoint.post { " (POST)" } else { "" };
        out.push_str(&format!("  {}{post}: {}\n", endpoint.path, endpoint.help));
        for (name, help) in endpoint.params {
            out.push_str(&format!("      {name}: {help}\n"));
        }
    }
    out
}
