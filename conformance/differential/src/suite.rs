//! Runs cases: few processes, several cases at a time, and no case spoils another.
//!
//! All cases that need no process of their own share one Envoy and one nuncio per group. If a proxy
//! refuses the group's bootstrap, each case is put to `--mode validate`, and those refused are left
//! out: they alone fail. If nuncio dies under a group, its differing cases run again alone.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::case::{Case, Source, Upstream};
use crate::certs::Certs;
use crate::client::{self, Target};
use crate::config::{self, Fragment};
use crate::diff::{Difference, differences};
use crate::outcome::{self, Normalizer};
use crate::proxy::{self, Proxy};
use crate::spans;
use crate::substitute::{Scope, extra_names};
use crate::upstream::{self, Backend};
use crate::{ports, stats};

/// Cases per pair of processes.
const GROUP: usize = 60;

/// Cases with processes of their own that run at the same time.
const PROCESSES: usize = 3;

/// How long logs, stats and upstream records may take to settle after the last response.
const SETTLE: Duration = Duration::from_secs(4);

#[derive(Clone, Debug)]
pub struct Options {
    pub envoy: PathBuf,
    /// None runs Envoy alone.
    pub nuncio: Option<PathBuf>,
    pub isolate: bool,
    pub jobs: usize,
}

/// What became of a case.
#[derive(Clone, Debug)]
pub enum Verdict {
    Agrees,
    /// Differs, as its file says it must.
    Known(String),
    Differs(Vec<Difference>),
    /// nuncio does not accept the configuration.
    Rejected(String),
    /// nuncio ended while the case ran.
    Died(String),
    /// Marked as a known difference, but agrees: the mark can go.
    Stale,
    /// Envoy does not do what the case claims.
    Broken(String),
}

impl Verdict {
    pub fn label(&self) -> &'static str {
        match self {
            Verdict::Agrees => "ok",
            Verdict::Known(_) => "known",
            Verdict::Differs(_) => "DIFFERS",
            Verdict::Rejected(_) => "REJECTED",
            Verdict::Died(_) => "DIED",
            Verdict::Stale => "STALE",
            Verdict::Broken(_) => "BROKEN",
        }
    }

    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Agrees | Verdict::Known(_))
    }
}

pub struct CaseResult {
    pub id: String,
    pub title: String,
    pub verdict: Verdict,
    /// The bootstrap of the case alone, for Envoy.
    pub config: Value,
    pub envoy: Value,
    pub nuncio: Value,
    /// Of both sides together.
    pub took: Duration,
}

impl CaseResult {
    fn new(source: &Source) -> CaseResult {
        CaseResult {
            id: source.id.clone(),
            title: source.parse().map(|c| c.title).unwrap_or_default(),
            verdict: Verdict::Agrees,
            config: Value::Null,
            envoy: Value::Null,
            nuncio: Value::Null,
            took: Duration::ZERO,
        }
    }
}

/// Runs all `sources` and returns their results in the same order.
pub async fn run(sources: &[Source], options: &Options) -> Result<Vec<CaseResult>> {
    let scratch = TempDir::new()?;
    let suite = Arc::new(Suite::new(options, scratch.path())?);
    let mut alone = Vec::new();
    let mut shared = Vec::new();
    for source in sources {
        if options.isolate || source.parse()?.needs_own_process() {
            alone.push(source);
        } else {
            shared.push(source);
        }
    }
    let mut results = HashMap::new();
    for group in shared.chunks(GROUP) {
        suite.group(group, &mut results).await?;
    }
    let permits = Arc::new(Semaphore::new(PROCESSES));
    let mut tasks = tokio::task::JoinSet::new();
    for source in alone {
        let (source, suite, permits) = (source.clone(), suite.clone(), permits.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            let mut results = HashMap::new();
            suite.group(&[&source], &mut results).await.map(|()| results)
        });
    }
    while let Some(done) = tasks.join_next().await {
        results.extend(done??);
    }
    Ok(sources.iter().filter_map(|s| results.remove(&s.id)).collect())
}

