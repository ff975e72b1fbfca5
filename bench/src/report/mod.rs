//! The report: a Markdown page with tables, charts beside it, and the raw figures.

mod markdown;
mod svg;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::sample::Raw;

pub use markdown::markdown;

/// Beside the page, and not kept in git.
const RAW: &str = "raw/run.json";

/// Writes `README.md`, the charts and the raw figures into `out`.
pub fn write(out: &Path, raw: &Raw) -> Result<()> {
    fs::create_dir_all(out.join("raw"))?;
    fs::write(out.join(RAW), serde_json::to_string_pretty(raw)?)?;
    fs::write(out.join("README.md"), markdown(raw))?;
    for chart in svg::CHARTS {
        if let Some(picture) = svg::draw(chart, raw) {
            fs::write(out.join(chart.file), picture)?;
        }
    }
    eprintln!("wrote {}", out.join("README.md").display());
    Ok(())
}

/// The raw figures of the last run.
pub fn read_raw(out: &Path) -> Result<Raw> {
    let path = out.join(RAW);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests;
