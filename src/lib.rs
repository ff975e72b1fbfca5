//! nuncio: an Envoy-compatible xDS data plane.
