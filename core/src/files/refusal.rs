//! Why no file is the answer: one table, with the rule, the status and the message of each.

use crate::input::FsError;
use crate::reason::Rule;
use crate::status::StatusCode;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident => $rule:ident, $status:ident, $message:literal;)*) => {
        /// Why no file is the answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Refusal { $($(#[$doc])+ $name,)* }

        impl Refusal {
            /// The rule that decided, the status and the message.
            pub(super) const fn row(self) -> (Rule, StatusCode, &'static str) {
                match self { $(Refusal::$name => (Rule::$rule, StatusCode::$status, $message),)* }
            }
        }
    };
}

refusals! {
    /// Nothing that is served lies there.
    Missing => NotFound, NOT_FOUND, "File not found";
    /// A component begins with a dot.
    Hidden => HiddenDotfile, NOT_FOUND, "File not found";
    /// A path with a slash after it is no file.
    FileWithSlash => FileWithSlash, NOT_FOUND, "File not found";
    /// The system has no descriptors left.
    Exhausted => Exhausted, SERVICE_UNAVAILABLE, "Too many open files";
    /// The directory cannot be read.
    Unlistable => ListingDenied, NOT_FOUND, "No permission to list directory";
    /// It has more names than `limits.listing` has room for.
    ListingTooLarge => ListingTooLarge, INTERNAL_SERVER_ERROR, "Directory too large to list";
    /// The server has no memory for them.
    NoMemory => Exhausted, SERVICE_UNAVAILABLE, "No memory for a listing of this size";
}

impl From<FsError> for Refusal {
    /// What must not be read is not there either.
    fn from(error: FsError) -> Refusal {
        match error {
            FsError::Exhausted => Refusal::Exhausted,
            FsError::NotFound | FsError::Denied | FsError::Failed => Refusal::Missing,
        }
    }
}
