//! Whether a command prints what the chapter shows, apart from values that vary.

/// Values that vary, and what is compared in their place. `%d` are digits, `%x` hexadecimal digits, `%w` letters,
/// `%s` spaces, each one or more; the first row that matches is used.
const VARIES: &[(&str, &str)] = &[
    ("%w, %d %w %d %d:%d:%d GMT", "DATE"),
    ("[%d/%w/%d %d:%d:%d]", "[DATE]"),
    ("\"%x-%x-%x", "\"ETAG"),
    (" @%d.%d", " @MODIFIED"),
    ("until %d", "until MILLIS"),
    ("wall %d", "wall SECONDS"),
    ("127.0.0.1:%d", "127.0.0.1:PORT"),
    ("curl/%d.%d.%d", "curl/VERSION"),
    ("sanserve/%d.%d.%d", "sanserve/VERSION"),
    ("sanserve %d.%d.%d", "sanserve VERSION"),
    ("after %d milliseconds", "after MILLIS milliseconds"),
    ("%s%d.%d s, %d times", " SECONDS s, N times"),
    ("%s%x  %d transcripts", " HASH transcripts"),
    ("file %d+%d -> %d", "file PART -> SOME"),
    ("same, %d steps", "same, N steps"),
    ("thread '%w' (%d)", "thread '%w'"),
    ("%s%d.%d%s", " SECONDS "),
];

/// What may be at the beginning of a line.
const AT_BEGIN: (&str, &str) = ("@%d ", "@MILLIS ");

/// Whether both are the same. A line `...` stands for any lines.
pub(crate) fn alike(expected: &[String], actual: &str, exact: bool) -> bool {
    let plain = |line: &str| if exact { line.trim_end().to_owned() } else { normal(line) };
    let is_kept = |line: &&str| exact || !is_late_tick(line);
    let actual: Vec<String> = actual.trim_end().lines().filter(is_kept).map(plain).collect();
    let expected: Vec<String> = expected.iter().map(String::as_str).filter(is_kept).map(plain).collect();
    matches(&expected, &actual)
}

fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..])),
        Some((first, rest)) => actual.split_first().is_some_and(|(line, more)| line == first && matches(rest, more)),
    }
}

/// Time has advanced in the middle of a turn, which depends on the machine and has no meaning.
fn is_late_tick(line: &str) -> bool {
    line.ends_with(" + tick")
}

fn normal(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    if let Some(len) = fits(AT_BEGIN.0, rest) {
        out.push_str(AT_BEGIN.1);
        rest = &rest[len..];
    }
    while let Some(c) = rest.chars().next() {
        // A number or a word is matched as a whole or not at all.
        let is_inside = out.ends_with(|c: char| c.is_ascii_alphanumeric()) && c.is_ascii_alphanumeric();
        let found =
            VARIES.iter().filter(|_| !is_inside).find_map(|(pattern, stand)| Some((fits(pattern, rest)?, *stand)));
        let (len, stand) = found.unwrap_or((c.len_utf8(), &rest[..c.len_utf8()]));
        out.push_str(stand);
        rest = &rest[len..];
    }
    out
}

/// The length of the text that a pattern matches, if the text begins with it.
fn fits(pattern: &str, text: &str) -> Option<usize> {
    let (mut pattern, mut rest) = (pattern, text);
    while let Some(c) = pattern.chars().next() {
        let class: Option<fn(char) -> bool> = match pattern.get(..2) {
            Some("%d") => Some(|c| c.is_ascii_digit()),
            Some("%x") => Some(|c| c.is_ascii_hexdigit()),
            Some("%w") => Some(|c| c.is_ascii_alphabetic()),
            Some("%s") => Some(|c| c == ' '),
            _ => None,
        };
        if let Some(class) = class {
            let len = rest.find(|c| !class(c)).unwrap_or(rest.len());
            rest = rest[len..].get(..).filter(|_| len > 0)?;
            pattern = &pattern[2..];
        } else {
            rest = rest.strip_prefix(c)?;
            pattern = &pattern[c.len_utf8()..];
        }
    }
    Some(text.len() - rest.len())
}

#[test]
fn only_varying_values_are_ignored() {
    let same = |one: &str, other: &str| alike(&[one.into()], other, false);
    for (one, other) in [
        ("Date: Sat, 21 Nov 2026 19:27:39 GMT", "Date: Sun, 06 Nov 1994 08:49:37 GMT"),
        ("    \"ETag: \\\"6b01f0ab-13a5d553-6\\\"\\r\\n\"", "    \"ETag: \\\"1-2-6\\\"\\r\\n\""),
        ("@12 wait read until 15002 idle", "@3 wait read until 15000 idle"),
        ("#1         0.000  eof", "#1       123.456  eof"),
        ("@1 open a.txt -> file 6 @1795289259.329635155", "@2 open a.txt -> file 6 @1.5"),
    ] {
        assert!(same(one, other), "{one}\n{}\n{}", normal(one), normal(other));
    }
    for (one, other) in [
        ("HTTP/1.1 200 OK", "HTTP/1.1 201 OK"),
        ("Content-Length: 6", "Content-Length: 7"),
        ("@1 open a.txt -> file 6", "@1 open a.txt -> file 7"),
        ("#1         0.000  eof", "#2         0.000  eof"),
        ("@1 finished 200 6 \"GET\"", "@1 finished 200 7 \"GET\""),
    ] {
        assert!(!same(one, other), "{one}");
    }
    assert!(!alike(&["@1 eof".into()], "@2 eof", true));
    let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    assert!(alike(&lines("a\n...\nd"), "a\nb\nc\nd", false) && alike(&lines("a\n..."), "a\n", false));
    assert!(!alike(&lines("a\n...\ne"), "a\nb\nc\nd", false) && !alike(&[], "a", false));
}
