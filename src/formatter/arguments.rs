//! Commands that take arguments: their names, what they take, and how it is read.

use std::{env, fs, sync::Arc};

use super::{
    coalesce,
    command::{AddressOf, FilterStateForm, Head, HostFrom, NameOrder, Operation, PathFrom},
    date::TimeFormat,
    grpc_status::GrpcStyle,
    metadata::MetadataSource,
    time::{TimePoint, TimeSource},
};
use crate::matching::{
    HeaderLookup,
    cel::{CelExpression, CelOptions},
};

/// The command of this name: what it takes, and its constructor; errors are in Envoy's words.
pub(super) fn find(name: &str) -> Option<(Syntax, Constructor)> {
    let (_, syntax, new) = WITH_ARGUMENTS.iter().find(|(n, _, _)| *n == name)?;
    Some((*syntax, *new))
}

/// Which arguments a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Neither arguments nor a length.
    Bare,
    /// Arguments may be there, a length may not.
    Optional,
    /// Arguments must be there; a length may only where this says so.
    Required { length: bool },
    /// Arguments and length may be there.
    OptionalWithLength,
}

pub(super) type Constructor = fn(&str) -> Result<Operation, String>;

/// Commands with arguments, by name.
const WITH_ARGUMENTS: &[(&str, Syntax, Constructor)] = &[
    ("REQ", Syntax::Required { length: true }, |a| {
        header(Head::Request, a, false)
    }),
    ("REQUEST_HEADER", Syntax::Required { length: true }, |a| {
        header(Head::Request, a, false)
    }),
    ("STREAM_INFO_REQ", Syntax::Required { length: true }, |a| {
        header(Head::Request, a, false)
    }),
    ("RESPONSE_HEADER", Syntax::Required { length: true }, |a| {
        header(Head::Response, a, false)
    }),
    ("RESPONSE_TRAILER", Syntax::Required { length: true }, |a| {
        header(Head::Trailer, a, false)
    }),
    ("RESP", Syntax::Required { length: true }, |a| {
        header(Head::Response, a, false)
    }),
    ("TRAILER", Syntax::Required { length: true }, |a| {
        header(Head::Trailer, a, false)
    }),
    ("START_TIME", Syntax::Optional, |a| time(TimeSource::Start, a, false)),
    ("START_TIME_LOCAL", Syntax::Optional, |a| {
        time(TimeSource::Start, a, true)
    }),
    ("EMIT_TIME", Syntax::Optional, |a| time(TimeSource::Now, a, false)),
    ("EMIT_TIME_LOCAL", Syntax::Optional, |a| time(TimeSource::Now, a, true)),
    ("DOWNSTREAM_PEER_CERT_V_START", Syntax::Optional, |a| {
        time(TimeSource::DownstreamCertStart, a, false)
    }),
    ("DOWNSTREAM_PEER_CERT_V_END", Syntax::Optional, |a| {
        time(TimeSource::DownstreamCertEnd, a, false)
    }),
    ("UPSTREAM_PEER_CERT_V_START", Syntax::Optional, |a| {
        time(TimeSource::UpstreamCertStart, a, false)
    }),
    ("UPSTREAM_PEER_CERT_V_END", Syntax::Optional, |a| {
        time(TimeSource::UpstreamCertEnd, a, false)
    }),
    ("COMMON_DURATION", Syntax::Required { length: false }, |a| duration(a)),
    ("DYNAMIC_METADATA", Syntax::Required { length: true }, |a| {
        metadata_of(MetadataSource::Dynamic, a)
    }),
    ("CLUSTER_METADATA", Syntax::Required { length: false }, |a| {
        metadata_of(MetadataSource::Cluster, a)
    }),
    ("UPSTREAM_METADATA", Syntax::Required { length: false }, |a| {
        metadata_of(MetadataSource::UpstreamHost, a)
    }),
    ("METADATA", Syntax::OptionalWithLength, |a| metadata_by_type(a)),
    ("COALESCE", Syntax::Required { length: true }, |a| {
        coalesce::parse(a).map(Operation::Coalesce)
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| Some(&cx.info.connection.local_address), a)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| Some(&cx.info.connection.local_address), a)
    }),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| Some(cx.info.remote_address()), a)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| Some(&cx.info.connection.direct_remote_address), a)
    }),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| cx.info.upstream.local_address.as_ref(), a)
    }),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Syntax::Optional, |a| {
        without_port(|cx| cx.info.upstream.remote_address.as_ref(), a)
    }),
    ("FILTER_STATE", Syntax::OptionalWithLength, |a| filter_state(a, false)),
    ("UPSTREAM_FILTER_STATE", Syntax::OptionalWithLength, |a| {
        filter_state(a, true)
    }),
    ("GRPC_STATUS", Syntax::Optional, |a| {
        GrpcStyle::parse(a).map(Operation::GrpcStatus)
    }),
    ("ENVIRONMENT", Syntax::Required { length: true }, |a| {
        Ok(Operation::Constant(
            env::var(a).unwrap_or_else(|_| "-".to_owned()).into(),
        ))
    }),
    ("QUERY_PARAM", Syntax::Required { length: true }, |a| {
        Ok(Operation::QueryParameter(a.to_owned()))
    }),
    ("QUERY_PARAMS", Syntax::OptionalWithLength, |a| query_parameters(a)),
    ("PATH", Syntax::OptionalWithLength, |a| path(a)),
    ("RESPONSE_CODE_DETAILS", Syntax::Optional, |a| details(a)),
    ("CEL", Syntax::OptionalWithLength, |a| cel(a, false)),
    ("TYPED_CEL", Syntax::OptionalWithLength, |a| cel(a, true)),
    ("REQUESTED_SERVER_NAME", Syntax::Optional, |a| server_name(a)),
];

