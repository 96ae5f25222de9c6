//! The implementation of the cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::NoProvider;

/// The cryptography that the features of this crate select: AWS-LC if `aws-lc-rs` is on, otherwise ring. The provider
/// that a process has installed for rustls has no influence.
///
/// # Errors
/// If neither feature is on. Then only a [`rustls::ServerConfig`] that comes with its own can be used.
pub fn provider() -> Result<Arc<CryptoProvider>, NoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(NoProvider)
}
