//! One command of a format: what it is built from, and how it writes its value.

use std::{env, fs, io::Write, sync::Arc};

use super::{
    FormatCx,
    grpc_status::{self, GrpcStyle},
    metadata::{self, MetadataSource},
    operators,
    percent::decode,
    time::{TimeFormat, TimePoint, TimeSource},
};
use crate::{
    http::RequestHead,
    matching::{
        HeaderLookup,
        cel::{CelExpression, CelOptions},
        query_parameter,
        tree::MatchCx,
    },
};

/// What kind of value a command wrote; `Option::None` stands for a missing value, and nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text: a string in JSON.
    Text,
    /// A number: bare in JSON.
    Number,
    /// JSON already: a struct or list of metadata.
    Json,
}

/// A command with its arguments and its length limit in bytes.
#[derive(Debug, Clone)]
pub(super) struct Command {
    operation: Operation,
    max_length: Option<usize>,
}

/// Writes the value of a command without arguments.
pub(super) type Plain = fn(&FormatCx<'_>, &mut Vec<u8>) -> Option<Kind>;

#[derive(Debug, Clone)]
enum Operation {
    Plain(Plain),
    Constant(Box<str>),
    Header {
        from: Head,
        main: HeaderLookup,
        alternative: Option<HeaderLookup>,
        without_query: bool,
    },
    Time {
        source: TimeSource,
        format: TimeFormat,
    },
    Duration {
        start: TimePoint,
        end: TimePoint,
        nanos_per_unit: u128,
    },
    Metadata {
        source: MetadataSource,
        namespace: String,
        path: Vec<String>,
    },
    FilterState {
        key: String,
        form: FilterStateForm,
    },
    GrpcStatus(GrpcStyle),
    QueryParameter(String),
    Cel(Arc<CelExpression>),
    QueryParameters {
        decoded: bool,
    },
    Path {
        query: bool,
        from: PathFrom,
    },
    Details {
        keep_spaces: bool,
    },
    ServerName {
        from_host: bool,
        fall_back: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Head {
    Request,
    Response,
    Trailer,
}

#[derive(Debug, Clone)]
enum FilterStateForm {
    Plain,
    Typed,
    Field(String),
}

#[derive(Debug, Clone, Copy)]
enum PathFrom {
    Path,
    Original,
    OriginalOrPath,
}

/// Which arguments a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// Neither arguments nor a length.
    Bare,
    /// Arguments may be there, a length may not.
    Optional,
    /// Arguments must be there; a length may only where this says so.
    Required { length: bool },
    /// Arguments and length may be there.
    OptionalWithLength,
}

type Constructor = fn(&str, Option<usize>) -> Result<Operation, String>;

/// Commands with arguments, by name.
const WITH_ARGUMENTS: &[(&str, Syntax, Constructor)] = &[
    ("REQ", Syntax::Required { length: true }, |a, _| {
        header(Head::Request, a, false)
    }),
    ("REQ_WITHOUT_QUERY", Syntax::Required { length: true }, |a, _| {
        header(Head::Request, a, true)
    }),
    ("RESP", Syntax::Required { length: true }, |a, _| {
        header(Head::Response, a, false)
    }),
    ("TRAILER", Syntax::Required { length: true }, |a, _| {
        header(Head::Trailer, a, false)
    }),
    ("START_TIME", Syntax::Optional, |a, _| time(TimeSource::Start, a, false)),
    ("START_TIME_LOCAL", Syntax::Optional, |a, _| {
        time(TimeSource::Start, a, true)
    }),
    ("EMIT_TIME", Syntax::Optional, |a, _| time(TimeSource::Now, a, false)),
    ("EMIT_TIME_LOCAL", Syntax::Optional, |a, _| {
        time(TimeSource::Now, a, true)
    }),
    ("DOWNSTREAM_PEER_CERT_V_START", Syntax::Optional, |a, _| {
        time(TimeSource::DownstreamCertStart, a, false)
    }),
    ("DOWNSTREAM_PEER_CERT_V_END", Syntax::Optional, |a, _| {
        time(TimeSource::DownstreamCertEnd, a, false)
    }),
    ("UPSTREAM_PEER_CERT_V_START", Syntax::Optional, |a, _| {
        time(TimeSource::UpstreamCertStart, a, false)
    }),
    ("UPSTREAM_PEER_CERT_V_END", Syntax::Optional, |a, _| {
        time(TimeSource::UpstreamCertEnd, a, false)
    }),
    ("COMMON_DURATION", Syntax::Required { length: false }, |a, _| {
        duration(a)
    }),
    ("DYNAMIC_METADATA", Syntax::Required { length: true }, |a, _| {
        metadata_of(MetadataSource::Dynamic, a)
    }),
    ("CLUSTER_METADATA", Syntax::Required { length: false }, |a, _| {
        metadata_of(MetadataSource::Cluster, a)
    }),
    ("UPSTREAM_METADATA", Syntax::Required { length: false }, |a, _| {
        metadata_of(MetadataSource::UpstreamHost, a)
    }),
    ("METADATA", Syntax::Required { length: false }, |a, _| {
        metadata_by_type(a)
    }),
    ("FILTER_STATE", Syntax::OptionalWithLength, |a, _| filter_state(a)),
    ("UPSTREAM_FILTER_STATE", Syntax::OptionalWithLength, |a, _| {
        filter_state(a)
    }),
    ("GRPC_STATUS", Syntax::Optional, |a, _| {
        GrpcStyle::parse(a).map(Operation::GrpcStatus)
    }),
    ("ENVIRONMENT", Syntax::Required { length: true }, |a, _| {
        Ok(Operation::Constant(
            env::var(a).unwrap_or_else(|_| "-".to_owned()).into(),
        ))
    }),
    ("QUERY_PARAM", Syntax::Required { length: true }, |a, _| {
        Ok(Operation::QueryParameter(a.to_owned()))
    }),
    ("QUERY_PARAMS", Syntax::OptionalWithLength, |a, _| query_parameters(a)),
    ("PATH", Syntax::OptionalWithLength, |a, _| path(a)),
    ("RESPONSE_CODE_DETAILS", Syntax::Optional, |a, _| details(a)),
    ("CEL", Syntax::Required { length: true }, |a, _| cel(a)),
    ("REQUESTED_SERVER_NAME", Syntax::Optional, |a, _| server_name(a)),
];

impl Command {
    /// Finds a command and gives it its arguments; errors in Envoy's words.
    pub(super) fn build(name: &str, arguments: &str, length: Option<usize>) -> Result<Self, String> {
        let plain = |operation| (Syntax::Bare, Ok(operation));
        let (syntax, operation) = if let Some((_, syntax, new)) = WITH_ARGUMENTS.iter().find(|(n, _, _)| *n == name) {
            syntax.check(name, arguments, length)?;
            (*syntax, new(arguments, length))
        } else if let Some(write) = operators::find(name) {
            plain(Operation::Plain(write))
        } else if name == "HOSTNAME" {
            plain(Operation::Constant(hostname().into()))
        } else {
            return Err(format!("Not supported field in StreamInfo: {name}"));
        };
        syntax.check(name, arguments, length)?;
        Ok(Self {
            operation: operation?,
            max_length: length,
        })
    }

    /// Appends the value; none, with nothing appended, when there is none.
    pub(super) fn write(&self, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
        let start = out.len();
        let kind = self.operation.write(out, cx);
        match (kind, self.max_length) {
            (None, _) => out.truncate(start),
            (Some(_), Some(max)) => out.truncate(start + max.min(out.len() - start)),
            (Some(_), None) => {}
        }
        kind
    }
}

impl Syntax {
    fn check(self, name: &str, arguments: &str, length: Option<usize>) -> Result<(), String> {
        match self {
            Self::Bare if !arguments.is_empty() || length.is_some() => {
                Err(format!("{name} does not take any parameters or length"))
            }
            Self::Required { .. } if arguments.is_empty() => Err(format!("{name} requires parameters")),
            Self::Optional | Self::Required { length: false } if length.is_some() => {
                Err(format!("{name} does not allow length to be specified."))
            }
            _ => Ok(()),
        }
    }
}

impl Operation {
    fn write(&self, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
        match self {
            Self::Plain(write) => write(cx, out),
            Self::Constant(text) => put(out, text.as_bytes()),
            Self::Header {
                from,
                main,
                alternative,
                without_query,
            } => {
                let find = |name: &HeaderLookup| from.find(name, cx);
                let mut value = find(main).or_else(|| find(alternative.as_ref()?))?;
                if *without_query {
                    value = value.split(|b| *b == b'?').next().unwrap_or(value);
                }
                put(out, value)
            }
            Self::Time { source, format } => {
                format.write(source.get(cx.info)?, out);
                Some(Kind::Text)
            }
            Self::Duration {
                start,
                end,
                nanos_per_unit,
            } => {
                let (start, end) = (start.get(cx.info)?, end.get(cx.info)?);
                number(out, end.checked_duration_since(start)?.as_nanos() / nanos_per_unit)
            }
            Self::Metadata {
                source,
                namespace,
                path,
            } => metadata::write(*source, namespace, path, out, cx),
            Self::FilterState { key, form } => form.write(key, out, cx),
            Self::GrpcStatus(style) => grpc_status::write(*style, out, cx),
            Self::QueryParameter(name) => {
                let value = query_parameter(cx.request?.query()?, name)?;
                put(out, &decode(value))
            }
            Self::QueryParameters { decoded } => {
                let query = cx.request?.query()?;
                if *decoded {
                    put(out, &decode(query))
                } else {
                    put(out, query.as_bytes())
                }
            }
            Self::Path { query, from } => {
                let path = from.get(cx.request?)?;
                put(
                    out,
                    if *query {
                        path
                    } else {
                        path.split('?').next().unwrap_or(path)
                    }
                    .as_bytes(),
                )
            }
            Self::Details { keep_spaces } => {
                let details = cx.info.response_code_details.as_deref()?;
                let start = out.len();
                out.extend_from_slice(details.as_bytes());
                if !keep_spaces {
                    operators::underscores(&mut out[start..]);
                }
                Some(Kind::Text)
            }
            Self::Cel(expression) => {
                let cx = MatchCx {
                    request: cx.request,
                    response: cx.response,
                    ..MatchCx::stream(cx.info)
                };
                put(out, expression.text(&cx)?.as_bytes())
            }
            Self::ServerName { from_host, fall_back } => {
                let sni = || cx.info.connection.server_name.as_deref().filter(|s| !s.is_empty());
                let host = || cx.request.map(|r| without_port(r.host())).filter(|h| !h.is_empty());
                let name = match (from_host, fall_back) {
                    (false, false) => sni(),
                    (false, true) => sni().or_else(host),
                    (true, false) => host(),
                    (true, true) => host().or_else(sni),
                };
                put(out, name?.as_bytes())
            }
        }
    }
}

impl Head {
    fn find<'a>(self, name: &HeaderLookup, cx: &FormatCx<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Request => name.first(cx.request?),
            Self::Response => cx.response?.get(name.as_str()),
            Self::Trailer => cx
                .info
                .response_trailers
                .as_ref()?
                .get(name.as_str())
                .map(|v| v.as_bytes()),
        }
    }
}

