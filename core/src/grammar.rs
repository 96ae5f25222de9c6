//! Small grammars that many rules of HTTP share: tokens, digits, lists, field values, hosts (RFC 9110 section 5.6, RFC
//! 3986 section 3.2.2).

use crate::tables::byte_table;

/// RFC 9110 section 5.6.2: `tchar`.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// The items of a comma-separated list without quoted strings, trimmed.
/// RFC 9110 section 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
pub(crate) fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether one of `names` is this name of a field, ignoring case.
pub(crate) fn is_one_of<'n>(names: impl IntoIterator<Item = &'n str>, name: &[u8]) -> bool {
    names.into_iter().any(|other| other.as_bytes().eq_ignore_ascii_case(name))
}

/// `1*DIGIT`, if it fits in 64 bits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |n, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a value has no control characters except tabs (RFC 9110 section 5.5).
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t')
}

/// The bytes of a reg-name (RFC 3986 section 3.2.2) that are not percent-encoded: unreserved and sub-delims.
const NAME_BYTES: [bool; 256] = byte_table!(byte => {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || is_sub_delim(byte)
});

/// RFC 3986 section 2.2: `sub-delims`.
const fn is_sub_delim(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// RFC 9110 section 7.2: `uri-host [ ":" port ]`, which may be empty.
pub(crate) fn is_host(text: &[u8]) -> bool {
    // Nearly every host is a name or an IPv4 address with an optional port.
    let mut end = 0;
    while end < text.len() && NAME_BYTES[usize::from(text[end])] {
        end += 1;
    }
    match &text[end..] {
        [] => true,
        // RFC 9110 section 4.2.1: "A sender MUST NOT generate an "http" URI with an empty host identifier."
        [b':', port @ ..] => end > 0 && is_port(port),
        [b'[', rest @ ..] if end == 0 => is_address(rest),
        [b'%', ..] => is_encoded_name(&text[end..]),
        _ => false,
    }
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
}

/// What may follow a `[`: an address, a `]`, and an optional port.
#[cold]
fn is_address(text: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b']', text) else { return false };
    let address = &text[..end];
    let is_ipv6 = std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    match &text[end + 1..] {
        [] => is_ipv6 || is_future_address(address),
        [b':', port @ ..] => (is_ipv6 || is_future_address(address)) && is_port(port),
        _ => false,
    }
}

/// RFC 3986 section 3.2.2: `reg-name = *( unreserved / pct-encoded / sub-delims )`, and an optional port.
#[cold]
fn is_encoded_name(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(odd) = rest.iter().position(|&byte| !NAME_BYTES[usize::from(byte)]) {
        rest = match &rest[odd..] {
            [b'%', a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
            [b':', port @ ..] => return is_port(port),
            _ => return false,
        };
    }
    true
}

/// RFC 3986 section 3.2.2: `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`.
fn is_future_address(address: &[u8]) -> bool {
    let Some(rest) = address.strip_prefix(b"v") else { return false };
    let Some(dot) = memchr::memchr(b'.', rest) else { return false };
    let (version, name) = (&rest[..dot], &rest[dot + 1..]);
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && !name.is_empty()
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(b))
}
