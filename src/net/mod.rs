//! The ground: addresses, byte streams, sockets.

mod address;
mod address_proto;
mod cidr;
mod copy;
mod datagram;
mod deadline;
mod internal;
mod listen;
mod listen_options;
mod network_namespace;
mod original_source;
pub mod proxy_protocol;
mod socket_option;
mod stream;

pub use address::{Address, local_address};
pub use address_proto::{from_proto as address_from_proto, socket_address};
pub use cidr::{cidr_range, xds_cidr_range};
pub use copy::{CopyEnd, CopyProgress, Copying, FirstToEnd, Rest, Until, copy_both_ways};
pub use datagram::{DatagramBatch, DatagramReader, ReceivedDatagram, prefer_gro, send_datagram};
pub use deadline::{Deadline, wake_deadlines};
pub use internal::{InternalStream, internal_pair};
pub use listen::{ListenError, ListenSocket, bind};
pub use listen_options::{Keepalive, ListenOptions};
pub use original_source::OriginalSource;
pub use socket_option::SocketOption;
pub use stream::{ByteStream, Stream};

/// The system's words for an error, without Rust's `(os error N)`: as Envoy says it.
pub fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