impl FilterStateForm {
    fn write(&self, key: &str, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
        let connection = cx.info.connection.filter_state.borrow();
        let object = cx.info.filter_state.get(key).or_else(|| connection.get(key))?;
        match self {
            Self::Plain => put(out, object.as_text()?.as_bytes()),
            Self::Field(name) => put(out, object.field(name)?.as_bytes()),
            Self::Typed => {
                match object.as_json() {
                    Some(json) => out.extend_from_slice(json.as_bytes()),
                    None => super::json::write_string(object.as_text()?.as_bytes(), out),
                }
                Some(Kind::Json)
            }
        }
    }
}

impl PathFrom {
    fn get(self, head: &RequestHead) -> Option<&str> {
        let original = || head.get_str("x-envoy-original-path");
        let path = || head.path.as_ref().map(|p| p.as_str());
        match self {
            Self::Path => path(),
            Self::Original => original(),
            Self::OriginalOrPath => original().or_else(path),
        }
    }
}

/// Appends a text.
pub(super) fn put(out: &mut Vec<u8>, text: &[u8]) -> Option<Kind> {
    out.extend_from_slice(text);
    Some(Kind::Text)
}

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, n: u128) -> Option<Kind> {
    // Writing to a Vec cannot fail.
    let _ = match u64::try_from(n) {
        Ok(small) => out.write_all(itoa::Buffer::new().format(small).as_bytes()),
        Err(_) => write!(out, "{n}"),
    };
    Some(Kind::Number)
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host.rfind(']').is_none_or(|bracket| bracket < colon) => &host[..colon],
        _ => host,
    }
}

