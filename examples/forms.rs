//! A form in the usual encoding, `application/x-www-form-urlencoded`: `cargo run --example forms`, then
//! `curl -d name=Ada localhost:8000`, or open it in a browser.

use std::io::{self, Read};

use sanserve_std::{Exchange, Server, Site, StatusCode};

/// The longest form that is accepted, in bytes.
const MAX_FORM: u64 = 65_536;

const UNSUPPORTED_MEDIA_TYPE: StatusCode = StatusCode::new(415).expect("three digits");

const PAGE: &str =
    "<!DOCTYPE html><title>Form</title><form method=post><input name=name><button>Greet</button></form>\n";

/// Shows the form, and greets whoever sends it.
pub fn answer(x: &mut Exchange<'_>) -> io::Result<()> {
    match x.method() {
        b"GET" | b"HEAD" => return x.answer(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        b"POST" => {}
        _ => return x.unsupported(),
    }
    if !x.field("Content-Type").is_some_and(is_form) {
        return x.error(UNSUPPORTED_MEDIA_TYPE, None, None);
    }
    let mut form = Vec::new();
    x.by_ref().take(MAX_FORM + 1).read_to_end(&mut form)?;
    if form.len() as u64 > MAX_FORM {
        return x.error(StatusCode::CONTENT_TOO_LARGE, None, None);
    }
    // A name may occur several times. `parse` decodes `+` and `%`, and replaces what is not UTF-8.
    let Some((_, name)) = form_urlencoded::parse(&form).find(|(name, _)| name == "name") else {
        return x.error(StatusCode::BAD_REQUEST, Some("The form has no name"), None);
    };
    // As plain text, the name needs no escaping.
    x.answer(StatusCode::OK, "text/plain; charset=utf-8", format!("Hello, {name}!\n"))
}

/// Whether this is the media type of a form, with or without parameters.
fn is_form(media_type: &[u8]) -> bool {
    let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

fn main() -> io::Result<()> {
    Server::bind("127.0.0.1:8000", Site::without_files())?.with_handler(|| answer).run()
}
