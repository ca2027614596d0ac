//! The house rules that neither the compiler nor clippy keeps. A ratchet: `ALLOWED` lists what is over a limit today, with the reason; what
//! is on the list may not grow, what is not may not join without one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test over files that are there")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Code lines (no blanks, comments, tests) of a file.
const FILE_LINES_MAX: usize = 450;
/// Code lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line: two windows side by side.
const LINE_CHARS_MAX: usize = 140;
/// Packages in Cargo.lock, those for tests included: each is somebody's to trust.
const LOCKED_PACKAGES_MAX: usize = 200;

/// (file, function or "", lines today, why).
const ALLOWED: &[(&str, &str, usize, &str)] = &[];

/// Words that belong to one place. (word, where it may stand: path prefixes, why).
const HOMES: &[(&str, &[&str], &str)] = &[
    ("mio::", &["net/src/reactor/"], "sockets are the reactor's"),
    ("rocksdb::", &["store/src/rocks.rs"], "the disk has one file"),
    ("TcpListener", &["net/src/reactor/", "workers/src/outside/fake.rs"], "sockets are the reactor's; a service of tests has one"),
    ("ureq::", &["workers/src/outside", "src/cli.rs"], "one file may block on a socket; `status` is a program of its own"),
    ("unbounded(", &[], "everything is bounded"),
    ("todo!(", &[], "no stubs"),
    ("unimplemented!(", &[], "no stubs"),
    ("#[ignore", &[], "a test that does not run is no test"),
    ("allow(dead_code", &[], "dead code is deleted"),
];

/// Limits that no test names, (`limits.rs`'s crate, name, why). It only ever shrinks: who writes the test strikes the line.
const UNTESTED: &[(&str, &str, &str)] = &[
    ("", "BEHIND_NOTIFY", "no test yet that brings tips while a node is behind"),
    ("", "FILES_BESIDE", "only the size of the file limit that is asked for; the hub's tests run out of descriptors"),
    ("", "LOG_REFILL", "an hour of the real clock"),
    ("", "LOG_FLUSH_MAX", "the wait of a process that ends while its log stands still"),
    ("", "STATUS_TIME_MAX", "seconds of a real socket's wait in a program that ends after it"),
    ("", "WATCH_EVERY", "how often a loop looks; its end does not depend on it"),
    ("", "DEMO_SETTLE_MAX", "the demo runs whole in tests/cli.rs"),
    ("", "DEMO_STOP_MAX", "the demo runs whole in tests/cli.rs"),
    ("", "DEMO_LOOK", "the demo runs whole in tests/cli.rs"),
    ("", "DEMO_THREADS", "the demo runs whole in tests/cli.rs"),
    ("", "DEMO_RATE", "the demo runs whole in tests/cli.rs"),
    ("", "DEMO_TOKEN_S", "how long a token is good that ends with its demo"),
    ("", "MINER_SLICE", "how often the CPU miner listens; the demo runs whole in tests/cli.rs"),
    ("", "MINER_RETRY", "a pause of the real clock"),
    ("workers", "EMISSION_MAX", "the crew's table of names has this length, so that one more does not compile"),
    ("workers", "TURN_MAX", "the watchdog's; it ends the process"),
    ("workers", "TEMPLATE_MIN", "a pause of the real clock; the mailbox is sized by it"),
    ("workers", "REPORT_TRIES", "only a dying thread at a full mailbox reaches it"),
    ("workers", "UNASKED_SLOTS", "a sum of sizes; crew/property.rs shows that the mailbox is never full"),
    ("workers", "RPC_DEADLINE", "a minute of a real socket's wait"),
    ("workers", "RPC_CHECK_DEADLINE", "seconds of a real socket's wait"),
    ("workers", "OUTSIDE_CONNECT", "seconds of a real socket's wait"),
    ("workers", "LONGPOLL_DEADLINE", "a day of a real socket's wait"),
    ("workers", "TEMPLATE_AGE_MAX", "a minute and a half of the real clock"),
    ("workers", "STOP_SUBMIT_MAX", "a wait of the real clock at the process' end"),
    ("workers", "EMBEDDED_REFRESH", "a pause of the real clock"),
    ("store", "WINDOW_BLOCKS", "the rules fix it; rules/second.rs compares the window with a second implementation"),
];

/// What may lie at the top of the repository, dotfiles aside.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "net",
    "store",
    "workers",
    "benches",
    "Dockerfile",
    "docs",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "CHANGELOG.md",
    "build.rs",
    "tests",
    "dist",
    "target",
];

