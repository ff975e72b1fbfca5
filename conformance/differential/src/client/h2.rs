//! Requests over HTTP/2 on the `h2` crate.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::{Map, Value, json};

use super::connect::Io;
use crate::case::{Headers, RequestFields};
use crate::text;

/// One client connection; its driver ends with it.
pub struct Connection {
    send: SendRequest<Bytes>,
    about: Option<Value>,
    driver: tokio::task::JoinHandle<String>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn new(io: Io, about: Option<Value>) -> Result<Connection, Value> {
        let (send, connection) = h2::client::handshake(io)
            .await
            .map_err(|e| json!({"no_response": error_text(&e)}))?;
        let driver = tokio::spawn(async move {
            match connection.await {
                Ok(()) => "closed".to_owned(),
                Err(error) => error_text(&error),
            }
        });
        Ok(Connection { send, about, driver })
    }

    /// Sends one request and reads its answer.
    pub async fn request(&mut self, request: &RequestFields) -> Value {
        let mut response = match self.exchange(request).await {
            Ok(response) => response,
            Err(error) => json!({ "no_response": error }),
        };
        if request.wait_close {
            response["then"] = (&mut self.driver).await.unwrap_or_default().into();
        }
        if let Some(about) = &self.about {
            response["tls"] = about.clone();
        }
        response
    }

    async fn exchange(&mut self, request: &RequestFields) -> Result<Value, String> {
        let mut send = self.send.clone().ready().await.map_err(|e| error_text(&e))?;
        let body = super::body(request);
        let trailers = map(&request.trailers);
        let ends = body.is_none() && trailers.is_empty();
        let (response, mut stream) = send.send_request(head(request)?, ends).map_err(|e| error_text(&e))?;
        if let Some(body) = body {
            let sent = stream.send_data(Bytes::from(body), trailers.is_empty());
            sent.map_err(|e| error_text(&e))?;
        }
        if !trailers.is_empty() {
            stream.send_trailers(trailers).map_err(|e| error_text(&e))?;
        }
        let (head, mut body) = response.await.map_err(|e| error_text(&e))?.into_parts();
        let mut value = json!({
            "status": head.status.as_u16(),
            "version": "HTTP/2",
            "headers": map_value(&head.headers),
        });
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            match chunk {
                Ok(chunk) => {
                    let _ = body.flow_control().release_capacity(chunk.len());
                    bytes.extend_from_slice(&chunk);
                }
                Err(error) => {
                    value["broken"] = error_text(&error).into();
                    break;
                }
            }
        }
        value["body"] = text::show(&bytes).into();
        if let Ok(Some(trailers)) = body.trailers().await {
            value["trailers"] = map_value(&trailers);
        }
        Ok(value)
    }
}

fn head(request: &RequestFields) -> Result<Request<()>, String> {
    let path = request.path.as_deref().unwrap_or("/");
    let method = request.method.as_deref().unwrap_or("GET");
    let scheme = match &request.scheme {
        Some(scheme) => scheme,
        None if request.tls.is_some() => "https",
        None => "http",
    };
    let uri = match super::authority(request) {
        Some(authority) if method == "CONNECT" && request.path.is_none() => authority.to_owned(),
        Some(authority) => format!("{scheme}://{authority}{path}"),
        None => path.to_owned(),
    };
    let mut head = Request::new(());
    *head.method_mut() = method.parse().map_err(|_| "bad method".to_owned())?;
    *head.uri_mut() = uri.parse().map_err(|e| format!("bad uri {uri:?}: {e}"))?;
    *head.headers_mut() = map(&request.headers);
    if let Some(body) = super::body(request)
        && request.trailers.0.is_empty()
        && !head.headers().contains_key("content-type")
    {
        head.headers_mut()
            .insert("content-length", HeaderValue::from(body.len()));
    }
    Ok(head)
}

/// The headers of a case.
pub fn map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &headers.0 {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(&text::to_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// Headers as a mapping of name to its values in order.
pub fn map_value(headers: &HeaderMap) -> Value {
    let mut out = Map::new();
    for name in headers.keys() {
        let values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|v| text::show(v.as_bytes()).into())
            .collect();
        out.insert(name.to_string(), Value::Array(values));
    }
    Value::Object(out)
}

/// What kind of end it was and its HTTP/2 reason.
pub fn error_text(error: &h2::Error) -> String {
    let reason = error.reason().map(|r| format!("{r:?}")).unwrap_or_default();
    if error.is_reset() {
        format!("stream reset {reason}")
    } else if error.is_go_away() {
        format!("goaway {reason}")
    } else if let Some(io) = error.get_io() {
        super::message::io_error(io)
    } else {
        error.to_string()
    }
}