fn header(from: Head, arguments: &str, without_query: bool) -> Result<Operation, String> {
    let invalid = || "Invalid header configuration. Format string contains invalid characters.".to_owned();
    let mut names = arguments.split('?');
    let main = HeaderLookup::parse(names.next().unwrap_or_default()).ok_or_else(invalid)?;
    let alternative = match names.next() {
        None | Some("") => None,
        Some(name) => Some(HeaderLookup::parse(name).ok_or_else(invalid)?),
    };
    if names.next().is_some() {
        return Err(format!(
            "More than 1 alternative header specified in token: {arguments}"
        ));
    }
    Ok(Operation::Header {
        from,
        main,
        alternative,
        without_query,
    })
}

fn time(source: TimeSource, arguments: &str, local: bool) -> Result<Operation, String> {
    Ok(Operation::Time {
        source,
        format: TimeFormat::parse(arguments, local)?,
    })
}

fn duration(arguments: &str) -> Result<Operation, String> {
    let parts: Vec<_> = arguments.split(':').collect();
    let (start, end, precision) = match parts.as_slice() {
        [start, end] => (*start, *end, "ms"),
        [start, end, precision] => (*start, *end, *precision),
        _ => return Err(format!("Invalid common duration configuration: {arguments}.")),
    };
    let nanos_per_unit = match precision {
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        other => return Err(format!("Invalid common duration precision: {other}.")),
    };
    Ok(Operation::Duration {
        start: TimePoint::parse(start),
        end: TimePoint::parse(end),
        nanos_per_unit,
    })
}

