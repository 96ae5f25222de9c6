//! Values that a handler gives to the driver of its connection. The core only passes them on.

use std::any::Any;

/// An open file that a handler sends parts of: see [`Reply::attach_file`](crate::Reply::attach_file).
///
/// A `std::fs::File` becomes one, and the drivers of sanserve send it. A driver with files of its own kind, such as that
/// of simulated worlds, wraps them with [`new`](Self::new).
///
/// ```
/// use std::fs::File;
/// use sanserve_core::{HandlerError, Reply, StatusCode};
///
/// fn manual(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
///     let file = File::open("manual.pdf")?;
///     let length = file.metadata()?.len();
///     reply.respond(StatusCode::OK)?.field("Content-Type", "application/pdf")?.length(length).send()?;
///     reply.attach_file(file);
///     reply.offer_file(0, length)?;
///     Ok(reply.finish()?)
/// }
/// # let _: fn(&mut Reply<'_>) -> Result<(), HandlerError> = manual;
/// ```
#[derive(Debug)]
pub struct FileHandle(Box<dyn Any + Send>);

impl FileHandle {
    /// A file of a kind that the driver knows.
    #[must_use]
    pub fn new(file: impl Any + Send) -> FileHandle {
        FileHandle(Box::new(file))
    }

    /// The file.
    ///
    /// # Errors
    /// If it is of another kind, it is returned.
    pub fn downcast<F: Any>(self) -> Result<F, FileHandle> {
        self.0.downcast().map(|file| *file).map_err(FileHandle)
    }
}

#[allow(clippy::disallowed_types, reason = "it is named here, and never read")]
impl From<std::fs::File> for FileHandle {
    fn from(file: std::fs::File) -> FileHandle {
        FileHandle::new(file)
    }
}

/// What a handler hands to the code that speaks the next protocol: see
/// [`Reply::upgrade_with`](crate::Reply::upgrade_with).
///
/// ```
/// use sanserve_core::{Misuse, Reply};
///
/// /// The code that speaks `chat` gets the name of the user.
/// fn chat(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     let name = reply.request().query().unwrap_or_default().to_vec();
///     reply.upgrade_with("chat", name)?.send()
/// }
/// # let _: fn(&mut Reply<'_>) -> Result<(), Misuse> = chat;
/// ```
#[derive(Debug)]
pub struct UpgradeState(Box<dyn Any + Send>);

impl UpgradeState {
    /// This value.
    #[must_use]
    pub fn new(state: impl Any + Send) -> UpgradeState {
        UpgradeState(Box::new(state))
    }

    /// The value.
    ///
    /// # Errors
    /// If it is of another type, it is returned.
    pub fn downcast<T: Any>(self) -> Result<T, UpgradeState> {
        self.0.downcast().map(|state| *state).map_err(UpgradeState)
    }
}

/// What a handler has given, until the driver takes it.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    pub(crate) file: Option<FileHandle>,
    pub(crate) upgrade: Option<UpgradeState>,
}

impl Handover {
    pub(crate) fn is_empty(&self) -> bool {
        self.file.is_none() && self.upgrade.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_type_comes_back() {
        let state = UpgradeState::new(7_u8).downcast::<String>().unwrap_err();
        assert_eq!(state.downcast::<u8>().unwrap(), 7);
        let file = FileHandle::new("a file").downcast::<u8>().unwrap_err();
        assert_eq!(file.downcast::<&str>().unwrap(), "a file");
    }
}
