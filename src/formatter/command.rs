//! One command of a format: what it is built from, and how it writes its value.

use std::{borrow::Cow, io::Write, sync::Arc};

use xds_protos::google::protobuf::value::Kind as ValueKind;

use super::{
    FormatCx, Scope,
    arguments::{self, Syntax},
    commands::{Extended, LiveText},
    date::TimeFormat,
    grpc_status::{self, GrpcStyle},
    metadata::{self, MetadataSource},
    meters::Bytes,
    operators,
    percent::{decode, decode_visible},
    time::{TimePoint, TimeSource},
    values::{masked, without_port},
};
use crate::{
    config::ConfigResult,
    http::{RequestHead, stream_info::FilterStateObject},
    matching::{HeaderLookup, cel::CelExpression, tree::MatchCx},
    net::Address,
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

#[derive(Clone)]
pub(super) enum Operation {
    Plain(Plain),
    Bytes(Bytes),
    /// An address without its port, as the network of so many bits.
    Masked {
        address: AddressOf,
        bits: i64,
    },
    WithoutPort(AddressOf),
    Coalesce(Vec<Command>),
    Live(Arc<dyn LiveText>),
    Constant(Box<str>),
    Header {
        from: Head,
        main: Option<HeaderLookup>,
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
        /// The upstream connection's first.
        upstream: bool,
    },
    GrpcStatus(GrpcStyle),
    QueryParameter(String),
    Cel {
        expression: Arc<CelExpression>,
        /// JSON has its type.
        typed: bool,
    },
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
        order: NameOrder,
        host: HostFrom,
    },
}

/// Finds an address of a stream.
pub(super) type AddressOf = for<'a> fn(&FormatCx<'a>) -> Option<&'a Address>;

/// Where `%REQUESTED_SERVER_NAME(..)%` looks first.
#[derive(Debug, Clone, Copy)]
pub(super) enum NameOrder {
    SniOnly,
    SniFirst,
    HostFirst,
}

/// Which host it means.
#[derive(Debug, Clone, Copy)]
pub(super) enum HostFrom {
    OriginalOrHost,
    Host,
    Original,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation")
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Head {
    Request,
    Response,
    Trailer,
}

#[derive(Debug, Clone)]
pub(super) enum FilterStateForm {
    Plain,
    Typed,
    Field(String),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PathFrom {
    Path,
    Original,
    OriginalOrPath,
}

impl Command {
    /// Finds a command and gives it its arguments; errors in Envoy's words.
    pub(super) fn build(name: &str, arguments: &str, length: Option<usize>) -> Result<Self, String> {
        let plain = |operation| (Syntax::Bare, Ok(operation));
        let (syntax, operation) = if let Some((syntax, new)) = arguments::find(name) {
            syntax.check(name, arguments, length)?;
            (syntax, new(arguments))
        } else if let Some(write) = operators::find(name) {
            plain(Operation::Plain(write))
        } else if let Some(bytes) = Bytes::find(name) {
            plain(Operation::Bytes(bytes))
        } else if name == "HOSTNAME" {
            plain(Operation::Constant(arguments::hostname().into()))
        } else {
            return Err(format!("Not supported field in StreamInfo: {name}"));
        };
        syntax.check(name, arguments, length)?;
        Ok(Self {
            operation: operation?,
            max_length: length,
        })
    }

