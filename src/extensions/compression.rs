//! Compression libraries (`envoy.extensions.compression.*`): what the compressor and decompressor filters work with.
//!
//! A library is configuration; each body gets a [`Compressor`] or [`Decompressor`] of its own.

pub mod body;
mod brotli;
mod gzip;
mod limited;
mod zstd;

use std::{io, sync::Arc};

use xds_protos::{envoy::config::core::v3::TypedExtensionConfig, google::protobuf::Any};

use crate::config::{AnyExt, BuildCx, ConfigResult, plain};

/// More output than this many times the input is taken for an attack.
const MAX_INFLATE_RATIO: u64 = 100;

/// How much a body is to be compressed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// What is given has to come out, so that nobody waits for it.
    Sync,
    /// Nothing follows.
    Finish,
}

/// Compresses one body.
pub trait Compressor {
    /// The compressed form of `data`.
    fn compress(&mut self, data: &[u8], flush: Flush) -> io::Result<Vec<u8>>;
}

/// Decompresses one body.
pub trait Decompressor {
    /// The plain form of `data`. After an error nothing more can be read.
    fn decompress(&mut self, data: &[u8]) -> io::Result<Vec<u8>>;
}

/// An encoding of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

impl Encoding {
    /// The word of `content-encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The word in names of statistics.
    pub fn stats_prefix(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }

    /// The word in names of a decompressor's own statistics: the library's.
    pub fn library(self) -> &'static str {
        match self {
            Self::Gzip => "zlib",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }
}

type Make<T> = Arc<dyn Fn() -> io::Result<Box<T>> + Send + Sync>;

/// A configured library that makes `T`s.
pub struct Library<T: ?Sized> {
    /// `TypedExtensionConfig.name`: a part of names of statistics.
    pub name: String,
    /// Its encoding.
    pub encoding: Encoding,
    make: Make<T>,
}

impl<T: ?Sized> Library<T> {
    /// One for a body.
    pub fn make(&self) -> io::Result<Box<T>> {
        (self.make)()
    }
}

/// Builds a `compressor_library`.
pub fn compressor(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Library<dyn Compressor>> {
    let (name, any) = open(proto, cx)?;
    let (encoding, make) = cx.field("typed_config", |cx| match any.type_name() {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => gzip::compressor(&any, cx),
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => brotli::compressor(&any, cx),
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => zstd::compressor(&any, cx),
        other => Err(unknown(&name, other, cx)),
    })?;
    Ok(Library { name, encoding, make })
}

/// Builds a `decompressor_library`.
pub fn decompressor(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Library<dyn Decompressor>> {
    let (name, any) = open(proto, cx)?;
    let (encoding, make) = cx.field("typed_config", |cx| match any.type_name() {
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => gzip::decompressor(&any, cx),
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => brotli::decompressor(&any, cx),
        "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => zstd::decompressor(&any, cx),
        other => Err(unknown(&name, other, cx)),
    })?;
    Ok(Library { name, encoding, make })
}

fn open(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Any)> {
    coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
    Ok((name, plain(typed_config.unwrap_or_default(), cx)?))
}

fn unknown(name: &str, type_name: &str, cx: &BuildCx<'_>) -> crate::config::ConfigError {
    cx.error(format!(
        "Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"
    ))
}

#[cfg(test)]
mod tests;
