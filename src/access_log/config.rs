//! `envoy.config.accesslog.v3.AccessLog` -> [`AccessLogs`].

use std::{cell::RefCell, sync::Arc};

use xds_protos::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog as Proto, access_log::ConfigType},
            core::v3::SubstitutionFormatString,
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat as FileFormat},
            stream::v3::{
                StderrAccessLog, StdoutAccessLog, stderr_access_log::AccessLogFormat as StderrFormat,
                stdout_access_log::AccessLogFormat as StdoutFormat,
            },
        },
    },
    google::protobuf::Any,
};

use super::{AccessLogger, LogCx, file::LogFile, filter::LogFilter};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    formatter::{Format, FormatCx},
};

/// Envoy's default line.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The access logs of one listener, connection manager or proxy filter.
#[derive(Default)]
pub struct AccessLogs(Vec<Logger>);

struct Logger {
    filter: Option<LogFilter>,
    sink: Sink,
}

enum Sink {
    File { format: Format, file: Arc<LogFile> },
    Extension(Arc<dyn AccessLogger>),
}

thread_local! {
    // One line at a time is put together per thread; its room is kept.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLogs {
    /// Builds `access_log` of a listener, HCM, router or tcp_proxy. `cx` stands at the repeated field.
    pub fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        protos
            .into_iter()
            .map(|p| logger(p, cx))
            .collect::<ConfigResult<Vec<_>>>()
            .map(Self)
    }

    /// Whether there is none, so that nothing has to be kept for it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the stream's line to every log whose filter lets it.
    pub fn log(&self, cx: &LogCx<'_>) {
        for logger in &self.0 {
            if logger
                .filter
                .as_ref()
                .is_some_and(|f| !f.passes(cx.request, cx.response, cx.info))
            {
                continue;
            }
            let (format, file) = match &logger.sink {
                Sink::File { format, file } => (format, file),
                Sink::Extension(extension) => {
                    extension.log(cx);
                    continue;
                }
            };
            LINE.with_borrow_mut(|line| {
                line.clear();
                format.write(
                    line,
                    &FormatCx {
                        request: cx.request,
                        response: cx.response,
                        info: cx.info,
                    },
                );
                file.write(line);
            });
        }
    }
}

fn logger(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Logger> {
    coverage!(cx, proto => Proto { supported { name, filter, config_type } });
    let filter = cx.opt("filter", filter, LogFilter::build)?;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: ''"
        )));
    };
    let any = plain(any, cx)?;
    let server = cx.server.clone();
    if let Some(factory) = server.registry.find_access_logger(&any) {
        let extension = cx.field("typed_config", |cx| factory.build(&any, cx))?;
        return Ok(Logger {
            filter,
            sink: Sink::Extension(extension),
        });
    }
    let (format, path) = cx.field("typed_config", |cx| sink(&any, &name, cx))?;
    let file = cx
        .server
        .log_files
        .open(&path)
        .map_err(|e| cx.error(format!("unable to open file '{path}': {e}")))?;
    Ok(Logger {
        filter,
        sink: Sink::File { format, file },
    })
}

fn sink(any: &Any, name: &str, cx: &mut BuildCx<'_>) -> ConfigResult<(Format, String)> {
    match any.type_name() {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let proto = unpack::<FileAccessLog>(any, cx)?;
            coverage!(cx, proto => FileAccessLog { supported { path, access_log_format } });
            let format = match access_log_format {
                None => None,
                Some(FileFormat::LogFormat(f)) => Some(f),
                Some(FileFormat::Format(text)) if text.is_empty() => None,
                Some(FileFormat::Format(text)) => {
                    return Ok((cx.field("format", |cx| Format::parse(&text, cx))?, path));
                }
                Some(FileFormat::JsonFormat(json)) => {
                    return Ok((cx.field("json_format", |cx| Format::json(json, false, cx))?, path));
                }
                Some(FileFormat::TypedJsonFormat(json)) => {
                    return Ok((cx.field("typed_json_format", |cx| Format::json(json, false, cx))?, path));
                }
            };
            Ok((log_format(format, cx)?, path))
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let proto = unpack::<StdoutAccessLog>(any, cx)?;
            coverage!(cx, proto => StdoutAccessLog { supported { access_log_format } });
            let format = access_log_format.map(|StdoutFormat::LogFormat(f)| f);
            Ok((log_format(format, cx)?, "/dev/stdout".to_owned()))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let proto = unpack::<StderrAccessLog>(any, cx)?;
            coverage!(cx, proto => StderrAccessLog { supported { access_log_format } });
            let format = access_log_format.map(|StderrFormat::LogFormat(f)| f);
            Ok((log_format(format, cx)?, "/dev/stderr".to_owned()))
        }
        other => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{other}'"
        ))),
    }
}

fn log_format(proto: Option<SubstitutionFormatString>, cx: &mut BuildCx<'_>) -> ConfigResult<Format> {
    match cx.opt("log_format", proto, Format::build)? {
        Some(format) => Ok(format),
        None => Format::parse(DEFAULT_FORMAT, cx),
    }
}
