//! The modules of the core stand on floors: each one uses only what stands on a lower floor, so no two of them need
//! each other. A file with the directory of its name counts as one module, and tests may use what they like.
//!
//! The list below is the map. A module that is new goes to the lowest floor above all that it uses.

#![allow(clippy::disallowed_methods, reason = "reads the sources")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up, each with what it is about.
const FLOORS: &[(&str, &[&str])] = &[
    ("terms that need no others", &["credentials", "grammar", "input", "peer", "share", "status", "text", "time"]),
    ("small formats", &["date", "entry", "error", "fields", "listing", "media_types", "page"]),
    (
        "rules: what was decided and why, what a server obeys, what a head may hold",
        &["config", "reason", "response_head"],
    ),
    ("the codec, and readers of single fields", &["media_type", "range", "timer", "wire"]),
    ("the request", &["conditional", "request"]),
    ("the memory of an exchange, and paths", &["buffers", "path"]),
    ("what a driver is told", &["script_path", "step"]),
    ("what an embedder decides, and what it sees", &["observer", "policy"]),
    ("what every call is given", &["context"]),
    ("an exchange, and the tool that a task goes on with", &["exchange"]),
    ("tasks: what answers a request", &["cgi", "files", "handler_task", "head_writer"]),
    ("which task answers", &["task"]),
    ("the machine that a driver touches", &["connection"]),
    ("for embedders, on top of it", &["handler", "interop"]),
];

#[test]
fn no_module_uses_what_stands_on_its_own_floor_or_above() {
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, (_, modules))| modules.iter().map(move |module| (*module, floor)))
        .collect();
    let mut wrong = Vec::new();
    for (module, used, file) in arrows() {
        let (Some(&here), Some(&there)) = (floor_of.get(module.as_str()), floor_of.get(used.as_str())) else {
            wrong.push(format!("{file}: {module} or {used} stands on no floor"));
            continue;
        };
        if there >= here {
            wrong.push(format!("{file}: {module} ({}) uses {used} ({})", FLOORS[here].0, FLOORS[there].0));
        }
    }
    assert!(wrong.is_empty(), "a module uses what stands above it or beside it:\n{}", wrong.join("\n"));
}

#[test]
fn each_module_stands_on_one_floor() {
    let mut listed: Vec<&str> = FLOORS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    listed.sort_unstable();
    let mut there: Vec<String> = files().iter().map(|(module, _)| module.clone()).collect();
    there.sort_unstable();
    there.dedup();
    assert_eq!(listed, there);
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let source = "use crate::{a::B, c};\n//! crate::no\n    use crate::d::{E, F};\nlet x = crate::g::h(); // crate::no\n\
                  pub(crate) fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::no;\n}\n";
    assert_eq!(used_by(source), ["a", "c", "d", "g"]);
}

/// Module, the module that it uses, and the file that says so.
fn arrows() -> Vec<(String, String, String)> {
    let mut arrows = Vec::new();
    for (module, file) in files() {
        let source = fs::read_to_string(&file).expect("a source file can be read");
        let name = file.strip_prefix(root()).expect("below the root").display().to_string();
        let others = used_by(&source).into_iter().filter(|used| *used != module);
        for used in others {
            arrows.push((module.clone(), used, name.clone()));
        }
    }
    assert!(arrows.len() > 100, "too few imports were found: {}", arrows.len());
    arrows
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, each with the module that it belongs to.
fn files() -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root()).expect("below the root");
                let first = below.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
                let module = first.trim_end_matches(".rs").to_owned();
                if module != "lib" {
                    files.push((module, path));
                }
            }
        }
    }
    files
}

/// The modules that a source names behind `crate::`, comments and tests left out.
fn used_by(source: &str) -> Vec<String> {
    let code: String = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            // `use crate::{a::B, c}`: the first word of each item that is not inside further braces.
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (n, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if c.is_whitespace() => {}
                        _ if start && depth == 0 => {
                            used.push(word(&list[n..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => used.push(word(rest)),
        }
    }
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
