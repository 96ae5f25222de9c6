//! Why a request for a file is refused: a table with the rule, the status and the message of each case.

use crate::input::FsError;
use crate::reason::Rule;
use crate::status::StatusCode;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident => $rule:ident, $status:ident, $message:literal;)*) => {
        /// Why a request for a file is refused.
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
    /// The path does not refer to anything that can be served.
    Missing => NotFound, NOT_FOUND, "File not found";
    /// A segment of the path begins with a dot.
    Hidden => HiddenDotfile, NOT_FOUND, "File not found";
    /// The path does not begin with the prefix of the rules.
    Outside => OutsidePrefix, NOT_FOUND, "File not found";
    /// The rules permit no listings.
    Unlisted => ListingOff, NOT_FOUND, "File not found";
    /// The path ends with a slash, but refers to a file.
    FileWithSlash => FileWithSlash, NOT_FOUND, "File not found";
    /// The system has run out of descriptors.
    Exhausted => Exhausted, SERVICE_UNAVAILABLE, "Too many open files";
    /// The directory cannot be read.
    Unlistable => ListingDenied, NOT_FOUND, "No permission to list directory";
    /// The directory has more entries than `limits.listing` permits.
    ListingTooLarge => ListingTooLarge, INTERNAL_SERVER_ERROR, "Directory too large to list";
    /// The server has no memory for the entries.
    NoMemory => Exhausted, SERVICE_UNAVAILABLE, "No memory for a listing of this size";
}

impl From<FsError> for Refusal {
    /// A file that must not be read is reported as missing, so that its existence is not revealed.
    fn from(error: FsError) -> Refusal {
        match error {
            FsError::Exhausted => Refusal::Exhausted,
            FsError::NotFound | FsError::Denied | FsError::Failed => Refusal::Missing,
        }
    }
}
