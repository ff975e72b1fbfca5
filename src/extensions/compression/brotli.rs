//! Brotli (`envoy.compression.brotli.*`).

use std::{
    io::{self, Write},
    sync::Arc,
};

use ::brotli::{
    BrotliDecompressStream, BrotliResult, BrotliState, CompressorWriter,
    enc::{BrotliEncoderParams, StandardAlloc, backward_references::BrotliEncoderMode},
};
use xds_protos::{
    envoy::extensions::compression::brotli::{
        compressor::v3::{Brotli as CompressorProto, brotli::EncoderMode},
        decompressor::v3::Brotli as DecompressorProto,
    },
    google::protobuf::Any,
};

use super::{Compressor, Decompressor, Encoding, Flush, Make, limited::Limited};
use crate::config::{BuildCx, ConfigResult, unpack};

/// `chunk_size`, in bytes.
const CHUNK: u32 = 4096;

pub(super) fn compressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Compressor>)> {
    let proto = unpack::<CompressorProto>(any, cx)?;
    let mode = match proto.encoder_mode() {
        EncoderMode::Default | EncoderMode::Generic => BrotliEncoderMode::BROTLI_MODE_GENERIC,
        EncoderMode::Text => BrotliEncoderMode::BROTLI_MODE_TEXT,
        EncoderMode::Font => BrotliEncoderMode::BROTLI_MODE_FONT,
    };
    coverage!(cx, proto => CompressorProto {
        supported {
            quality, encoder_mode, window_bits, input_block_bits, chunk_size, disable_literal_context_modeling,
        }
    });
    // Read by its accessor.
    let _ = encoder_mode;
    let params = BrotliEncoderParams {
        quality: quality.map_or(3, |v| v.value as i32),
        lgwin: window_bits.map_or(18, |v| v.value as i32),
        lgblock: input_block_bits.map_or(24, |v| v.value as i32),
        mode,
        disable_literal_context_modeling: disable_literal_context_modeling.into(),
        ..Default::default()
    };
    let chunk = chunk_size.map_or(CHUNK, |v| v.value) as usize;
    let make = move || -> io::Result<Box<dyn Compressor>> {
        Ok(Box::new(Encoder(Some(CompressorWriter::with_params(
            Vec::new(),
            chunk,
            &params,
        )))))
    };
    Ok((Encoding::Brotli, Arc::new(make)))
}

pub(super) fn decompressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Decompressor>)> {
    let proto = unpack::<DecompressorProto>(any, cx)?;
    coverage!(cx, proto => DecompressorProto {
        supported { chunk_size }
        ignored { disable_ring_buffer_reallocation: "the decoder takes the memory it needs" }
    });
    let chunk = chunk_size.map_or(CHUNK, |v| v.value) as usize;
    let make = move || -> io::Result<Box<dyn Decompressor>> { Ok(Box::new(Decoder::new(chunk))) };
    Ok((Encoding::Brotli, Arc::new(make)))
}

/// None once it is finished.
struct Encoder(Option<CompressorWriter<Vec<u8>>>);

impl Compressor for Encoder {
    fn compress(&mut self, data: &[u8], flush: Flush) -> io::Result<Vec<u8>> {
        let Some(writer) = &mut self.0 else {
            return Ok(Vec::new());
        };
        writer.write_all(data)?;
        match flush {
            Flush::Sync => {
                writer.flush()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Flush::Finish => Ok(self.0.take().map(CompressorWriter::into_inner).unwrap_or_default()),
        }
    }
}

struct Decoder {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    out: Limited,
    /// What the decoder writes to in one step.
    step: Box<[u8]>,
    ended: bool,
}

impl Decoder {
    fn new(chunk: usize) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: Box::new(BrotliState::new(alloc(), alloc(), alloc())),
            out: Limited::default(),
            step: vec![0; chunk].into(),
            ended: false,
        }
    }
}

impl Decompressor for Decoder {
    fn decompress(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        self.out.reading(data.len());
        let (mut left, mut read, mut total) = (data.len(), 0, 0);
        while !self.ended {
            let (mut room, mut written) = (self.step.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut read,
                data,
                &mut room,
                &mut written,
                &mut self.step,
                &mut total,
                &mut self.state,
            );
            self.out.write_all(&self.step[..written])?;
            match result {
                BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
                BrotliResult::ResultSuccess => self.ended = true,
                // It may ask for input while it still has output.
                BrotliResult::NeedsMoreInput if room > 0 => break,
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
        }
        Ok(self.out.take())
    }
}
