//! The report: an aligned section for each topic, then the head of the response.

use sanserve_core::{Topic, scrub};

use super::walk::{Line, Story};

/// Values up to this width are put in a column.
const WIDE: usize = 44;

/// The most characters of each side of the verdict.
const MOST: usize = 120;

/// Terminal codes for a heading, for less important text, and to reset.
const BOLD: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Writes the report. Control characters of the request and of file names are escaped.
pub(crate) fn write(story: &Story, is_coloured: bool) -> Vec<u8> {
    let paint = |style: &'static str| if is_coloured { style } else { "" };
    let (bold, faint, plain) = (paint(BOLD), paint(FAINT), paint(PLAIN));
    let rows: Vec<Row> = story.lines.iter().map(Row::of).collect();
    let name_width = rows.iter().map(|row| width(row.name)).max().unwrap_or_default();
    let value_width = rows.iter().map(|row| width(&row.value)).filter(|&width| width <= WIDE).max().unwrap_or_default();
    let mut out = format!("{bold}{}{plain}\n\n", verdict(story));
    for &(heading, topic) in Topic::TABLE {
        let mut rows = rows.iter().filter(|row| row.topic == topic).peekable();
        if rows.peek().is_none() {
            continue;
        }
        out.push_str(&format!("{bold}{heading}{plain}\n"));
        for Row { name, value, why, .. } in rows {
            // A value that is too long for its column gets a line of its own.
            let gap =
                if width(value) > WIDE { format!("\n{:indent$}", "", indent = name_width + 4) } else { String::new() };
            let pad = if gap.is_empty() { value_width - width(value) } else { value_width };
            let line = format!("  {name:name_width$}  {value}{gap}{:pad$}  {faint}{why}{plain}", "");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out.push('\n');
    }
    if story.is_scripts {
        out.push_str("(the script would write the response)\n");
    } else if story.head.is_empty() {
        out.push_str("(no response)\n");
    } else {
        let head = story.head.strip_suffix(b"\r\n\r\n").unwrap_or(&story.head);
        for line in head.split(|&byte| byte == b'\n') {
            out.push_str(&scrubbed(line.strip_suffix(b"\r").unwrap_or(line)));
            out.push('\n');
        }
    }
    out.into_bytes()
}

/// The result in one line: the request, the status, and what decided it.
fn verdict(story: &Story) -> String {
    let asked = story.lines.iter().find(|line| line.topic == Topic::Request).map_or(&b""[..], |line| &line.value);
    let asked = asked.strip_suffix(b" HTTP/1.1").unwrap_or(asked);
    let mut lines = story.head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status =
        lines.next().and_then(|line| line.split_at_checked("HTTP/1.1 ".len())).map_or(&b""[..], |(_, rest)| rest);
    let field = |name: &str| {
        let of =
            |line: &[u8]| line.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b": ")).map(scrubbed);
        story.head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).find_map(of)
    };
    let (code, reason) =
        scrubbed(status).split_once(' ').map_or_else(Default::default, |(a, b)| (a.to_owned(), b.to_owned()));
    let found = scrubbed(story.found.as_bytes());
    let size = match story.sent {
        1 => "1 byte".into(),
        n => format!("{n} bytes"),
    };
    let is_rule = |name: &str| story.lines.iter().any(|line| line.name == name);
    let length = field("Content-Length").map(|length| format!("no body, {length} bytes for GET"));
    let size = if is_rule("head-alone") { length.unwrap_or_else(|| "no body".into()) } else { size };
    // A row of the table of violations, without its source.
    let is_violation =
        |line: &&Line| line.name.starts_with(char::is_uppercase) && line.value.starts_with(code.as_bytes());
    let refused = story.lines.iter().find(is_violation).map(|line| {
        let sentence = line.why.rfind(" (").map_or(&*line.why, |at| &line.why[..at]);
        scrubbed(format!("{}: {sentence}", line.name).as_bytes())
    });
    let answer = match &*code {
        "" if story.is_scripts && found.is_empty() => "a script would respond".into(),
        "" if story.is_scripts => format!("{found} would respond"),
        "" => "no response".into(),
        "200" if is_rule("health") => "200, the server is healthy (--health)".into(),
        "200" if is_rule("listing") => format!("200, listing of {found}, {size}"),
        "200" if !found.is_empty() => format!("200, {found}, {size}"),
        "206" => format!(
            "206, part of {found}, {}, {size}",
            field("Content-Range").unwrap_or_else(|| "several ranges".into())
        ),
        "204" if is_rule("cors-preflight") => "204, a page of this origin may send the request (--cors)".into(),
        "204" => format!("204, allows {}", field("Allow").unwrap_or_default()),
        "301" | "302" | "303" | "307" | "308" => format!("{code}, to {}", field("Location").unwrap_or_default()),
        "304" => format!("304, {found} has not changed"),
        "404" if is_rule("outside-prefix") => "404, it is not below the prefix (--route-prefix)".into(),
        "404" if is_rule("listing-off") => format!("404, {found} has no index page and is not listed (--no-listing)"),
        "404" if is_rule("hidden-dotfile") => "404, its name begins with a dot (--hide-dotfiles)".into(),
        "404" if is_rule("file-with-slash") => {
            format!("404, {found} is not a directory, but the target ends with a slash")
        }
        "404" if is_rule("listing-denied") => format!("404, {found} cannot be read"),
        "403" | "404" if !found.is_empty() => format!("{code}, {found}"),
        _ if refused.is_some() => format!("{code}, {}", refused.unwrap_or_default()),
        // The reason phrase is the message.
        _ if reason.is_empty() => code,
        _ => format!("{code}, {reason}"),
    };
    format!("{} -> {}", cut(scrubbed(asked)), cut(answer))
}

