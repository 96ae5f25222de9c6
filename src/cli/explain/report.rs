//! The report: a section for each topic, aligned, then the head of the answer.

use sanserve::core::{Topic, scrub};

use super::walk::{Line, Story};

/// Values up to this width stand in a column.
const WIDE: usize = 44;

/// Around a heading, around what is less important, and behind both, on a terminal.
const BOLD: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Writes the report. No control character of the request or of a file's name reaches a terminal.
pub(crate) fn write(story: &Story, is_coloured: bool) -> Vec<u8> {
    let paint = |style: &'static str| if is_coloured { style } else { "" };
    let (bold, faint, plain) = (paint(BOLD), paint(FAINT), paint(PLAIN));
    let rows: Vec<Row> = story.lines.iter().map(Row::of).collect();
    let name_width = rows.iter().map(|row| width(row.name)).max().unwrap_or_default();
    let value_width = rows.iter().map(|row| width(&row.value)).filter(|&width| width <= WIDE).max().unwrap_or_default();
    let mut out = String::new();
    for &topic in Topic::ALL {
        let mut rows = rows.iter().filter(|row| row.topic == topic).peekable();
        if rows.peek().is_none() {
            continue;
        }
        out.push_str(&format!("{bold}{}{plain}\n", topic.name()));
        for Row { name, value, why, .. } in rows {
            // What is too long for its column has a line of its own.
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
        out.push_str("(the script would write the answer)\n");
    } else if story.head.is_empty() {
        out.push_str("(no answer)\n");
    } else {
        let head = story.head.strip_suffix(b"\r\n\r\n").unwrap_or(&story.head);
        for line in head.split(|&byte| byte == b'\n') {
            out.push_str(&scrubbed(line.strip_suffix(b"\r").unwrap_or(line)));
            out.push('\n');
        }
    }
    out.into_bytes()
}

/// A line of the report, fit for a terminal.
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

fn scrubbed(text: &[u8]) -> String {
    let mut out = Vec::new();
    scrub(&mut out, text);
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
        let story = Story { lines, head: b"HTTP/1.1 200 OK\r\nX: \x07\r\n\r\n".to_vec(), is_scripts: false };
        let long = "x".repeat(WIDE + 1);
        let expected = format!(
            "request\n  a       \\x1b[1m\\xff  because\n  longer  {long}\n          {:11}  for\n\n\
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
    fn what_has_no_head_says_so() {
        let story = |is_scripts| Story { is_scripts, ..Story::default() };
        assert_eq!(write(&story(true), false), b"(the script would write the answer)\n");
        assert_eq!(write(&story(false), false), b"(no answer)\n");
    }
}