impl Syntax {
    pub(super) fn check(self, name: &str, arguments: &str, length: Option<usize>) -> Result<(), String> {
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

pub(super) fn header(from: Head, arguments: &str, without_query: bool) -> Result<Operation, String> {
    let invalid = || "Invalid header configuration. Format string contains invalid characters.".to_owned();
    let mut names = arguments.split('?');
    let lookup = |name: Option<&str>| match name {
        None | Some("") => Ok(None),
        Some(name) => match (HeaderLookup::parse(name), name.strip_prefix(':')) {
            (Some(known), _) => Ok(Some(known)),
            // A pseudo-header that no request has.
            (None, Some(rest)) if HeaderLookup::parse(rest).is_some() => Ok(None),
            _ => Err(invalid()),
        },
    };
    // Without a main header the alternative is it.
    let main = lookup(names.next())?;
    let alternative = lookup(names.next())?;
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

fn cel(arguments: &str, typed: bool) -> Result<Operation, String> {
    let expression = CelExpression::compile(arguments, CelOptions::default()).map_err(|e| envoys(&e))?;
    let expression = Arc::new(expression);
    Ok(Operation::Cel { expression, typed })
}

/// What Envoy says of an expression that is none, as far as the parsers agree.
fn envoys(error: &str) -> String {
    const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                          STRING, BYTES, IDENTIFIER}";
    let Some(found) = error.strip_prefix("Not able to parse filter expression: ERROR: ") else {
        return error.to_owned();
    };
    let line = found.lines().next().unwrap_or(found);
    let line = line.replace("expecting expression", &format!("expecting {STARTS}"));
    format!("Not able to parse expression: INVALID_ARGUMENT: ERROR: {line}")
}

/// An address without its port; a number makes it the network of so many bits.
fn without_port(address: AddressOf, arguments: &str) -> Result<Operation, String> {
    Ok(match arguments.parse() {
        Ok(bits) => Operation::Masked { address, bits },
        Err(_) => Operation::WithoutPort(address),
    })
}

fn filter_state(arguments: &str, upstream: bool) -> Result<Operation, String> {
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
        upstream,
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
    let mut parts = arguments.split(':');
    let (query, from) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
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
    let mut parts = arguments.split(':');
    let order = match parts.next().unwrap_or_default() {
        "" | "SNI_ONLY" => NameOrder::SniOnly,
        "SNI_FIRST" => NameOrder::SniFirst,
        "HOST_FIRST" => NameOrder::HostFirst,
        other => {
            return Err(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
            ));
        }
    };
    let host = match parts.next().unwrap_or_default() {
        "" | "ORIG_OR_HOST" => HostFrom::OriginalOrHost,
        "HOST" => HostFrom::Host,
        "ORIG" => HostFrom::Original,
        other => {
            return Err(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed"
            ));
        }
    };
    Ok(Operation::ServerName { order, host })
}

/// The machine's name.
pub(super) fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "-".to_owned(), |name| name.trim().to_owned())
}
