//! `rockpool demo --seconds 30` as a newcomer runs it.

use std::process::Command;

#[test]
fn the_demo_mines_on_two_nodes_and_ends_by_itself() {
    let out = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["demo", "--seconds", "30"]).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}\n{errors}");
    let last = said.lines().rev().find(|line| line.starts_with("both nodes on tip")).unwrap_or_else(|| panic!("{said}\n{errors}"));
    let number = |unit: &str| -> u64 {
        let words: Vec<_> = last.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == unit).unwrap_or_else(|| panic!("no {unit} in {last:?}"));
        words[at - 1].parse().unwrap()
    };
    assert!(number("shares") >= 10 && number("blocks") >= 1, "{last}");
    assert!(said.contains("http://127.0.0.1:"), "the address to look at: {said}");
}
