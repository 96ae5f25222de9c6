//! Properties that hold for any input, with fixed seeds: mutated heads, bodies and targets of arbitrary bytes, and
//! ranges compared with a reference implementation.

mod world;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use sanserve_core::{Cgi, Config, Limits, collapse_path, is_cgi, translate};
use world::bodies;
use world::model::{self, Decoded};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() }
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /big.bin HTTP/1.1\r\nHost: example.org:8000\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    "GET /d/%2e%2e/a?q=1#f HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
    "GET http://x/r.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,90-99\r\nIf-Range: \"a\"\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    "\r\nGET /empty HTTP/1.1\r\nHost: [::1]\r\nIf-None-Match: W/\"a\", \"b\"\r\n\r\n",
    "HEAD /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
];

/// Texts that mutations insert.
const INSERTIONS: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    " ",
    "\t",
    "\0",
    ":",
    ",",
    ";",
    "/",
    "%",
    "%00",
    "%2f",
    "..",
    "\u{7f}",
    "é",
    "0",
    "9",
    "-",
    "HTTP/2.0",
    "HTTP/1.",
    "HEAD ",
    "GET ",
    "Host: y\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "chunked",
    "close",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, &'static str),
    Byte(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any::<Index>(), select(INSERTIONS)).prop_map(|(at, text)| Edit::Insert(at, text)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        2 => (any::<Index>(), 1..12_usize).prop_map(|(at, n)| Edit::Remove(at, n)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, n)| Edit::Repeat(at, n)),
    ]
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (select(GOOD), prop::collection::vec(edit(), 0..4)).prop_map(|(good, edits)| {
        let mut bytes = good.as_bytes().to_vec();
        for edit in edits {
            match edit {
                Edit::Insert(at, text) => {
                    let at = at.index(bytes.len() + 1);
                    bytes.splice(at..at, text.bytes());
                }
                Edit::Byte(at, byte) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                Edit::Remove(at, n) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes.drain(at..(at + n).min(bytes.len()));
                }
                Edit::Repeat(at, n) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    let part = bytes[at..(at + n).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {}
            }
        }
        bytes
    })
}

/// A chunked body that is valid or nearly so.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 1..40).prop_map(|data| {
            [format!("{:x}\r\n", data.len()).into_bytes(), data, b"\r\n".to_vec()].concat()
        }),
        1 => select(&["5;a=b\r\nhello\r\n", "0005\r\nhello\r\n", "5 \r\nhello\r\n", "5\r\nhelloXY", "ffffffffffffffff\r\n", "1387\r\n", "1389\r\n", "5\nhello\r\n", "5\r\nhell\r\n", "5\r\nhello!\r\n"][..])
            .prop_map(|text| text.as_bytes().to_vec()),
        2 => prop::collection::vec(select(&[" ", "\t", ";", "=", "a", "b", "\"", "\\", "\u{e9}", "\x01"][..]), 0..9)
            .prop_map(|parts| format!("5{}\r\nhello\r\n", parts.concat()).into_bytes()),
        2 => select(&[" ;a", "; a", ";a = b", ";a=\"b;\\\" \"", " ; a\t=\t\"\" ; b", ";a=b ;c"][..])
            .prop_map(|extensions| format!("5{extensions}\r\nhello\r\n").into_bytes()),
    ];
    let end = select(
        &[
            "0\r\n\r\n",
            "0\r\nA: b\r\nC:\r\n\r\n",
            "00;x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "",
            "0\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\n\r\r\n",
            "0\r",
        ][..],
    );
    (prop::collection::vec(chunk, 0..5), end)
        .prop_map(|(chunks, end)| [chunks.concat(), end.as_bytes().to_vec()].concat())
}

fn range_lines() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![3 => (0..120_u64).prop_map(|n| n.to_string()), 1 => select(&["", "18446744073709551615", "18446744073709551616", "x", " ", "00"][..]).prop_map(str::to_string)];
    let spec = (number.clone(), number).prop_map(|(a, b)| format!("{a}-{b}"));
    let range = prop::collection::vec(spec, 0..7).prop_map(|specs| format!("bytes={}", specs.join(",")));
    let tag = world::disk::file_at(&world::disk::small(), "r.txt").tag();
    let value = select(vec![
        "*".to_string(),
        tag.clone(),
        format!("W/{tag}"),
        format!("\"a\", {tag}"),
        "\"a\"".into(),
        "Sun, 06 Nov 1994 08:49:37 GMT".into(),
        "Sun, 06 Nov 1994 08:32:53 GMT".into(),
        "garbage".into(),
        String::new(),
    ]);
    let which = prop_oneof![2 => Just(1_u8), 1 => Just(65_u8), 3 => any::<u8>()];
    (which, range, prop::collection::vec(value, 5)).prop_map(|(which, range, values)| {
        let first = if which & 1 != 0 { format!("{range}\n") } else { String::new() };
        [&[which][..], first.as_bytes(), values.join("\n").as_bytes()].concat()
    })
}

