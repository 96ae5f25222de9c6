//! The bodies of the fuzz targets: they take any bytes, and panic if something is wrong. They also compile on stable
//! Rust, so that ordinary tests can run the corpus and random bytes through them.

use sanserve_core::{
    Config, EntryKind, Fault, FsError, Protocol, is_deceptive, listing_row, media_type, scrub, translate,
};

use super::answers::{self, Answer};
use super::disk::{self, Disk, File, Node};
use super::model::{self, Decoded};
use super::random::Random;
use super::rig::{At, Op, Rig, check_path, small_limits};
use super::verdict;

/// A target. Its name is the directory of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] =
    [("head", head), ("chunked", chunked), ("ranges", ranges), ("target", target), ("session", session)];

/// Feeds `bytes` in pieces of at most 64, takes the output in pieces of at most `take`, ends the input if `eof`, and
/// cooperates until the connection waits.
pub fn converse(config: &Config, bytes: &[u8], mut random: Option<Random>, take: u64, eof: bool) -> Rig {
    let mut rig = Rig::new(config.clone(), disk::small());
    let mut rest = bytes;
    loop {
        settle(&mut rig, take);
        let most = random.as_mut().map_or(u64::MAX, |random| random.size(64));
        let n = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        if n == 0 || !rig.apply(&Op::Recv(rest[..n].to_vec())) {
            break;
        }
        rest = &rest[n..];
    }
    if eof {
        rig.apply(&Op::Eof);
        settle(&mut rig, take);
        assert!(matches!(rig.at, At::Close(_)) || rig.is_handling(), "open after the end: {:?}", rig.connection);
    }
    rig
}

fn settle(rig: &mut Rig, take: u64) {
    while rig.at == At::Send && take < u64::MAX {
        rig.apply(&Op::Take(take));
    }
    rig.settle();
}

fn checked(what: Result<Vec<Answer>, String>, rig: &Rig) -> Vec<Answer> {
    what.unwrap_or_else(|error| panic!("{error}\nfor {}", rig.got.escape_ascii()))
}

/// Checks that the result does not depend on how the bytes are split and taken.
fn same_in_pieces(config: &Config, bytes: &[u8], whole: &Rig, eof: bool) {
    let seed = bytes.iter().fold(7_u64, |n, &b| n.wrapping_mul(31).wrapping_add(u64::from(b)));
    for (random, take) in [(Some(Random::new(seed)), 7), (Some(Random::new(seed + 1)), u64::MAX)] {
        let rig = converse(config, bytes, random, take, eof);
        let (a, b) = (rig.wire.escape_ascii(), whole.wire.escape_ascii());
        assert!(rig.wire == whole.wire, "in pieces:\n{a}\nas a whole:\n{b}\nfor {}", bytes.escape_ascii());
        // Of a refused line, the log has as much as had arrived.
        let log =
            |rig: &Rig| -> Vec<_> { rig.finished.iter().map(|d| (d.status, d.sent, d.error, d.cut.clone())).collect() };
        assert_eq!(log(&rig), log(whole), "for {}", bytes.escape_ascii());
    }
}

/// Any bytes as what a client sends.
pub fn head(data: &[u8]) {
    let config = Config::default().with_limits(small_limits());
    let whole = converse(&config, data, None, u64::MAX, true);
    checked(verdict::loose(&whole), &whole);
    same_in_pieces(&config, data, &whole, true);
    // Without an end of input, a timer must end the connection.
    let mut open = converse(&config, data, None, u64::MAX, false);
    checked(verdict::loose(&open), &open);
    open.outlast();
    checked(verdict::loose(&open), &open);
}