#[test]
fn files_and_functions_stay_small() {
    let mut over = Vec::new();
    for path in sources() {
        let name = relative(&path);
        let code = code_lines(&fs::read_to_string(&path).unwrap());
        check(&mut over, &name, "", code.len(), FILE_LINES_MAX);
        for (function, lines) in functions(&code) {
            check(&mut over, &name, &function, lines, FUNCTION_LINES_MAX);
        }
    }
    assert!(over.is_empty(), "too long:\n{}", over.join("\n"));
}

#[test]
fn the_allow_list_holds_only_what_is_there() {
    for (file, function, lines, why) in ALLOWED {
        assert!(!why.is_empty(), "{file} {function}: give a reason");
        let code = code_lines(&fs::read_to_string(root().join(file)).expect(file));
        let found = if function.is_empty() {
            code.len()
        } else {
            functions(&code).into_iter().find(|(name, _)| name == function).expect(function).1
        };
        assert!(found == *lines, "{file} {function}: {found} lines, the list says {lines}; the list only ever shrinks");
    }
}

#[test]
fn every_limit_is_named_in_a_test() {
    let tests = test_code();
    let mut limits = 0;
    for of in ["", "net", "store", "workers"] {
        let file = root().join(of).join("src/limits.rs");
        for line in fs::read_to_string(&file).unwrap().lines() {
            let Some(name) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": ")).map(|(name, _)| name) else { continue };
            // A function is none.
            if name.contains(' ') {
                continue;
            }
            limits += 1;
            let excuse = UNTESTED.iter().find(|(crate_name, excused, _)| *crate_name == of && *excused == name);
            match excuse {
                Some((.., why)) => {
                    assert!(!why.is_empty(), "{name}: give a reason");
                    assert!(!tests.contains(name), "a test names {name} by now: strike it from the list");
                }
                None => assert!(tests.contains(name), "{}: no test reaches {name}", relative(&file)),
            }
        }
    }
    assert!(limits > 150 && UNTESTED.len() * 4 < limits, "{limits} limits, {} without a test", UNTESTED.len());
}

#[test]
fn lines_fit_the_window() {
    for path in sources().into_iter().chain(documents()) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let table = line.starts_with('|');
            assert!(
                table || line.chars().count() <= LINE_CHARS_MAX,
                "{}:{}: over {LINE_CHARS_MAX} characters",
                relative(&path),
                number + 1
            );
        }
    }
}

#[test]
fn words_stay_in_their_homes() {
    for path in sources() {
        let name = relative(&path);
        let code = code_lines(&fs::read_to_string(&path).unwrap());
        for (word, homes, why) in HOMES {
            let home = homes.iter().any(|home| name.starts_with(home));
            assert!(home || !code.iter().any(|line| line.contains(word)), "{name} says {word}: {why}");
        }
        let lost = code.iter().any(|line| line.contains("HashMap::new()") || line.contains("HashSet::new()"));
        assert!(!lost, "{name}: a map in pure code is a BTreeMap or keyed from the generator");
    }
}

#[test]
fn the_top_level_is_the_one_that_was_agreed() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()), "{name} has no place at the top level");
    }
}

#[test]
fn paths_that_the_readme_names_exist() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let paths = text.split('`').skip(1).step_by(2).filter(|word| {
        let known = ["src/", "net/", "store/", "workers/", "benches/", "tests/", "dist/", "docs/"].iter().any(|top| word.starts_with(top));
        known && !word.contains(char::is_whitespace)
    });
    for path in paths {
        assert!(root().join(path).exists(), "README.md names {path}, which does not exist");
    }
}

#[test]
fn few_packages_are_trusted() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages < LOCKED_PACKAGES_MAX, "{packages} packages in Cargo.lock");
}

#[test]
fn no_async_runtime_is_in_the_binary() {
    let linked = linked();
    assert!(linked.contains("mio") && linked.contains("linux-raw-sys"), "direct and indirect dependencies are found: {linked:?}");
    for runtime in ["tokio", "async-std", "smol"] {
        assert!(!linked.contains(runtime), "the binary would link {runtime}");
    }
}

