//! The requests of the clients of the worlds.

use super::random::Random;

/// Malformed requests.
const BAD: [&str; 5] = [
    "GET /a HTTP/1.1\nHost: x\n\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: x\r\n fold: y\r\n\r\n",
    "\0\0\0\0",
];

/// A request, occasionally a malformed one; `names` are those of scripts.
pub fn any(names: &[&str], random: &mut Random) -> Vec<u8> {
    if random.one_in(40) { random.pick(&BAD).as_bytes().to_vec() } else { request(names, random) }
}

/// A valid request; `names` are those of scripts.
fn request(names: &[&str], random: &mut Random) -> Vec<u8> {
    if !names.is_empty() && random.one_in(2) {
        let name = *random.pick(names);
        return request_script(name, random);
    }
    let method = *random.pick(&["GET", "GET", "GET", "HEAD"]);
    let target = *random.pick(&[
        "/a", "/empty", "/mid", "/r.txt", "/d/", "/index/", "/", "/d", "/none", "/denied", "/busy", "/h/late", "/h/big",
    ]);
    let fields = *random.pick(&[
        "",
        "",
        "",
        "Range: bytes=3-40\r\n",
        "Range: bytes=0-0,9-12,-3\r\n",
        "If-None-Match: \"x\"\r\n",
        "If-None-Match: *\r\n",
    ]);
    if !random.one_in(4) {
        return format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    }
    let target = *random.pick(&["/h/echo", "/h/stream"]);
    with_body(target, 2_000, random)
}

/// A request for a script.
fn request_script(name: &str, random: &mut Random) -> Vec<u8> {
    let rest = *random.pick(&["", "", "/", "/info/a", "?a+b", "/%2e%2e/good/x?y=z"]);
    let target =
        format!("/{}/{name}{rest}", random.pick(&["cgi-bin", "cgi-bin", "htbin", "%63gi-bin", "a/../cgi-bin/."]));
    if random.one_in(2) {
        return with_body(&target, 3_500, random);
    }
    // A script with its own head has to omit the body for HEAD itself.
    let method = if name.starts_with("nph-") { "GET" } else { *random.pick(&["GET", "GET", "HEAD"]) };
    // To an HTTP/1.0 client, a response without a length ends with the connection.
    let version = if random.one_in(8) && name != "good" { "HTTP/1.0\r\nConnection: keep-alive" } else { "HTTP/1.1" };
    format!("{method} {target} {version}\r\nHost: x\r\n\r\n").into_bytes()
}

/// A POST with a body of at most `most` bytes, by length or chunked.
fn with_body(target: &str, most: u64, random: &mut Random) -> Vec<u8> {
    let body: Vec<u8> = (0..random.size(most)).map(|_| random.next() as u8).collect();
    if random.one_in(2) {
        let mut text =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        text.extend_from_slice(&body);
        return text;
    }
    let mut text = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(usize::try_from(random.size(600)).expect("memory")) {
        text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}
