//! Every file in `config-samples/` is one that people start from: it must be accepted, and the quickstart must serve.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Process, ask, eventually, free_port, get};

const BINARY: &str = env!("CARGO_BIN_EXE_nuncio");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn samples() -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(Path::new(ROOT).join("config-samples"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    found.sort();
    found
}

#[test]
fn every_sample_is_accepted() {
    let samples = samples();
    assert!(samples.len() >= 10, "{samples:?}");
    for sample in samples {
        let out = Command::new(BINARY)
            .current_dir(ROOT)
            .args([
                "--mode",
                "validate",
                "--service-node",
                "n",
                "--service-cluster",
                "c",
                "-l",
                "error",
                "-c",
            ])
            .arg(&sample)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}: {}",
            sample.display(),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

/// The quickstart as the README has it, on free ports and with its own copy of the files: serves, and follows an edit.
#[test]
fn the_quickstart_serves_and_follows_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ingress, service, admin) = (free_port(), free_port(), free_port());
    let place = |text: String| {
        text.replace("config-samples/quickstart/", &format!("{}/", dir.path().display()))
            .replace("port_value: 10000", &format!("port_value: {ingress}"))
            .replace("port_value: 10001", &format!("port_value: {service}"))
            .replace("port_value: 9901", &format!("port_value: {admin}"))
    };
    let from = Path::new(ROOT).join("config-samples");
    for file in [
        "quickstart.yaml",
        "quickstart/clusters.yaml",
        "quickstart/listeners.yaml",
        "quickstart/routes.yaml",
    ] {
        let name = Path::new(file).file_name().unwrap();
        fs::write(
            dir.path().join(name),
            place(fs::read_to_string(from.join(file)).unwrap()),
        )
        .unwrap();
    }
    let bootstrap = dir.path().join("quickstart.yaml");
    let _proxy = Process::start(&["-c", bootstrap.to_str().unwrap()]);
    eventually("the first answer", || {
        get(ingress, "/").is_some_and(|a| a.contains("200 OK") && a.ends_with("hello from nuncio\n"))
    });
    assert!(get(admin, "/ready").unwrap().contains("LIVE\n"));
    assert!(
        get(ingress, "/docs/x")
            .unwrap()
            .contains("location: https://www.envoyproxy.io/docs/x")
    );

    let routes = dir.path().join("routes.yaml");
    let edited = fs::read_to_string(&routes)
        .unwrap()
        .replace("an Envoy-compatible xDS data plane", "edited while it ran");
    fs::write(&routes, edited).unwrap();
    eventually("the edit", || {
        get(ingress, "/about").is_some_and(|a| a.ends_with("edited while it ran\n"))
    });
}

/// A sample on free ports. It answers at the port returned.
fn serve(sample: &str) -> (Process, u16) {
    let mut text = fs::read_to_string(Path::new(ROOT).join("config-samples").join(sample)).unwrap();
    let ingress = free_port();
    for (port, free) in [
        (10000, ingress),
        (10001, free_port()),
        (10002, free_port()),
        (9901, free_port()),
    ] {
        text = text.replace(&format!("port_value: {port}}}"), &format!("port_value: {free}}}"));
    }
    (Process::start(&["--config-yaml", &text]), ingress)
}

/// What each sample says of itself in its first lines.
#[test]
fn the_samples_do_what_they_say() {
    let token = fs::read_to_string(Path::new(ROOT).join("config-samples/jwt.yaml")).unwrap();
    let token = token.lines().find_map(|l| l.strip_prefix("# TOKEN=")).unwrap();
    let token = format!("authorization: Bearer {token}\r\n");
    for (sample, path, headers, expected) in [
        ("jwt.yaml", "/", "", "401 Unauthorized"),
        ("jwt.yaml", "/public", "", "200 OK"),
        ("jwt.yaml", "/", &*token, "x-seen-user: alice"),
        ("ext-authz.yaml", "/", "", "403 Forbidden"),
        ("ext-authz.yaml", "/healthz", "", "200 OK"),
        ("ext-authz.yaml", "/", "x-key: let-me-in\r\n", "hello\n"),
        ("lua.yaml", "/", "", "x-took-part: lua"),
        ("lua.yaml", "/", "user-agent: BadBot/1.0\r\n", "403 Forbidden"),
        ("stateful-session.yaml", "/", "", "set-cookie: session="),
        ("tracing.yaml", "/", "", "traceparent: 00-"),
        ("resilience.yaml", "/", "", "v1\n"),
        ("resilience.yaml", "/", "x-version: v2\r\n", "v2\n"),
    ] {
        let (_proxy, port) = serve(sample);
        eventually(&format!("{sample}: {expected}"), || {
            ask(port, path, "localhost", headers).is_some_and(|answer| answer.contains(expected))
        });
    }
}
