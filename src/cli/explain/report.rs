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
    match story.head.is_empty() {
        true => out.push_str("(the script would write the answer)\n"),
        false => {
            let head = story.head.strip_suffix(b"\r\n\r\n").unwrap_or(&story.head);
            for line in head.split(|&byte| byte == b'\n') {
                out.push_str(&scrubbed(line.strip_suffix(b"\r").unwrap_or(line)));
                out.push('\n');
            }
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
