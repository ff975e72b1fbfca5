//! `%{DOWNSTREAM,UPSTREAM}_{HEADER,DECOMPRESSED_HEADER,WIRE}_BYTES_{RECEIVED,SENT}%`: what was counted on the wire.

use crate::http::{StreamInfo, stream_info::Meter};

/// One side of a stream in one direction, and what is asked of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    upstream: bool,
    sent: bool,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Header,
    Decompressed,
    Wire,
}

impl Bytes {
    /// The command of this name.
    pub(super) fn find(name: &str) -> Option<Self> {
        let (side, rest) = name.split_once('_')?;
        let (what, direction) = rest.split_once("_BYTES_")?;
        Some(Self {
            upstream: match side {
                "DOWNSTREAM" => false,
                "UPSTREAM" => true,
                _ => return None,
            },
            sent: match direction {
                "RECEIVED" => false,
                "SENT" => true,
                _ => return None,
            },
            what: match what {
                "HEADER" => What::Header,
                "DECOMPRESSED_HEADER" => What::Decompressed,
                "WIRE" => What::Wire,
                _ => return None,
            },
        })
    }

    /// How many there are.
    pub(super) fn of(self, info: &StreamInfo) -> u64 {
        let progress = &info.progress;
        let meters = &progress.meters;
        let (meter, body): (&Meter, _) = match (self.upstream, self.sent) {
            (false, false) => (&meters.downstream_received, &progress.bytes_received),
            (false, true) => (&meters.downstream_sent, &progress.bytes_sent),
            (true, false) => (&meters.upstream_received, &progress.upstream_bytes_received),
            (true, true) => (&meters.upstream_sent, &progress.upstream_bytes_sent),
        };
        match self.what {
            What::Header => meter.header.get(),
            What::Decompressed => meter.decompressed.get(),
            What::Wire => meter.wire(body.get()),
        }
    }
}
