//! A chapter of the course as text: its commands, and what they print.
//!
//! A block that begins with `console` is a session: `$ ` begins a command, `> ` continues it, and the rest is its
//! output. The output of `console exact` must match to the byte. `console strace` needs strace, and likewise for the
//! name of any program.

use std::fs;
use std::path::{Path, PathBuf};

/// One chapter.
pub(crate) struct Chapter {
    pub(crate) path: PathBuf,
    lines: Vec<String>,
    pub(crate) commands: Vec<Command>,
}

/// A command and what it prints.
pub(crate) struct Command {
    /// The line in which it begins, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The lines of its output: first and end (exclusive), from 0.
    output: (usize, usize),
    pub(crate) exact: bool,
    /// The program that it needs.
    pub(crate) needs: Option<String>,
}

impl Chapter {
    pub(crate) fn read(path: &Path) -> Chapter {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let mut commands: Vec<Command> = Vec::new();
        let mut info: Option<Vec<String>> = None;
        for (at, line) in lines.iter().enumerate() {
            if let Some(words) = line.strip_prefix("```") {
                let words: Vec<String> = words.split(' ').map(String::from).collect();
                assert!(!matches!(&*words[0], "sh" | "bash" | "shell"), "line {}: this block is not run", at + 1);
                info = if info.is_none() { Some(words) } else { None };
                continue;
            }
            let Some(words) = info.as_ref().filter(|words| words[0] == "console") else { continue };
            if let Some(text) = line.strip_prefix("$ ") {
                let needs = words[1..].iter().find(|word| *word != "exact").cloned();
                let exact = words.contains(&"exact".into());
                commands.push(Command { line: at + 1, text: text.into(), output: (at + 1, at + 1), exact, needs });
                continue;
            }
            let command = commands.last_mut().filter(|command| command.output.1 == at);
            let command = command.unwrap_or_else(|| panic!("line {}: output of no command", at + 1));
            if let Some(more) = line.strip_prefix("> ").or((line == ">").then_some("")) {
                command.text = format!("{}\n{more}", command.text);
                command.output = (at + 1, at + 1);
            } else {
                command.output.1 = at + 1;
            }
        }
        assert!(info.is_none(), "{}: a block has no end", path.display());
        Chapter { path: path.into(), lines, commands }
    }

    /// The output of a command in the chapter.
    pub(crate) fn output(&self, command: &Command) -> &[String] {
        &self.lines[command.output.0..command.output.1]
    }

    /// Rewrites the chapter with this output, for commands by number.
    pub(crate) fn update(&self, outputs: &[(usize, String)]) {
        let mut lines = self.lines.clone();
        for (number, output) in outputs.iter().rev() {
            let (from, to) = self.commands[*number].output;
            lines.splice(from..to, output.lines().map(String::from));
        }
        fs::write(&self.path, lines.join("\n") + "\n").expect("the chapter can be written");
    }
}
