//! Envoy's API for nuncio.
