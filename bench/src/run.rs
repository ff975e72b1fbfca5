//! The measurement: rows from top to bottom, and in each row rounds that go through all proxies, so
//! that what disturbs the machine disturbs all of them alike.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::load::{Seen, Target, h2load, own_program, wrk};
use crate::machine::{self, Machine};
use crate::process::{self, Cpu};
use crate::proxies::{self, Kind, Proxy, Running, Setup};
use crate::rows::{Idle, MANY_IDLE, ROWS, Row, Work};
use crate::sample::{Metric, Raw, Sample};
use crate::{certs, churn, clusters, memory, report, waypoint};

#[derive(Args)]
pub struct Options {
    /// Rows to measure, by name (see `rows`); all if none is given.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds per row; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load per proxy, row and round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Proxies to measure, by name; all that are present if none is given.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// The nuncio binary [default: target/release/nuncio].
    #[arg(long)]
    nuncio: Option<PathBuf>,
    /// Where the report goes; with `-` it is printed only.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<()> {
    let rows = chosen_rows(&options.rows)?;
    let proxies = proxies::find(&options.proxies, options.nuncio.as_deref());
    if proxies.is_empty() {
        bail!("no proxy to measure");
    }
    let (proxy_core, load_core) = machine::cores()?;
    let scratch = tempfile::tempdir()?;
    let certs = certs::write(scratch.path())?;
    let backend = Backend::start(load_core)?;
    let setup = |log| Setup {
        core: proxy_core,
        http_backend: backend.http,
        echo_backend: backend.echo,
        certs: &certs,
        tls: false,
        tcp: false,
        chains: 1,
        log,
        scratch: scratch.path(),
    };
    let mut raw = Raw {
        machine: Machine::describe()?,
        proxies: proxies
            .iter()
            .map(|p| (p.kind.name().into(), p.version.clone()))
            .collect(),
        rounds: options.rounds,
        seconds: options.seconds,
        samples: Vec::new(),
    };
    for log in [false, true] {
        let rows: Vec<&Row> = rows.iter().copied().filter(|row| row.log == log).collect();
        if rows.is_empty() {
            continue;
        }
        let mut bench = Bench {
            setup: setup(log),
            load_core,
            seconds: options.seconds,
            proxies: &proxies,
            running: proxies.iter().map(|_| None).collect(),
        };
        for row in rows {
            bench.row(row, options.rounds, &mut raw);
        }
    }
    if options.out == Path::new("-") {
        print!("{}", report::markdown(&raw));
        return Ok(());
    }
    report::write(&options.out, &raw)
}

fn chosen_rows(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let unknown = names.iter().find(|name| ROWS.iter().all(|row| row.name != **name));
    if let Some(name) = unknown {
        bail!("no row {name}; `rows` lists them");
    }
    Ok(ROWS
        .iter()
        .filter(|row| names.iter().any(|name| name == row.name))
        .collect())
}

/// One set of rows with the proxies that serve it.
struct Bench<'a> {
    setup: Setup<'a>,
    load_core: usize,
    seconds: u64,
    proxies: &'a [Proxy],
    running: Vec<Option<Running>>,
}

impl Bench<'_> {
    fn row(&mut self, row: &Row, rounds: usize, raw: &mut Raw) {
        eprintln!("{}", row.title);
        // Memory and start-up hardly vary: one round is enough.
        let rounds = if row.under_load() { rounds } else { 1 };
        let mut failed = vec![false; self.proxies.len()];
        // Fresh processes for each row: none carries the memory of the rows before, and none fails for a feature
        // that its row does not need.
        self.running.iter_mut().for_each(|running| drop(running.take()));
        self.setup.tls = row.needs_tls();
        self.setup.tcp = row.needs_tcp();
        self.setup.chains = match row.work {
            Work::Connect { chains, .. } => chains,
            _ => 1,
        };
        for round in 0..rounds {
            for (index, proxy) in self.proxies.iter().enumerate() {
                let fails = failed.get(index).copied().unwrap_or(true);
                if fails || !row.is_for(proxy.kind) {
                    continue;
                }
                match self.measure(row, index, proxy, raw) {
                    Ok(values) => {
                        eprintln!("  {:<8} {}", proxy.kind.name(), brief(&values));
                        raw.samples.push(Sample {
                            row: row.name.into(),
                            proxy: proxy.kind.name().into(),
                            round,
                            values,
                        });
                    }
                    Err(error) => {
                        eprintln!("  {:<8} fails: {error:#}", proxy.kind.name());
                        if let Some(failed) = failed.get_mut(index) {
                            *failed = true;
                        }
                    }
                }
            }
        }
    }

    fn measure(&mut self, row: &Row, index: usize, proxy: &Proxy, raw: &Raw) -> Result<BTreeMap<Metric, f64>> {
        match row.work {
            Work::MemoryAtStart => {
                let mb = memory::at_start(&proxy.start(&self.setup)?)?;
                return Ok(BTreeMap::from([(Metric::PssMb, mb)]));
            }
            Work::MemoryPerConnection { kind, connections } => {
                let kb = memory::per_connection(&proxy.start(&self.setup)?, kind, connections)?;
                return Ok(BTreeMap::from([(Metric::PerConnectionKb, kb)]));
            }
            Work::Clusters { count } => return clusters::measure(proxy, &self.setup, count),
            Work::Waypoint { connections, tunnels } => {
                let target = |port| self.target(port);
                let (seen, cpu) = waypoint::measure(proxy, &self.setup, target, connections, tunnels)?;
                return figures(&seen, cpu);
            }
            Work::Churn {
                connections,
                per_second,
            } => {
                let rate = paced_rate(raw)?;
                let target = |port| self.target(port);
                let churned = churn::measure(proxy, &self.setup, target, connections, rate, per_second)?;
                let mut values = figures(&churned.seen, churned.cpu)?;
                values.insert(Metric::UpdatesPerSecond, churned.updates / churned.seen.seconds);
                return Ok(values);
            }
            _ => {}
        }
        let slot = self.running.get_mut(index).context("a slot for each proxy")?;
        let running = match slot {
            Some(running) => running,
            None => slot.insert(proxy.start(&self.setup)?),
        };
        running.process.check_alive()?;
        let before = running.process.cpu()?;
        let seen = drive(row.work, running, self.load_core, self.seconds, &self.setup, raw)?;
        figures(&seen, running.process.cpu()?.since(before))
    }

    fn target(&self, port: u16) -> Target<'_> {
        Target {
            core: self.load_core,
            port,
            seconds: self.seconds,
            scratch: self.setup.scratch,
        }
    }
}

