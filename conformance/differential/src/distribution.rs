//! `distribution`: one request sent many times, of which only the share of each upstream counts.
//!
//! Whoever draws lots never gets the same numbers twice. Two sides agree if the difference of their shares is one that
//! chance gives: a share `p` of `n` draws has the standard deviation `sqrt(p(1-p)/n)`, the difference of two of them
//! `sqrt(2)` times that, and [`DEVIATIONS`] of those come up once in millions of comparisons.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::case::RequestFields;
use crate::client::{self, Target};
use crate::diff::Difference;

/// How many standard deviations two samples may be apart.
const DEVIATIONS: f64 = 5.0;

/// How often a request is sent, and what must come of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributionFields {
    pub times: usize,
    /// There is no chance in it: the numbers must be the same, but for the one request at which a cycle begins.
    pub exact: bool,
    /// How many are sent at the same time.
    pub parallel: Option<usize>,
    /// The share of each upstream that Envoy must come to.
    pub shares: BTreeMap<String, f64>,
}

/// The same; the short form is the number of times.
#[derive(Clone, Debug, Default)]
pub struct Distribution(pub DistributionFields);

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = Value::deserialize(d)?;
        if let Some(times) = value.as_u64() {
            return Ok(Self(DistributionFields {
                times: usize::try_from(times).map_err(D::Error::custom)?,
                ..Default::default()
            }));
        }
        serde_json::from_value(value).map(Self).map_err(D::Error::custom)
    }
}

/// Sends the request, and counts who answered: by body, or by status if it is not 200.
pub async fn draw(distribution: &DistributionFields, request: &RequestFields, target: &Arc<Target>) -> Value {
    let request = RequestFields {
        distribution: None,
        connection: Some("draws".into()),
        ..request.clone()
    };
    let lanes = distribution.parallel.unwrap_or(1).max(1);
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..lanes {
        let times = distribution.times / lanes + usize::from(lane < distribution.times % lanes);
        let (request, target) = (request.clone(), target.clone());
        tasks.spawn(async move { client::repeat(&request, times, &target).await });
    }
    let mut from: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(answers) = tasks.join_next().await {
        for answer in answers.unwrap_or_default() {
            *from.entry(whose(&answer)).or_default() += 1;
        }
    }
    json!({"drawn": {"times": distribution.times, "exact": distribution.exact, "from": from}})
}

fn whose(answer: &Value) -> String {
    match (answer["status"].as_u64(), answer["body"].as_str()) {
        (Some(200), Some(body)) => body.trim_end().to_owned(),
        (Some(status), _) => status.to_string(),
        _ => answer.to_string(),
    }
}

/// Where two draws are further apart than chance has it.
pub fn differences(path: &str, envoy: &Map<String, Value>, nuncio: &Map<String, Value>) -> Vec<Difference> {
    let exact = envoy.get("exact") == Some(&Value::Bool(true));
    let counts = |side: &Map<String, Value>| -> BTreeMap<String, u64> {
        let from = side.get("from").and_then(Value::as_object);
        let counts = from.into_iter().flatten();
        counts.map(|(k, v)| (k.clone(), v.as_u64().unwrap_or(0))).collect()
    };
    let (a, b) = (counts(envoy), counts(nuncio));
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let of = |side: &BTreeMap<String, u64>| side.get(name).copied().unwrap_or(0);
        let times = |side: &BTreeMap<String, u64>| side.values().sum::<u64>().max(1) as f64;
        let (p, q) = (of(&a) as f64 / times(&a), of(&b) as f64 / times(&b));
        let fits = match exact {
            true => of(&a).abs_diff(of(&b)) <= 1,
            false => {
                let both = |side| deviation((p + q) / 2.0, times(side));
                (p - q).abs() <= DEVIATIONS * both(&a).hypot(both(&b)) + 1.0 / times(&a)
            }
        };
        if !fits {
            found.push(Difference {
                path: format!("{path}.{name}"),
                envoy: format!("{} of {}", of(&a), times(&a)),
                nuncio: format!("{} of {}", of(&b), times(&b)),
            });
        }
    }
    found
}

/// Whether Envoy came to the shares that a case claims; says what it came to if not.
pub fn check(distribution: &DistributionFields, response: &Value) -> Result<(), String> {
    let from = &response["drawn"]["from"];
    let times = distribution.times as f64;
    for (name, share) in &distribution.shares {
        let count = from[name].as_f64().unwrap_or(0.0);
        let tolerance = match distribution.exact {
            true => 1.0 / times,
            false => DEVIATIONS * deviation(*share, times) + 1.0 / times,
        };
        if (count / times - share).abs() > tolerance {
            return Err(format!("expected a share of {share} for {name}, got {from}"));
        }
    }
    Ok(())
}

/// The standard deviation of a share of so many draws.
fn deviation(share: f64, times: f64) -> f64 {
    (share * (1.0 - share) / times).max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(exact: bool, a: u64, b: u64) -> Value {
        json!({"times": a + b, "exact": exact, "from": {"a": a, "b": b}})
    }

    fn differ(exact: bool, one: (u64, u64), other: (u64, u64)) -> usize {
        let (one, other) = (drawn(exact, one.0, one.1), drawn(exact, other.0, other.1));
        differences("x", one.as_object().unwrap(), other.as_object().unwrap()).len()
    }

    #[test]
    fn chance_is_no_difference() {
        // The standard deviation of the difference is 22.
        assert_eq!(differ(false, (500, 500), (590, 410)), 0);
        assert_eq!(differ(false, (500, 500), (640, 360)), 2);
        assert_eq!(differ(true, (500, 500), (501, 499)), 0);
        assert_eq!(differ(true, (500, 500), (502, 498)), 2);
    }

    #[test]
    fn claims_are_checked() {
        let claim = DistributionFields {
            times: 1000,
            shares: BTreeMap::from([("a".to_owned(), 0.5)]),
            ..Default::default()
        };
        assert!(check(&claim, &json!({"drawn": drawn(false, 530, 470)})).is_ok());
        assert!(check(&claim, &json!({"drawn": drawn(false, 600, 400)})).is_err());
    }
}
