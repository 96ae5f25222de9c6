//! Escaping for URLs and HTML, implemented independently of the server.

/// Percent-quotes everything but letters, digits and `_.-~/`.
pub fn quote(bytes: impl AsRef<[u8]>) -> String {
    let mut quoted = String::new();
    for &byte in bytes.as_ref() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

/// Undoes [`quote`].
#[track_caller]
pub fn unquote(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let digits = digits.unwrap_or_else(|| panic!("a stray percent sign in {text:?}"));
            bytes.push(u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not hexadecimal in {text:?}")));
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// Escapes the characters that HTML text must not contain.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Undoes all HTML escapes that the server uses.
#[track_caller]
pub fn unescape(text: &str) -> String {
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#x27;", "'");
    assert!(!plain.replace("&amp;", "").contains('&'), "an unknown entity in {text:?}");
    plain.replace("&amp;", "&")
}
