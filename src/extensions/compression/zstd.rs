//! Zstandard (`envoy.compression.zstd.*`).

use std::{
    io::{self, Write},
    sync::Arc,
};

use ::zstd::{
    stream::{
        raw::CParameter,
        write::{Decoder, Encoder},
    },
    zstd_safe::Strategy,
};
use xds_protos::{
    envoy::extensions::compression::zstd::{
        compressor::v3::{Zstd as CompressorProto, zstd::Strategy as ProtoStrategy},
        decompressor::v3::Zstd as DecompressorProto,
    },
    google::protobuf::Any,
};

use super::{Compressor, Decompressor, Encoding, Flush, Make, limited::Limited};
use crate::config::{BuildCx, ConfigResult, read_data_source, unpack};

pub(super) fn compressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Compressor>)> {
    let proto = unpack::<CompressorProto>(any, cx)?;
    let chosen = strategy_of(proto.strategy());
    coverage!(cx, proto => CompressorProto {
        supported { compression_level, enable_checksum, strategy, dictionary }
        ignored { chunk_size: "output is taken as it comes" }
    });
    // Read by its accessor.
    let _ = strategy;
    let level = compression_level.map_or(::zstd::DEFAULT_COMPRESSION_LEVEL, |v| {
        i32::try_from(v.value).unwrap_or(i32::MAX)
    });
    let dictionary = cx.opt("dictionary", dictionary, read_data_source)?.unwrap_or_default();
    let make = move || -> io::Result<Box<dyn Compressor>> {
        let mut encoder = Encoder::with_dictionary(Vec::new(), level, &dictionary)?;
        encoder.include_checksum(enable_checksum)?;
        if let Some(strategy) = chosen {
            encoder.set_parameter(CParameter::Strategy(strategy))?;
        }
        Ok(Box::new(Zstd(Some(encoder))))
    };
    Ok((Encoding::Zstd, Arc::new(make)))
}

pub(super) fn decompressor(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<(Encoding, Make<dyn Decompressor>)> {
    let proto = unpack::<DecompressorProto>(any, cx)?;
    coverage!(cx, proto => DecompressorProto {
        supported { dictionaries }
        ignored { chunk_size: "output is taken as it comes" }
    });
    if dictionaries.len() > 1 {
        return Err(cx.error_at("dictionaries", "not supported: more than one dictionary"));
    }
    let mut dictionaries = cx.each("dictionaries", dictionaries, read_data_source)?;
    let dictionary = dictionaries.pop().unwrap_or_default();
    let make = move || -> io::Result<Box<dyn Decompressor>> {
        Ok(Box::new(Unzstd(Decoder::with_dictionary(
            Limited::default(),
            &dictionary,
        )?)))
    };
    Ok((Encoding::Zstd, Arc::new(make)))
}

fn strategy_of(proto: ProtoStrategy) -> Option<Strategy> {
    Some(match proto {
        ProtoStrategy::Default => return None,
        ProtoStrategy::Fast => Strategy::ZSTD_fast,
        ProtoStrategy::Dfast => Strategy::ZSTD_dfast,
        ProtoStrategy::Greedy => Strategy::ZSTD_greedy,
        ProtoStrategy::Lazy => Strategy::ZSTD_lazy,
        ProtoStrategy::Lazy2 => Strategy::ZSTD_lazy2,
        ProtoStrategy::Btlazy2 => Strategy::ZSTD_btlazy2,
        ProtoStrategy::Btopt => Strategy::ZSTD_btopt,
        ProtoStrategy::Btultra => Strategy::ZSTD_btultra,
        ProtoStrategy::Btultra2 => Strategy::ZSTD_btultra2,
    })
}

/// None once it is finished.
struct Zstd(Option<Encoder<'static, Vec<u8>>>);

impl Compressor for Zstd {
    fn compress(&mut self, data: &[u8], flush: Flush) -> io::Result<Vec<u8>> {
        let Some(encoder) = &mut self.0 else {
            return Ok(Vec::new());
        };
        encoder.write_all(data)?;
        match flush {
            Flush::Sync => {
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Flush::Finish => self.0.take().map_or(Ok(Vec::new()), Encoder::finish),
        }
    }
}

struct Unzstd(Decoder<'static, Limited>);

impl Decompressor for Unzstd {
    fn decompress(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        self.0.get_mut().reading(data.len());
        self.0.write_all(data)?;
        self.0.flush()?;
        Ok(self.0.get_mut().take())
    }
}
