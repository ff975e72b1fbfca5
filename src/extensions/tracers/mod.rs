//! Tracers: who is told of spans, and how they go from one hop to the next.

mod http_collector;
pub mod opentelemetry;
mod w3c;
pub mod zipkin;
