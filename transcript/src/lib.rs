//! Transcripts: the complete history of one connection of `sanserve-core` as text. People read and compare them, and
//! programs replay them. Unit tests, bug reports, recordings and fuzz seeds all have this form.
//!
//! [`Transcript::parse`] and [`Transcript::to_text`] are inverse; [`perform`] replays the inputs of a transcript to a
//! new connection and returns what really happened; [`check`] compares the two. [`Script`] replays the same bytes split
//! in any way, [`trace`] shows the state of the connection after each event, and [`record`] records a connection.
//! `docs/transcripts.md` describes the format.
//!
//! ```
//! use sanserve_core::{Call, DefaultPolicy, Reply};
//! use sanserve_transcript::{Transcript, check};
//!
//! let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close done\n";
//! let transcript = Transcript::parse(text).unwrap();
//! check(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())).unwrap();
//! ```
//!
//! Files, sockets and clocks are not needed: the results of all actions are in the transcript.

pub mod driving;
mod event;
mod mask;
mod play;
mod read;
mod recorder;
mod script;
mod settings;
mod states;
mod words;
mod write;

pub use event::{Event, FeedThen, Finish, Line, Middle, ProbeThen, Sending, Taken, Then, Told, Transcript, What};
pub use mask::Secrets;
pub use play::{Difference, Replayed, check, perform};
pub use read::SyntaxError;
pub use recorder::{Recorder, record};
pub use script::{Script, Spoken, Take};
pub use settings::Settings;
pub use states::{Seen, Trace, trace};
pub use words::FIRST_LINE;

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