    /// Finds a command among those that are always there and those of `scope`.
    pub(super) fn build_in(
        scope: &mut Scope<'_, '_>,
        name: &str,
        arguments: &str,
        length: Option<usize>,
    ) -> ConfigResult<Self> {
        let operation = match scope.commands.find(name, arguments, scope.cx) {
            None => return Self::build(name, arguments, length).map_err(|e| scope.cx.error(e)),
            Some(found) => match found? {
                Extended::Text(text) => Operation::Live(text),
                Extended::Cel { expression, typed } => Operation::Cel { expression, typed },
                Extended::RequestHeaderWithoutQuery => {
                    arguments::header(Head::Request, arguments, true).map_err(|e| scope.cx.error(e))?
                }
            },
        };
        Ok(Self {
            operation,
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

    /// Appends the value for JSON: structs and numbers are whole there, whatever the length.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
        let start = out.len();
        let kind = match &self.operation {
            Operation::Coalesce(commands) => commands.iter().find_map(|command| command.write_json(out, cx)),
            Operation::Cel {
                expression,
                typed: true,
            } => {
                let value = expression.json(&match_cx(cx))?;
                match &value.kind {
                    Some(ValueKind::StringValue(text)) => put(out, text.as_bytes()),
                    _ => {
                        super::json::write_value(&value, out);
                        Some(Kind::Json)
                    }
                }
            }
            operation => operation.write(out, cx),
        };
        match (kind, self.max_length) {
            (None, _) => out.truncate(start),
            (Some(Kind::Text), Some(max)) => out.truncate(start + max.min(out.len() - start)),
            (Some(_), _) => {}
        }
        kind
    }
}

fn match_cx<'a>(cx: &FormatCx<'a>) -> MatchCx<'a> {
    MatchCx {
        request: cx.request,
        response: cx.response,
        ..MatchCx::stream(cx.info)
    }
}

impl Operation {
    fn write(&self, out: &mut Vec<u8>, cx: &FormatCx<'_>) -> Option<Kind> {
        match self {
            Self::Plain(write) => write(cx, out),
            Self::Bytes(bytes) => number(out, bytes.of(cx.info).into()),
            Self::Constant(text) => put(out, text.as_bytes()),
            Self::Masked { address, bits } => masked(out, address(cx)?, *bits),
            Self::WithoutPort(address) => without_port(out, address(cx)?),
            Self::Live(text) => put(out, &text.get()?),
            Self::Coalesce(commands) => commands.iter().find_map(|command| command.write(out, cx)),
            Self::Header {
                from,
                main,
                alternative,
                without_query,
            } => {
                let find = |name: &HeaderLookup| from.find(name, cx);
                let main = main.as_ref().and_then(find);
                let mut value = main.or_else(|| find(alternative.as_ref()?))?;
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
            Self::FilterState { key, form, upstream } => {
                let of_upstream = cx.info.upstream.found.as_ref().filter(|_| *upstream);
                if let Some(object) = of_upstream.map(|f| f.filter_state()).as_ref().and_then(|s| s.get(key)) {
                    return form.write(object, out);
                }
                let connection = cx.info.connection.filter_state.borrow();
                let object = cx.info.filter_state.get(key).or_else(|| connection.get(key))?;
                form.write(object, out)
            }
            Self::GrpcStatus(style) => grpc_status::write(*style, out, cx),
            Self::QueryParameter(name) => {
                let value = parameter(cx.request?.query()?, name)?;
                put(out, &decode(value))
            }
            Self::QueryParameters { decoded } => {
                let query = cx.request?.query()?;
                if *decoded {
                    put(out, decode_visible(query).as_bytes())
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
                    super::values::underscores(&mut out[start..]);
                }
                Some(Kind::Text)
            }
            Self::Cel { expression, .. } => put(out, expression.text(&match_cx(cx))?.as_bytes()),
            Self::ServerName { order, host } => {
                let sni = || cx.info.connection.server_name.as_deref().filter(|s| !s.is_empty());
                let host = || host.get(cx.request?);
                let name = match order {
                    NameOrder::SniOnly => sni(),
                    NameOrder::SniFirst => sni().or_else(host),
                    NameOrder::HostFirst => host().or_else(sni),
                };
                put(out, host_name(name?).as_bytes())
            }
        }
    }
}

/// A name as Envoy shows it: with what no name of a host has replaced, and a word in front that says so.
fn host_name(name: &str) -> Cow<'_, str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if name.chars().all(valid) {
        return Cow::Borrowed(name);
    }
    let replaced = name.chars().map(|c| match c {
        c if valid(c) => c.to_string(),
        // Each stands for one byte that was no text.
        char::REPLACEMENT_CHARACTER => "_".to_owned(),
        c => "_".repeat(c.len_utf8()),
    });
    Cow::Owned(format!("invalid:{}", replaced.collect::<String>()))
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
    fn write(&self, object: &dyn FilterStateObject, out: &mut Vec<u8>) -> Option<Kind> {
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

impl HostFrom {
    /// The host with its port, as it was sent.
    fn get(self, head: &RequestHead) -> Option<&str> {
        let original = || head.get_str("x-envoy-original-host");
        let host = || Some(head.host());
        let found = match self {
            Self::OriginalOrHost => original().or_else(host),
            Self::Host => host(),
            Self::Original => original(),
        };
        found.filter(|h| !h.is_empty())
    }
}

/// The first value of a parameter whose name is this one when it is decoded.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decode(key) == *name.as_bytes()).then_some(value)
    })
}