pub(crate) struct Suite {
    options: Options,
    scratch: PathBuf,
    certs: Arc<Certs>,
}

/// A case made ready for one side.
pub(crate) struct Prepared {
    case: Case,
    pub(crate) target: Arc<Target>,
    fragment: Fragment,
    normal: Normalizer,
}

/// One side's process with the cases it accepted.
pub(crate) struct Side {
    proxy: Option<Proxy>,
    pub(crate) prepared: HashMap<String, Arc<Prepared>>,
    /// Cases it did not accept, and why.
    pub(crate) refused: HashMap<String, String>,
}

impl Suite {
    /// Everything processes and backends need below `scratch`.
    pub(crate) fn new(options: &Options, scratch: &Path) -> Result<Suite> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let certs = Arc::new(Certs::make(&scratch.join("certs"))?);
        Ok(Suite {
            options: options.clone(),
            scratch: scratch.to_owned(),
            certs,
        })
    }

    async fn group(&self, sources: &[&Source], results: &mut HashMap<String, CaseResult>) -> Result<()> {
        if let [source] = sources
            && source.parse()?.validate.is_some()
        {
            let result = match self.validate(source).await {
                Ok(result) => result,
                Err(error) => CaseResult {
                    verdict: Verdict::Broken(format!("{error:#}")),
                    ..CaseResult::new(source)
                },
            };
            results.insert(source.id.clone(), result);
            return Ok(());
        }
        let envoy = Arc::new(self.start(sources, &self.options.envoy, "envoy").await?);
        let mut nuncio = match &self.options.nuncio {
            Some(binary) => Some(self.start(sources, binary, "nuncio").await?),
            None => None,
        };
        let died = {
            let nuncio_side = nuncio.take().map(Arc::new);
            let permits = Arc::new(Semaphore::new(self.options.jobs.max(1)));
            let mut tasks = tokio::task::JoinSet::new();
            for source in sources {
                let (source, envoy, nuncio) = ((*source).clone(), envoy.clone(), nuncio_side.clone());
                let permits = permits.clone();
                tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    let begun = Instant::now();
                    let result = one(&source, &envoy, nuncio.as_deref()).await;
                    result.map(|r| CaseResult {
                        took: begun.elapsed(),
                        ..r
                    })
                });
            }
            while let Some(result) = tasks.join_next().await {
                let result = result??;
                results.insert(result.id.clone(), result);
            }
            let proxy = nuncio_side.and_then(Arc::into_inner).and_then(|s| s.proxy);
            proxy.and_then(|mut p| if p.is_running() { None } else { Some(p.complaint()) })
        };
        let Some(complaint) = died else { return Ok(()) };
        if let [source] = sources {
            if let Some(result) = results.get_mut(&source.id) {
                result.verdict = Verdict::Died(complaint);
            }
            return Ok(());
        }
        for source in sources {
            if results
                .get(&source.id)
                .is_some_and(|r| matches!(r.verdict, Verdict::Differs(_)))
            {
                Box::pin(self.group(&[source], results)).await?;
            }
        }
        Ok(())
    }

    async fn validate(&self, source: &Source) -> Result<CaseResult> {
        let dir = self.dir("validate")?;
        let mut sides = Vec::new();
        let mut config = Value::Null;
        let mut case = Case::default();
        for binary in [Some(&self.options.envoy), self.options.nuncio.as_ref()]
            .into_iter()
            .flatten()
        {
            let admin = ports::free()?;
            let prepared = self.prepare(source, admin, &dir).await?;
            let path = dir.join(format!("{}.json", sides.len()));
            let whole = config::bootstrap(std::slice::from_ref(&prepared.fragment), admin);
            config::write(&whole, &path)?;
            let verdict = proxy::validate(binary, &path).await?;
            sides.push(json!({"accepted": verdict.accepted, "reason": prepared.normal.text(&verdict.reason)}));
            if config.is_null() {
                config = whole;
            }
            case = prepared.case.clone();
        }
        let want = case.validate.clone().unwrap_or_default();
        let reason = want.reason.as_deref().map(Regex::new).transpose()?;
        let fits = |side: &Value| {
            side["accepted"] == json!(want.accepted)
                && reason
                    .as_ref()
                    .is_none_or(|r| r.is_match(side["reason"].as_str().unwrap_or_default()))
        };
        let nuncio = sides.get(1).cloned().unwrap_or(Value::Null);
        let verdict = if !fits(&sides[0]) {
            Verdict::Broken(format!("Envoy's verdict is {}", sides[0]))
        } else if nuncio.is_null() || fits(&nuncio) {
            Verdict::Agrees
        } else {
            Verdict::Differs(vec![Difference {
                path: "verdict".into(),
                envoy: sides[0].to_string(),
                nuncio: nuncio.to_string(),
            }])
        };
        let verdict = settle_known(&case, verdict);
        Ok(CaseResult {
            verdict,
            config,
            envoy: sides[0].clone(),
            nuncio,
            ..CaseResult::new(source)
        })
    }

    /// Starts `binary` with all of `sources` that it accepts.
    pub(crate) async fn start(&self, sources: &[&Source], binary: &Path, name: &str) -> Result<Side> {
        let dir = self.dir(name)?;
        let admin = ports::free()?;
        let mut side = Side {
            proxy: None,
            prepared: HashMap::new(),
            refused: HashMap::new(),
        };
        let mut order = Vec::new();
        for source in sources {
            match self.prepare(source, admin, &dir).await {
                Ok(prepared) => {
                    side.prepared.insert(source.id.clone(), Arc::new(prepared));
                    order.push(source.id.clone());
                }
                Err(error) => {
                    side.refused.insert(source.id.clone(), format!("{error:#}"));
                }
            }
        }
        let path = dir.join("bootstrap.json");
        let first = match self.launch(binary, &side, &order, admin, &path).await {
            Ok(proxy) => {
                side.proxy = Some(proxy);
                return Ok(side);
            }
            Err(error) => format!("{error:#}"),
        };
        // Find out who is to blame.
        if order.len() > 1 {
            for id in order.clone() {
                let Some(prepared) = side.prepared.get(&id) else {
                    continue;
                };
                let whole = config::bootstrap(std::slice::from_ref(&prepared.fragment), admin);
                config::write(&whole, &path)?;
                let verdict = proxy::validate(binary, &path).await;
                if let Ok(proxy::Verdict { accepted: true, .. }) = verdict {
                    continue;
                }
                let reason = verdict.map_or_else(|e| format!("{e:#}"), |v| v.reason);
                side.refused.insert(id.clone(), reason);
                order.retain(|o| *o != id);
            }
            match self.launch(binary, &side, &order, admin, &path).await {
                Ok(proxy) => {
                    side.proxy = Some(proxy);
                    return Ok(side);
                }
                Err(error) => {
                    for id in order {
                        side.refused.insert(id, format!("the whole group: {error:#}"));
                    }
                }
            }
        } else if let Some(id) = order.first() {
            side.refused.insert(id.clone(), first);
        }
        Ok(side)
    }

    async fn launch(&self, binary: &Path, side: &Side, order: &[String], admin: u16, path: &Path) -> Result<Proxy> {
        let fragments: Vec<Fragment> = order
            .iter()
            .filter_map(|id| side.prepared.get(id))
            .map(|p| p.fragment.clone())
            .collect();
        config::write(&config::bootstrap(&fragments, admin), path)?;
        // A case with flags of its own is alone.
        let first = order.first().and_then(|id| side.prepared.get(id));
        let own = first.map(|p| p.case.flags.clone()).unwrap_or_default();
        Proxy::start(binary, path, admin, &own).await
    }

    async fn prepare(&self, source: &Source, admin: u16, dir: &Path) -> Result<Prepared> {
        let first = source.parse()?;
        let bound = upstream::bind_all(&with_default(first.upstreams, &source.yaml)).await?;
        let mut names = Vec::new();
        extra_names(&source.yaml, &mut names);
        let mut scope = Scope {
            prefix: source.prefix(),
            port: ports::free()?,
            admin,
            upstreams: bound.iter().map(|(n, b)| (n.clone(), b.port)).collect(),
            extra: BTreeMap::new(),
            dir: dir.to_owned(),
            certs: self.certs.dir.clone(),
        };
        for name in names {
            scope.extra.insert(name, ports::free()?);
        }
        let mut case: Case = serde_json::from_value(scope.apply(&source.yaml)?).with_context(|| source.id.clone())?;
        case.upstreams = with_default(case.upstreams, &source.yaml);
        let mut backends = BTreeMap::new();
        for (name, bound) in bound {
            let spec = case.upstreams.get(&name).cloned().unwrap_or_default();
            backends.insert(name.clone(), Backend::start(bound, &name, &spec, &self.certs)?);
        }
        for (name, content) in &case.files {
            std::fs::write(dir.join(name), content)?;
        }
        let fragment = config::fragment(&case, &scope)?;
        let normal = Normalizer::new(&scope)?;
        let target = Arc::new(Target {
            scope,
            certs: self.certs.clone(),
            backends,
        });
        Ok(Prepared {
            case,
            target,
            fragment,
            normal,
        })
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(&self.scratch)?.keep())
    }
}

