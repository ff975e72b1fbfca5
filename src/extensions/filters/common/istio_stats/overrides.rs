//! `metrics` and `definitions`: what a user changes of the standard metrics, and adds to them.

use std::{collections::HashMap, hash::Hasher};

use twox_hash::XxHash64;
use xds_protos::stats::{MetricConfig, MetricDefinition, MetricType};

use super::metric::{Metric, standard_label};
use crate::{
    config::{BuildCx, ConfigResult},
    matching::{
        cel::{CelExpression, CelOptions},
        tree::MatchCx,
    },
};

/// What stands where an expression has no value.
const UNKNOWN: &str = "unknown";

/// Changes to the standard metrics, and metrics of the user's own.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Equal for equal configurations, and never zero.
    pub(super) id: u64,
    expressions: Vec<Expression>,
    standard: [Changes; Metric::ALL.len()],
    pub(super) custom: Vec<CustomMetric>,
}

#[derive(Debug)]
struct Expression {
    text: String,
    compiled: CelExpression,
    /// The value of a metric, not a label.
    is_amount: bool,
}

#[derive(Debug, Default)]
struct Changes {
    drop: bool,
    /// The label's expression; none to leave it out.
    replaced: HashMap<&'static str, Option<usize>>,
    added: Vec<(String, usize)>,
}

/// A metric of the user's.
#[derive(Debug)]
pub(super) struct CustomMetric {
    /// `name` as it stands in the configuration.
    pub(super) name: String,
    pub(super) kind: MetricType,
    amount: usize,
    labels: Vec<(String, usize)>,
}

/// What the expressions are worth at one moment: texts of labels, amounts of metrics.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) texts: Vec<String>,
    amounts: Vec<u64>,
}

impl Values {
    pub(super) fn amount(&self, metric: &CustomMetric) -> u64 {
        self.amounts.get(metric.amount).copied().unwrap_or_default()
    }
}

