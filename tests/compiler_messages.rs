//! What the compiler says about the commonest mistakes is what `docs/handlers.md` says, and what the page shows as right
//! compiles. Each program stands on the page without its surroundings, which are added here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../docs/handlers.md");

/// What the page says of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Compiles,
    Warns,
    Fails,
}

struct Program {
    runtime: &'static str,
    expected: Expected,
    code: &'static str,
    /// The lines of the message that the page shows.
    message: &'static str,
}

/// The programs of the section, in the order of the page. A message follows its program.
fn programs() -> Vec<Program> {
    let section = PAGE.split("\n## What the compiler says\n").nth(1).expect("the page has the section");
    let section = section.split("\n## ").next().expect("a section");
    let mut programs: Vec<Program> = Vec::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        let (language, code) = block.split_once('\n').expect("a block has lines");
        let (expected, runtime) = match language.split(',').collect::<Vec<_>>()[..] {
            ["text"] => {
                let program = programs.last_mut().expect("a message follows a program");
                program.message = code;
                continue;
            }
            ["rust", runtime] => (Expected::Compiles, runtime),
            ["rust", "compile_fail", runtime] => (Expected::Fails, runtime),
            ["rust", "warns", runtime] => (Expected::Warns, runtime),
            _ => panic!("{language}"),
        };
        programs.push(Program { runtime, expected, code, message: "" });
    }
    programs
}

/// The program with its surroundings.
fn whole(Program { runtime, code, .. }: &Program) -> String {
    let (names, setup, bind) = match *runtime {
        "mio" => ("", "let site = Site::without_files();", "let site: Site = result; Server::bind(ADDRESS, site)?"),
        _ => ("Exchange, ", "let server = Server::bind(ADDRESS, Site::without_files())?;", "result"),
    };
    format!(
        "#![allow(unused_imports)]\nuse sanserve_{runtime}::{{{names}HandlerError, Server, Site, StatusCode}};\nuse std::{{io, sync::{{Arc, atomic::{{AtomicU64, Ordering}}}}}};\n\
         const ADDRESS: &str = \"127.0.0.1:8000\";\nfn main() -> io::Result<()> {{\n{setup}\nlet result = {{\n{code}\n}};\n{{ {bind} }}.run()\n}}\n"
    )
}

/// What the compiler says of each program, by its name.
fn compile(programs: &[Program]) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiler_messages");
    let _before = fs::remove_dir_all(directory.join("src"));
    fs::create_dir_all(directory.join("src/bin")).expect("a directory");
    let mut manifest =
        String::from("[package]\nname = \"messages\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n");
    for runtime in ["mio", "smol", "std"] {
        let path = root.join(format!("frontend-{runtime}"));
        writeln!(manifest, "sanserve-{runtime} = {{ path = {path:?} }}").expect("a string");
    }
    fs::write(directory.join("Cargo.toml"), manifest).expect("a file");
    // The versions that this workspace is built with are available.
    fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).expect("a file");
    for (at, program) in programs.iter().enumerate() {
        fs::write(directory.join(format!("src/bin/program_{at}.rs")), whole(program)).expect("a file");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["check", "--offline", "--keep-going", "--message-format=json"])
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .current_dir(&directory)
        .output()
        .expect("cargo runs");
    let mut said = BTreeMap::<String, String>::new();
    for line in
        String::from_utf8(output.stdout).expect("text").lines().filter(|line| line.contains("\"compiler-message\""))
    {
        let name = string(line, "\"target\":{\"kind\":[\"bin\"]", "\"name\":\"");
        let rendered = string(line, "", "\"rendered\":\"");
        said.entry(name).or_default().push_str(&rendered);
    }
    assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The string after `start` in a line of JSON, behind `before`.
fn string(line: &str, before: &str, start: &str) -> String {
    let rest = line.split_once(before).and_then(|(_, rest)| rest.split_once(start)).map_or("", |(_, rest)| rest);
    let mut text = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    text
}

#[test]
fn the_messages_of_the_compiler_are_those_of_the_page() {
    let programs = programs();
    assert!(programs.len() > 15, "{} programs", programs.len());
    let said = compile(&programs);
    let mut wrong = String::new();
    for (at, program) in programs.iter().enumerate() {
        let said = said.get(&format!("program_{at}")).map_or("", String::as_str);
        let found = if said.lines().any(|line| line.starts_with("error")) {
            Expected::Fails
        } else if said.lines().any(|line| line.starts_with("warning")) {
            Expected::Warns
        } else {
            Expected::Compiles
        };
        assert_eq!(program.expected == Expected::Compiles, program.message.is_empty(), "{}", program.code);
        let missing: Vec<&str> = program
            .message
            .lines()
            .filter(|line| !said.contains(line.trim_start_matches("note: ").trim_start_matches("help: ")))
            .collect();
        if found != program.expected || !missing.is_empty() {
            let (code, expected) = (program.code, program.expected);
            write!(wrong, "---- {code}\n{expected:?} expected, {found:?} found; missing: {missing:#?}\n{said}\n")
                .expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
