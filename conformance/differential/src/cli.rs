//! The command line, the printed report and the exit status.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::Value;

use crate::suite::{CaseResult, Options, Verdict};
use crate::{case, oracle, smuggle, suite};

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
    /// The seed of the first of them.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Run as a test: without Envoy skip, or fail if `CI` is set.
    #[arg(skip)]
    pub test: bool,
}

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
    let nuncio = if args.envoy_only { None } else { Some(oracle::nuncio()?) };
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
    let results = runtime.block_on(suite::run(&sources, &options))?;
    for result in &results {
        print(result, args);
    }
    let summary = summary(&results);
    println!("{summary}");
    if let Some(path) = &args.report {
        std::fs::write(path, report(&results, &summary))?;
    }
    Ok(results.iter().all(|r| r.verdict.is_good()))
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
