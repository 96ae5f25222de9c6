//! The fields that hold credentials, which neither logs nor recordings are to show.

/// The names of the fields whose values are credentials, in lower case.
pub const CREDENTIALS: [&[u8]; 4] = [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"];

/// Where the value begins that is a secret, if a line holds one: after the colon of its name, by whatever that is
/// disguised.
pub(crate) fn secret_in(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', line)?;
    // What no name can have is passed over: such a line is refused, but it is shown before.
    let may_be_named = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
    let name = line[..colon].iter().filter(may_be_named).map(u8::to_ascii_lowercase);
    CREDENTIALS.iter().any(|field| name.clone().eq(field.iter().copied())).then_some(colon + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_hold_secrets_are_told_from_others() {
        for (line, at) in [("Set-Cookie: a", 11), ("\u{feff}sEt-COOKIE\x01 : a:b", 16), ("Authorization:", 14)] {
            assert_eq!(secret_in(line.as_bytes()), Some(at), "{line}");
        }
        for line in ["X-Cookie: a", "Cookie", ": a", ""] {
            assert_eq!(secret_in(line.as_bytes()), None, "{line}");
        }
    }
}
