//! The HTTP/1.x codec: heads, message framing, and how the two halves of an exchange depend on
//! each other. It has no policy: what to answer and when to give up is decided a level above.

mod cycle;
mod decode;
mod encode;
mod framing;
mod head;
mod track;

pub use cycle::{COUPLING, INBOUND, Move, OUTBOUND, Transition};
pub(crate) use cycle::{Cycle, Ended, Inbound, InboundEvent, Outbound, OutboundEvent};
pub(crate) use decode::Decoder;
pub(crate) use encode::{Encoder, HeadOut, LAST_CHUNK, begin_chunk, chunk};
pub(crate) use framing::{Expectation, Framing, Terms, host as framing_host};
pub(crate) use head::{Head, HeadError, Known, Method, Scan, Span, Target};
pub use track::Tracker;
