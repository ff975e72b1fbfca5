//! `envoy.config.metrics.v3.StatsConfig`: which statistics exist, how their names become tags, which buckets
//! histograms are shown with.

use std::sync::Arc;

use xds_protos::envoy::config::metrics::v3 as pb;
use xds_protos::envoy::config::metrics::v3::stats_matcher::StatsMatcher as MatcherKind;
use xds_protos::envoy::config::metrics::v3::tag_specifier::TagValue;
use xds_protos::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use xds_protos::envoy::r#type::matcher::v3::{ListStringMatcher, StringMatcher};

use super::histogram::DEFAULT_BUCKETS;
use super::matcher::{Matcher, Pattern, Rule};
use super::tags::{Extractor, Extractors};
use crate::config::{ConfigError, ConfigResult};

/// The configuration of the store; the default is Envoy's without a `stats_config`.
#[derive(Debug, Clone, Default)]
pub struct StatsConfig {
    pub(super) matcher: Matcher,
    pub(super) extractors: Extractors,
    buckets: Vec<(Pattern, Arc<[f64]>)>,
}

impl StatsConfig {
    /// Converts the bootstrap's `stats_config`. `cli_tags` are those of `--stats-tag`, which every statistic gets.
    ///
    /// Built before there is a server to build for, hence without a `BuildCx`.
    pub fn from_proto(proto: pb::StatsConfig, cli_tags: &[(String, String)]) -> ConfigResult<Self> {
        let pb::StatsConfig {
            stats_tags,
            use_all_default_tags,
            stats_matcher,
            histogram_bucket_settings,
            allow_default_tag_overrides,
        } = proto;
        let defaults = super::tags::default_extractors();
        let mut extractors = if use_all_default_tags.is_none_or(|all| all.value) {
            defaults.clone()
        } else {
            Vec::new()
        };
        if allow_default_tag_overrides.is_some_and(|allow| allow.value) {
            extractors.retain(|default| !stats_tags.iter().any(|own| own.tag_name == default.tag()));
        }
        extractors.extend(cli_tags.iter().map(|(name, value)| Extractor::fixed(name, value)));
        for (index, tag) in stats_tags.into_iter().enumerate() {
            extractors
                .extend(tag_specifier(tag, &defaults).map_err(|error| at(format!("stats_tags[{index}]"), error))?);
        }
        let matcher = stats_matcher.map_or(Ok(Matcher::All), |proto| {
            matcher(proto).map_err(|error| at("stats_matcher".into(), error))
        })?;
        let buckets = histogram_bucket_settings
            .into_iter()
            .enumerate()
            .map(|(index, settings)| {
                buckets(settings).map_err(|error| at(format!("histogram_bucket_settings[{index}]"), error))
            });
        Ok(Self {
            matcher,
            extractors: Extractors::new(extractors),
            buckets: buckets.collect::<ConfigResult<_>>()?,
        })
    }

    /// The upper bounds that a histogram of that name is shown with; the name is only made if it matters.
    pub(super) fn buckets(&self, name: impl FnOnce() -> String) -> &[f64] {
        if self.buckets.is_empty() {
            return &DEFAULT_BUCKETS;
        }
        let name = name();
        let own = self.buckets.iter().find(|(pattern, _)| pattern.matches(&name));
        own.map_or(&DEFAULT_BUCKETS, |(_, buckets)| buckets)
    }
}

fn at(path: String, error: ConfigError) -> ConfigError {
    let path = if error.path().is_empty() {
        path
    } else {
        format!("{path}.{}", error.path())
    };
    ConfigError::new(path, error.reason())
}

fn tag_specifier(proto: pb::TagSpecifier, defaults: &[Extractor]) -> ConfigResult<Vec<Extractor>> {
    let pb::TagSpecifier { tag_name, tag_value } = proto;
    let regex = match tag_value {
        Some(TagValue::FixedValue(value)) => return Ok(vec![Extractor::fixed(&tag_name, &value)]),
        Some(TagValue::Regex(regex)) => regex,
        None => String::new(),
    };
    if regex.is_empty() {
        let known: Vec<_> = defaults
            .iter()
            .filter(|default| default.tag() == tag_name)
            .cloned()
            .collect();
        if known.is_empty() {
            let reason = "No regex specified for tag specifier and no default regex for name";
            return Err(ConfigError::new("", format!("{reason}: '{tag_name}'")));
        }
        return Ok(known);
    }
    if tag_name.is_empty() {
        return Err(ConfigError::new("tag_name", "tag_name cannot be empty"));
    }
    let extractor = Extractor::regex(&tag_name, &regex);
    Ok(vec![
        extractor.map_err(|error| ConfigError::new("regex", error.to_string()))?,
    ])
}

fn matcher(proto: pb::StatsMatcher) -> ConfigResult<Matcher> {
    let pb::StatsMatcher { stats_matcher } = proto;
    Ok(match stats_matcher {
        None => Matcher::All,
        Some(MatcherKind::RejectAll(true)) => Matcher::None,
        Some(MatcherKind::RejectAll(false)) => Matcher::All,
        Some(MatcherKind::InclusionList(list)) => Matcher::Include(patterns("inclusion_list", list)?),
        Some(MatcherKind::ExclusionList(list)) => Matcher::Exclude(patterns("exclusion_list", list)?),
    })
}

fn patterns(field: &str, proto: ListStringMatcher) -> ConfigResult<Vec<Pattern>> {
    let ListStringMatcher { patterns } = proto;
    let each = patterns.into_iter().enumerate();
    each.map(|(index, proto)| pattern(proto).map_err(|error| at(format!("{field}.patterns[{index}]"), error)))
        .collect()
}

fn pattern(proto: StringMatcher) -> ConfigResult<Pattern> {
    let StringMatcher {
        ignore_case,
        match_pattern,
    } = proto;
    let text = |text: String| if ignore_case { text.to_ascii_lowercase() } else { text };
    let rule = match match_pattern {
        Some(MatchPattern::Exact(exact)) => Rule::Exact(text(exact)),
        Some(MatchPattern::Prefix(prefix)) => Rule::Prefix(text(prefix)),
        Some(MatchPattern::Suffix(suffix)) => Rule::Suffix(text(suffix)),
        Some(MatchPattern::Contains(part)) => Rule::Contains(text(part)),
        // As in Envoy, ignore_case has no effect on a regular expression.
        Some(MatchPattern::SafeRegex(regex)) => {
            let whole = regex::Regex::new(&format!("^(?:{})$", regex.regex));
            let rule = Rule::Regex(whole.map_err(|error| ConfigError::new("safe_regex", error.to_string()))?);
            return Ok(Pattern {
                rule,
                ignore_case: false,
            });
        }
        Some(MatchPattern::Custom(_)) => {
            return Err(ConfigError::new("custom", "not supported for names of statistics"));
        }
        None => return Err(ConfigError::new("match_pattern", "value is required")),
    };
    Ok(Pattern { rule, ignore_case })
}

fn buckets(proto: pb::HistogramBucketSettings) -> ConfigResult<(Pattern, Arc<[f64]>)> {
    // `bins` bounds the memory of Envoy's histograms, by fewer bins; ours are allocated by the decade as values come.
    let pb::HistogramBucketSettings {
        r#match: name,
        buckets,
        bins: _,
    } = proto;
    let name = name.ok_or_else(|| ConfigError::new("match", "value is required"))?;
    let pattern = pattern(name).map_err(|error| at("match".into(), error))?;
    let buckets = if buckets.is_empty() {
        DEFAULT_BUCKETS.to_vec()
    } else {
        buckets
    };
    Ok((pattern, buckets.into()))
}
