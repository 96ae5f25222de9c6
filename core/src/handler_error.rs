//! The error of a handler: the status that the client gets, and the reason for the log.

use std::error::Error;
use std::fmt;
use std::io;

use crate::fields::Misuse;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;

/// The error of a handler. The client gets the error page of its [status](Self::status) if nothing of the response was
/// sent yet; otherwise, the connection is cut. A [reason](Self::because) is only for the log: it is not sent.
///
/// A [`StatusCode`] converts into it, by `?` or `into`. An `io::Error`, a [`Misuse`] and a boxed error become the reason
/// of a 500. For other errors and statuses, use [`StatusCode::because`].
///
/// ```
/// use sanserve_core::{HandlerError, Reply, StatusCode};
///
/// fn double(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
///     if reply.request().method() != b"GET" {
///         // An error page with a field.
///         return Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET")?);
///     }
///     let number = reply.request().query().ok_or(StatusCode::BAD_REQUEST)?;
///     let number = std::str::from_utf8(number).map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
///     let number: u32 = number.parse().map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
///     reply.answer(StatusCode::OK, "text/plain", format!("{}\n", u64::from(number) * 2))?;
///     Ok(())
/// }
/// # let _: fn(&mut Reply<'_>) -> Result<(), HandlerError> = double;
/// ```
///
/// Blocking and `async` handlers return an `io::Result`. A `StatusCode` and a `HandlerError` convert into an `io::Error`,
/// which keeps the status, the fields, the message and the reason.
#[derive(Debug)]
pub struct HandlerError {
    pub(crate) head: ResponseHead,
    pub(crate) message: Option<String>,
    reason: Option<Box<dyn Error + Send + Sync>>,
}

impl HandlerError {
    /// An error for which the client gets the error page of this status. An interim status (below 200) is a mistake: the
    /// client then gets a 500.
    #[must_use]
    pub fn new(status: StatusCode) -> HandlerError {
        if status.code() < 200 {
            return HandlerError::from(Misuse::Interim);
        }
        HandlerError { head: ResponseHead::new(status), message: None, reason: None }
    }

    /// Adds a field to the response.
    ///
    /// # Errors
    /// As [`ResponseHead::field`], and [`Misuse::ReservedHeader`] for `Content-Type`, which is
    /// [that of the page](crate::Policy::error_type).
    pub fn with_field(self, name: &str, value: impl AsRef<[u8]>) -> Result<HandlerError, Misuse> {
        if name.eq_ignore_ascii_case("Content-Type") {
            return Err(Misuse::ReservedHeader);
        }
        Ok(HandlerError { head: self.head.field(name, value)?, ..self })
    }

    /// Sets the message of the page. The default is the reason phrase of the status.
    #[must_use]
    pub fn with_message(self, message: impl Into<String>) -> HandlerError {
        HandlerError { message: Some(message.into()), ..self }
    }

    /// Sets the reason, for the log.
    #[must_use]
    pub fn because(self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> HandlerError {
        HandlerError { reason: Some(reason.into()), ..self }
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// The reason, if there is one besides the status.
    #[must_use]
    pub fn reason(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.reason.as_deref()
    }
}

impl StatusCode {
    /// An error with this status, and a reason for the log.
    ///
    /// ```
    /// use sanserve_core::{HandlerError, StatusCode};
    ///
    /// fn port(text: &str) -> Result<u16, HandlerError> {
    ///     text.parse().map_err(|error| StatusCode::BAD_REQUEST.because(error))
    /// }
    /// assert_eq!(port("65536").unwrap_err().status(), StatusCode::BAD_REQUEST);
    /// ```
    #[must_use]
    pub fn because(self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> HandlerError {
        HandlerError::new(self).because(reason)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status())?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl Error for HandlerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.as_ref().map(|reason| &**reason as _)
    }
}

impl From<StatusCode> for HandlerError {
    fn from(status: StatusCode) -> HandlerError {
        HandlerError::new(status)
    }
}

impl From<Misuse> for HandlerError {
    /// Becomes the reason of a 500, or of a 503 for [`Misuse::OutOfMemory`].
    fn from(misuse: Misuse) -> HandlerError {
        if misuse == Misuse::OutOfMemory {
            let error = StatusCode::SERVICE_UNAVAILABLE.because(misuse);
            return error.with_message("No memory for a response of this size");
        }
        StatusCode::INTERNAL_SERVER_ERROR.because(misuse)
    }
}

impl From<io::Error> for HandlerError {
    /// Unwraps a `HandlerError` or a [`Misuse`] that was converted into it. Any other error becomes the reason of a 500.
    fn from(error: io::Error) -> HandlerError {
        let error = match error.downcast::<HandlerError>() {
            Ok(error) => return error,
            Err(error) => error,
        };
        match error.downcast::<Misuse>() {
            Ok(misuse) => HandlerError::from(misuse),
            Err(error) => StatusCode::INTERNAL_SERVER_ERROR.because(error),
        }
    }
}

impl From<Box<dyn Error + Send + Sync>> for HandlerError {
    /// Unwraps a `HandlerError`, or an `io::Error` that contains one. Any other error becomes the reason of a 500.
    fn from(error: Box<dyn Error + Send + Sync>) -> HandlerError {
        let error = match error.downcast::<HandlerError>() {
            Ok(error) => return *error,
            Err(error) => error,
        };
        match error.downcast::<io::Error>() {
            Ok(error) => HandlerError::from(*error),
            Err(error) => StatusCode::INTERNAL_SERVER_ERROR.because(error),
        }
    }
}

impl From<&str> for HandlerError {
    /// Becomes the reason of a 500.
    fn from(reason: &str) -> HandlerError {
        StatusCode::INTERNAL_SERVER_ERROR.because(reason)
    }
}

impl From<HandlerError> for io::Error {
    fn from(error: HandlerError) -> io::Error {
        io::Error::other(error)
    }
}

impl From<StatusCode> for io::Error {
    /// The error of a blocking or `async` handler: see [`HandlerError`].
    fn from(status: StatusCode) -> io::Error {
        HandlerError::new(status).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_every_conversion() {
        let error = || StatusCode::CONFLICT.because("the name is taken").with_message("Taken");
        let boxed = |error: HandlerError| HandlerError::from(Box::new(error) as Box<dyn Error + Send + Sync>);
        let through_io = |error: HandlerError| HandlerError::from(io::Error::from(error));
        let boxed_io =
            |error: HandlerError| HandlerError::from(Box::new(io::Error::from(error)) as Box<dyn Error + Send + Sync>);
        for error in [error(), boxed(error()), through_io(error()), boxed_io(error())] {
            assert_eq!(error.to_string(), "409 Conflict: the name is taken");
            assert_eq!(error.message.as_deref(), Some("Taken"));
        }
    }

    #[test]
    fn other_errors_are_the_reason_of_a_500() {
        let io = HandlerError::from(io::Error::other("the disk is full"));
        assert_eq!(io.to_string(), "500 Internal Server Error: the disk is full");
        let misuse = HandlerError::from(Misuse::HeadOrder);
        assert_eq!(misuse.to_string(), format!("500 Internal Server Error: {}", Misuse::HeadOrder));
        assert_eq!(HandlerError::from("why").reason().map(ToString::to_string).as_deref(), Some("why"));
        assert!(HandlerError::from(StatusCode::GONE).reason().is_none());
    }

    #[test]
    fn an_interim_status_is_a_mistake() {
        assert_eq!(HandlerError::new(StatusCode::CONTINUE).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(HandlerError::new(StatusCode::OK).status(), StatusCode::OK);
    }
}
