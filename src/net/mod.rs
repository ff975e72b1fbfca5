//! The ground: addresses, byte streams, sockets.

mod address;
mod stream;

pub use address::Address;
pub use stream::{ByteStream, Stream};
