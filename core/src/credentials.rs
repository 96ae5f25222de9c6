//! Which fields contain credentials, so that logs and recordings do not show them.

/// The names of the fields whose values are credentials, in lower case.
pub const CREDENTIALS: [&[u8]; 4] = [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"];

/// Where the secret part of a line begins, if the line has one: after the colon of the field name, even if the name is
/// disguised.
pub(crate) fn secret_in(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', line)?;
    // Skips bytes that cannot be part of a name. A line with such bytes is refused, but it may be shown before.
    let may_be_named = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
    let name = line[..colon].iter().filter(may_be_named).map(u8::to_ascii_lowercase);
    CREDENTIALS.iter().any(|field| name.clone().eq(field.iter().copied())).then_some(colon + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_credentials_are_recognized() {
        for (line, at) in [("Set-Cookie: a", 11), ("\u{feff}sEt-COOKIE\x01 : a:b", 16), ("Authorization:", 14)] {
            assert_eq!(secret_in(line.as_bytes()), Some(at), "{line}");
        }
        for line in ["X-Cookie: a", "Cookie", ": a", ""] {
            assert_eq!(secret_in(line.as_bytes()), None, "{line}");
        }
    }
}
