use std::collections::BTreeMap;

use super::*;
use crate::machine::Machine;
use crate::rows::ROWS;
use crate::sample::{Metric, Sample};

fn raw() -> Raw {
    let sample = |row: &str, proxy: &str, metric, value| Sample {
        row: row.into(),
        proxy: proxy.into(),
        round: 0,
        values: BTreeMap::from([(metric, value)]),
    };
    Raw {
        machine: Machine {
            cpu: "a processor".into(),
            cores: 2,
            memory_gb: 8.0,
            kernel: "6".into(),
            date: "2026-01-01 00:00".into(),
            load_generators: vec!["wrk 4".into()],
        },
        proxies: vec![("nuncio".into(), "0.1.0".into()), ("Envoy".into(), "1.40.0".into())],
        rounds: 1,
        seconds: 1,
        samples: vec![
            sample("h1", "nuncio", Metric::CpuUs, 12.0),
            sample("h1", "Envoy", Metric::CpuUs, 24.0),
            sample("h2", "Envoy", Metric::CpuUs, 21.0),
        ],
    }
}

#[test]
fn table_shows_figures_ratio_and_gaps() {
    let page = markdown(&raw());
    assert!(page.contains("| HTTP/1.1 keep-alive, 64 connections | 12.0 (0.00) | 24.0 (0.00) | **0.50** |"));
    assert!(page.contains("| HTTP/2 cleartext, 8 connections x 16 streams | - | 21.0 (0.00) | - |"));
    assert!(page.contains("![CPU per request](cpu.svg)"));
    assert!(!page.contains("memory.svg"), "a chart without figures is not shown");
}

#[test]
fn charts_name_only_rows_that_exist() {
    for chart in svg::CHARTS {
        for row in chart.rows() {
            assert!(ROWS.iter().any(|r| r.name == row), "{}: {row}", chart.file);
        }
    }
}

#[test]
fn bars_are_proportional() {
    let cpu = svg::CHARTS.iter().find(|chart| chart.file == "cpu.svg").unwrap();
    let picture = svg::draw(cpu, &raw()).unwrap();
    let widths: Vec<f64> = picture
        .split("<rect ")
        .skip(2)
        .map(|rest| {
            let (_, rest) = rest.split_once("width=\"").unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        })
        .collect();
    assert_eq!(widths.len(), 3);
    assert!((widths[1] / widths[0] - 2.0).abs() < 0.01, "{widths:?}");
}

#[test]
fn no_figures_no_chart() {
    let raw = Raw {
        samples: vec![],
        ..raw()
    };
    assert!(svg::CHARTS.iter().all(|chart| svg::draw(chart, &raw).is_none()));
}