/// Truncates what is too long for one line. The complete text is in the report.
fn cut(text: String) -> String {
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{} ..", &text[..at]),
        None => text,
    }
}

/// A line of the report, escaped for a terminal.
struct Row<'s> {
    topic: Topic,
    name: &'s str,
    value: String,
    why: String,
}

impl<'s> Row<'s> {
    fn of(line: &'s Line) -> Row<'s> {
        Row { topic: line.topic, name: &line.name, value: scrubbed(&line.value), why: scrubbed(line.why.as_bytes()) }
    }
}

/// Escapes control characters. Unlike in the log, quotes and backslashes are kept: fields are shown as sent.
fn scrubbed(text: &[u8]) -> String {
    let mut out = Vec::new();
    for piece in text.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
        match piece {
            [rest @ .., last @ (b'"' | b'\\')] => {
                scrub(&mut out, rest);
                out.push(*last);
            }
            rest => scrub(&mut out, rest),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(topic: Topic, name: &str, value: &[u8], why: &str) -> Line {
        Line { topic, name: name.into(), value: value.to_vec(), why: why.into() }
    }

    #[test]
    fn columns_are_aligned_and_long_values_stand_alone() {
        let lines = vec![
            line(Topic::Answer, "b", b"", "why not"),
            line(Topic::Request, "a", b"\x1b[1m\xff", "because"),
            line(Topic::Request, "longer", &[b'x'; WIDE + 1], "for"),
        ];
        let story = Story { lines, head: b"HTTP/1.1 200 OK\r\nX: \x07\r\n\r\n".to_vec(), ..Story::default() };
        let long = "x".repeat(WIDE + 1);
        let expected = format!(
            "\\x1b[1m\\xff -> 200, OK\n\n\
             request\n  a       \\x1b[1m\\xff  because\n  longer  {long}\n          {:11}  for\n\n\
             answer\n  b       {:11}  why not\n\nHTTP/1.1 200 OK\nX: \\x07\n",
            "", ""
        );
        assert_eq!(String::from_utf8(write(&story, false)).unwrap(), expected);
        let coloured = String::from_utf8(write(&story, true)).unwrap();
        assert!(
            coloured.contains(&format!("{BOLD}request{PLAIN}\n"))
                && coloured.contains(&format!("{FAINT}because{PLAIN}"))
        );
        let plain = coloured.replace(BOLD, "").replace(FAINT, "").replace(PLAIN, "");
        assert_eq!(plain, expected);
    }

    #[test]
    fn the_verdict_of_an_unreadable_directory() {
        let lines =
            vec![line(Topic::Request, "line", b"GET /a/ HTTP/1.1", ""), line(Topic::File, "listing-denied", b"", "")];
        let head = b"HTTP/1.1 404 No permission to list directory\r\n\r\n".to_vec();
        let story = Story { lines, head, found: "directory a".into(), ..Story::default() };
        assert_eq!(verdict(&story), "GET /a/ -> 404, directory a cannot be read");
    }

    #[test]
    fn the_report_without_a_head() {
        let story = |is_scripts| Story { is_scripts, ..Story::default() };
        assert_eq!(
            write(&story(true), false),
            b" -> a script would respond\n\n(the script would write the response)\n"
        );
        assert_eq!(write(&story(false), false), b" -> no response\n\n(no response)\n");
    }
}
