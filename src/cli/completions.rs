//! `rockpool completions SHELL`: commands, flags and their values for a shell, from the table.

use std::fmt::Write;

use super::table::{Flag, Takes, VERBS, Verb};

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// The shell of this name.
    pub fn named(name: &str) -> Option<Shell> {
        match name {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }

    /// The script that its user loads.
    pub fn script(self) -> String {
        match self {
            Shell::Bash => bash(),
            Shell::Zsh => zsh(),
            Shell::Fish => fish(),
        }
    }
}

/// The words that may follow a command's name.
fn words(verb: &Verb) -> Vec<&'static str> {
    if verb.name == "help" { VERBS.iter().map(|verb| verb.name).collect() } else { verb.choices.to_vec() }
}

fn bash() -> String {
    let names: Vec<_> = VERBS.iter().map(|verb| verb.name).collect();
    let mut text = String::from(
        "# bash completion for rockpool, made by `rockpool completions bash`\n_rockpool() {\n    \
         local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n    COMPREPLY=()\n    \
         if [ \"$COMP_CWORD\" -eq 1 ]; then\n",
    );
    let _ = writeln!(text, "        mapfile -t COMPREPLY < <(compgen -W '{} --help --version' -- \"$cur\")", names.join(" "));
    text += "        return\n    fi\n    case \"${COMP_WORDS[1]} $prev\" in\n";
    for verb in VERBS {
        for flag in verb.flags.iter().filter(|flag| flag.takes != Takes::Nothing) {
            let does = match flag.takes {
                Takes::File => "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")".to_owned(),
                Takes::Dir => "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")".to_owned(),
                Takes::Choice(_, of) => format!("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\")", of.join(" ")),
                _ => ":".to_owned(),
            };
            let _ = writeln!(text, "        '{} --{}') {does}; return ;;", verb.name, flag.name);
        }
    }
    text += "    esac\n    case ${COMP_WORDS[1]} in\n";
    for verb in VERBS {
        let flags = verb.flags.iter().map(|flag| format!("--{}", flag.name));
        let all: Vec<_> = words(verb).into_iter().map(str::to_owned).chain(flags).chain(["--help".to_owned()]).collect();
        let _ = writeln!(text, "        {}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\") ;;", verb.name, all.join(" "));
    }
    text + "    esac\n}\ncomplete -o filenames -F _rockpool rockpool\n"
}

fn zsh() -> String {
    let mut text = String::from(
        "#compdef rockpool\n# made by `rockpool completions zsh`\n_rockpool() {\n    local -a commands\n    \
         if (( CURRENT == 2 )); then\n        \
         commands=(\n",
    );
    for verb in VERBS {
        let _ = writeln!(text, "            '{}:{}'", verb.name, quoted(verb.summary, &[':']));
    }
    text += "        )\n        _describe command commands\n        return\n    fi\n    local command=$words[2]\n    shift words\n    \
             (( CURRENT-- ))\n    case $command in\n";
    for verb in VERBS {
        let _ = write!(text, "        {}) _arguments '--help[what it is for]'", verb.name);
        for flag in verb.flags {
            let many = if flag.many { "*" } else { "" };
            let _ = write!(text, " \\\n            '{many}--{}[{}]{}'", flag.name, quoted(brief(flag), &['[', ']', ':']), zsh_value(flag));
        }
        let words = words(verb);
        if !words.is_empty() {
            let _ = write!(text, " \\\n            '1:word:({})'", words.join(" "));
        }
        text += " ;;\n";
    }
    text + "    esac\n}\n_rockpool \"$@\"\n"
}

fn zsh_value(flag: &Flag) -> String {
    match flag.takes {
        Takes::Nothing => String::new(),
        Takes::File => ":file:_files".into(),
        Takes::Dir => ":directory:_files -/".into(),
        Takes::Choice(name, of) => format!(":{name}:({})", of.join(" ")),
        _ => format!(":{}: ", flag.value()),
    }
}

fn fish() -> String {
    let mut text = String::from("# fish completion for rockpool, made by `rockpool completions fish`\ncomplete -c rockpool -f\n");
    for verb in VERBS {
        let _ = writeln!(text, "complete -c rockpool -n __fish_use_subcommand -a {} -d '{}'", verb.name, quoted(verb.summary, &[]));
    }
    for verb in VERBS {
        let under = format!("complete -c rockpool -n '__fish_seen_subcommand_from {}'", verb.name);
        let words = words(verb);
        if !words.is_empty() {
            let _ = writeln!(text, "{under} -a '{}'", words.join(" "));
        }
        for flag in verb.flags {
            let takes = match flag.takes {
                Takes::Nothing => String::new(),
                Takes::File => " -r -F".into(),
                Takes::Dir => " -x -a '(__fish_complete_directories)'".into(),
                Takes::Choice(_, of) => format!(" -x -a '{}'", of.join(" ")),
                _ => " -x".into(),
            };
            let _ = writeln!(text, "{under} -l {}{takes} -d '{}'", flag.name, quoted(brief(flag), &[]));
        }
    }
    text
}

/// A flag's help up to where it grows long.
fn brief(flag: &Flag) -> &'static str {
    let ends = ["; ", ": ", " ("].iter().filter_map(|end| flag.help.find(end));
    &flag.help[..ends.min().unwrap_or(flag.help.len())]
}

/// Text to stand between single quotes, with a backslash before what the shell's own list syntax means otherwise.
fn quoted(text: &str, special: &[char]) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\'' => out.push('’'),
            letter if special.contains(&letter) => out.extend(['\\', letter]),
            letter => out.push(letter),
        }
    }
    out
}
