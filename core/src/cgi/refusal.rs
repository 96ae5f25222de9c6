//! Why a script produces no response: a table with the status and the message of each case.

use crate::input::SpawnError;
use crate::status::StatusCode;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident => $status:ident, $message:literal;)*) => {
        /// Why a script produces no response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Refusal { $($(#[$doc])+ $name,)* }

        impl Refusal {
            /// The status and the message; `{}` in a message is replaced by the quoted name of the script.
            pub(super) const fn row(self) -> (StatusCode, &'static str) {
                match self { $(Refusal::$name => (StatusCode::$status, $message),)* }
            }
        }
    };
}

refusals! {
    /// There is no such script.
    Missing => NOT_FOUND, "No such CGI script ({})";
    /// It is a directory, or a special file.
    NotPlain => FORBIDDEN, "CGI script is not a plain file ({})";
    /// It is not executable, because of its mode or because of the user that it would run as.
    NotExecutable => FORBIDDEN, "CGI script is not executable ({})";
    /// Too many scripts run, or the system has run out of resources.
    Busy => SERVICE_UNAVAILABLE, "Too many CGI scripts";
    /// The system cannot execute it.
    Unstartable => BAD_GATEWAY, "CGI script cannot be started ({})";
    /// The limit on all stored bodies is reached.
    SpoolFull => SERVICE_UNAVAILABLE, "Too many bodies are waiting for CGI scripts";
    /// There is no room on the disk for a chunked body.
    Unspoolable => INSUFFICIENT_STORAGE, "The body cannot be stored";
    /// The output ended before the head was complete.
    Incomplete => BAD_GATEWAY, "CGI script ended before its head was complete ({})";
    /// The head is invalid, or longer than `limits.script_head`.
    Invalid => BAD_GATEWAY, "CGI script sent an invalid head ({})";
    /// There were more local redirects than `limits.redirects`.
    Redirects => BAD_GATEWAY, "CGI script redirects for ever ({})";
    /// The time limit expired before the head was complete.
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
