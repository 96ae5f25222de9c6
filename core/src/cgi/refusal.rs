//! Why there is no answer from a script: one table, with the status and the message of each.

use crate::input::SpawnError;
use crate::status::StatusCode;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident => $status:ident, $message:literal;)*) => {
        /// Why there is no answer from a script.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Refusal { $($(#[$doc])+ $name,)* }

        impl Refusal {
            /// The status and the message; `{}` in it stands for the script's name, quoted.
            pub(super) const fn row(self) -> (StatusCode, &'static str) {
                match self { $(Refusal::$name => (StatusCode::$status, $message),)* }
            }
        }
    };
}

refusals! {
    /// There is none.
    Missing => NOT_FOUND, "No such CGI script ({})";
    /// It is a directory, or no file.
    NotPlain => FORBIDDEN, "CGI script is not a plain file ({})";
    /// It may not be executed, be it by mode, be it by whom it would run as.
    NotExecutable => FORBIDDEN, "CGI script is not executable ({})";
    /// Too many run, or the system has no more to give.
    Busy => SERVICE_UNAVAILABLE, "Too many CGI scripts";
    /// The system cannot execute it.
    Unstartable => BAD_GATEWAY, "CGI script cannot be started ({})";
    /// All chunked bodies together take the room that they may.
    SpoolFull => SERVICE_UNAVAILABLE, "Too many bodies are waiting for CGI scripts";
    /// The disk has no room for a chunked body.
    Unspoolable => INSUFFICIENT_STORAGE, "The body cannot be stored";
    /// Its output ended before its head did.
    Incomplete => BAD_GATEWAY, "CGI script ended before its head was complete ({})";
    /// Its head is no head, or longer than `limits.script_head`.
    Invalid => BAD_GATEWAY, "CGI script sent an invalid head ({})";
    /// More local redirects than `limits.redirects`.
    Redirects => BAD_GATEWAY, "CGI script redirects for ever ({})";
    /// It had no head when its time was over.
    Slow => GATEWAY_TIMEOUT, "CGI script took too long ({})";
}

impl From<SpawnError> for Refusal {
    fn from(error: SpawnError) -> Refusal {
        match error {
            SpawnError::Busy | SpawnError::Exhausted => Refusal::Busy,
            SpawnError::Denied => Refusal::NotExecutable,
            SpawnError::Failed => Refusal::Unstartable,
        }
    }
}