fn metadata_of(source: MetadataSource, arguments: &str) -> Result<Operation, String> {
    let mut parts = arguments.split(':').map(str::to_owned);
    Ok(Operation::Metadata {
        source,
        namespace: parts.next().unwrap_or_default(),
        path: parts.filter(|p| !p.is_empty()).collect(),
    })
}

fn metadata_by_type(arguments: &str) -> Result<Operation, String> {
    let (kind, rest) = arguments.split_once(':').unwrap_or((arguments, ""));
    match MetadataSource::parse(kind) {
        Some(source) => metadata_of(source, rest),
        None => Err(format!("{kind} is not supported type of metadata")),
    }
}

fn cel(arguments: &str) -> Result<Operation, String> {
    CelExpression::compile(arguments, CelOptions::default()).map(|e| Operation::Cel(Arc::new(e)))
}

fn filter_state(arguments: &str) -> Result<Operation, String> {
    let mut parts = arguments.splitn(3, ':');
    let key = parts.next().unwrap_or_default();
    if key.is_empty() {
        return Err("Invalid filter state configuration, key cannot be empty.".to_owned());
    }
    let form = match (parts.next().unwrap_or("TYPED"), parts.next().unwrap_or_default()) {
        ("PLAIN", "") => FilterStateForm::Plain,
        ("TYPED" | "", "") => FilterStateForm::Typed,
        ("FIELD", field) if !field.is_empty() => FilterStateForm::Field(field.to_owned()),
        ("PLAIN" | "TYPED" | "" | "FIELD", _) => {
            return Err("Invalid filter state serialize type, FIELD should be used with the field name.".to_owned());
        }
        _ => return Err("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.".to_owned()),
    };
    Ok(Operation::FilterState {
        key: key.to_owned(),
        form,
    })
}

fn query_parameters(arguments: &str) -> Result<Operation, String> {
    match arguments {
        "" | "ORIG" => Ok(Operation::QueryParameters { decoded: false }),
        "DECODED" => Ok(Operation::QueryParameters { decoded: true }),
        other => Err(format!(
            "Invalid QUERY_PARAMS option: '{other}', only 'ORIG'/'DECODED' are allowed"
        )),
    }
}

fn path(arguments: &str) -> Result<Operation, String> {
    let (query, from) = arguments.split_once(':').unwrap_or((arguments, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed")),
    };
    let from = match from {
        "" | "ORIG_OR_PATH" => PathFrom::OriginalOrPath,
        "ORIG" => PathFrom::Original,
        "PATH" => PathFrom::Path,
        other => {
            return Err(format!(
                "Invalid PATH option: '{other}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"
            ));
        }
    };
    Ok(Operation::Path { query, from })
}

fn details(arguments: &str) -> Result<Operation, String> {
    Ok(Operation::Details {
        keep_spaces: arguments == "ALLOW_WHITESPACES",
    })
}

fn server_name(arguments: &str) -> Result<Operation, String> {
    let (from_host, fall_back) = match arguments.split(':').next().unwrap_or_default() {
        "" | "SNI_ONLY" => (false, false),
        "SNI_FIRST" => (false, true),
        "HOST_ONLY" => (true, false),
        "HOST_FIRST" => (true, true),
        other => {
            return Err(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
            ));
        }
    };
    Ok(Operation::ServerName { from_host, fall_back })
}

/// The machine's name.
fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "-".to_owned(), |name| name.trim().to_owned())
}
