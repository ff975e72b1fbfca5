//! What the figures were measured on.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The machine, in the words of its kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gb: f64,
    pub kernel: String,
    /// UTC, `YYYY-MM-DD HH:MM`.
    pub date: String,
    pub load_generators: Vec<String>,
}

impl Machine {
    /// Reads `/proc` and asks the tools for their versions.
    pub fn describe() -> Result<Machine> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let kb: f64 = field(&meminfo, "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        Ok(Machine {
            cpu: cpu_name(&cpuinfo),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gb: (kb / 1024.0 / 1024.0).round(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_string(),
            date: first_line("date", &["-u", "+%Y-%m-%d %H:%M"]),
            load_generators: vec![
                first_line("wrk", &["-v"])
                    .split(" [")
                    .next()
                    .unwrap_or_default()
                    .to_string(),
                first_line("h2load", &["--version"]),
            ],
        })
    }
}

/// The core for the proxies and the core for the load: the first two this process may use.
pub fn cores() -> Result<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = field(&status, "Cpus_allowed_list").unwrap_or_default();
    let mut cores = allowed.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.parse().unwrap_or(0);
        first..=last.parse().unwrap_or(first)
    });
    match (cores.next(), cores.next()) {
        (Some(proxy), Some(load)) => Ok((proxy, load)),
        _ => bail!("two cores are needed: one for the proxy, one for the load"),
    }
}

/// The first line that a program prints, on either stream.
pub fn first_line(program: &str, args: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(args).output() else {
        return String::new();
    };
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_string()
}

/// Virtual machines often hide the model's number; family, model and stepping still tell it.
fn cpu_name(cpuinfo: &str) -> String {
    let get = |name: &str| field(cpuinfo, name).unwrap_or_default();
    let mut name = get("model name").to_string();
    name.push_str(&format!(" (family {}, model {})", get("cpu family"), get("model")));
    name
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
