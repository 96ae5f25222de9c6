//! Traces: the events of each connection, printed one per line as they happen.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sanserve_core::Peer;
use sanserve_transcript::{Event, Recorder, What};

use crate::log::Log;

/// The width of lines if the width of the terminal is not known.
const WIDTH: usize = 160;
/// The minimum width of lines.
const LEAST: usize = 60;

/// Prints the events of connections. Clones share the output.
#[derive(Clone)]
pub struct Trace {
    log: Log,
    next: Arc<AtomicU64>,
    width: usize,
    colors: bool,
}

/// The colour of a line by its kind, as a code of ECMA-48 (SGR).
#[derive(Clone, Copy)]
enum Color {
    Input = 32,
    Step = 36,
    Finished = 1,
    Wait = 90,
}

impl Trace {
    /// Prints to stderr, in the width of the terminal or in 160 columns. Colours are used on a terminal, unless the
    /// environment variable `NO_COLOR` is set.
    #[must_use]
    pub fn stderr() -> Trace {
        let stderr = std::io::stderr();
        let columns = rustix::termios::tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let width = if stderr.is_terminal() && columns > 0 { columns.max(LEAST) } else { WIDTH };
        let colors = wants_colors(&stderr);
        Trace { log: Log::stderr(), next: Arc::new(AtomicU64::new(1)), width, colors }
    }

    /// Prints to `log`, in 160 columns and without colours.
    #[must_use]
    pub fn to(log: Log) -> Trace {
        Trace { log, next: Arc::new(AtomicU64::new(1)), width: WIDTH, colors: false }
    }

    /// Returns the recorder that prints the events of another connection.
    pub(crate) fn begin(&self, peer: Peer) -> Box<dyn Recorder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let lines = Lines { trace: self.clone(), number };
        lines.print(0, "accept", &format!("{peer:?}"), Color::Input);
        Box::new(lines)
    }
}

/// Whether output to `out` should have colours: on a terminal, unless the environment variable `NO_COLOR` is set.
#[must_use]
pub fn wants_colors(out: &impl IsTerminal) -> bool {
    out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints the events of one connection.
struct Lines {
    trace: Trace,
    number: u64,
}

impl Recorder for Lines {
    fn event(&mut self, event: Event) {
        if event.joined && event.what == What::Tick {
            // Time has advanced in the middle of a turn. Each line has its time anyway.
            return;
        }
        let color = match &event.what {
            what if what.is_input() => Color::Input,
            What::Wait(_) => Color::Wait,
            What::Finished(_) => Color::Finished,
            _ => Color::Step,
        };
        let text = event.to_string();
        let mut lines = text.lines().map(str::trim_start);
        let first = lines.next().unwrap_or_default();
        // `@5 + eof`: the time has a column of its own, and there may be nothing but a verb.
        let first = first.split_once(' ').map_or("", |(_, rest)| rest.trim_start_matches("+ "));
        let (verb, rest) = first.split_once(' ').unwrap_or((first, ""));
        let mut rest = rest.to_owned();
        for line in lines {
            if !rest.is_empty() {
                rest.push(' ');
            }
            rest.push_str(line);
        }
        self.print(event.at, verb, &rest, color);
    }
}

impl Lines {
    fn print(&self, at: u64, verb: &str, rest: &str, color: Color) {
        let Trace { log, width, colors, .. } = &self.trace;
        let mut line = format!("#{:<5}{:>6}.{:03}  {verb:<10} ", self.number, at / 1000, at % 1000);
        push_cut(rest, width.saturating_sub(line.len()), &mut line);
        let line = line.trim_end();
        if *colors {
            log.line(&format!("\x1b[{}m{line}\x1b[0m", color as u8));
        } else {
            log.line(line);
        }
    }
}

/// Appends `text`, cut to `width`. The middle is left out, because results are at the end.
fn push_cut(text: &str, width: usize, line: &mut String) {
    const GAP: &str = " .. ";
    // The text is ASCII, since everything else was escaped.
    if text.len() <= width || !text.is_ascii() {
        line.push_str(text);
        return;
    }
    let end = text.rfind(" -> ").map_or(0, |at| (text.len() - at).min(width / 2)).max(width / 4);
    let start = width.saturating_sub(end + GAP.len());
    line.push_str(&text[..start]);
    line.push_str(GAP);
    line.push_str(text[text.len() - end..].trim_start());
}

#[cfg(test)]
mod tests {
    use sanserve_transcript::Transcript;

    use super::*;
    use crate::script::tests::Lines as Sink;

    #[test]
    fn each_event_is_a_line() {
        let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@5 recv\n    \"GET / HTTP/1.1\\r\\n\"\n    \
                    \"\\r\\n\"\n@1205 + eof\n@1206 + tick\n@1206 open \"\" -> directory\n@1206 close done\n";
        let sink = Sink::default();
        let trace = Trace::to(Log::to(sink.clone()));
        let mut lines = trace.begin(Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000))));
        Transcript::parse(text).unwrap().events().for_each(|event| lines.event(event.clone()));
        assert_eq!(
            sink.text(),
            "#1         0.000  accept     127.0.0.1:4000\n\
             #1         0.000  wait       read until 15000 idle\n\
             #1         0.005  recv       \"GET / HTTP/1.1\\r\\n\" \"\\r\\n\"\n\
             #1         1.205  eof\n\
             #1         1.206  open       \"\" -> directory\n\
             #1         1.206  close      done\n"
        );
    }

    #[test]
    fn a_long_line_keeps_its_end() {
        let mut line = String::new();
        push_cut(&format!("\"{}\" -> 5 blocked", "x".repeat(500)), 60, &mut line);
        assert_eq!(line.len(), 60);
        assert!(line.starts_with("\"xxx") && line.contains(" .. ") && line.ends_with("-> 5 blocked"), "{line}");
    }
}
