//! The ground: addresses, byte streams, sockets.

mod address;
mod address_proto;
mod listen;
mod stream;

pub use address::Address;
pub use address_proto::from_proto as address_from_proto;
pub use listen::{Keepalive, ListenOptions, ListenSocket, bind};
pub use stream::{ByteStream, Stream};
