//! Counts visits in a cookie: `cargo run --example cookies`, then `curl -c jar -b jar localhost:8000`, twice.
//!
//! A client can set a cookie to any value. To trust one, sign it: `cookie` has signed jars behind its feature `signed`.

use cookie::time::Duration;
use cookie::{Cookie, SameSite};
use sanserve_mio::{Misuse, Reply, Request, Server, Site, StatusCode};

/// Says how often the client was here.
pub fn answer(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let seen = value(&reply.request(), "visits").and_then(|visits| visits.parse().ok()).unwrap_or(0_u32);
    let visits = seen.saturating_add(1);
    let cookie = Cookie::build(("visits", visits.to_string()))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::days(30));
    let head = reply.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?;
    // The response is for this client alone.
    let head = head.field("Cache-Control", "no-store")?.field("Set-Cookie", cookie.to_string())?;
    head.body(format!("visit {visits}\n"))
}

/// The value of the first cookie with this name. A request may have several `Cookie` fields.
fn value(request: &Request<'_>, name: &str) -> Option<String> {
    let fields = request.fields().filter(|(field, _)| field.eq_ignore_ascii_case(b"Cookie"));
    let texts = fields.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    let cookie = texts.flat_map(Cookie::split_parse).filter_map(Result::ok).find(|cookie| cookie.name() == name)?;
    Some(cookie.value().to_owned())
}

fn main() -> std::io::Result<()> {
    Server::bind("127.0.0.1:8000", Site::without_files().with_answer(answer))?.run()
}
