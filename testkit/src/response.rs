//! Parsing responses strictly (RFC 9112): any deviation fails the test.

use std::fmt;

/// A complete response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status line and the fields.
    pub head: Head,
    /// The content, without transfer coding.
    pub body: Vec<u8>,
}

/// The head of a response.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// The bytes as received, including the empty line.
    pub raw: Vec<u8>,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// Names as received, and values.
    pub fields: Vec<(String, String)>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.raw.escape_ascii())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.raw.escape_ascii())
    }
}

/// Compares the head as received.
impl PartialEq<&str> for Head {
    fn eq(&self, other: &&str) -> bool {
        self.raw == other.as_bytes()
    }
}

/// How the end of a body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// By length.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Head {
    /// Parses a head that ends with its empty line.
    #[track_caller]
    pub fn parse(raw: &[u8]) -> Head {
        let shown = raw.escape_ascii().to_string();
        let text = std::str::from_utf8(raw).unwrap_or_else(|_| panic!("the head is not UTF-8: {shown}"));
        let lines = text.strip_suffix("\r\n\r\n").unwrap_or_else(|| panic!("no empty line: {shown}"));
        let mut lines = lines.split("\r\n");
        let status_line = lines.next().expect("split returns at least one part");
        let mut parts = status_line.splitn(3, ' ');
        let version = parts.next().expect("split returns at least one part").to_owned();
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "version in {status_line:?}");
        let status = parts.next().unwrap_or_else(|| panic!("no status in {status_line:?}"));
        assert!(status.len() == 3 && status.bytes().all(|d| d.is_ascii_digit()), "status in {status_line:?}");
        let reason = parts.next().unwrap_or_else(|| panic!("no space after the status in {status_line:?}"));
        assert!(reason.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "reason in {status_line:?}");
        let fields: Vec<(String, String)> = lines.map(field).collect();
        let head = Head {
            raw: raw.to_vec(),
            version,
            status: status.parse().expect("three digits"),
            reason: reason.to_owned(),
            fields,
        };
        if head.status >= 200 {
            head.check();
        }
        head
    }

    /// Checks what holds for every final response of an origin server.
    #[track_caller]
    fn check(&self) {
        for name in ["Server", "Date"] {
            assert_eq!(self.all(name).len(), 1, "not one {name} in {self:?}");
        }
        check_date(self.text("Date").expect("just counted"));
        for name in ["Content-Length", "Content-Type", "Last-Modified", "ETag", "Location", "Connection", "Allow"] {
            assert!(self.all(name).len() <= 1, "{name} twice in {self:?}");
        }
        let length = self.text("Content-Length");
        let chunked = self.text("Transfer-Encoding");
        assert!(length.is_none() || chunked.is_none(), "length and coding in {self:?}");
        if let Some(length) = length {
            let plain = !length.is_empty() && length.bytes().all(|d| d.is_ascii_digit());
            assert!(plain && (length == "0" || !length.starts_with('0')), "Content-Length in {self:?}");
        }
        if let Some(coding) = chunked {
            assert_eq!(coding, "chunked", "Transfer-Encoding in {self:?}");
        }
        if let Some(date) = self.text("Last-Modified") {
            check_date(date);
        }
        if let Some(tag) = self.text("ETag") {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
            assert!(quoted && !opaque[1..opaque.len() - 1].contains(['"', ' ']), "ETag in {self:?}");
        }
        if matches!(self.status, 204 | 205 | 304) {
            assert!(length.is_none() && chunked.is_none(), "framing of a body that cannot exist in {self:?}");
            assert!(
                self.text("Content-Type").is_none() || self.status == 304,
                "type of a body that cannot exist in {self:?}"
            );
        }
    }

    /// How the end of the body is determined.
    pub fn framing(&self, to_head: bool) -> Framing {
        if to_head || self.status < 200 || matches!(self.status, 204 | 304) {
            Framing::Empty
        } else if self.text("Transfer-Encoding").is_some() {
            Framing::Chunked
        } else if let Some(length) = self.length() {
            Framing::Length(length)
        } else {
            Framing::Close
        }
    }

    /// The value of a field, if present. Panics if there are several.
    #[track_caller]
    pub fn text(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} {} times in {self:?}", all.len());
        all.first().copied()
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|f| f.0.eq_ignore_ascii_case(name)).map(|f| f.1.as_str()).collect()
    }

    /// The announced length.
    pub fn length(&self) -> Option<u64> {
        self.text("Content-Length").map(|length| length.parse().expect("digits"))
    }

    /// Whether the head as received begins with this.
    pub fn starts_with(&self, text: &str) -> bool {
        self.raw.starts_with(text.as_bytes())
    }

    /// Whether the head as received contains this.
    pub fn contains(&self, text: &str) -> bool {
        self.raw.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The head as received, without the value of `Date`.
    pub fn without_date(&self) -> String {
        mask_dates(&self.raw).escape_ascii().to_string()
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|f| f.0.as_str()).collect()
    }

    /// Whether the server announces that it closes the connection.
    pub fn closes(&self) -> bool {
        self.text("Connection") == Some("close")
    }
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of a field, if present.
    #[track_caller]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.head.text(name)
    }

    /// The body as text.
    #[track_caller]
    pub fn body_text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The `ETag`, which must exist and be strong.
    #[track_caller]
    pub fn tag(&self) -> String {
        let tag = self.text("ETag").unwrap_or_else(|| panic!("no ETag in {:?}", self.head));
        assert!(tag.starts_with('"'), "not a strong tag: {tag}");
        tag.to_owned()
    }
}

#[track_caller]
fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field without a colon: {line:?}"));
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    assert!(!name.is_empty() && name.bytes().all(token), "the name in {line:?}");
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no space after the colon in {line:?}"));
    assert_eq!(value.trim(), value, "white space around the value in {line:?}");
    assert!(!value.chars().any(char::is_control), "a control character in {line:?}");
    (name.to_owned(), value.to_owned())
}

/// Asserts that this is an IMF-fixdate.
#[track_caller]
pub fn check_date(date: &str) {
    let form: String = date
        .chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    assert_eq!(form, "Aaa, 00 Aaa 0000 00:00:00 AAA", "an IMF-fixdate: {date:?}");
    assert!(date.ends_with(" GMT"), "an IMF-fixdate: {date:?}");
}

/// The bytes received on a connection, with each value of `Date` replaced by asterisks.
pub fn mask_dates(bytes: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\r\nDate: ";
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = masked[at..].windows(NAME.len()).position(|window| window == NAME) {
        at += found + NAME.len();
        let end = masked[at..].iter().position(|b| *b == b'\r').map_or(masked.len(), |len| at + len);
        masked[at..end].fill(b'*');
    }
    masked
}
