//! `sanserve replay`: recorded connections through the core again, without socket or disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sanserve::core::transcript::{Difference, Replayed, Settings, Transcript};
use sanserve::os::panic_message;

use super::files::{read, unreadable, within};
use super::{SYSTEM, Side, USAGE};

pub(crate) const SIDE: Side = Side { command, run };

fn command() -> Command {
    Command::new("replay")
        .about(
            "Plays recorded connections to the core, without socket or disk, and says whether it still does the same",
        )
        .after_help("Exit codes: 0 all are the same, 1 one differs, 2 one cannot be read or played.")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("Transcripts, or directories of them"),
        )
        .arg(
            Arg::new("emit-test")
                .long("emit-test")
                .action(ArgAction::SetTrue)
                .help("Print a Rust test for each, which needs nothing but the crate sanserve-core"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let emits = matches.get_flag("emit-test");
    let mut worst = 0;
    let mut say = |outcome: Result<(), Trouble>| {
        if let Err(trouble) = outcome {
            worst = worst.max(trouble.code);
            if trouble.code == USAGE || emits {
                super::print_error(trouble.text);
            } else {
                println!("{}", super::visible(&trouble.text));
            }
        }
    };
    for given in matches.get_many::<PathBuf>("file").into_iter().flatten() {
        match files(given) {
            Ok(paths) => paths.iter().for_each(|path| say(play(path, emits))),
            Err(error) => say(Err(Trouble { code: USAGE, text: unreadable(given, &error) })),
        }
    }
    ExitCode::from(worst)
}

/// Why a file is not the same.
struct Trouble {
    code: u8,
    text: String,
}

/// The file, or those in the directory.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let paths = within(path)?;
    if paths.is_empty() {
        return Err(io::Error::other("no transcripts in it"));
    }
    Ok(paths)
}

fn play(path: &Path, emits: bool) -> Result<(), Trouble> {
    let shown = super::visible(&path.display().to_string());
    let recorded = read(path).map_err(|text| Trouble { code: USAGE, text })?;
    let site = &recorded.settings.site;
    let Some(world) = super::world(site).filter(|_| !emits || *site == Settings::default().site) else {
        let text = format!(
            "{shown}: made with the site {site:?}, which is not here: play it with `Transcript::replay` in a test"
        );
        return Err(Trouble { code: USAGE, text });
    };
    let play = AssertUnwindSafe(|| {
        let (site, mut handler) = world;
        recorded.replay(&*site, &mut *handler)
    });
    let replayed = quietly(|| catch_unwind(play)).map_err(|panic| {
        let text = format!("{shown}: the core panics: {}", panic_message(&*panic));
        Trouble { code: SYSTEM, text }
    })?;
    let Replayed { steps, complete } = replayed.map_err(|difference| differs(path, &difference))?;
    if emits {
        print!("{}", super::visible(&test(path, &recorded)));
    } else {
        println!("{shown}: same, {steps} steps{}", if complete { "" } else { ", as far as it was recorded" });
    }
    Ok(())
}

/// Does it without a word about panics, which whoever catches them has.
pub(super) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = act();
    set_hook(hook);
    outcome
}

fn differs(path: &Path, difference: &Difference) -> Trouble {
    let Difference { line, event_line, event, expected, actual } = difference;
    let mut text = format!("{}: differs in line {line}", path.display());
    if event_line < line {
        text.push_str(&format!("\n  line {event_line}: {event}"));
    }
    text.push_str(&format!("\n  recorded: {expected}\n  now:      {actual}"));
    Trouble { code: SYSTEM, text }
}

/// A test that plays it.
fn test(path: &Path, recorded: &Transcript) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let text = recorded.to_text();
    // A raw string ends with a quote and as many marks as it begins with.
    let longest = text.split('"').skip(1).map(|rest| rest.bytes().take_while(|&byte| byte == b'#').count()).max();
    let marks = "#".repeat(longest.unwrap_or(0) + 1);
    format!(
        "// In Cargo.toml: [dev-dependencies] sanserve-core = \"{version}\"\n\
         #[test]\n\
         fn recorded_{name}() {{\n    \
             use sanserve_core::transcript::Transcript;\n    \
             use sanserve_core::{{Call, Plain, Reply}};\n\
         \n    \
             const RECORDED: &str = r{marks}\"{text}\"{marks};\n\
         \n    \
             let recorded = Transcript::parse(RECORDED).expect(\"a transcript\");\n    \
             let replayed = recorded.replay(&Plain, &mut |_: Call, _: &mut Reply<'_>| {{}});\n    \
             replayed.unwrap_or_else(|difference| panic!(\"{{difference}}\"));\n\
         }}\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}