/// Any bytes as a chunked body and what follows it.
pub fn chunked(data: &[u8]) {
    const HEAD: &[u8] = b"POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let config = Config::default().with_limits(small_limits());
    let bytes = [HEAD, data].concat();
    let whole = converse(&config, &bytes, None, u64::MAX, false);
    let found = checked(verdict::loose(&whole), &whole);
    let first = found.first();
    match model::chunked(data, &config.limits) {
        Decoded::Whole { data: body, .. } => {
            let answer = first.expect("a complete body has a response");
            assert!(answer.status == 200 && answer.body == body, "for {}: {answer:?}", data.escape_ascii());
        }
        Decoded::Partial { .. } => assert_eq!(first, None, "for {}", data.escape_ascii()),
        Decoded::Bad { .. } => {
            let answer = first.unwrap_or_else(|| panic!("no refusal for {}", data.escape_ascii()));
            assert!(answer.status >= 400 && answer.closes(), "for {}: {answer:?}", data.escape_ascii());
        }
    }
    same_in_pieces(&config, &bytes, &whole, false);
}

/// Lines as values of Range and of the conditions. The bits of the first byte select the fields of the request.
pub fn ranges(data: &[u8]) {
    let Some((&which, lines)) = data.split_first() else { return };
    let mut values = lines.split(|&b| b == b'\n').map(|line| {
        let fits = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
        line.iter().copied().filter(fits).take(300).collect::<Vec<u8>>()
    });
    let path = if which & 64 == 0 { "/r.txt" } else { "/empty" };
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n").into_bytes();
    let names = ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"];
    let mut range = None;
    for (bit, name) in names.iter().enumerate() {
        if which & (1 << bit) != 0 {
            let value = values.next().unwrap_or_default();
            request.extend_from_slice(&[name.as_bytes(), b": ", &value, b"\r\n"].concat());
            if bit == 0 {
                range = Some(value.trim_ascii().to_vec());
            }
        }
    }
    request.extend_from_slice(b"\r\n");
    let config = Config::default().with_limits(small_limits());
    let rig = converse(&config, &request, None, 50, false);
    let found = checked(verdict::loose(&rig), &rig);
    let [answer] = found.as_slice() else { panic!("{} answers to {}", found.len(), request.escape_ascii()) };
    let file = disk::file_at(&rig.disk, &path[1..]);
    check_ranges(answer, &file, range.as_deref(), which & 0b11_1110 == 0, config.limits.ranges);
}

/// Checks a response with a file: the bytes, and that they are those that were requested.
pub fn check_ranges(answer: &Answer, file: &File, range: Option<&[u8]>, unconditional: bool, most: usize) {
    let mut bytes = Vec::new();
    file.read(0, file.len, &mut bytes);
    let requested = range.and_then(|value| reference(value, file.len));
    match answer.status {
        200 => {
            assert_eq!(answer.body, bytes);
            let many =
                requested.as_ref().is_some_and(|requested| runs(&requested.covered) > most || requested.specs > most);
            let nothing = requested.as_ref().is_none_or(|requested| requested.specs == 0) || file.len == 0;
            assert!(!unconditional || many || nothing, "200 for {requested:?}");
        }
        206 => {
            let requested = requested.expect("206 for an invalid range");
            let mut covered = vec![false; bytes.len()];
            let mut total = 0;
            for (first, last, len, part) in answers::parts(answer).unwrap_or_else(|error| panic!("{error}")) {
                let (first, last) = (usize::try_from(first).unwrap(), usize::try_from(last).unwrap());
                assert_eq!(len, file.len);
                assert_eq!(part, bytes[first..=last], "bytes {first}-{last}");
                covered[first..=last].fill(true);
                total += part.len();
            }
            assert_eq!(covered, requested.covered, "other bytes than those requested for");
            assert!(total <= bytes.len(), "bytes twice");
        }
        416 => {
            let requested = requested.expect("416 for an invalid range");
            assert!(requested.specs > 0 && !requested.covered.contains(&true));
            assert_eq!(answer.text("Content-Range"), format!("bytes */{}", file.len));
        }
        304 | 412 => assert!(!unconditional, "{} without a condition", answer.status),
        other => panic!("{other} for a range"),
    }
}

/// The meaning of a Range field.
#[derive(Debug)]
struct Reference {
    specs: usize,
    covered: Vec<bool>,
}

fn runs(covered: &[bool]) -> usize {
    covered.chunk_by(|a, b| a == b).filter(|run| run[0]).count()
}