impl Overrides {
    /// Reads the configuration; none if it changes nothing.
    pub(super) fn build(
        metrics: Vec<MetricConfig>,
        definitions: Vec<MetricDefinition>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Option<Self>> {
        if metrics.is_empty() && definitions.is_empty() {
            return Ok(None);
        }
        let mut overrides = Self {
            id: id_of(&metrics, &definitions),
            ..Self::default()
        };
        for (i, definition) in definitions.into_iter().enumerate() {
            cx.item("definitions", i, |cx| overrides.define(definition, cx))?;
        }
        for (i, metric) in metrics.into_iter().enumerate() {
            cx.item("metrics", i, |cx| overrides.change(metric, cx))?;
        }
        Ok(Some(overrides))
    }

    fn define(&mut self, proto: MetricDefinition, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        let kind = proto.r#type();
        coverage!(cx, proto => MetricDefinition { supported { name, value, r#type } });
        let _ = r#type;
        if Metric::find(&name).is_some() {
            tracing::info!(%name, "a standard metric cannot be defined anew");
            return Ok(());
        }
        let Some(amount) = self.expression(&value, true, cx)? else {
            return Ok(());
        };
        if !self.custom.iter().any(|known| known.name == name) {
            self.custom.push(CustomMetric {
                name,
                kind,
                amount,
                labels: Vec::new(),
            });
        }
        Ok(())
    }

    fn change(&mut self, proto: MetricConfig, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        coverage!(cx, proto => MetricConfig {
            supported { dimensions, name, tags_to_remove, drop }
            ignored { r#match: "Istio's filter does not look at it either" }
        });
        let wanted = Metric::find(&name);
        if drop {
            if let Some(metric) = wanted {
                self.standard[metric as usize].drop = true;
            }
            return Ok(());
        }
        let concerns = |(metric, _): &(Metric, &str)| name.is_empty() || wanted == Some(*metric);
        let concerned: Vec<usize> = Metric::ALL
            .iter()
            .filter(|m| concerns(m))
            .map(|(m, _)| *m as usize)
            .collect();
        for tag in &tags_to_remove {
            let Some(label) = standard_label(tag) else {
                tracing::info!(%tag, "not a standard label");
                continue;
            };
            for metric in &concerned {
                self.standard[*metric].replaced.insert(label, None);
            }
        }
        let mut dimensions: Vec<_> = dimensions.into_iter().collect();
        dimensions.sort();
        for (tag, text) in dimensions {
            let expression = self.expression(&text, false, cx)?;
            match (standard_label(&tag), expression) {
                (Some(label), expression) => {
                    for metric in &concerned {
                        self.standard[*metric].replaced.insert(label, expression);
                    }
                }
                (None, Some(expression)) => {
                    for metric in &concerned {
                        self.standard[*metric].added.push((tag.clone(), expression));
                    }
                }
                (None, None) => {}
            }
            if let Some(expression) = expression {
                for custom in self.custom.iter_mut().filter(|c| name.is_empty() || c.name == name) {
                    custom.labels.push((tag.clone(), expression));
                }
            }
        }
        Ok(())
    }

    /// The place of an expression among all; none if the text is none, which is noted and no error.
    fn expression(&mut self, text: &str, is_amount: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Option<usize>> {
        if let Some(known) = self.expressions.iter().position(|e| e.text == text) {
            return Ok(Some(known));
        }
        if !CelExpression::parses(text) {
            tracing::info!(expression = %text, "cannot be parsed as an expression");
            return Ok(None);
        }
        let options = CelOptions {
            string_conversion: true,
            string_concat: true,
            string_functions: false,
        };
        self.expressions.push(Expression {
            text: text.to_owned(),
            compiled: CelExpression::parse(text, options, cx)?,
            is_amount,
        });
        Ok(Some(self.expressions.len() - 1))
    }

    /// Evaluates all expressions.
    pub(super) fn evaluate(&self, cx: &MatchCx<'_>) -> Values {
        let mut values = Values::default();
        for expression in &self.expressions {
            let text = expression.compiled.text(cx);
            let amount = || text.as_deref().and_then(|t| t.parse().ok()).unwrap_or_default();
            values.amounts.push(if expression.is_amount { amount() } else { 0 });
            values.texts.push(match (expression.is_amount, text) {
                (true, _) => String::new(),
                (false, text) => text.unwrap_or_else(|| UNKNOWN.to_owned()),
            });
        }
        values
    }

    pub(super) fn drops(&self, metric: Metric) -> bool {
        self.standard[metric as usize].drop
    }

    /// The labels of a standard metric after the changes.
    pub(super) fn changed<'a>(
        &'a self,
        metric: Metric,
        labels: Vec<(&'a str, &'a str)>,
        texts: &[&'a str],
    ) -> Vec<(&'a str, &'a str)> {
        let changes = &self.standard[metric as usize];
        let text = |at: usize| texts.get(at).copied().unwrap_or_default();
        let kept = labels
            .into_iter()
            .filter_map(|(name, value)| match changes.replaced.get(name) {
                None => Some((name, value)),
                Some(expression) => expression.map(|at| (name, text(at))),
            });
        let added = changes.added.iter().map(|(name, at)| (name.as_str(), text(*at)));
        kept.chain(added).collect()
    }
}

impl CustomMetric {
    /// Its labels.
    pub(super) fn labels<'a>(&'a self, texts: &[&'a str]) -> Vec<(&'a str, &'a str)> {
        let label = |(name, at): &'a (String, usize)| (name.as_str(), texts.get(*at).copied().unwrap_or_default());
        self.labels.iter().map(label).collect()
    }
}

/// A hash of everything that was configured.
fn id_of(metrics: &[MetricConfig], definitions: &[MetricDefinition]) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    for metric in metrics {
        let mut dimensions: Vec<_> = metric.dimensions.iter().collect();
        dimensions.sort();
        let rest = (&metric.name, metric.drop, &metric.tags_to_remove);
        hash.write(format!("{rest:?}{dimensions:?}").as_bytes());
    }
    hash.write(format!("{definitions:?}").as_bytes());
    hash.finish().max(1)
}
