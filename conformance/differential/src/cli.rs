//! The command line, the printed report and the exit status.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::Value;

use crate::suite::{CaseResult, Options, Verdict};
use crate::{case, chaos, oracle, picks, smuggle, suite};

#[derive(Clone, Debug, Default, clap::Parser)]
pub struct Args {
    /// Only cases whose id matches this pattern.
    #[arg(long)]
    pub only: Option<String>,
    /// Run Envoy alone and check that each case is what it claims.
    #[arg(long)]
    pub envoy_only: bool,
    /// Print what both sides did, also when they agree.
    #[arg(long)]
    pub show: bool,
    /// Print the bootstrap of each case.
    #[arg(long)]
    pub config: bool,
    /// A process of its own for every case.
    #[arg(long)]
    pub isolate: bool,
    /// Cases at the same time.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Also write the differences to this file, as Markdown.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Further folders of cases instead of the project's own.
    #[arg(long)]
    pub cases: Option<PathBuf>,
    /// Instead of cases: this many random, mostly malformed HTTP/1 requests.
    #[arg(long)]
    pub smuggle: Option<u64>,
    /// Instead of cases: upstreams that are killed, hung, reset and slowed under a steady load.
    #[arg(long)]
    pub chaos: bool,
    /// How long that takes for each proxy, about.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Requests a second of it.
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
    /// The seed of the first of the random requests.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Instead of cases: where ring hash and Maglev place 10,000 keys over 50 hosts.
    #[arg(long)]
    pub picks: bool,
    /// With `--picks`: write what Envoy does for the unit test of nuncio.
    #[arg(long)]
    pub record: bool,
    /// Write the cases that do not agree into `open.md`, for the list of what is still to be done.
    #[arg(long)]
    pub write_open: bool,
    /// Run as a test: without Envoy skip, or fail if `CI` is set.
    #[arg(skip)]
    pub test: bool,
}

/// How often a case that should agree is run again, alone, before it counts as differing.
const AGAIN: usize = 2;