/// Parses a Range field (RFC 9110 section 14) with numbers that cannot overflow. `None` if it is invalid.
fn reference(value: &[u8], len: u64) -> Option<Reference> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, specs) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut requested = Reference { specs: 0, covered: vec![false; usize::try_from(len).expect("small")] };
    for spec in specs.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        let (first, last) = spec.split_once('-')?;
        if !first.bytes().chain(last.bytes()).all(|b| b.is_ascii_digit()) || spec.len() == 1 {
            return None;
        }
        requested.specs += 1;
        let number = |text: &str| {
            text.trim_start_matches('0').parse::<u128>().unwrap_or(if text.trim_start_matches('0').is_empty() {
                0
            } else {
                u128::MAX
            })
        };
        let len = u128::from(len);
        let (first, end) = match (first, last) {
            ("", suffix) => (len.saturating_sub(number(suffix)), len),
            (first, "") => (number(first), len),
            (first, last) => {
                // Two numbers beyond 64 bits need not be distinguished.
                let beyond = |text: &str| number(text) >= u128::from(u64::MAX);
                if number(first) > number(last) && !(beyond(first) && beyond(last)) {
                    return None;
                }
                (number(first), number(last).saturating_add(1).min(len))
            }
        };
        for at in first..end {
            requested.covered[usize::try_from(at).expect("small")] = true;
        }
    }
    Some(requested)
}

/// Any bytes as a path: translated, and requested; and as a name in a listing and a log.
pub fn target(data: &[u8]) {
    check_row(data);
    check_scrub(data);
    // A target cannot contain a bare NUL.
    let data: &[u8] = &data.iter().copied().filter(|&byte| byte != 0).collect::<Vec<u8>>();
    let mut out = b"kept".to_vec();
    let translated = translate(data, &mut out);
    assert!(out.starts_with(b"kept"));
    let decoded = decode(data);
    let expected = resolve(&decoded);
    assert_eq!(translated.is_err(), decoded.contains(&0), "NUL");
    if translated.is_ok() {
        check_path(&out[4..]);
        assert_eq!(out[4..].escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
    assert!(media_type(data).contains('/'));

    // Through a request: bytes that a target cannot contain are omitted.
    let mut path = b"/".to_vec();
    path.extend(data.iter().filter(|&&b| b > b' ' && b != 0x7f).take(1_500));
    let request = [b"GET ", &path[..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    let config = Config::default().with_limits(small_limits());
    let mut rig = converse(&config, &request, None, u64::MAX, false);
    let found = checked(verdict::loose(&rig), &rig);
    assert_eq!(found.len(), 1, "for {}", request.escape_ascii());
    // Also as a directory: the redirect must lead to this server.
    rig.disk.nodes.clear();
    let mut rig = Rig::new(config, Disk::default());
    rig.apply(&Op::Recv(request));
    rig.apply(&Op::Directory);
    rig.settle();
    for answer in checked(verdict::loose(&rig), &rig) {
        if answer.status == 301 {
            let location = answer.text("Location");
            assert!(location.starts_with('/') && !location.starts_with("//") && !location.contains('\\'), "{location}");
            assert!(location.bytes().all(|b| b > b' ' && b != 0x7f && !b"\"<>".contains(&b)), "{location}");
        }
    }
}

fn check_row(name: &[u8]) {
    for kind in [EntryKind::File, EntryKind::Directory, EntryKind::Link { directory: true }] {
        let mut row = Vec::new();
        listing_row(name, kind, &mut row);
        let text = String::from_utf8(row).expect("a listing is UTF-8");
        let inside = text.strip_prefix("<li><a href=\"").and_then(|t| t.strip_suffix("</a></li>\n")).expect("a row");
        let (link, shown) = inside.split_once("\">").expect("a link");
        assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b"%_.-~/".contains(&b)), "{link}");
        assert!(!shown.contains(['<', '>', '"', '\'']), "{shown}");
        assert_eq!(decode(link.strip_suffix('/').filter(|_| kind != EntryKind::File).unwrap_or(link).as_bytes()), name);
    }
}

fn check_scrub(text: &[u8]) {
    let mut out = Vec::new();
    scrub(&mut out, text);
    let text = String::from_utf8(out).expect("a log is UTF-8");
    assert!(!text.chars().any(|c| c.is_control() || is_deceptive(c)), "{text:?}");
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['"', '\\']) {
        assert!(rest[at..].starts_with('\\') && rest[at + 1..].starts_with(['"', '\\', 'x', 'u']), "{text:?}");
        rest = &rest[at + 2..];
    }
}

/// Percent-decodes once. Invalid escapes are kept.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        rest = match (byte, tail) {
            (b'%', [a, b, tail @ ..]) if hex(*a).is_some() && hex(*b).is_some() => {
                out.push(hex(*a).unwrap_or(0) * 16 + hex(*b).unwrap_or(0));
                tail
            }
            _ => {
                out.push(*byte);
                tail
            }
        };
    }
    out
}