/// A case that describes no upstream, but routes to `up`, has one of that name.
fn with_default(mut upstreams: BTreeMap<String, Upstream>, yaml: &Value) -> BTreeMap<String, Upstream> {
    if upstreams.is_empty() && mentions_up(yaml) {
        upstreams.insert("up".to_owned(), Upstream::default());
    }
    upstreams
}

fn mentions_up(value: &Value) -> bool {
    match value {
        Value::String(s) => s == "up" || s == "{{cluster:up}}",
        Value::Array(items) => items.iter().any(mentions_up),
        Value::Object(map) => map.iter().any(|(k, v)| k == "up" || mentions_up(v)),
        _ => false,
    }
}

/// One case through both sides.
async fn one(source: &Source, envoy: &Side, nuncio: Option<&Side>) -> Result<CaseResult> {
    let case = source.parse()?;
    let mut result = CaseResult::new(source);
    if let Some(prepared) = envoy.prepared.get(&source.id) {
        let fragment = std::slice::from_ref(&prepared.fragment);
        result.config = config::bootstrap(fragment, prepared.target.scope.admin);
    }
    result.envoy = match outcome(source, envoy, None).await {
        Ok(outcome) => outcome,
        Err(error) => {
            result.verdict = Verdict::Broken(format!("{error:#}"));
            return Ok(result);
        }
    };
    if let Err(error) = outcome::check_expectations(&case, &result.envoy) {
        result.verdict = Verdict::Broken(error);
        return Ok(result);
    }
    let Some(nuncio) = nuncio else { return Ok(result) };
    if let Some(reason) = nuncio.refused.get(&source.id) {
        result.verdict = settle_known(&case, Verdict::Rejected(reason.clone()));
        return Ok(result);
    }
    let ignore: Vec<Regex> = case.ignore.iter().map(|i| Regex::new(i)).collect::<Result<_, _>>()?;
    let verdict = match outcome(source, nuncio, Some((&result.envoy, &ignore))).await {
        Ok(outcome) => {
            let list = differences(&result.envoy, &outcome, &ignore);
            result.nuncio = outcome;
            if list.is_empty() {
                Verdict::Agrees
            } else {
                Verdict::Differs(list)
            }
        }
        Err(error) => Verdict::Differs(vec![Difference {
            path: "case".into(),
            envoy: "ran".into(),
            nuncio: format!("{error:#}"),
        }]),
    };
    result.verdict = settle_known(&case, verdict);
    Ok(result)
}

