//! Output that may not grow without end: a few compressed bytes can stand for gigabytes.

use std::io;

use super::MAX_INFLATE_RATIO;

/// What a decompressor writes to. It holds the output of one piece of input.
#[derive(Debug, Default)]
pub(super) struct Limited {
    out: Vec<u8>,
    /// Bytes of input and of output so far.
    read: u64,
    written: u64,
}

impl Limited {
    /// More input comes.
    pub fn reading(&mut self, input: usize) {
        self.read += input as u64;
    }

    /// The output since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

impl io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.written += data.len() as u64;
        if self.written > self.read * MAX_INFLATE_RATIO {
            return Err(io::Error::other("more output than the input is worth"));
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
