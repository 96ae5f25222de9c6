//! The errors that are not of a certificate or a key.

use std::error::Error;
use std::fmt;

/// No cryptography is compiled in: neither the feature `ring` nor `aws-lc-rs` is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProvider;

impl fmt::Display for NoProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no cryptography is compiled in: sanserve-tls needs the feature ring or aws-lc-rs")
    }
}

impl Error for NoProvider {}
