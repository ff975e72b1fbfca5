//! A body that is compressed on its way.

use bytes::Bytes;

use super::config::DirectionStats;
use crate::{
    extensions::compression::{
        Compressor, Flush, Library,
        body::{Transform, transformed},
    },
    http::{Body, BodyError},
    stats::Stats,
};

/// `body`, compressed; unchanged if the library cannot work.
pub(super) fn compressed(body: Body, library: &Library<dyn Compressor>, stats: Stats<DirectionStats>) -> Body {
    match library.make() {
        Ok(compressor) => transformed(body, Compress { compressor, stats }),
        // The head says otherwise by now: the client will find out.
        Err(_) => body,
    }
}

struct Compress {
    compressor: Box<dyn Compressor>,
    stats: Stats<DirectionStats>,
}

impl Compress {
    fn compress(&mut self, data: &[u8], flush: Flush) -> Result<Vec<u8>, BodyError> {
        let out = self.compressor.compress(data, flush);
        let out = out.map_err(|e| BodyError::Other(Box::new(e)))?;
        let stats = self.stats.local();
        stats.total_uncompressed_bytes.add(data.len() as u64);
        stats.total_compressed_bytes.add(out.len() as u64);
        Ok(out)
    }
}

impl Transform for Compress {
    fn data(&mut self, data: &Bytes) -> Result<Vec<u8>, BodyError> {
        self.compress(data, Flush::Sync)
    }

    fn finish(&mut self) -> Result<Vec<u8>, BodyError> {
        self.compress(&[], Flush::Finish)
    }
}