/// All packages that the binary may link or be built with: what the four manifests name, and what that brings along by Cargo.lock. What
/// only tests and benches use is left out.
fn linked() -> BTreeSet<String> {
    let lock: Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    // Our own are left to their manifests: the lock does not tell dev-dependencies from others.
    let foreign: Vec<&Value> = lock["package"].as_array().unwrap().iter().filter(|package| package.get("source").is_some()).collect();
    let mut wanted: Vec<String> = ["", "net", "store", "workers"].iter().flat_map(|member| dependencies(member)).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        for package in foreign.iter().filter(|package| package["name"].as_str() == Some(&name)) {
            let named = package.get("dependencies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            // Where there are several versions, the name has the version behind it.
            let names = named.map(|named| named.split(' ').next().unwrap().to_owned());
            wanted.extend(names.filter(|name| !found.contains(name)));
        }
        found.insert(name);
    }
    found
}

/// What a member's manifest names, for all targets, dev-dependencies apart.
fn dependencies(member: &str) -> Vec<String> {
    let manifest: Table = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let tables = targets.chain([&manifest]).flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")]);
    tables.flatten().filter_map(Value::as_table).flat_map(Table::keys).cloned().collect()
}

fn check(over: &mut Vec<String>, file: &str, function: &str, lines: usize, most: usize) {
    let allowed = ALLOWED.iter().find(|(f, g, _, _)| *f == file && *g == function).map_or(most, |entry| entry.2);
    if lines > allowed {
        over.push(format!("{file} {function}: {lines} lines of code, at most {allowed}"));
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// Every Rust file of the four packages' `src` that is not a test module of its own.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in ["src", "net/src", "store/src", "workers/src"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 20, "only {} source files found", found.len());
    let tests: Vec<PathBuf> = found.iter().flat_map(|path| test_modules(path)).collect();
    found.retain(|path| !tests.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs")));
    found.sort();
    found
}

/// Where the modules are that a file declares under `#[cfg(test)]`, without extension.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let home = if ["lib", "main", "mod"].contains(&stem) { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let under = (0..lines.len()).filter(|at| lines[*at].trim() == "#[cfg(test)]");
    let items = under.filter_map(|at| lines[at..].iter().find(|line| !line.trim().starts_with("#[")));
    let names = items.filter_map(|item| item.trim().trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| home.join(name)).collect()
}

/// All words of the code of all tests, those of `use` lines apart: importing a limit is not reaching it.
fn test_code() -> BTreeSet<String> {
    let mut found = Vec::new();
    for top in ["src", "net", "store", "workers", "tests"] {
        collect(&root().join(top), &mut found);
    }
    let modules: Vec<PathBuf> = found.iter().flat_map(|path| test_modules(path)).collect();
    let mut words = BTreeSet::new();
    // This file names every limit that has no test.
    for path in found.into_iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let whole = path.components().any(|part| part.as_os_str() == "tests")
            || modules.iter().any(|module| path.starts_with(module) || path == module.with_extension("rs"));
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let from = if whole { 0 } else { lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len()) };
        let mut importing = false;
        for line in &lines[from..] {
            importing |= line.trim_start().starts_with("use ");
            if !importing {
                words.extend(line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
            }
            importing &= !line.contains(';');
        }
    }
    words
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    ["README.md", "CHANGELOG.md", "store/SPEC.md", "store/SCHEMA.md"].iter().map(|name| root().join(name)).chain(docs).collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code: up to the test module, without blanks, comments and attributes of docs.
fn code_lines(text: &str) -> Vec<String> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

/// Functions with their length in lines of code: from `fn` to the brace that closes at the same depth of indent. A function whose body is
/// one `match` (or a table of calls in one expression) is exempt, as the rule says: it is read by its arms.
fn functions(code: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let Some(at) = line.find("fn ") else { continue };
        let before = line[..at].trim();
        let heads = ["", "pub", "pub(crate)", "pub(super)", "const", "pub const", "pub(crate) const"];
        if !heads.contains(&before) || line.trim_end().ends_with(';') {
            continue;
        }
        let name: String = line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let Some(length) = code[start..].iter().position(|line| *line == close) else { continue };
        let body = &code[start + 1..start + length];
        let inner = format!("{}match ", " ".repeat(indent + 4));
        let lone_match = body.iter().filter(|line| line.len() - line.trim_start().len() == indent + 4).any(|line| line.starts_with(&inner))
            && body.iter().filter(|line| line.len() - line.trim_start().len() == indent + 4).count() <= 4;
        if !lone_match {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn the_measure_itself_measures() {
    let body = "    let x = 1;\n".repeat(80);
    let text = format!("/// Doc.\nfn long() {{\n{body}}}\n\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
    let code = code_lines(&text);
    assert_eq!(code.len(), 82);
    assert_eq!(functions(&code), vec![("long".to_owned(), 82)]);
}