fn figures(seen: &Seen, used: Cpu) -> Result<BTreeMap<Metric, f64>> {
    if seen.requests < 1.0 {
        bail!("no good answer, {} bad ones", seen.errors);
    }
    let cpu = used.total * 1e6 / seen.requests;
    // Ticks are coarse but unbiased: they only split the exact total.
    let share = used.user / (used.user + used.system).max(0.01);
    Ok(BTreeMap::from([
        (Metric::CpuUs, cpu),
        (Metric::UserUs, cpu * share),
        (Metric::Rate, seen.requests / seen.seconds),
        (Metric::P50Us, seen.p50),
        (Metric::P99Us, seen.p99),
        (Metric::P999Us, seen.p999),
        (Metric::Errors, seen.errors),
    ]))
}

/// 70 % of what Envoy reached in the row `h1`.
fn paced_rate(raw: &Raw) -> Result<f64> {
    let best = raw.median("h1", Kind::Envoy.name(), Metric::Rate);
    Ok(best.context("needs the row h1 with Envoy")? * 0.7)
}

fn drive(work: Work, running: &Running, core: usize, seconds: u64, setup: &Setup, raw: &Raw) -> Result<Seen> {
    let ports = running.ports;
    let target = |port| Target {
        core,
        port,
        seconds,
        scratch: setup.scratch,
    };
    match work {
        Work::Http1 { tls, connections, path } => wrk::run(
            &target(if tls { ports.tls } else { ports.http1 }),
            tls,
            connections,
            path,
        ),
        Work::Http1Paced { connections } => h2load::paced(&target(ports.http1), connections, paced_rate(raw)?),
        Work::Http2 {
            tls,
            connections,
            streams,
        } => {
            let port = if tls { ports.tls } else { ports.http2 };
            h2load::run(&target(port), tls, connections, streams)
        }
        Work::Handshake { resume, connections } => {
            let mut args = vec![format!("--connections={connections}")];
            args.extend(resume.then(|| "--resume".to_string()));
            target(ports.tls).own("load-handshake", &args)
        }
        Work::Tcp { connections, size } => target(ports.tcp).own(
            "load-tcp",
            &[format!("--connections={connections}"), format!("--size={size}")],
        ),
        Work::Connect { connections, chains } => target(ports.http1).own(
            "load-connect",
            &[format!("--connections={connections}"), format!("--addresses={chains}")],
        ),
        Work::Churn { .. }
        | Work::Waypoint { .. }
        | Work::MemoryAtStart
        | Work::MemoryPerConnection { .. }
        | Work::Clusters { .. } => {
            bail!("not a load of a running proxy")
        }
    }
}

impl Row {
    /// Whether it is measured in rounds under load.
    pub fn under_load(&self) -> bool {
        !matches!(
            self.work,
            Work::MemoryAtStart | Work::MemoryPerConnection { .. } | Work::Clusters { .. }
        )
    }

    /// Whether it is about many clusters.
    pub fn is_clusters(&self) -> bool {
        matches!(self.work, Work::Clusters { .. })
    }

    fn is_for(&self, kind: Kind) -> bool {
        match self.work {
            Work::Clusters { .. } | Work::Churn { .. } | Work::Waypoint { .. } => kind.reads_bootstrap(),
            Work::Connect { chains, .. } if chains > 1 => kind.reads_bootstrap(),
            // The others would have to be told to take so many.
            Work::MemoryPerConnection { connections, .. } if connections >= MANY_IDLE => kind.reads_bootstrap(),
            _ => !self.needs_tcp() || kind != Kind::Nginx || proxies::nginx_has_stream(),
        }
    }

    fn needs_tcp(&self) -> bool {
        matches!(
            self.work,
            Work::Tcp { .. } | Work::MemoryPerConnection { kind: Idle::Tcp, .. }
        )
    }

    fn needs_tls(&self) -> bool {
        matches!(
            self.work,
            Work::Http1 { tls: true, .. }
                | Work::Http2 { tls: true, .. }
                | Work::MemoryPerConnection { kind: Idle::Tls, .. }
                | Work::Handshake { .. }
        )
    }
}

/// The backend process and its ports.
struct Backend {
    child: Child,
    http: u16,
    echo: u16,
}

impl Backend {
    fn start(core: usize) -> Result<Backend> {
        let mut child = process::pinned(core, &own_program()?)
            .arg("backend")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the backend's output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let (http, echo) = line.trim().split_once(' ').context("the backend's ports")?;
        Ok(Backend {
            http: http.parse()?,
            echo: echo.parse()?,
            child,
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn brief(values: &BTreeMap<Metric, f64>) -> String {
    let words: Vec<String> = values
        .iter()
        .map(|(metric, value)| format!("{metric:?} {value:.1}"))
        .collect();
    words.join("  ")
}
