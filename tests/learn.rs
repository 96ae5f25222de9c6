//! The course in `docs/learn/`: every command is run as printed, and must print what the chapter shows; every
//! exercise must fail as given, and pass with its solution.
//!
//! `UPDATE_LEARN=1 cargo test --test learn` updates the output of commands where it differs; review it then.
//! `LEARN=mine cargo test --test learn exercise_1` is for readers: it checks their solution.

#[path = "learn/alike.rs"]
mod alike;
#[path = "learn/chapter.rs"]
mod chapter;
#[path = "learn/exercises.rs"]
mod exercises;
#[path = "learn/session.rs"]
mod session;

use std::path::Path;
use std::process::Command;

use alike::alike;
use chapter::Chapter;
use session::{Reader, Session};

macro_rules! chapters {
    ($($name:ident $file:literal)*) => {
        const CHAPTERS: &[&str] = &[$($file),*];

        $(#[test]
        fn $name() {
            follow($file, Reader::Quick);
        })*

        /// A reader who reads before typing.
        mod slowly {
            use super::{Reader, follow};

            $(#[test]
            fn $name() {
                if !super::session::updates() {
                    follow($file, Reader::Slow);
                }
            })*
        }
    };
}

chapters! {
    the_start "README.md"
    chapter_1 "1-blocking.md"
    chapter_2 "2-readiness.md"
    chapter_3 "3-state-machine.md"
    chapter_4 "4-back-pressure.md"
    chapter_5 "5-time.md"
    chapter_6 "6-your-own-runtime.md"
}

/// Follows a chapter. A slow reader pauses after each command for longer than the default timeouts of a server: the
/// defaults are scaled down for that, but not the values that a command gives itself.
fn follow(name: &str, reader: Reader) {
    let chapter = Chapter::read(&learn().join(name));
    assert!(!chapter.commands.is_empty(), "{name}: nothing to do");
    if !testkit::traced::runs(Command::new("curl").arg("--version")) {
        assert!(std::env::var_os("CI").is_none(), "CI needs curl");
        return eprintln!("{name}: not followed: curl is not installed");
    }
    let mut session = Session::start(reader);
    if name != "README.md" {
        // The first command of README.md.
        session.run("export REPO=\"$PWD\"", |_| true);
    }
    let (mut updates, mut differences) = (Vec::new(), String::new());
    for (number, command) in chapter.commands.iter().enumerate() {
        if let Some(program) = command.needs.as_deref()
            && let Some(reason) = missing(program)
        {
            eprintln!("{name}:{}: not run: {reason}", command.line);
            continue;
        }
        let expected = chapter.output(command);
        // A command without output cannot be waited for.
        let shows = !expected.is_empty() || !session::only_looks(&command.text) || command.text.contains(" -o ");
        assert!(shows, "{name}:{}: a query without output", command.line);
        let fits = |output: &str| alike(expected, output, command.exact);
        let output = session.run(&command.text, fits);
        if !fits(&output) {
            let (line, text) = (command.line, &command.text);
            differences += &format!("{name}:{line}: $ {text}\n{}\n--- actual:\n{output}\n", expected.join("\n"));
            updates.push((number, output));
        }
    }
    if session::updates() {
        chapter.update(&updates);
    }
    assert!(differences.is_empty(), "{differences}");
}

/// Replaces `cargo run --example` in the course: the script of the [`Session`] runs this program again.
#[test]
fn stands_in_for_an_example() {
    let Ok(name) = std::env::var("LEARN_RUN") else { return };
    let arguments: Vec<String> =
        std::env::var("LEARN_ARGUMENTS").unwrap_or_default().split_ascii_whitespace().map(String::from).collect();
    match &*name {
        "learn_runtime" => exercises::runtime::serve(&arguments),
        "learn_runtime_solved" => exercises::runtime_solved::serve(&arguments),
        _ => panic!("{name}: no such example"),
    }
    .expect("the example serves");
}

/// Why a program cannot be used on this machine.
fn missing(program: &str) -> Option<String> {
    match program {
        "strace" if cfg!(target_arch = "x86_64") => testkit::traced::cannot_trace(),
        "strace" => Some("some calls have other names here".into()),
        "linux" => (!cfg!(target_os = "linux")).then(|| "it needs Linux".into()),
        _ => panic!("{program}: it is not known how to look for it"),
    }
}

/// Links within the repository lead to existing files.
#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for name in CHAPTERS {
        let text = std::fs::read_to_string(learn().join(name)).expect("a chapter");
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap_or_default()) {
            assert!(link.contains("://") || learn().join(link).exists(), "{name}: {link} is nowhere");
            links += 1;
        }
    }
    assert!(links > 50, "{links} links were found");
}

fn learn() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/learn")
}
