//! The HTTP/1.x codec: heads, message framing, and how the two halves of an exchange depend on each other. It has no
//! policy: how to respond and when to time out is decided elsewhere.

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