/// Runs what `args` ask for; fails if any case does.
pub fn main(args: Args) -> ExitCode {
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let only = args.only.as_deref().map(Regex::new).transpose().context("--only")?;
    let dir = args
        .cases
        .clone()
        .unwrap_or_else(|| oracle::workspace().join("conformance/differential/cases"));
    let mut sources = case::load(&dir)?;
    sources.retain(|s| only.as_ref().is_none_or(|o| o.is_match(&s.id)));
    let envoy = match oracle::envoy() {
        Ok(envoy) => envoy,
        Err(error) if args.test && std::env::var_os("CI").is_none() => {
            println!(
                "differential: {} cases skipped, there is no Envoy: {error:#}",
                sources.len()
            );
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    let nuncio = if args.envoy_only || args.record {
        None
    } else {
        Some(oracle::nuncio()?)
    };
    let options = Options {
        envoy,
        nuncio,
        isolate: args.isolate,
        jobs: args.jobs.unwrap_or(6),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?;
    if let Some(count) = args.smuggle {
        return Ok(runtime.block_on(smuggle::run(&options, args.seed, count))? == 0);
    }
    if args.chaos {
        return runtime.block_on(chaos::run(&options, args.rate, args.seconds));
    }
    if args.picks {
        return Ok(runtime.block_on(picks::run(&options, args.record))? == 0);
    }
    let mut results = runtime.block_on(suite::run(&sources, &options))?;
    if args.test {
        for _ in 0..AGAIN {
            runtime.block_on(run_again(&mut results, &sources, &options))?;
        }
    }
    for result in &results {
        print(result, args);
    }
    let summary = summary(&results);
    println!("{summary}");
    let open = open_list()?;
    let is_open = |r: &&CaseResult| open.contains(&r.id);
    let still = results.iter().filter(|r| !r.verdict.is_good()).filter(is_open).count();
    if still > 0 {
        println!("of these {still} are in open.md: known not to agree yet, and no failure");
    }
    for done in results.iter().filter(|r| r.verdict.is_good()).filter(is_open) {
        println!("{} agrees now: take it off open.md", done.id);
    }
    if args.write_open {
        std::fs::write(open_path(), open_page(&results))?;
    }
    if let Some(path) = &args.report {
        std::fs::write(path, report(&results, &summary))?;
    }
    // As a test only what is not in the open list can fail; by hand everything is told.
    let failing: Vec<_> = results
        .iter()
        .filter(|r| !(r.verdict.is_good() || args.test && open.contains(&r.id)))
        .collect();
    if args.test {
        // Once more at the end, where it is found in a long log.
        for result in &failing {
            print(result, args);
        }
    }
    Ok(failing.is_empty())
}

/// Cases that should agree and did not run again, each in processes of its own: the first run shares a busy machine
/// and its timers with sixty others. A case that differs each time differs.
async fn run_again(results: &mut [CaseResult], sources: &[case::Source], options: &Options) -> Result<()> {
    let open = open_list()?;
    let failed = |r: &CaseResult| !r.verdict.is_good() && !open.contains(&r.id);
    let again: Vec<_> = sources
        .iter()
        .filter(|s| results.iter().any(|r| r.id == s.id && failed(r)))
        .cloned()
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    println!("{} case(s) run again, alone", again.len());
    let alone = Options {
        isolate: true,
        jobs: 1,
        ..options.clone()
    };
    for second in suite::run(&again, &alone).await? {
        if let Some(first) = results.iter_mut().find(|r| r.id == second.id) {
            *first = second;
        }
    }
    Ok(())
}

fn open_path() -> PathBuf {
    oracle::workspace().join("conformance/differential/open.md")
}

/// The ids of cases that are known not to agree yet.
fn open_list() -> Result<std::collections::BTreeSet<String>> {
    let text = match std::fs::read_to_string(open_path()) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(e) => return Err(e.into()),
    };
    let ids = text
        .lines()
        .filter_map(|l| l.strip_prefix("- `")?.split('`').next().map(str::to_owned));
    Ok(ids.collect())
}

fn open_page(results: &[CaseResult]) -> String {
    let mut out = String::from(
        "# Open cases\n\nWhat the real Envoy does and nuncio does not do yet. Each line is work to be done, not a decision: a case leaves this\n\
         list when it agrees. Written by `cargo run -p differential -- --write-open`.\n\n",
    );
    for result in results.iter().filter(|r| !r.verdict.is_good()) {
        let what = match &result.verdict {
            Verdict::Differs(list) => {
                let first = list.first().map_or("", |d| d.path.as_str());
                format!("differs in {} place(s), first `{first}`", list.len())
            }
            Verdict::Rejected(text) | Verdict::Died(text) | Verdict::Broken(text) => {
                // The reason without the paths of the machine it ran on.
                let reason = text.split(": ").skip(1).collect::<Vec<_>>().join(": ");
                format!(
                    "{}: {}",
                    result.verdict.label().to_lowercase(),
                    reason.lines().next().unwrap_or_default()
                )
            }
            Verdict::Agrees | Verdict::Known(_) | Verdict::Stale => String::new(),
        };
        out.push_str(&format!("- `{}`: {what}\n", result.id));
    }
    out
}

fn print(result: &CaseResult, args: &Args) {
    let took = if result.took.as_secs() > 2 {
        format!("  ({:.1?})", result.took)
    } else {
        String::new()
    };
    println!("{:<8} {}  {}{took}", result.verdict.label(), result.id, result.title);
    if args.config {
        println!("{:#}", result.config);
    }
    match &result.verdict {
        Verdict::Differs(list) => {
            for d in list {
                println!(
                    "           {}\n             envoy:  {}\n             nuncio: {}",
                    d.path, d.envoy, d.nuncio
                );
            }
        }
        Verdict::Known(reason) => println!("           known: {reason}"),
        Verdict::Broken(text) | Verdict::Rejected(text) | Verdict::Died(text) => println!("           {text}"),
        Verdict::Agrees | Verdict::Stale => {}
    }
    if args.show {
        show("envoy", &result.envoy);
        show("nuncio", &result.nuncio);
    }
}

fn show(side: &str, outcome: &Value) {
    if !outcome.is_null() {
        let text = serde_yaml_ng::to_string(outcome).unwrap_or_else(|e| e.to_string());
        println!("--- {side}\n{text}");
    }
}

fn summary(results: &[CaseResult]) -> String {
    let count = |label: &str| results.iter().filter(|r| r.verdict.label() == label).count();
    let labels = ["ok", "known", "DIFFERS", "REJECTED", "DIED", "STALE", "BROKEN"];
    let parts: Vec<String> = labels
        .iter()
        .map(|l| (count(l), l.to_lowercase()))
        .filter(|(n, l)| *n > 0 || l == "ok")
        .map(|(n, l)| format!("{n} {l}"))
        .collect();
    format!("{} cases: {}", results.len(), parts.join(", "))
}

fn report(results: &[CaseResult], summary: &str) -> String {
    let mut out = format!("# Differential suite\n\n{summary}\n");
    for result in results.iter().filter(|r| !r.verdict.is_good()) {
        out.push_str(&format!(
            "\n## {} {}\n{}\n",
            result.verdict.label(),
            result.id,
            result.title
        ));
        match &result.verdict {
            Verdict::Differs(list) => {
                for d in list {
                    out.push_str(&format!(
                        "- `{}`\n  - envoy: `{}`\n  - nuncio: `{}`\n",
                        d.path, d.envoy, d.nuncio
                    ));
                }
            }
            Verdict::Broken(text) | Verdict::Rejected(text) | Verdict::Died(text) => {
                out.push_str(&format!("- {text}\n"));
            }
            _ => {}
        }
    }
    out
}