fn settle_known(case: &Case, verdict: Verdict) -> Verdict {
    match (&case.known_difference, verdict) {
        (Some(_), Verdict::Agrees) => Verdict::Stale,
        (Some(reason), Verdict::Differs(_) | Verdict::Rejected(_)) => Verdict::Known(reason.clone()),
        (_, verdict) => verdict,
    }
}

/// What one side does with a case. `like` is the other side's outcome, waited for as long as it may
/// still come to be; without it, the outcome is taken once it stands still.
async fn outcome(source: &Source, side: &Side, like: Option<(&Value, &[Regex])>) -> Result<Value> {
    if let Some(reason) = side.refused.get(&source.id) {
        anyhow::bail!("configuration refused: {reason}");
    }
    let prepared = side.prepared.get(&source.id).context("not prepared")?;
    let proxy = side.proxy.as_ref().context("not running")?;
    let case = &prepared.case;
    let mut responses = client::send_all(&case.requests, &prepared.target).await;
    let mut sent = 0;
    for request in &case.requests {
        for _ in 0..request.repeat.unwrap_or(1) {
            if let Some(response) = responses.get_mut(sent) {
                outcome::shape_body(request, response, &prepared.normal)?;
            }
            sent += 1;
        }
    }
    let mut responses = Value::from(responses);
    prepared.normal.value(&mut responses);
    let logged: usize = case
        .requests
        .iter()
        .filter(|r| !r.admin && r.udp.is_empty())
        .map(|r| r.repeat.unwrap_or(1))
        .sum();
    let lines = match case.access_log {
        crate::case::AccessLog::Off => 0,
        _ if case.draws() => 0,
        _ => case.logs.unwrap_or(logged),
    };
    let deadline = Instant::now() + SETTLE;
    let mut last = Value::Null;
    loop {
        let mut now = late(prepared, proxy).await?;
        now["responses"] = responses.clone();
        let case = source.yaml.to_string();
        // Elsewhere such digits mean something else.
        if case.contains("tracing") {
            spans::name_ids(&mut now, &case);
        }
        let arrived = now["log"].as_array().map_or(0, Vec::len);
        let done = match like {
            Some((like, ignore)) => differences(like, &now, ignore)
                .iter()
                .all(|d| d.path.starts_with("responses")),
            None => arrived >= lines && now == last,
        };
        if done || Instant::now() > deadline {
            if like.is_none() && arrived != lines {
                anyhow::bail!("{arrived} access-log lines instead of {lines}: {now}", now = now["log"]);
            }
            return Ok(now);
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// The part of an outcome that may come after the responses.
async fn late(prepared: &Prepared, proxy: &Proxy) -> Result<Value> {
    let case = &prepared.case;
    let patterns: Vec<Regex> = case.stats.iter().map(|p| Regex::new(p)).collect::<Result<_, _>>()?;
    let prefix = (!case.needs_own_process()).then_some(prepared.target.scope.prefix.as_str());
    let stats = stats::read(proxy, &patterns, prefix, &prepared.normal).await?;
    let log = std::fs::read(config::log_path(&prepared.target.scope)).unwrap_or_default();
    let log = outcome::log_lines(&String::from_utf8_lossy(&log), &prepared.normal);
    let mut upstreams = json!({});
    for (name, backend) in prepared.target.backends.iter().filter(|_| !case.draws()) {
        let mut seen = backend.state.outcome();
        prepared.normal.value(&mut seen);
        upstreams[name] = seen;
    }
    Ok(json!({"responses": null, "upstreams": upstreams, "log": log, "stats": stats}))
}
