//! gzip (`envoy.compression.gzip.*`).

use std::{io, sync::Arc};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use xds_protos::{
    envoy::extensions::compression::gzip::{
        compressor::v3::{Gzip as CompressorProto, gzip::CompressionLevel},
        decompressor::v3::Gzip as DecompressorProto,
    },
    google::protobuf::Any,
};

use super::{Compressor, Decompressor, Encoding, Flush, MAX_INFLATE_RATIO, Make};
use crate::config::{BuildCx, ConfigResult, unpack};

/// Envoy's window when none is configured.
const WINDOW_BITS: u32 = 12;

/// The decompressor's: whatever a sender may use.
const LARGEST_WINDOW_BITS: u32 = 15;

/// Output is taken in steps of this many bytes.
const STEP: usize = 4096;

pub(super) fn compressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Compressor>)> {
    let proto = unpack::<CompressorProto>(any, cx)?;
    let level = match proto.compression_level() {
        CompressionLevel::DefaultCompression => Compression::default(),
        level => Compression::new(level as u32),
    };
    coverage!(cx, proto => CompressorProto {
        supported { compression_level, window_bits }
        ignored {
            memory_level: "the compressor takes the memory it needs",
            compression_strategy: "the strategy is the default one",
            chunk_size: "output is taken as it comes",
        }
    });
    // Read by its accessor.
    let _ = compression_level;
    let bits = window_bits.map_or(WINDOW_BITS, |v| v.value) as u8;
    let make = move || -> io::Result<Box<dyn Compressor>> { Ok(Box::new(Gzip(Compress::new_gzip(level, bits)))) };
    Ok((Encoding::Gzip, Arc::new(make)))
}

pub(super) fn decompressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Decompressor>)> {
    let proto = unpack::<DecompressorProto>(any, cx)?;
    coverage!(cx, proto => DecompressorProto {
        supported { max_inflate_ratio }
        ignored {
            window_bits: "the largest window is accepted",
            chunk_size: "output is taken as it comes",
        }
    });
    let ratio = max_inflate_ratio.map_or(MAX_INFLATE_RATIO, |v| v.value.into());
    let make = move || -> io::Result<Box<dyn Decompressor>> {
        Ok(Box::new(Gunzip {
            inner: Decompress::new_gzip(LARGEST_WINDOW_BITS as u8),
            ratio,
        }))
    };
    Ok((Encoding::Gzip, Arc::new(make)))
}

struct Gzip(Compress);

impl Compressor for Gzip {
    fn compress(&mut self, mut data: &[u8], flush: Flush) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(STEP.min(data.len() + 64));
        let mode = match flush {
            Flush::Sync => FlushCompress::Sync,
            Flush::Finish => FlushCompress::Finish,
        };
        loop {
            out.reserve(STEP);
            let before = self.0.total_in();
            let status = self.0.compress_vec(data, &mut out, mode).map_err(io::Error::other)?;
            data = &data[(self.0.total_in() - before) as usize..];
            let room_left = out.len() < out.capacity();
            match (flush, status) {
                (_, Status::StreamEnd) => return Ok(out),
                (Flush::Sync, _) if data.is_empty() && room_left => return Ok(out),
                _ => {}
            }
        }
    }
}

struct Gunzip {
    inner: Decompress,
    ratio: u64,
}

impl Decompressor for Gunzip {
    fn decompress(&mut self, mut data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            out.reserve(STEP);
            let before = self.inner.total_in();
            let status = self
                .inner
                .decompress_vec(data, &mut out, FlushDecompress::Sync)
                .map_err(io::Error::other)?;
            let read = (self.inner.total_in() - before) as usize;
            data = &data[read..];
            if self.inner.total_out() > self.inner.total_in() * self.ratio {
                return Err(io::Error::other("more output than the input is worth"));
            }
            let room_left = out.len() < out.capacity();
            if status == Status::StreamEnd || room_left && (data.is_empty() || read == 0) {
                return Ok(out);
            }
        }
    }
}
