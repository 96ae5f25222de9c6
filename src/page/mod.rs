//! Renders a transcript as one HTML page that shows it step by step: the sequence diagram, the states, the bytes, and
//! what each runtime does. The page is self-contained: it fetches nothing.
//!
//! The page is a fixed style and a fixed script (`page.css`, `page.js`), and the data of the transcript as JSON. A
//! Content Security Policy allows only these two, by their digests, so that nothing in a transcript can run. The
//! script does the layout; all texts about a step are written here ([`describe`], [`operations`]).

mod describe;
pub(crate) mod digest;
mod json;
mod operations;

use sanserve_core::{COUPLING, INBOUND, OUTBOUND, State, Transition};
use sanserve_transcript::{Event, Seen, Trace, Transcript, What};

use describe::Lifeline;
use json::{Json, array, object, string};
use operations::{Behavior, Driver, OPERATIONS};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The most lines of an event, and characters of a line, that are shown. The page says what is omitted.
const MAX_LINES: usize = 64;
const MAX_LINE_CHARS: usize = 300;

/// Renders the page. `name` is the name of the transcript.
pub(crate) fn render(name: &str, transcript: &Transcript, trace: &Trace) -> String {
    let mut data = String::new();
    object(&mut data, |json| write_data(name, transcript, trace, json));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        digest::source(STYLE),
        digest::source(SCRIPT)
    );
    let title = markup(name);
    fill(TEMPLATE, &[("policy", &policy), ("title", &title), ("style", STYLE), ("data", &data), ("script", SCRIPT)])
}

/// Replaces each `{{name}}` in a template by its value. Values are not searched for placeholders.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for piece in template.split("{{") {
        match piece.split_once("}}") {
            Some((name, rest)) => {
                let value = values.iter().find(|value| value.0 == name);
                out.push_str(value.expect("each placeholder has a value").1);
                out.push_str(rest);
            }
            None => out.push_str(piece),
        }
    }
    out
}

/// Escapes text for markup.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn write_data(name: &str, transcript: &Transcript, trace: &Trace, json: &mut Json<'_>) {
    json.text("name", name);
    let about: Vec<String> = transcript.about.iter().take(MAX_LINES).map(|line| clipped(line.trim())).collect();
    json.texts("about", about.iter().map(String::as_str));
    json.texts("settings", settings(transcript).iter().map(String::as_str));
    array(json.field("lifelines"), |json| {
        for (_, name, about) in Lifeline::ALL {
            object(json.item(), |json| {
                json.text("name", name);
                json.text("about", about);
            });
        }
    });
    object(json.field("machine"), |json| {
        table("inbound", INBOUND, json);
        table("outbound", OUTBOUND, json);
        table("coupling", COUPLING, json);
    });
    array(json.field("operations"), |json| {
        for operation in OPERATIONS {
            object(json.item(), |json| {
                json.text("key", operation.key);
                json.text("what", operation.what);
                for (runtime, behavior) in [("std", &operation.std), ("mio", &operation.mio), ("smol", &operation.smol)]
                {
                    write_behavior(runtime, behavior, json);
                }
            });
        }
    });
    if let Some(difference) = &trace.difference {
        object(json.field("difference"), |json| {
            json.plain("line", difference.line);
            json.text("expected", &clipped(&difference.expected));
            json.text("actual", &clipped(&difference.actual));
            json.plain("from", trace.seen.len());
            if let Some(instead) = &trace.instead {
                let (text, left_out) = elided(&instead.event.to_string());
                json.text("instead", &text);
                if let Some(left_out) = left_out {
                    json.text("insteadLeft", &left_out);
                }
            }
        });
    }
    let mut writer = StepWriter::default();
    array(json.field("steps"), |json| {
        for (at, event) in transcript.events().enumerate() {
            object(json.item(), |json| writer.step(event, trace.seen.get(at), json));
        }
    });
}

/// The settings that are not the default, as lines of a transcript.
fn settings(transcript: &Transcript) -> Vec<String> {
    let bare = Transcript { settings: transcript.settings.clone(), ..Transcript::default() };
    bare.to_text().lines().skip(1).map(clipped).collect()
}

fn table(name: &str, rows: &[Transition], json: &mut Json<'_>) {
    array(json.field(name), |json| {
        for row in rows {
            array(json.item(), |json| [row.0, row.1, row.2].iter().for_each(|text| string(text, json.item())));
        }
    });
}

fn write_behavior(runtime: &str, behavior: &Behavior, json: &mut Json<'_>) {
    object(json.field(runtime), |json| {
        json.texts("calls", behavior.calls.iter().copied());
        json.text("note", behavior.note);
    });
}

/// Writes the steps, and keeps the state that one step needs from those before it.
#[derive(Default)]
struct StepWriter {
    driver: Driver,
    /// Whether the core has asked to read.
    reads: bool,
    /// Whether the request body goes to a temporary file.
    spools: bool,
}

