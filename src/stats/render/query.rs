//! The query string of `/stats` and `/stats/prometheus`.

use regex::Regex;

/// What a request for statistics asks for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// `usedonly`: leave out what was never written.
    pub used_only: bool,
    /// `filter`: a regular expression that must match somewhere in the name.
    pub filter: Option<Regex>,
    /// `invert_filter`: it must not match.
    pub invert_filter: bool,
    /// `type`; not regarded by Prometheus.
    pub types: TypeFilter,
    /// `format`.
    pub format: Format,
    /// `histogram_buckets`.
    pub buckets: BucketMode,
    /// `text_readouts`: show Prometheus text readouts as gauges.
    pub text_readouts: bool,
    /// `hidden`.
    pub hidden: Hidden,
}

/// The value of `type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TypeFilter {
    /// Everything.
    #[default]
    All,
    /// Counters only.
    Counters,
    /// Gauges only.
    Gauges,
    /// Histograms only.
    Histograms,
    /// Text readouts only.
    TextReadouts,
}

/// The value of `format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines of `name: value`.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Prometheus' text exposition format.
    Prometheus,
}

/// The value of `histogram_buckets`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BucketMode {
    /// Quantiles in text and JSON, cumulative buckets in Prometheus.
    #[default]
    Unset,
    /// Quantiles everywhere.
    Summary,
    /// Counts up to each bound.
    Cumulative,
    /// Counts between bounds.
    Disjoint,
    /// The bins themselves.
    Detailed,
}

/// The value of `hidden`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hidden {
    /// Leave hidden statistics out.
    #[default]
    Exclude,
    /// Show them too.
    Include,
    /// Show nothing else.
    Only,
}

/// Why a query is refused: the body of the 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// `filter` is no regular expression.
    #[error("Invalid re2 regex: {0}")]
    Filter(String),
    /// Unknown `histogram_buckets`.
    #[error("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n")]
    Buckets,
    /// Unknown `type`.
    #[error("invalid &type= param")]
    Type,
    /// Unknown `format`.
    #[error("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n")]
    Format,
    /// `html` and `active-html` are not built in.
    #[error("HTML output was disabled by building with --define=admin_html=disabled")]
    Html,
    /// Prometheus cannot show these buckets.
    #[error("unsupported prometheus histogram bucket mode")]
    PrometheusBuckets,
}

impl Query {
    /// Parses what stands after the `?` of `/stats`. As in Envoy, the first of several values counts, flags need no
    /// `=`, empty values are as good as none, and a filter need not be escaped.
    pub fn parse(query: &str) -> Result<Self, InvalidQuery> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = unescaped(key);
            if !params.iter().any(|(known, _)| *known == key) {
                params.push((key, unescaped(value)));
            }
        }
        let get = |name: &str| {
            params
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let get_set = |name: &str| get(name).filter(|value| !value.is_empty());
        let filter = get_set("filter").map(|filter| {
            Regex::new(filter).map_err(|error| InvalidQuery::Filter(re2_words(filter, &error.to_string())))
        });
        let query = Self {
            used_only: get("usedonly").is_some(),
            filter: filter.transpose()?,
            invert_filter: get("invert_filter").is_some(),
            buckets: match get_set("histogram_buckets") {
                None => BucketMode::Unset,
                Some("none" | "summary") => BucketMode::Summary,
                Some("cumulative") => BucketMode::Cumulative,
                Some("disjoint") => BucketMode::Disjoint,
                Some("detailed") => BucketMode::Detailed,
                Some(_) => return Err(InvalidQuery::Buckets),
            },
            types: match get_set("type") {
                None | Some("All") => TypeFilter::All,
                Some("Counters") => TypeFilter::Counters,
                Some("Gauges") => TypeFilter::Gauges,
                Some("Histograms") => TypeFilter::Histograms,
                Some("TextReadouts") => TypeFilter::TextReadouts,
                Some(_) => return Err(InvalidQuery::Type),
            },
            hidden: match get_set("hidden") {
                Some("include") => Hidden::Include,
                Some("only") => Hidden::Only,
                _ => Hidden::Exclude,
            },
            format: match get_set("format") {
                None | Some("text") => Format::Text,
                Some("json") => Format::Json,
                Some("prometheus") => Format::Prometheus,
                Some("html" | "active-html") => return Err(InvalidQuery::Html),
                Some(_) => return Err(InvalidQuery::Format),
            },
            text_readouts: get("text_readouts").is_some(),
        };
        if query.format == Format::Prometheus {
            query.for_prometheus()
        } else {
            Ok(query)
        }
    }

    /// Parses what stands after the `?` of `/stats/prometheus`.
    pub fn parse_prometheus(query: &str) -> Result<Self, InvalidQuery> {
        Self::parse(query)?.for_prometheus()
    }

    fn for_prometheus(self) -> Result<Self, InvalidQuery> {
        match self.buckets {
            BucketMode::Unset | BucketMode::Summary | BucketMode::Cumulative => Ok(Self {
                format: Format::Prometheus,
                ..self
            }),
            BucketMode::Disjoint | BucketMode::Detailed => Err(InvalidQuery::PrometheusBuckets),
        }
    }

    /// Whether the filter lets a name through.
    pub(super) fn admits(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(name) != self.invert_filter)
    }

    pub(super) fn admits_hidden(&self, hidden: bool) -> bool {
        match self.hidden {
            Hidden::Include => true,
            Hidden::Exclude => !hidden,
            Hidden::Only => hidden,
        }
    }
}

/// Resolves `%xx`; anything else stands for itself, a `+` too.
fn unescaped(text: &str) -> String {
    let (bytes, mut at) = (text.as_bytes(), 0);
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(&byte) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|hex| byte == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) => {
                out.push(escaped);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The regex crate draws the pattern over several lines; the last one says what is wrong.
fn re2_words(pattern: &str, error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    let reason = last.strip_prefix("error: ").unwrap_or(last);
    match reason {
        "unclosed character class" => format!("missing ]: {}", &pattern[pattern.rfind('[').unwrap_or(0)..]),
        "unclosed group" => format!("missing ): {pattern}"),
        "unopened group" => format!("unexpected ): {pattern}"),
        "repetition operator missing expression" => {
            let operator = pattern
                .chars()
                .find(|c| matches!(c, '*' | '+' | '?' | '{'))
                .unwrap_or('*');
            format!("no argument for repetition operator: {operator}")
        }
        other => other.to_owned(),
    }
}