fn resolve(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => _ = components.pop(),
            name => components.push(name),
        }
    }
    components.join(&b'/')
}

/// Pieces of a session.
pub const PIECES: [&str; 24] = [
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /a HT",
    "TP/1.1\r\nHost: x\r\n\r\n",
    "\r\n",
    "\r",
    "HEAD /big.bin HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /d/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /index/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /r.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,20-29,-5\r\n\r\n",
    "GET /r.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /h/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n",
    "POST /h/stream HTTP/1.0\r\nContent-Length: 7\r\n\r\n",
    "GET /h/late HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /h/big HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /h/short HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n",
    "PUT /h/pass HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "7\r\nhe",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n",
];

/// Bytes as a sequence of operations on one connection.
pub fn session(data: &[u8]) {
    let (Some(&first), rest) = (data.first(), data.get(1..).unwrap_or_default()) else { return };
    let protocol = if first & 1 == 0 { Protocol::Http11 } else { Protocol::Http10 };
    let mut rig = Rig::new(Config::default().with_protocol(protocol).with_limits(small_limits()), disk::small());
    rig.swaps = first & 2 == 0;
    for op in decode_ops(rest).into_iter().take(400) {
        rig.apply(&op);
    }
    checked(verdict::loose(&rig), &rig);
    rig.settle();
    checked(verdict::loose(&rig), &rig);
    rig.outlast();
    checked(verdict::loose(&rig), &rig);
}

/// Decodes operations.
pub fn decode_ops(bytes: &[u8]) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut rest = bytes.iter().copied();
    while let Some(code) = rest.next() {
        let mut next = || rest.next().unwrap_or(0);
        ops.push(match code % 32 {
            0..=9 => Op::Recv(PIECES[usize::from(next()) % PIECES.len()].into()),
            10 => {
                let n = usize::from(next()) % 40;
                Op::Recv((0..n).map(|_| next()).collect())
            }
            11..=13 => Op::Complete,
            14 => Op::Take(1),
            15 => Op::Take(u64::from(next())),
            16..=18 => Op::Take(u64::MAX),
            19 => Op::Blocked,
            20 => Op::Writable,
            21 => Op::Eof,
            22 => [Op::Stale, Op::Pending, Op::Ready][usize::from(next() % 3)].clone(),
            23 => Op::Pass(u64::from(next()) * 100),
            24 => Op::Due(u64::from(next() % 2)),
            25 => Op::Wake,
            26 => Op::Drain,
            27 => Op::Cut,
            28 => Op::Broken([Fault::Peer, Fault::FileShrank, Fault::File, Fault::Handler][usize::from(next() % 4)]),
            29 => Op::Hold,
            30 => Op::Directory,
            _ => Op::Fail(
                [FsError::NotFound, FsError::Denied, FsError::Exhausted, FsError::Failed][usize::from(next() % 4)],
            ),
        });
    }
    ops
}

/// Whether a path refers to a file on the disk of the small worlds.
pub fn is_file(disk: &Disk, path: &[u8]) -> bool {
    matches!(disk.find(path), Ok(Node::File(_)))
}
