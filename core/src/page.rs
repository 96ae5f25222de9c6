//! The page of an error response, byte for byte that of Python 3.14.

use crate::request::Request;
use crate::status::StatusCode;
use crate::text::escape_text;

/// The contents of an error page.
///
/// ```
/// use std::io::Write;
/// use sanserve_core::{ErrorPage, Policy, Request, escape};
///
/// struct Plain;
///
/// impl Policy for Plain {
///     fn error_type(&self, _: Option<&Request<'_>>) -> &str {
///         "text/html;charset=utf-8"
///     }
///
///     fn error_page(&self, page: &ErrorPage<'_>, out: &mut Vec<u8>) {
///         // A message may quote the client.
///         let _ = write!(out, "<h1>{}</h1>", page.status.code());
///         escape(page.message, out);
///     }
/// }
/// # let _: &dyn Policy = &Plain;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ErrorPage<'a> {
    /// The status of the response.
    pub status: StatusCode,
    /// What went wrong; not escaped yet.
    pub message: &'a [u8],
    /// What the status means; not escaped yet.
    pub explanation: &'a str,
    /// The request, if its head was valid.
    pub request: Option<Request<'a>>,
}

/// Fields of the pages of this server, errors and listings. They show what clients and names of files say, so browsers
/// must neither run anything that is in them, nor take them for another type. A listing may show pictures.
pub(crate) const GUARD: &[u8] = b"X-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'\r\n";

/// The beginning of the default page.
const START: &[u8] =
        b"<!DOCTYPE HTML>\n<html lang=\"en\">\n    <head>\n        <meta charset=\"utf-8\">\n        \
          <style type=\"text/css\">\n            :root {\n                color-scheme: light dark;\n            }\n        \
          </style>\n        <title>Error response</title>\n    </head>\n    <body>\n        <h1>Error response</h1>\n        ";

/// Whether this is the default page, not one of an embedder.
pub(crate) fn is_default(page: &[u8]) -> bool {
    page.starts_with(START)
}

/// Appends the default page.
pub fn write(page: &ErrorPage<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(START);
    let mut digits = itoa::Buffer::new();
    let code = digits.format(page.status.code()).as_bytes();
    out.extend_from_slice(b"<p>Error code: ");
    out.extend_from_slice(code);
    out.extend_from_slice(b"</p>\n        <p>Message: ");
    escape_text(page.message, out);
    out.extend_from_slice(b".</p>\n        <p>Error code explanation: ");
    out.extend_from_slice(code);
    out.extend_from_slice(b" - ");
    escape_text(page.explanation.as_bytes(), out);
    out.extend_from_slice(b".</p>\n    </body>\n</html>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_python() {
        let mut out = Vec::new();
        write(
            &ErrorPage {
                status: StatusCode::NOT_FOUND,
                message: b"File not found",
                explanation: StatusCode::NOT_FOUND.explanation(),
                request: None,
            },
            &mut out,
        );
        let expected = "<!DOCTYPE HTML>
<html lang=\"en\">
    <head>
        <meta charset=\"utf-8\">
        <style type=\"text/css\">
            :root {
                color-scheme: light dark;
            }
        </style>
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: 404</p>
        <p>Message: File not found.</p>
        <p>Error code explanation: 404 - Nothing matches the given URI.</p>
    </body>
</html>
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