impl StepWriter {
    fn step(&mut self, event: &Event, seen: Option<&Seen>, json: &mut Json<'_>) {
        let state = seen.map(|seen| &seen.state);
        json.plain("at", event.at);
        json.plain("input", event.what.is_input());
        array(json.field("arrows"), |json| {
            for arrow in describe::arrows(event, self.spools) {
                array(json.item(), |json| {
                    json.item().push_str(&(arrow.from as u8).to_string());
                    json.item().push_str(&(arrow.to as u8).to_string());
                    string(&arrow.label, json.item());
                });
            }
        });
        json.text("say", &describe::sentence(event, state, self.reads, self.spools));
        let (text, left_out) = elided(&event.to_string());
        json.text("text", &text);
        if let Some(left_out) = left_out {
            json.text("left", &left_out);
        }
        json.texts("operations", self.driver.operations(event));
        if let Some(seen) = seen {
            object(json.field("state"), |json| write_state(&seen.state, json));
            moves("in", INBOUND, &seen.inbound, json);
            moves("out", OUTBOUND, &seen.outbound, json);
        }
        match &event.what {
            What::Wait(wait) => self.reads = wait.need.read,
            What::Spool { .. } => self.spools = true,
            What::Spawn { .. } | What::Finished(_) => self.spools = false,
            _ => {}
        }
    }
}

fn write_state(state: &State, json: &mut Json<'_>) {
    json.text("in", state.inbound);
    json.text("out", state.outbound);
    json.text("task", state.task);
    json.text("stage", state.stage);
    json.text("life", state.life);
    json.plain("unread", state.unread);
    json.plain("unsent", state.unsent);
    json.plain("unheard", state.unheard);
    if let Some(status) = state.status {
        json.plain("status", status);
    }
    if let Some(keep_alive) = state.keep_alive {
        json.plain("keepAlive", keep_alive);
    }
    let notes =
        [(state.blocked, "socket full"), (state.eof, "peer half-closed"), (state.draining, "server shutting down")];
    json.texts("notes", notes.iter().filter(|note| note.0).map(|note| note.1));
    array(json.field("timers"), |json| {
        for timer in &state.timers {
            object(json.item(), |json| {
                json.text("rule", timer.rule);
                json.text("why", describe::rule(timer.rule));
                json.plain("since", timer.since.0);
                json.plain("until", timer.deadline.0);
            });
        }
    });
}

/// The numbers of the rows of a table that were taken.
fn moves(name: &str, table: &[Transition], taken: &[Transition], json: &mut Json<'_>) {
    let rows = taken.iter().filter_map(|taken| table.iter().position(|row| row == taken));
    array(json.field(name), |json| rows.for_each(|row| json.item().push_str(&row.to_string())));
}

/// The part of a text that is shown, and a note about what is omitted.
fn elided(text: &str) -> (String, Option<String>) {
    let lines: Vec<String> = text.lines().take(MAX_LINES).map(clipped).collect();
    let shown = lines.join("\n");
    let (all, beyond) = (text.lines().count(), text.len().saturating_sub(shown.len()));
    let left_out = match all.saturating_sub(MAX_LINES) {
        0 if beyond == 0 => None,
        0 => Some(format!("Long lines are truncated: {beyond} characters are omitted. The transcript has them.")),
        lines => {
            Some(format!("{lines} more lines, {beyond} characters in total, are omitted. The transcript has them."))
        }
    };
    (shown, left_out)
}

/// Truncates a line that is too long.
fn clipped(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use sanserve_core::{Call, DefaultPolicy, Reply};
    use sanserve_transcript::trace;

    use super::*;

    fn page(text: &str) -> String {
        let transcript = Transcript::parse(text).unwrap();
        let trace = trace(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()));
        render("a <b> & \"c\"", &transcript, &trace)
    }

    #[test]
    fn the_page_is_complete_and_self_contained() {
        let page = page(include_str!("../../core/tests/transcripts/pipelining.txt"));
        assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
        assert!(!page.contains("{{"), "a placeholder is left");
        assert!(page.contains("<title>a &lt;b&gt; &amp; &quot;c&quot; - sanserve trace</title>"));
        assert!(page.contains("default-src 'none'"));
        // The namespace of SVG is only a name and is not fetched.
        let rest = page.replace("http://www.w3.org/2000/svg", "");
        for word in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!rest.contains(word), "{word}");
        }
    }

    #[test]
    fn nothing_in_a_transcript_is_markup() {
        let hostile = "sanserve transcript 1\n# </script><img onerror=alert(1)>\nsite <b>\u{2028}\n@0 wait read until 15000 idle\n@0 recv \"GET /</script><script>alert(1)</script><!-- HTTP/1.1\\r\\n\"\n";
        let page = page(hostile);
        assert_eq!(page.matches("</script").count(), 2, "one for the data and one for the script");
        assert_eq!(page.matches("<script").count(), 2);
        assert!(!page.contains("<img") && !page.contains("<!--") && !page.contains('\u{2028}'));
    }

    #[test]
    fn style_and_script_match_their_digests() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
        // The digest is of exactly this text.
        let page = page("sanserve transcript 1\n");
        assert!(page.contains(&format!("<style>{STYLE}</style>")));
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
    }

    #[test]
    fn long_texts_are_omitted_with_a_note() {
        assert_eq!(elided("a\nb"), ("a\nb".into(), None));
        let (shown, left_out) = elided(&"line\n".repeat(MAX_LINES + 3));
        assert_eq!(shown.lines().count(), MAX_LINES);
        assert!(left_out.unwrap().starts_with("3 more lines"));
        let (shown, left_out) = elided(&"é".repeat(MAX_LINE_CHARS + 1));
        assert_eq!(shown.chars().count(), MAX_LINE_CHARS + 1);
        assert!(left_out.is_none() || left_out.unwrap().starts_with("Long lines"));
    }
}
