//! HTTP as filters see it: heads, bodies, what is known of a stream, and the filter traits.
//! The connection level (hyper, h2) is known to `codec` alone.

pub mod body;
pub mod codec;
pub mod filter;
pub mod grpc;
pub mod hcm;
pub mod head;
mod informational;
pub mod inline_headers;
pub mod local_reply;
pub mod observe;
mod path;
mod spelling;
pub mod stream_info;

pub use body::{Body, BodyError};
pub use head::{RequestHead, ResponseHead, Scheme};
pub use informational::Informational;
pub use local_reply::LocalReply;
pub use path::Path;
pub use spelling::Spelling;
pub use stream_info::{ConnectionInfo, Flag, ResponseFlags, StreamInfo};
