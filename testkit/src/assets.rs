//! Embedded assets, and the responses to requests for them, on every runtime.

use sanserve_core::{Asset, Assets, ContentCoding, Wall};

use crate::client::Client;
use crate::response::Response;

/// The assets that [`check_assets`] asks for.
///
/// # Panics
/// Never, with these values.
#[must_use]
pub fn assets() -> Assets {
    let field = |asset: Asset| asset.with_field("Cache-Control", "max-age=60").expect("a valid field");
    Assets::new([
        Asset::new("index.html", b"<h1>Home</h1>"),
        Asset::new("docs/index.html", b"<h1>Docs</h1>"),
        field(Asset::new("app.js", b"0123456789").with_modified(Wall(784_111_777))),
        Asset::new("app.js.gz", b"gz345678"),
        Asset::new("app.js.br", b"br34567"),
        Asset::new("small.css", b"012").with_digest([7; 12]).with_media_type("text/css").expect("a valid type"),
        Asset::new("only.svg", b"compressed").with_coding(ContentCoding::Brotli),
        Asset::new("data.tar.gz", b"archive"),
        Asset::new("two words.txt", b"text"),
        Asset::new("large.bin", vec![b'x'; 300_000]),
    ])
}

/// Checks the responses of a server whose handler sends these [`assets`], and 404 with `nothing here` for anything else.
///
/// # Panics
/// If one of them is wrong.
#[track_caller]
pub fn check_assets(client: &mut Client) {
    let mut ask = |method: &str, path: &str, field: &str| {
        client.ask(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n"))
    };
    let is = |response: &Response, status: u16, body: &str, fields: &[(&str, Option<&str>)]| {
        assert_eq!((response.status(), response.body_text()), (status, body), "{response:?}");
        for &(name, value) in fields {
            assert_eq!(response.text(name), value, "{name}: {response:?}");
        }
    };
    const VARY: (&str, Option<&str>) = ("Vary", Some("Accept-Encoding"));
    const BR: (&str, Option<&str>) = ("Content-Encoding", Some("br"));
    const PLAIN: (&str, Option<&str>) = ("Content-Encoding", None);

    // Paths.
    const HTML: (&str, Option<&str>) = ("Content-Type", Some("text/html; charset=utf-8"));
    is(&ask("GET", "/", ""), 200, "<h1>Home</h1>", &[HTML, ("Vary", None), ("Accept-Ranges", Some("bytes"))]);
    is(&ask("GET", "/index.html?v=1", ""), 200, "<h1>Home</h1>", &[HTML]);
    is(&ask("GET", "/docs/", ""), 200, "<h1>Docs</h1>", &[HTML]);
    is(&ask("GET", "/docs?a=b", ""), 301, "", &[("Location", Some("/docs/?a=b"))]);
    is(&ask("GET", "//docs", ""), 301, "", &[("Location", Some("/docs/"))]);
    is(&ask("GET", "/x/../two%20words.txt", ""), 200, "text", &[]);
    for missing in ["/app", "/app.js/", "/DOCS/", "/%00", "/docs/index.html/"] {
        assert!(ask("GET", missing, "").body_text().contains("nothing here"), "{missing}");
    }

    // Codings.
    let plain = ask("GET", "/app.js", "");
    let cached = ("Cache-Control", Some("max-age=60"));
    is(&plain, 200, "0123456789", &[VARY, PLAIN, cached, ("Last-Modified", Some("Sun, 06 Nov 1994 08:49:37 GMT"))]);
    let brotli = ask("GET", "/app.js", "Accept-Encoding: gzip, br\r\n");
    const JS: (&str, Option<&str>) = ("Content-Type", Some("text/javascript; charset=utf-8"));
    is(&brotli, 200, "br34567", &[VARY, BR, JS, cached]);
    let gzip = ask("GET", "/app.js", "Accept-Encoding: br;q=0.1\r\nAccept-Encoding: gzip;q=0.2\r\n");
    is(&gzip, 200, "gz345678", &[VARY, ("Content-Encoding", Some("gzip"))]);
    let tags = [plain.tag(), brotli.tag(), gzip.tag()];
    assert!(tags[0] != tags[1] && tags[0] != tags[2] && tags[1] != tags[2], "{tags:?}");
    assert!(tags.iter().all(|tag| tag.starts_with('"')), "strong tags: {tags:?}");
    is(&ask("GET", "/app.js", "Accept-Encoding: deflate\r\n"), 200, "0123456789", &[VARY, PLAIN]);
    assert_eq!(ask("GET", "/app.js", "Accept-Encoding: identity;q=0\r\n").status(), 406);
    let refused = ask("GET", "/only.svg", "Accept-Encoding: gzip\r\n");
    assert_eq!((refused.status(), refused.text("Vary")), (406, Some("Accept-Encoding")));
    is(&ask("GET", "/only.svg", "Accept-Encoding: br\r\n"), 200, "compressed", &[VARY, BR]);
    // What has no variants is not negotiated, and what is asked for by its own name is not decoded.
    is(&ask("GET", "/data.tar.gz", "Accept-Encoding: *;q=0\r\n"), 200, "archive", &[("Vary", None), PLAIN]);
    is(&ask("GET", "/app.js.br", ""), 200, "br34567", &[("Vary", None), PLAIN]);

    // Conditions and ranges, of the variant.
    let accept = "Accept-Encoding: br\r\n";
    let same = ask("GET", "/app.js", &format!("{accept}If-None-Match: {}\r\n", tags[1]));
    is(&same, 304, "", &[VARY, cached, ("ETag", Some(&tags[1])), ("Content-Encoding", None)]);
    is(&ask("GET", "/app.js", &format!("{accept}If-None-Match: {}\r\n", tags[0])), 200, "br34567", &[BR]);
    assert_eq!(ask("GET", "/app.js", &format!("{accept}If-Match: {}\r\n", tags[0])).status(), 412);
    let range = |fields: &str| format!("{accept}Range: bytes=2-3\r\n{fields}");
    is(&ask("GET", "/app.js", &range("")), 206, "34", &[VARY, BR, ("Content-Range", Some("bytes 2-3/7"))]);
    is(&ask("GET", "/app.js", &range(&format!("If-Range: {}\r\n", tags[1]))), 206, "34", &[BR]);
    is(&ask("GET", "/app.js", &range(&format!("If-Range: {}\r\n", tags[2]))), 200, "br34567", &[BR]);
    let beyond = ask("GET", "/app.js", &format!("{accept}Range: bytes=7-\r\n"));
    assert_eq!((beyond.status(), beyond.text("Content-Range")), (416, Some("bytes */7")));
    is(&ask("GET", "/small.css", ""), 200, "012", &[("ETag", Some("\"070707070707070707070707\""))]);

    // Methods.
    let head = ask("HEAD", "/app.js", accept);
    is(&head, 200, "", &[VARY, BR, ("Content-Length", Some("7")), ("ETag", Some(&tags[1]))]);
    let posted = ask("POST", "/app.js", "Content-Length: 0\r\n");
    assert_eq!((posted.status(), posted.text("Allow")), (405, Some("GET, HEAD")));

    assert_eq!(ask("GET", "/large.bin", "").body, vec![b'x'; 300_000]);
}
