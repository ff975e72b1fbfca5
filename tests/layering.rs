//! Dependencies between the folders of `src/` run one way. The table says which folder may use which;
//! a new edge is a decision, made here, not an accident.
//!
//! `server` holds the handles that are passed down to everyone (context, worker, drain), so every folder may
//! name it; `http` names `route` and `upstream` for the types a stream carries.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;

/// Folder -> folders it may use, from the ground up. `server` is allowed to all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("cli", &[]),
    ("bootstrap", &["cli"]),
    ("config", &[]),
    ("net", &["config"]),
    ("stats", &["config"]),
    ("runtime", &["config", "stats"]),
    // A stream carries its span.
    ("http", &["config", "net", "route", "tracing", "upstream"]),
    ("tracing", &["config", "formatter", "http", "net", "runtime"]),
    ("http::codec", &["config", "http", "matching", "net", "stats"]),
    ("matching", &["config", "http", "net", "runtime"]),
    ("formatter", &["config", "http", "matching", "net", "upstream", "stats"]),
    (
        "access_log",
        &["config", "formatter", "http", "matching", "runtime", "stats"],
    ),
    (
        "tls",
        &["config", "http", "matching", "net", "stats", "xds", "upstream"],
    ),
    (
        "route",
        &[
            "config",
            "formatter",
            "http",
            "matching",
            "net",
            "runtime",
            "stats",
            "tracing",
            "upstream",
            "xds",
        ],
    ),
    (
        // `route`: a cluster may have policies of its own that replace those of routes.
        "upstream",
        // Health checks add headers as routes do, and write their events to log files.
        &[
            "access_log",
            "config",
            "http",
            // Of both directions: a request and its answer are read and written alike.
            "http::codec",
            "matching",
            "net",
            "route",
            "runtime",
            "stats",
            "tls",
            "xds",
        ],
    ),
    ("network_filter", &["config", "http", "listener", "net"]),
    (
        "router",
        &[
            "access_log",
            "config",
            "formatter",
            "http",
            "http::codec",
            "http::hcm",
            "net",
            "route",
            "runtime",
            "stats",
            "tracing",
            "upstream",
        ],
    ),
    (
        "http::hcm",
        &[
            "access_log",
            "config",
            "formatter",
            "http",
            "http::codec",
            "matching",
            "net",
            "network_filter",
            "route",
            "router",
            "runtime",
            "stats",
            "xds",
            "tracing",
        ],
    ),
    (
        "listener",
        &[
            "access_log",
            "cli",
            "config",
            "http",
            // Matcher trees that choose filter chains.
            "matching",
            "net",
            "network_filter",
            "runtime",
            "stats",
            "tls",
        ],
    ),
    (
        "extensions",
        &[
            "access_log",
            "config",
            "formatter",
            "http",
            "http::hcm",
            // Listener filters are extensions.
            "listener",
            "matching",
            "net",
            "network_filter",
            "route",
            "runtime",
            "stats",
            "tls",
            "tracing",
            "upstream",
        ],
    ),
    (
        "xds",
        &[
            "config",
            "extensions",
            "http",
            "listener",
            "net",
            "route",
            "runtime",
            "stats",
            "tls",
            "upstream",
        ],
    ),
    (
        "admin",
        &[
            "config",
            "http::hcm",
            "listener",
            "net",
            "route",
            "runtime",
            "stats",
            "tls",
            "upstream",
            "xds",
        ],
    ),
    (
        "server",
        &[
            "access_log",
            "admin",
            "bootstrap",
            "cli",
            "config",
            "extensions",
            // What an internal connection brings along.
            "http",
            "listener",
            "net",
            "runtime",
            "stats",
            "tls",
            "tracing",
            "upstream",
            "xds",
        ],
    ),
];

#[test]
fn dependencies_run_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_USE
        .iter()
        .map(|(m, uses)| (*m, uses.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    visit(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut |path, text| {
            let Some(from) = folder_of(path) else { return };
            let Some(allowed) = allowed.get(from.as_str()) else {
                panic!(
                    "{} belongs to no folder of the table: add '{from}' to it",
                    path.display()
                );
            };
            for to in used(text) {
                let known = MAY_USE.iter().any(|(m, _)| *m == to);
                if known && to != from && to != "server" && !allowed.contains(to.as_str()) {
                    wrong.push(format!("{}: {from} may not use {to}", path.display()));
                }
            }
        },
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn visit(dir: &Path, f: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                visit(&path, f);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "test_support.rs" {
            f(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// The folder a file belongs to; none for `main.rs` and `lib.rs`.
fn folder_of(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let parts: Vec<String> = relative
        .iter()
        .map(|p| p.to_string_lossy().trim_end_matches(".rs").to_owned())
        .collect();
    match parts.first()?.as_str() {
        "main" | "lib" => None,
        "http" if matches!(parts.get(1).map(String::as_str), Some("hcm" | "codec")) => {
            Some(format!("http::{}", parts[1]))
        }
        first => Some(first.to_owned()),
    }
}

/// What a file names of this crate: `crate::a::b`, and the first names inside `use crate::{..}`.
fn used(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let single = Regex::new(r"\bcrate::(\w+)(?:::(\w+))?").unwrap();
    for c in single.captures_iter(text) {
        found.insert(name(&c[1], c.get(2).map_or("", |m| m.as_str())));
    }
    for (at, start) in text.match_indices("crate::{") {
        let mut depth = 0;
        let mut item = String::new();
        for c in text[at + start.len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 0 {
                found.extend(item_name(&item));
                item.clear();
            } else {
                item.push(c);
            }
        }
        found.extend(item_name(&item));
    }
    found
}

fn item_name(item: &str) -> Option<String> {
    let mut parts = item.trim().split("::");
    let first = parts.next().filter(|p| !p.is_empty())?;
    Some(name(first, parts.next().unwrap_or("")))
}

fn name(first: &str, second: &str) -> String {
    match (first, second) {
        ("http", "hcm" | "codec") => format!("http::{second}"),
        (first, _) => first.to_owned(),
    }
}
