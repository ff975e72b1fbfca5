//! What became of the requests, side by side, and what is too much.

use std::{collections::BTreeMap, fmt};

use super::{
    load::{Outcome, WRONG},
    setup::SETTINGS,
    upstream::Mood,
};

/// Failures of one kind that nuncio may have beyond Envoy's: a half more, and so many on top, for who is in the way when
/// a host turns is chance.
const SLACK: usize = 6;

/// Outcomes of the requests of one setting under one mood.
pub struct Tally {
    pub mood: Mood,
    pub setting: usize,
    kinds: BTreeMap<String, usize>,
}

impl Tally {
    fn total(&self) -> usize {
        self.kinds.values().sum()
    }

    fn failed(&self) -> usize {
        self.total() - self.of("ok")
    }

    fn of(&self, kind: &str) -> usize {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// How often each kind of failure came.
    fn text(&self) -> String {
        let failed = self.kinds.iter().filter(|(k, _)| *k != "ok");
        let parts: Vec<_> = failed.map(|(k, n)| format!("{n} x {k}")).collect();
        if parts.is_empty() { "-".into() } else { parts.join(", ") }
    }
}

/// Sorts outcomes by setting.
pub fn tally(mood: Mood, outcomes: Vec<Outcome>) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = (0..SETTINGS.len())
        .map(|setting| Tally {
            mood,
            setting,
            kinds: BTreeMap::new(),
        })
        .collect();
    for outcome in outcomes {
        *tallies[outcome.setting].kinds.entry(outcome.kind).or_default() += 1;
    }
    tallies
}

/// One line of the table.
struct Row {
    mood: Mood,
    setting: &'static str,
    requests: usize,
    envoy: String,
    nuncio: String,
    /// What is too much.
    complaint: Option<String>,
}

pub struct Verdict {
    rows: Vec<Row>,
    /// Requests, failures: Envoy's and ours.
    totals: [(usize, usize); 2],
}

impl Verdict {
    pub fn of(envoy: &[Tally], nuncio: &[Tally]) -> Verdict {
        let rows = envoy.iter().zip(nuncio).map(|(e, n)| Row {
            mood: n.mood,
            setting: SETTINGS[n.setting].name,
            requests: n.total(),
            envoy: e.text(),
            nuncio: n.text(),
            complaint: complaint(e, n),
        });
        let totals = [envoy, nuncio].map(|side| {
            (
                side.iter().map(Tally::total).sum(),
                side.iter().map(Tally::failed).sum(),
            )
        });
        Verdict {
            rows: rows.collect(),
            totals,
        }
    }

    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|r| r.complaint.is_none())
    }
}

fn complaint(envoy: &Tally, nuncio: &Tally) -> Option<String> {
    if nuncio.kinds.keys().any(|k| k.starts_with(WRONG)) {
        return Some("a wrong answer".into());
    }
    let allowed = |theirs: usize| theirs + theirs / 2 + SLACK;
    if nuncio.failed() > allowed(envoy.failed()) {
        return Some(format!("{} failures, Envoy {}", nuncio.failed(), envoy.failed()));
    }
    let kinds = nuncio.kinds.iter().filter(|(k, _)| *k != "ok");
    let worst = kinds
        .map(|(k, n)| (k, *n, envoy.of(k)))
        .find(|(_, n, theirs)| *n > allowed(*theirs));
    worst.map(|(kind, n, theirs)| format!("{n} x {kind}, Envoy {theirs}"))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<9} {:>8}  failures", "mood", "setting", "requests")?;
        for row in &self.rows {
            let mark = if row.complaint.is_some() { "WORSE" } else { "" };
            let mood = format!("{:?}", row.mood);
            writeln!(
                f,
                "{mood:<12} {:<9} {:>8}  envoy:  {}",
                row.setting, row.requests, row.envoy
            )?;
            writeln!(f, "{mark:>31}  nuncio: {}", row.nuncio)?;
        }
        for row in &self.rows {
            if let Some(complaint) = &row.complaint {
                writeln!(f, "worse than Envoy: {:?}, {}: {complaint}", row.mood, row.setting)?;
            }
        }
        let [(e_all, e_failed), (n_all, n_failed)] = self.totals;
        let worse = self.rows.iter().filter(|r| r.complaint.is_some()).count();
        writeln!(
            f,
            "envoy failed {e_failed} of {e_all}, nuncio {n_failed} of {n_all}; {} rows, {worse} worse than Envoy",
            self.rows.len()
        )
    }
}
