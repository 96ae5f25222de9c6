//! A reference parser of requests, written from RFC 9112 in the simplest way: it is given all bytes that arrived, and
//! returns the requests.

use sanserve_core::Limits;

/// A request with a complete and valid head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The request line.
    pub line: Vec<u8>,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub fields: Vec<(String, Vec<u8>)>,
    pub keep_alive: bool,
    /// The body so far, decoded.
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub complete: bool,
    /// Whether the request has a body.
    pub has_body: bool,
    pub expects: bool,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    pub fn path(&self) -> &[u8] {
        self.target.split(|&byte| byte == b'?' || byte == b'#').next().unwrap_or_default()
    }

    /// The path below the root. The worlds only use plain paths and `..`.
    pub fn below_root(&self) -> Vec<u8> {
        let mut out = Vec::new();
        sanserve_core::translate(self.path(), &mut out).expect("worlds do not use NUL");
        out
    }

    pub fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }
}

/// What follows the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// An incomplete head.
    Partial,
    /// A head that has to be refused.
    BadHead,
    /// The body of the last request has to be refused.
    BadBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub requests: Vec<Asked>,
    pub then: Then,
}

/// Parses all bytes that arrived.
pub fn read(mut bytes: &[u8], limits: &Limits) -> Model {
    let mut requests: Vec<Asked> = Vec::new();
    let then = loop {
        let mut blank = 0;
        while let Some(rest) = bytes.strip_prefix(b"\r\n")
            && blank < limits.blank_lines
        {
            blank += 1;
            bytes = rest;
        }
        if bytes.is_empty() {
            break if blank > 0 { Then::Partial } else { Then::Nothing };
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            let lf = bytes.iter().position(|&byte| byte == b'\n');
            let bare = lf.is_some_and(|at| at == 0 || bytes[at - 1] != b'\r');
            let plausible = bytes[0].is_ascii_alphanumeric() || b"\r!#$%&'*+-.^_`|~".contains(&bytes[0]);
            break if bare || !plausible { Then::BadHead } else { Then::Partial };
        };
        let Some((mut asked, framing)) = head(&bytes[..end], limits) else { break Then::BadHead };
        bytes = &bytes[end + 4..];
        match framing {
            Framing::None => asked.complete = true,
            Framing::Length(length) => {
                let there = length.min(bytes.len());
                asked.body = bytes[..there].to_vec();
                asked.complete = there == length;
                bytes = &bytes[there..];
            }
            Framing::Chunked => match chunked(bytes, limits) {
                Decoded::Whole { data, used } => {
                    asked.body = data;
                    asked.complete = true;
                    bytes = &bytes[used..];
                }
                Decoded::Partial { data } => {
                    asked.body = data;
                    bytes = &[];
                }
                Decoded::Bad { data } => {
                    asked.body = data;
                    requests.push(asked);
                    break Then::BadBody;
                }
            },
        }
        let ends = !asked.keep_alive || !asked.complete;
        requests.push(asked);
        if ends {
            break Then::Nothing;
        }
    };
    Model { requests, then }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn head(text: &[u8], limits: &Limits) -> Option<(Asked, Framing)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.split("\r\n");
    let line = lines.next()?;
    let [method, target, version]: [&str; 3] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(token);
    let is_11 = match version {
        "HTTP/1.0" => false,
        "HTTP/1.1" => true,
        _ => return None,
    };
    if !is_token(method) || !target.starts_with('/') || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return None;
    }
    let mut asked = Asked {
        line: line.into(),
        method: method.into(),
        target: target.into(),
        keep_alive: is_11,
        ..Asked::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if !is_token(name) || value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return None;
        }
        asked.fields.push((name.to_string(), value.trim_matches([' ', '\t']).as_bytes().to_vec()));
    }
    if asked.fields.len() > limits.fields {
        return None;
    }
    let values = |name: &str| -> Vec<&[u8]> {
        asked.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice()).collect()
    };
    if (is_11 && values("Host").is_empty()) || values("Host").len() > 1 {
        return None;
    }
    let lengths = values("Content-Length");
    let framing = match values("Transfer-Encoding").as_slice() {
        [] => match lengths.as_slice() {
            [] => Framing::None,
            [first, rest @ ..] => {
                if rest.iter().any(|other| other != first) || first.is_empty() || !first.iter().all(u8::is_ascii_digit)
                {
                    return None;
                }
                let length: u64 = std::str::from_utf8(first).ok()?.parse().ok()?;
                if length > limits.body {
                    return None;
                }
                if length == 0 { Framing::None } else { Framing::Length(usize::try_from(length).ok()?) }
            }
        },
        [one] if one.eq_ignore_ascii_case(b"chunked") && lengths.is_empty() && is_11 => Framing::Chunked,
        _ => return None,
    };
    let says = |option: &str| {
        values("Connection")
            .iter()
            .flat_map(|value| value.split(|&b| b == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    };
    let (close, keep) = (says("close"), says("keep-alive"));
    let expects = is_11 && !values("Expect").is_empty();
    asked.keep_alive = (asked.keep_alive || keep) && !close;
    asked.expects = expects;
    asked.has_body = !matches!(framing, Framing::None);
    Some((asked, framing))
}

/// The result of [`chunked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    Whole { data: Vec<u8>, used: usize },
    Partial { data: Vec<u8> },
    Bad { data: Vec<u8> },
}

