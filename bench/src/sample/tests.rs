use super::*;

fn raw(values: &[f64]) -> Raw {
    let samples = values.iter().enumerate().map(|(round, value)| Sample {
        row: "h1".into(),
        proxy: "Envoy".into(),
        round,
        values: BTreeMap::from([(Metric::CpuUs, *value)]),
    });
    Raw {
        machine: Machine {
            cpu: "a processor".into(),
            cores: 2,
            memory_gb: 8.0,
            kernel: "6".into(),
            date: "2026-01-01 00:00".into(),
            load_generators: vec![],
        },
        proxies: vec![("Envoy".into(), "1".into())],
        rounds: values.len(),
        seconds: 1,
        samples: samples.collect(),
    }
}

#[test]
fn median_ignores_one_disturbed_round() {
    assert_eq!(
        raw(&[27.0, 90.0, 26.0]).median("h1", "Envoy", Metric::CpuUs),
        Some(27.0)
    );
    assert_eq!(raw(&[26.0, 28.0]).median("h1", "Envoy", Metric::CpuUs), Some(27.0));
}

#[test]
fn what_was_not_measured_has_no_median() {
    let raw = raw(&[1.0]);
    assert_eq!(raw.median("h1", "nginx", Metric::CpuUs), None);
    assert_eq!(raw.median("h2", "Envoy", Metric::CpuUs), None);
    assert_eq!(raw.median("h1", "Envoy", Metric::Rate), None);
}

#[test]
fn raw_figures_survive_their_file() {
    let text = serde_json::to_string(&raw(&[1.5])).unwrap();
    let back: Raw = serde_json::from_str(&text).unwrap();
    assert_eq!(back.median("h1", "Envoy", Metric::CpuUs), Some(1.5));
}
