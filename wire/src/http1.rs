//! HTTP/1.1 messages as bytes: heads with their spelling kept, body lengths, chunked framing (RFC 9112).
//!
//! A head remembers every byte it was read from, so that what is forwarded keeps the order, the case and
//! the duplicates it came with. Reading and writing sockets is not done here. The rule: whatever two
//! readers could understand differently is an error, never a guess.

mod body;
mod head;

pub use body::{BodyDecoder, BodyLength, Decoded, FramingError};
pub use head::{Field, HeadError, MAX_FIELDS, MAX_HEAD, RequestHead, ResponseHead};