/// The reference decoder of chunked bodies.
pub fn chunked(bytes: &[u8], limits: &Limits) -> Decoded {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let line = match crlf_line(&bytes[at..], limits.chunk_line, |b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
            Line::Whole(line) => line,
            Line::Partial(part) if chunk_size(part, true).is_some() => return Decoded::Partial { data },
            Line::Almost(line) if chunk_size(line, false).is_some() => return Decoded::Partial { data },
            _ => return Decoded::Bad { data },
        };
        let Some(size) = chunk_size(line, false) else { return Decoded::Bad { data } };
        at += line.len() + 2;
        if size > limits.body - data.len() as u64 {
            return Decoded::Bad { data };
        }
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).expect("within the limit");
        let there = size.min(bytes.len() - at);
        data.extend_from_slice(&bytes[at..at + there]);
        at += there;
        if there < size {
            return Decoded::Partial { data };
        }
        match &bytes[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Decoded::Partial { data },
            _ => return Decoded::Bad { data },
        }
    }
    // The limit does not count LFs.
    let mut counted = 0;
    loop {
        let room = limits.trailers - counted;
        let line = match crlf_line(&bytes[at..], room, |b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
            Line::Whole(b"") => return Decoded::Whole { data, used: at + 2 },
            Line::Whole(line) if trailer(line, false) => line,
            Line::Partial(part) if trailer(part, true) => return Decoded::Partial { data },
            Line::Almost(line) if line.is_empty() || trailer(line, false) => return Decoded::Partial { data },
            _ => return Decoded::Bad { data },
        };
        at += line.len() + 2;
        counted += line.len() + 1;
    }
}

enum Line<'b> {
    Whole(&'b [u8]),
    Partial(&'b [u8]),
    /// Only the LF is missing.
    Almost(&'b [u8]),
    Bad,
}

/// A line of at most `most` bytes, including its CR, in which all bytes satisfy `fits`.
fn crlf_line(bytes: &[u8], most: usize, fits: impl Fn(u8) -> bool) -> Line<'_> {
    let len = bytes.iter().position(|&b| !fits(b)).unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(len);
    let counted = len + usize::from(!rest.is_empty());
    match rest {
        _ if counted > most => Line::Bad,
        [] => Line::Partial(line),
        [b'\r'] => Line::Almost(line),
        [b'\r', b'\n', ..] => Line::Whole(line),
        _ => Line::Bad,
    }
}

/// The size in a line; for a `partial` line, `Some` if it may still become valid.
fn chunk_size(line: &[u8], partial: bool) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = &line[digits..];
    if !extensions(rest, partial) || (digits == 0 && !(partial && rest.is_empty())) {
        return None;
    }
    line[..digits].iter().try_fold(0_u64, |n, b| {
        n.checked_mul(16)?.checked_add(u64::from(char::from(*b).to_digit(16).expect("hexadecimal")))
    })
}

/// Whether this is `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, or, for a `partial` line, may become it.
fn extensions(line: &[u8], partial: bool) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let without_space = |text: &'_ [u8]| text.iter().position(|b| !b" \t".contains(b)).unwrap_or(text.len());
    let mut rest = line;
    while !rest.is_empty() {
        rest = &rest[without_space(rest)..];
        match rest {
            [] => return partial,
            [b';', after @ ..] => rest = &after[without_space(after)..],
            _ => return false,
        }
        let name = rest.iter().take_while(|b| token(b)).count();
        if name == 0 {
            return partial && rest.is_empty();
        }
        rest = &rest[name..];
        let [b'=', after @ ..] = &rest[without_space(rest)..] else { continue };
        rest = &after[without_space(after)..];
        if let [b'"', quoted @ ..] = rest {
            let (mut at, mut end) = (0, None);
            while at < quoted.len() && end.is_none() {
                match quoted[at] {
                    b'\\' => at += 2,
                    b'"' => end = Some(at),
                    _ => at += 1,
                }
            }
            match end {
                Some(end) => rest = &quoted[end + 1..],
                None => return partial,
            }
        } else {
            let value = rest.iter().take_while(|b| token(b)).count();
            if value == 0 {
                return partial && rest.is_empty();
            }
            rest = &rest[value..];
        }
    }
    true
}

fn trailer(line: &[u8], partial: bool) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    match line.iter().position(|&b| b == b':') {
        Some(colon) => colon > 0 && line[..colon].iter().all(token),
        None => partial && line.iter().all(token),
    }
}
