//! The name that a client asks for (SNI), as the choice of the certificate sees it.
//!
//! The unbuffered interface of rustls does not tell the name of a connection. But it calls whatever chooses the
//! certificate in every handshake, with that name, on the thread of the call. So that is noted there.

use std::cell::Cell;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A name that a client asks for.
pub(crate) type ServerName = Box<str>;

thread_local! {
    static NOTED: Cell<Option<ServerName>> = const { Cell::new(None) };
}

/// The name that a client has asked for since the last call on this thread.
pub(crate) fn noted() -> Option<ServerName> {
    NOTED.take()
}

/// Notes the name, and leaves the choice to another.
#[derive(Debug)]
pub(crate) struct Noting(pub(crate) Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        NOTED.set(hello.server_name().map(Into::into));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}
