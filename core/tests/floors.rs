//! Checks the layers of the core: each module only uses modules on lower floors, so that no two modules depend on each
//! other. A file and the directory of the same name count as one module. Tests are exempt.
//!
//! The list below is the map. A new module goes to the lowest floor above everything that it uses.

#![allow(clippy::disallowed_methods, reason = "reads the sources")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the bottom to the top, each with its subject.
const FLOORS: &[(&str, &[&str])] = &[
    ("basic terms", &["credentials", "grammar", "input", "peer", "share", "status", "text", "time"]),
    ("small formats", &["date", "entry", "error", "fields", "listing", "media_types", "page"]),
    ("rules: decisions and their reasons, configuration, the parts of a head", &["config", "reason", "response_head"]),
    ("the codec, and readers of single fields", &["media_type", "range", "timer", "wire"]),
    ("the request", &["conditional", "request"]),
    ("the memory of an exchange, and paths", &["buffers", "path"]),
    ("the steps for a driver", &["script_path", "step"]),
    ("what an embedder decides and observes", &["observer", "policy"]),
    ("the arguments of every call", &["context"]),
    ("an exchange, and the response under construction", &["exchange"]),
    ("tasks: what produces a response", &["cgi", "files", "handler_task", "head_writer"]),
    ("the choice of the task", &["task"]),
    ("the state machine that a driver uses", &["connection"]),
    ("conveniences for embedders", &["handler", "interop"]),
];

#[test]
fn each_module_only_uses_lower_floors() {
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, (_, modules))| modules.iter().map(move |module| (*module, floor)))
        .collect();
    let mut wrong = Vec::new();
    for (module, used, file) in imports() {
        let (Some(&here), Some(&there)) = (floor_of.get(module.as_str()), floor_of.get(used.as_str())) else {
            wrong.push(format!("{file}: {module} or {used} is on no floor"));
            continue;
        };
        if there >= here {
            wrong.push(format!("{file}: {module} ({}) uses {used} ({})", FLOORS[here].0, FLOORS[there].0));
        }
    }
    assert!(wrong.is_empty(), "a module uses another one on the same or a higher floor:\n{}", wrong.join("\n"));
}

#[test]
fn each_module_is_on_one_floor() {
    let mut listed: Vec<&str> = FLOORS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    listed.sort_unstable();
    let mut there: Vec<String> = files().iter().map(|(module, _)| module.clone()).collect();
    there.sort_unstable();
    there.dedup();
    assert_eq!(listed, there);
}

#[test]
fn all_forms_of_imports_are_recognized() {
    let source = "use crate::{a::B, c};\n//! crate::no\n    use crate::d::{E, F};\nlet x = crate::g::h(); // crate::no\n\
                  pub(crate) fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::no;\n}\n";
    assert_eq!(used_by(source), ["a", "c", "d", "g"]);
}

/// All imports: a module, the module that it uses, and the file.
fn imports() -> Vec<(String, String, String)> {
    let mut imports = Vec::new();
    for (module, file) in files() {
        let source = fs::read_to_string(&file).expect("a source file can be read");
        let name = file.strip_prefix(root()).expect("below the root").display().to_string();
        let others = used_by(&source).into_iter().filter(|used| *used != module);
        for used in others {
            imports.push((module.clone(), used, name.clone()));
        }
    }
    assert!(imports.len() > 100, "too few imports were found: {}", imports.len());
    imports
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, each with its module.
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

/// The modules that a source file names after `crate::`, outside of comments and tests.
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
            // In `use crate::{a::B, c}`, the first word of each item at the outermost level.
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
