//! The help, from the table: short for `rockpool --help`, and what a command is for, its flags and examples for `rockpool help COMMAND`.

use std::fmt::Write;

use super::table::{Flag, VERBS, Verb};

/// Columns that help is wrapped to.
const COLUMNS: usize = 100;
/// Column at which a flag's help begins.
const HELP_AT: usize = 26;
/// What ends every help.
const CODES: &str = "Exit codes: 0 done, 2 a mistake in what was asked, 3 the node's own fault. RUST_LOG sets what is logged.";

/// `rockpool --help`.
pub fn short() -> String {
    let mut text =
        String::from("Rockpool: a peer-to-peer Bitcoin mining pool node for small hardware.\n\nusage: rockpool COMMAND [options]\n\n");
    for verb in VERBS {
        let _ = writeln!(text, "  {:<12} {}", verb.name, verb.summary);
    }
    text += "\nTo begin with:\n";
    for (line, does) in [
        ("rockpool demo", "watch two nodes mine, until Ctrl-C"),
        ("rockpool run --network regtest", "a node to point a miner at"),
        ("rockpool help run", "all that a node can be told"),
    ] {
        let _ = writeln!(text, "  {line:<32} {does}");
    }
    text + "\n  -h, --help   this text, or that of a command\n  -V, --version\n\n" + CODES
}

/// `rockpool COMMAND --help`.
pub fn of(verb: &Verb) -> String {
    let mut text = format!("rockpool {}: {}\n\nusage: {}\n\n", verb.name, verb.summary, usage(verb));
    wrap(&mut text, 0, 0, verb.text);
    if !verb.flags.is_empty() {
        text += "\n";
    }
    for flag in verb.flags {
        let head = format!("  {}", named(flag));
        let at = if head.len() + 2 > HELP_AT { 0 } else { head.len() };
        text += &head;
        if at == 0 {
            text += "\n";
        }
        wrap(&mut text, at, HELP_AT, &told(flag));
    }
    text += "\nExamples:\n";
    for (line, does) in verb.examples {
        let _ = write!(text, "  rockpool {line}\n      {does}\n");
    }
    text + "\n" + CODES
}

/// Command, options and words in one line.
pub(super) fn usage(verb: &Verb) -> String {
    let options = if verb.flags.is_empty() { "" } else { "[options]" };
    ["rockpool", verb.name, verb.words, options].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `--flag VALUE`.
pub(super) fn named(flag: &Flag) -> String {
    format!("--{} {}", flag.name, flag.value()).trim_end().to_owned()
}

/// A flag's help with its default.
pub(super) fn told(flag: &Flag) -> String {
    match (flag.many, flag.default) {
        (true, _) => format!("{} (repeatable)", flag.help),
        (false, "") => flag.help.to_owned(),
        (false, default) => format!("{} (default {default})", flag.help),
    }
}

/// Appends words to a text whose cursor is at a column, indented by `indent` from there on.
pub(super) fn wrap(text: &mut String, mut at: usize, indent: usize, words: &str) {
    let mut first = true;
    for word in words.split_whitespace() {
        let long = word.chars().count();
        if !first && at + 1 + long > COLUMNS {
            text.push('\n');
            (at, first) = (0, true);
        }
        let blanks = if first { indent.saturating_sub(at) } else { 1 };
        text.extend(std::iter::repeat_n(' ', blanks));
        text.push_str(word);
        at += blanks + long;
        first = false;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_teaches_within_a_window() {
        let short = short();
        assert!(short.lines().count() < 30 && VERBS.iter().all(|verb| short.contains(verb.summary)), "{short}");
        for verb in VERBS {
            let help = of(verb);
            assert!(help.contains(verb.summary) && help.contains("\nExamples:\n") && help.contains("\nusage: rockpool "), "{help}");
            for flag in verb.flags {
                assert!(help.contains(&format!("\n  --{}", flag.name)), "{help} lacks {}", flag.name);
            }
            let prose = help.lines().filter(|line| !line.starts_with("  rockpool "));
            for line in prose.chain(short.lines()) {
                assert!(line.chars().count() <= COLUMNS.max(CODES.len()) && line.trim_end() == line, "{line:?}");
            }
        }
    }

    #[test]
    fn words_are_wrapped_between_words() {
        let mut text = String::from("ab");
        wrap(&mut text, 2, 4, &"word ".repeat(30));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("ab  word word") && lines[0].len() <= COLUMNS && lines[1].starts_with("    word"), "{text}");
        assert_eq!(text.matches("word").count(), 30);
    }
}
