//! ORCA: the load that backends report of themselves, in the heads or trailers of their responses.
//!
//! `endpoint-load-metrics` says first which form it has (`TEXT`, `JSON` or `BIN`); `endpoint-load-metrics-bin` is a
//! serialized report in base64, as gRPC servers send it. A report that is wrong anywhere is no report.

use std::collections::HashSet;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderMap;
use xds_protos::{
    load::{LoadOptions, Syntax, typed},
    prost::Message,
    xds::data::orca::v3::OrcaLoadReport,
};

/// gRPC leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The report in a response's head or trailers; none where there is none, or none that can be read.
pub fn report(headers: &HeaderMap) -> Option<OrcaLoadReport> {
    if let Some(value) = headers.get("endpoint-load-metrics-bin") {
        return binary(value.to_str().ok()?);
    }
    let value = headers.get("endpoint-load-metrics")?.to_str().ok()?;
    match value.split_once(' ')? {
        ("BIN", value) => binary(value),
        ("TEXT", value) => text(value),
        ("JSON", value) => typed(value, Syntax::Json, &LoadOptions::default()).ok(),
        _ => None,
    }
}

/// The greatest of the metrics of these names, for example `cpu_utilization` or `named_metrics.foo`; at least 0.
pub fn greatest(report: &OrcaLoadReport, names: &[String]) -> f64 {
    let greatest_of = |map: &std::collections::HashMap<String, f64>, key: &str| match key {
        "*" => map.values().copied().fold(0.0, f64::max),
        key => map.get(key).copied().unwrap_or(0.0),
    };
    let metric = |name: &String| match name.as_str() {
        "cpu_utilization" => report.cpu_utilization,
        "mem_utilization" => report.mem_utilization,
        "application_utilization" => report.application_utilization,
        "eps" => report.eps,
        "rps_fractional" => report.rps_fractional,
        name => match name.split_once('.') {
            Some(("named_metrics", key)) => greatest_of(&report.named_metrics, key),
            Some(("utilization", key)) => greatest_of(&report.utilization, key),
            Some(("request_cost", key)) => greatest_of(&report.request_cost, key),
            _ => 0.0,
        },
    };
    names.iter().map(metric).fold(0.0, f64::max)
}

fn binary(value: &str) -> Option<OrcaLoadReport> {
    let bytes = BASE64.decode(value).ok().filter(|bytes| !bytes.is_empty())?;
    OrcaLoadReport::decode(bytes.as_slice()).ok()
}

/// `name=value` or `name:value`, separated by commas.
fn text(value: &str) -> Option<OrcaLoadReport> {
    let mut report = OrcaLoadReport::default();
    let mut names = HashSet::new();
    for entry in value.split(',').map(str::trim_ascii).filter(|e| !e.is_empty()) {
        let (name, number) = entry.split_once([':', '='])?;
        let number: f64 = number.trim_ascii().parse().ok()?;
        if !number.is_finite() || !names.insert(name) {
            return None;
        }
        match name {
            "cpu_utilization" => report.cpu_utilization = number,
            "mem_utilization" => report.mem_utilization = number,
            "application_utilization" => report.application_utilization = number,
            "eps" => report.eps = number,
            "rps_fractional" => report.rps_fractional = number,
            name => {
                let (map, key) = match name.split_once('.')? {
                    ("named_metrics", key) => (&mut report.named_metrics, key),
                    ("utilization", key) => (&mut report.utilization, key),
                    _ => return None,
                };
                if key.is_empty() {
                    return None;
                }
                map.insert(key.to_owned(), number);
            }
        }
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Option<OrcaLoadReport> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        report(&headers)
    }

    #[test]
    fn all_forms_say_the_same() {
        let wanted = OrcaLoadReport {
            cpu_utilization: 0.5,
            rps_fractional: 100.0,
            named_metrics: [("foo".to_owned(), 0.25)].into(),
            ..Default::default()
        };
        let header = "endpoint-load-metrics";
        let text = "TEXT cpu_utilization=0.5, rps_fractional:100,named_metrics.foo=0.25";
        assert_eq!(read(header, text), Some(wanted.clone()));
        let json = r#"JSON {"cpuUtilization": 0.5, "rps_fractional": 100, "namedMetrics": {"foo": 0.25}}"#;
        assert_eq!(read(header, json), Some(wanted.clone()));
        let binary = BASE64.encode(wanted.encode_to_vec());
        assert_eq!(read(header, &format!("BIN {binary}")), Some(wanted.clone()));
        assert_eq!(read("endpoint-load-metrics-bin", &binary), Some(wanted));
    }

    #[test]
    fn what_is_wrong_anywhere_is_no_report() {
        for value in [
            "cpu_utilization=0.5",
            "TEXT cpu_utilization=x",
            "TEXT cpu_utilization=inf",
            "TEXT eps=1,eps=2",
            "TEXT more=1",
            "TEXT named_metrics.=1",
            "JSON {",
            r#"JSON {"more": 1}"#,
            "BIN !",
            "",
        ] {
            assert_eq!(read("endpoint-load-metrics", value), None, "{value}");
        }
    }

    #[test]
    fn the_greatest_of_some_metrics() {
        let report = OrcaLoadReport {
            cpu_utilization: 0.5,
            utilization: [("a".to_owned(), 0.75), ("b".to_owned(), 0.25)].into(),
            ..Default::default()
        };
        let of = |names: &[&str]| greatest(&report, &names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["cpu_utilization", "utilization.b"]), 0.5);
        assert_eq!(of(&["utilization.*", "unknown"]), 0.75);
        assert_eq!(of(&[]), 0.0);
    }
}
