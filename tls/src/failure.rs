//! Why a connection has failed.

use std::error::Error;
use std::fmt;

/// Why a connection has failed: the peer violates the protocol, or nothing can be agreed on with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure(What);

#[derive(Clone, Debug, PartialEq)]
enum What {
    Tls(Box<rustls::Error>),
    /// The keys have encrypted as much as they may.
    Exhausted,
    /// More has arrived than belongs to any message.
    TooMuch,
}

impl Failure {
    pub(crate) fn exhausted() -> Failure {
        Failure(What::Exhausted)
    }

    pub(crate) fn too_much() -> Failure {
        Failure(What::TooMuch)
    }

    /// The error of rustls, if it is one.
    #[must_use]
    pub fn as_rustls(&self) -> Option<&rustls::Error> {
        match &self.0 {
            What::Tls(error) => Some(error),
            What::Exhausted | What::TooMuch => None,
        }
    }
}

impl From<rustls::Error> for Failure {
    fn from(error: rustls::Error) -> Failure {
        Failure(What::Tls(Box::new(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            What::Tls(error) => error.fmt(f),
            What::Exhausted => f.write_str("the keys of the connection must not encrypt any more"),
            What::TooMuch => f.write_str("the peer sent more than belongs to one message"),
        }
    }
}

impl Error for Failure {}