/// Paths of segments, escapes, dots and slashes, many of them below directories of scripts.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let parts = &[
        "cgi-bin",
        "cgi-bin/",
        "/cgi-bin/",
        "htbin/",
        "%63gi-bin",
        "cgi%2dbin%2f",
        "cgi-bin%00",
        "CGI-BIN/",
        "d",
        "d/",
        "x",
        "/",
        "//",
        "%2f",
        "%2F",
        ".",
        "..",
        "/../",
        "/./",
        "%2e",
        "%2e%2e",
        "..%2f",
        "%252f",
        "%",
        "%2",
        "\\",
        "%5c",
        "é",
        "?",
        "#",
    ][..];
    let start = select(&["", "/", "//", "cgi-bin/", "/cgi-bin", "/d/..", "http://x"][..]);
    (start, prop::collection::vec(select(parts), 0..8))
        .prop_map(|(start, parts)| [start.as_bytes(), parts.concat().as_bytes()].concat())
}

proptest! {
    #![proptest_config(config(600))]

    /// Nearly valid heads cause no panic and well-formed responses, which do not depend on how the bytes arrive.
    #[test]
    fn mutated_heads_get_well_formed_responses(bytes in mutated()) {
        bodies::head(&bytes);
    }

    #[test]
    fn a_valid_head_is_answered_once(good in select(GOOD), split in any::<u64>()) {
        let random = world::random::Random::new(split);
        let rig = bodies::converse(&Config::default(), good.as_bytes(), Some(random), 11, false);
        let requests = good.matches(" HTTP/1.").count();
        prop_assert_eq!(rig.finished.len(), requests);
    }

    #[test]
    fn chunked_bodies_match_the_reference(text in chunks()) {
        bodies::chunked(&text);
    }

    #[test]
    fn ranges_match_the_reference(lines in range_lines()) {
        bodies::ranges(&lines);
    }

    #[test]
    fn targets_match_the_reference(path in prop::collection::vec(select(&["a", "..", ".", "/", "%2f", "%2e", "%", "%00", "%25", "\\", "%5c", "d", "é", "?", "#", "<", "\"", "\n", "//", "%0d%0a", "%1b"][..]), 0..12)) {
        bodies::target(path.concat().as_bytes());
    }

    #[test]
    fn targets_of_any_bytes_match_the_reference(path in prop::collection::vec(any::<u8>(), 0..60)) {
        bodies::target(&path);
    }

    /// Scripts and files interpret a target in the same way.
    #[test]
    fn a_collapsed_path_equals_the_translated_one(path in path()) {
        let mut translated = Vec::new();
        let is_valid = translate(&path, &mut translated).is_ok();
        prop_assert_eq!(collapse_path(&path).is_ok(), is_valid);
        if let Ok(collapsed) = collapse_path(&path) {
            prop_assert!(collapsed.starts_with(b"/"));
            let parts: Vec<&[u8]> = collapsed.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
            prop_assert_eq!(parts.join(&b'/'), translated);
        }
    }

    /// Any spelling of a path below a directory of scripts refers to a script.
    #[test]
    fn no_spelling_serves_the_source_of_a_script(path in path()) {
        let mut translated = Vec::new();
        if translate(&path, &mut translated).is_ok() {
            let collapsed = collapse_path(&path).unwrap();
            for directories in [&["/cgi-bin", "/htbin"][..], &["/cgi-bin/d"], &["/d/cgi-bin", "/d"]] {
                let directories: Vec<String> = directories.iter().map(|&text| text.to_owned()).collect();
                let is_below = |dir: &String| translated.starts_with(&[&dir.as_bytes()[1..], b"/"].concat());
                if directories.iter().any(is_below) {
                    prop_assert!(is_cgi(&collapsed, &directories).is_some(), "{}", collapsed.escape_ascii());
                }
            }
        }
        // Through requests: the rig checks what is opened.
        let head = [b"GET /", &path[..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let config = Config::default().with_limits(world::rig::small_limits()).with_cgi(Cgi::python());
        bodies::converse(&config, &head, None, u64::MAX, true);
        let mut rig = world::rig::Rig::new(config, world::disk::Disk::default());
        rig.apply(&world::rig::Op::Recv(head));
        rig.apply(&world::rig::Op::Directory);
        rig.settle();
    }

    #[test]
    fn sessions_keep_the_invariants(code in prop::collection::vec(any::<u8>(), 0..60)) {
        bodies::session(&code);
    }
}

/// The reference decoder decodes what was encoded, and does not touch what follows.
#[test]
fn the_reference_decoder_is_correct() {
    let limits = Limits::default();
    let text = b"5\r\nhello\r\nA;n=\"v\"\r\n, world!!!\r\n000\r\nX-Sum: 1\r\nY:\r\n\r\nGET";
    assert_eq!(
        model::chunked(text, &limits),
        Decoded::Whole { data: b"hello, world!!!".to_vec(), used: text.len() - 3 }
    );
    for end in 0..text.len() - 3 {
        assert!(matches!(model::chunked(&text[..end], &limits), Decoded::Partial { .. }), "{end}");
    }
    for bad in ["\r\n", "5 \r\n", "+5", "0x5", "5\rx", "5\n", "5\r\nhelloX", "0\r\n X", "10000000000000000\r\n"] {
        assert!(matches!(model::chunked(bad.as_bytes(), &limits), Decoded::Bad { .. }), "{bad:?}");
    }
}
