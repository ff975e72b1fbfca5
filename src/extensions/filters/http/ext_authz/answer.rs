//! What the service says, whichever way it was asked.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use xds_protos::{
    envoy::{
        config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::{CheckResponse, DeniedHttpResponse, check_response::HttpResponse},
    },
    google::protobuf::Struct,
};

/// How a header of an answer goes among those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Instead of those of its name.
    Set,
    /// Beside them.
    Add,
    /// Beside them, if there are any.
    AppendToExisting,
    IfAbsent,
    IfPresent,
}

/// A header of an answer.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub name: String,
    pub value: Vec<u8>,
    pub how: How,
}

/// What the service says.
#[derive(Debug)]
pub(super) enum Answer {
    Allowed(Box<Allowed>),
    Denied(Box<Denied>),
    /// It said nothing that can be understood, or that it cannot tell.
    Error(Option<Box<Denied>>),
}

/// The request may pass.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub request: Vec<Change>,
    pub remove: Vec<String>,
    pub response: Vec<Change>,
    pub set_query: Vec<(String, String)>,
    pub remove_query: Vec<String>,
    pub metadata: Struct,
}

/// The request must not pass.
#[derive(Debug)]
pub(super) struct Denied {
    pub status: StatusCode,
    pub headers: Vec<Change>,
    pub body: Bytes,
    pub metadata: Struct,
}

impl Change {
    /// Does it; false when no header can hold it.
    pub fn apply(&self, headers: &mut HeaderMap) -> bool {
        let Some((name, value)) = self.parts() else {
            return false;
        };
        let there = headers.contains_key(&name);
        match self.how {
            How::Add => {
                headers.append(name, value);
            }
            How::Set => {
                headers.insert(name, value);
            }
            How::AppendToExisting if there => {
                // Envoy makes one value of both.
                let joined = headers
                    .get(&name)
                    .map(|old| [old.as_bytes(), b",", &self.value].concat());
                if let Some(joined) = joined.and_then(|v| HeaderValue::from_bytes(&v).ok()) {
                    headers.insert(name, joined);
                }
            }
            How::IfPresent if there => {
                headers.insert(name, value);
            }
            How::IfAbsent if !there => {
                headers.insert(name, value);
            }
            How::AppendToExisting | How::IfPresent | How::IfAbsent => {}
        }
        true
    }

    /// Name and value, when they are those of a header.
    pub fn parts(&self) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::try_from(self.name.to_ascii_lowercase()).ok()?;
        Some((name, HeaderValue::from_bytes(&self.value).ok()?))
    }
}

impl Answer {
    /// Reads a gRPC answer.
    pub fn of(response: CheckResponse) -> Self {
        let CheckResponse {
            status,
            http_response,
            dynamic_metadata,
        } = response;
        let metadata = dynamic_metadata.unwrap_or_default();
        let allowed = status.is_none_or(|s| s.code == 0);
        match http_response {
            Some(HttpResponse::ErrorResponse(error)) => Self::Error(Some(Box::new(denied(error, metadata)))),
            Some(HttpResponse::OkResponse(ok)) if allowed => {
                #[allow(deprecated)]
                let older = ok.dynamic_metadata.unwrap_or_default();
                Self::Allowed(Box::new(Allowed {
                    request: ok.headers.into_iter().filter_map(|o| change(o, How::Set)).collect(),
                    remove: ok.headers_to_remove,
                    response: ok
                        .response_headers_to_add
                        .into_iter()
                        .filter_map(|o| change(o, How::Add))
                        .collect(),
                    set_query: ok
                        .query_parameters_to_set
                        .into_iter()
                        .map(|p| (p.key, p.value))
                        .collect(),
                    remove_query: ok.query_parameters_to_remove,
                    metadata: match metadata.fields.is_empty() {
                        true => older,
                        false => metadata,
                    },
                }))
            }
            _ if allowed => Self::Allowed(Box::new(Allowed {
                metadata,
                ..Allowed::default()
            })),
            Some(HttpResponse::DeniedResponse(response)) => Self::Denied(Box::new(denied(response, metadata))),
            _ => Self::Denied(Box::new(Denied {
                status: StatusCode::FORBIDDEN,
                headers: Vec::new(),
                body: Bytes::new(),
                metadata,
            })),
        }
    }
}

fn denied(response: DeniedHttpResponse, metadata: Struct) -> Denied {
    let code = response.status.map_or(0, |s| s.code);
    let status = u16::try_from(code).ok().and_then(|c| StatusCode::from_u16(c).ok());
    Denied {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: response
            .headers
            .into_iter()
            .filter_map(|o| change(o, How::Set))
            .collect(),
        body: response.body.into(),
        metadata,
    }
}

/// `unset` is what stands for an `append` that is not set and the action that is zero.
fn change(option: HeaderValueOption, unset: How) -> Option<Change> {
    let action = option.append_action();
    #[allow(deprecated)]
    let append = option.append;
    let header = option.header?;
    let how = match (append.map(|a| a.value), action) {
        (Some(true), _) => match unset {
            How::Add => How::Add,
            _ => How::AppendToExisting,
        },
        (Some(false), _) => How::Set,
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => unset,
        (None, HeaderAppendAction::AddIfAbsent) => How::IfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => How::Set,
        (None, HeaderAppendAction::OverwriteIfExists) => How::IfPresent,
    };
    Some(Change {
        name: header.key,
        value: match header.value.is_empty() {
            true => header.raw_value,
            false => header.value.into_bytes(),
        },
        how,
    })
}
