//! What a user installs and reads: the papers made from the table of commands, the example configurations, the package's files, the unit.
//!
//! Papers that the table has outgrown are written anew by `WRITE_PAPERS=1 cargo test --no-default-features --test install`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rockpool::cli::completions::Shell;
use rockpool::cli::table::{Flag, Takes, VERBS, Verb, keys};
use rockpool::config::{Config, Layers, Options};
use rockpool::http::error::{Code, reason};
use rockpool::http::routes::{Kind, ROUTES};
use rockpool_store::params::Network;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_default()
}

/// Whether a program is on the PATH.
fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn skipped(program: &str) -> bool {
    if !has(program) {
        eprintln!("skipped: there is no {program} here");
    }
    !has(program)
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).current_dir(root()).output().unwrap()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Words wrapped to lines, each behind a prefix.
fn wrapped(prefix: &str, words: &str) -> String {
    let mut lines = vec![String::from(prefix.trim_end())];
    for word in words.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.len() + 1 + word.len() > 100 {
            lines.push(format!("{prefix}{word}"));
        } else {
            *last += &format!(" {word}");
        }
    }
    lines.join("\n") + "\n"
}

fn help_of(flag: &Flag) -> String {
    let mut letters = flag.help.chars();
    let first = letters.next().unwrap().to_uppercase();
    let default = if flag.default.is_empty() { String::new() } else { format!(" Default: {}.", flag.default) };
    format!("{first}{}.{default}", letters.as_str())
}

/// The example of the configuration file: every key, commented out, with its default or an example.
fn example() -> String {
    let mut out = wrapped(
        "# ",
        "Configuration of a Rockpool node: rockpool run --config FILE. Every key there is, with its default, or an example where there is \
         none. Flags (--stratum) and environment variables (ROCKPOOL_STRATUM) win over this file; rockpool run --config FILE \
         --print-config tells what it all comes to.",
    );
    for flag in keys() {
        out += "\n";
        out += &wrapped("# ", &help_of(flag));
        let _ = writeln!(out, "#{} = {}", flag.name, flag.sample);
    }
    out
}

/// `docs/configure.md`.
fn configure() -> String {
    let mut out = String::from(
        "# Configuring a node\n\nWhat a node is told, it is told by flags of `rockpool run`, by environment variables, or by a TOML \
         file that `--config FILE` or\n`ROCKPOOL_CONFIG` names: flags win over the environment, that over the file, and the file over \
         the defaults. A list in the\nenvironment is separated by spaces, or by commas if it has no spaces (rules for firmware have \
         commas of their own: spaces). A\nkey, flag or `ROCKPOOL_` variable that is not known is refused, with a hint at the nearest \
         that is. In Kubernetes a service named\n`rockpool` brings such variables along: `enableServiceLinks: false`.\n\n`rockpool run \
         … --print-config` prints what it all comes to, passwords hidden, and where each value is from. A file to begin with,\nwith \
         every key, is `dist/examples/rockpool.toml`; beside it lie `pi-pruned.toml`, `testnet4.toml` and `solo.toml`.\n\nThis page is \
         made from the program's own table of flags.\n\n| key, flag | variable | takes | default | what it does \
         |\n|---|---|---|---|---|\n",
    );
    let cell = |text: &str| text.replace('|', "\\|");
    for flag in keys() {
        let takes = match flag.takes {
            Takes::Nothing => "true or false".to_owned(),
            Takes::Choice(_, of) => of.join(", "),
            Takes::Number => "a whole number".to_owned(),
            _ if flag.many => format!("a list of {}", flag.value()),
            _ => flag.value().to_owned(),
        };
        let default = if flag.default.is_empty() { "none" } else { flag.default };
        let _ = writeln!(
            out,
            "| `{name}`, `--{name}` | `{}` | {} | {} | {} |",
            flag.variable(),
            cell(&takes),
            cell(default),
            cell(flag.help),
            name = flag.name
        );
    }
    out
}

/// The page of the manual.
fn man() -> String {
    let plain = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let line = |text: &str| {
        let text = plain(text);
        // A dot or a quote that begins a line is a command to troff.
        if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
    };
    let head = |verb: &Verb| {
        let options = if verb.flags.is_empty() { "" } else { " [options]" };
        format!("{} {}{options}", verb.name, verb.words).replace("  ", " ")
    };
    let mut out = String::from(
        ".TH ROCKPOOL 1 \"\" Rockpool \"User Commands\"\n.SH NAME\nrockpool \\- peer\\-to\\-peer Bitcoin mining pool node for small \
         hardware\n.SH SYNOPSIS\n",
    );
    for verb in VERBS {
        let _ = write!(out, ".B rockpool\n{}\n.br\n", plain(head(verb).trim_end()));
    }
    out += ".SH DESCRIPTION\nEach command tells more of itself: rockpool help COMMAND.\n";
    for verb in VERBS {
        let _ = write!(out, ".SH ROCKPOOL {}\n{}\n", verb.name.to_uppercase(), line(verb.text));
        for flag in verb.flags {
            let _ = write!(out, ".TP\n.BI \\-\\-{} \" {}\"\n{}\n", plain(flag.name), flag.value(), line(&help_of(flag)));
        }
        out += ".PP\nExamples:\n.nf\n";
        for (example, does) in verb.examples {
            let _ = write!(out, "rockpool {}\n    {}\n", plain(example), plain(does));
        }
        out += ".fi\n";
    }
    out + ".SH EXIT STATUS\n0 done, 2 a mistake in what was asked, 3 the node's own fault.\n.SH \
           FILES\n.TP\n/etc/rockpool/rockpool.toml\nThe configuration of the Debian package's service.\n.TP\n/var/lib/rockpool\nIts \
           data.\n.SH ENVIRONMENT\nROCKPOOL_CONFIG names the configuration file; ROCKPOOL_STRATUM is \\-\\-stratum, and so on; \
           ROCKPOOL_TOKEN is the token that the command line shows to a node; RUST_LOG sets what is logged.\n"
}

/// `docs/api.md`.
fn api() -> String {
    let mut out = String::from(
        "# The HTTP API\n\nOver HTTP/1.1 at the address of `--http`. Numbers are numbers, ids are 64 hexadecimal digits, times Unix \
         seconds, rates hashes per\nsecond, difficulties as Bitcoin counts them. `GET /api/v1/openapi.json` describes the same for \
         programs, the answers' fields too.\nAn error is `{\"error\": {\"code\": \"bad_parameter\", \"message\": \"what happened and \
         what to do\"}}`; codes stay, messages may change.\n\nOpen routes answer everybody. Those with a token want `Authorization: \
         Bearer TOKEN`, a token as `rockpool token` prints it. Loopback\nroutes answer programs on the node's own machine. Routes of a user take \
         a token of any scope, or one of the identity provider\n(`docs/portfolios.md`), and tell each user of his own alone. This page \
         is made from the program's own table of routes.\n\n| route | access | what it does |\n|---|---|---|\n",
    );
    for row in ROUTES {
        let method = format!("{:?}", row.method).to_uppercase();
        let _ = write!(out, "| `{method} {}` | {} | {}", row.path, format!("{:?}", row.access).to_lowercase(), row.summary);
        for param in row.params {
            let kind = match param.kind {
                Kind::Number { min, max, default } => {
                    let bounds = if max >= u64::from(u32::MAX) { format!("at least {min}") } else { format!("{min} to {max}") };
                    // One that is as large as can be means all, and the help says so.
                    let default = default.filter(|default| *default < u64::from(u32::MAX));
                    default.map_or(bounds.clone(), |default| format!("{bounds}, default {default}"))
                }
                Kind::Id => "an id".to_owned(),
                Kind::Choice { of, default: "" } => of.join(", "),
                Kind::Choice { of, default } => format!("{}, default {default}", of.join(", ")),
                Kind::Text { bytes } => format!("at most {bytes} bytes"),
            };
            let unit = if param.unit.is_empty() { String::new() } else { format!(" {}", param.unit) };
            let _ = write!(out, "<br>`{}`{unit}: {} ({kind})", param.name, param.help);
        }
        out += " |\n";
    }
    out += "\n| error | HTTP status |\n|---|---|\n";
    for code in Code::ALL {
        let _ = writeln!(out, "| `{}` | {} {} |", code.name(), code.status(), reason(code.status()));
    }
    out
}

#[test]
fn papers_are_those_of_the_table() {
    let mut stale = Vec::new();
    for (file, wanted) in
        [("dist/examples/rockpool.toml", example()), ("docs/configure.md", configure()), ("dist/rockpool.1", man()), ("docs/api.md", api())]
    {
        if text(file) == wanted {
            continue;
        }
        if std::env::var_os("WRITE_PAPERS").is_some() {
            fs::write(root().join(file), wanted).unwrap();
            continue;
        }
        stale.push(file);
    }
    assert!(stale.is_empty(), "the table of flags says otherwise than {stale:?}: WRITE_PAPERS=1 writes them anew");
}

/// What a file says, checked as the node checks it.
fn configured(file: &Path) -> (Options, Config) {
    let layers = Layers::new(Options::default(), Some(file), []).unwrap();
    let config = layers.config(Some(Path::new("/home/nobody"))).unwrap();
    (layers.options, config)
}

#[test]
fn the_example_has_every_key_and_its_defaults_are_true() {
    let example = text("dist/examples/rockpool.toml");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rockpool.toml");
    let mut written = String::from("network = \"regtest\"\n");
    for flag in keys() {
        let line = format!("#{} = {}\n", flag.name, flag.sample);
        assert!(example.contains(&line), "dist/examples/rockpool.toml lacks {line:?}");
        // What has a default stands there with it; on regtest alone is true, and nothing is said of services while portfolios are off.
        if !flag.default.is_empty() && !["network", "datadir", "alone", "coingecko", "okx"].contains(&flag.name) {
            written += &line[1..];
        }
    }
    fs::write(&file, written).unwrap();
    let plain = Layers::new(Options { network: Some("regtest".into()), ..Options::default() }, None, []).unwrap();
    assert_eq!(configured(&file).1, plain.config(Some(Path::new("/home/nobody"))).unwrap());
    // All keys at once are read, each as an example that would do; those that exclude each other are not on.
    let all: String =
        example.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")).map(|line| format!("{}\n", &line[1..])).collect();
    fs::write(&file, all.replace("portfolios = false", "portfolios = true")).unwrap();
    let (options, config) = configured(&file);
    assert_eq!((config.network, config.peers.len(), config.bitcoinds.len()), (Network::Main, 1, 1));
    assert!(config.portfolios.is_some_and(|portfolios| portfolios.identity.is_some() && portfolios.limits.len() == 1));
    assert!(!format!("{options:?}").contains("None") && !format!("{options:?}").contains("[]"), "{options:?}");
}

#[test]
fn examples_are_configurations() {
    for (name, network) in [("pi-pruned", Network::Main), ("testnet4", Network::Testnet4), ("solo", Network::Main)] {
        let (_, config) = configured(&root().join(format!("dist/examples/{name}.toml")));
        assert_eq!(config.network, network, "{name}");
        assert_eq!(config.mode.name(), if name == "solo" { "solo" } else { "chain" });
        assert!(!config.bitcoinds.is_empty(), "{name} names a bitcoind");
    }
}

#[test]
fn every_flag_that_a_text_names_exists() {
    let mut files: Vec<PathBuf> = ["README.md", "Dockerfile", "dist/deb/postinst", "dist/deb/build"].map(|file| root().join(file)).into();
    for dir in ["docs", "dist/examples", "dist/systemd"] {
        files.extend(fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let known: BTreeSet<&str> = VERBS.iter().flat_map(|verb| verb.flags.iter().map(|flag| flag.name)).chain(["help", "version"]).collect();
    let variables: BTreeSet<String> = keys().map(Flag::variable).chain(["ROCKPOOL_CONFIG".into(), "ROCKPOOL_TOKEN".into()]).collect();
    let mut named = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", file.strip_prefix(root()).unwrap().display(), number + 1);
            let words = line.split(|letter: char| !letter.is_alphanumeric() && !"-_".contains(letter));
            for word in words.clone().filter(|word| word.starts_with("ROCKPOOL_") && word.len() > "ROCKPOOL_".len()) {
                assert!(variables.contains(word), "{at}: {word} is no variable");
            }
            // A command line of ours, or a flag in running text: what other programs are told is theirs.
            let others = [
                "cargo",
                "dpkg",
                "docker",
                "systemctl",
                "apt",
                "install",
                "useradd",
                "rmdir",
                "minerd",
                "setfacl",
                "curl",
                "ldd",
                "tar",
                "du ",
            ];
            if others.iter().any(|other| line.contains(other)) && !line.contains("rockpool run") && !line.contains("rockpool status") {
                continue;
            }
            for word in words.filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty() && !word.starts_with('-')) {
                assert!(known.contains(word) || line.contains("docker") || line.contains("cargo"), "{at}: --{word} is no flag");
                named += 1;
            }
        }
    }
    assert!(named > 30, "only {named} flags found");
    // And every command that is named in backticks or in a block is one.
    for word in text("README.md").split("`rockpool ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next()) {
        assert!(word.starts_with('-') || word == "COMMAND" || Verb::find(word).is_some(), "README.md: rockpool {word} is no command");
    }
}

/// What bash itself completes with the script.
fn completed(words: &[&str]) -> Vec<String> {
    let script = Shell::Bash.script();
    let last = words.len() - 1;
    let line = format!(
        "{script}\nCOMP_WORDS=({}) COMP_CWORD={last}\n_rockpool && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    );
    let out = run("bash", &["-euc", &line]);
    assert!(out.status.success() && out.stderr.is_empty(), "{words:?}: {}", said(&out));
    String::from_utf8(out.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    if skipped("bash") {
        return;
    }
    let commands: Vec<String> = VERBS.iter().map(|verb| verb.name.to_owned()).chain(["--help".into(), "--version".into()]).collect();
    assert_eq!(completed(&["rockpool", ""]), commands);
    assert_eq!(completed(&["rockpool", "sta"]), ["status"]);
    assert_eq!(completed(&["rockpool", "run", "--bitcoind"]), ["--bitcoind", "--bitcoind-cookie"]);
    assert_eq!(completed(&["rockpool", "run", "--network", "t"]), ["testnet4"]);
    assert_eq!(completed(&["rockpool", "run", "--network", "main", "--max"]), ["--max-peers"]);
    assert_eq!(completed(&["rockpool", "run", "--stratum", ""]), [""; 0]);
    assert_eq!(completed(&["rockpool", "peers", "un"]), ["unban"]);
    assert_eq!(completed(&["rockpool", "help", "pay"]), ["payouts"]);
    assert_eq!(completed(&["rockpool", "run", "--config", "Cargo.to"]), ["Cargo.toml"]);
    assert_eq!(completed(&["rockpool", "run", "--datadir", "work"]), ["workers"]);
    // The shell knows whose it is.
    let out = run("bash", &["-euc", &format!("{}complete -p rockpool", Shell::Bash.script())]);
    assert!(said(&out).contains("_rockpool rockpool"), "{}", said(&out));
}

#[test]
fn zsh_and_fish_can_read_their_scripts() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, made) in [("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
        let script = made.script();
        for verb in VERBS {
            assert!(
                verb.flags.iter().all(|flag| script.contains(flag.name)) && script.contains(verb.name),
                "{shell} lacks some of {}",
                verb.name
            );
        }
        assert!(script.matches('\'').count().is_multiple_of(2), "{shell}: a quote is open");
        let file = dir.path().join(shell);
        fs::write(&file, script).unwrap();
        if !skipped(shell) {
            let out = run(shell, &["-n", file.to_str().unwrap()]);
            assert!(out.status.success(), "{}", said(&out));
        }
    }
}

#[test]
fn scripts_are_clean() {
    for script in ["dist/setup", "dist/deb/build", "dist/deb/postinst", "dist/deb/prerm", "dist/deb/postrm"] {
        let out = run("sh", &["-n", script]);
        assert!(out.status.success(), "{}", said(&out));
        if !skipped("shellcheck") {
            let out = run("shellcheck", &[script]);
            assert!(out.status.success(), "{}", said(&out));
        }
    }
}

/// A package of a stand-in for the binary: the script's work does not depend on it.
#[test]
fn the_package_holds_what_it_should() {
    if skipped("dpkg-deb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("rockpool");
    // A real program with libraries, that prints what was asked for: a script has none.
    fs::write(&binary, "#!/bin/sh\necho rockpool 1.2.3\n").unwrap();
    assert!(run("chmod", &["755", binary.to_str().unwrap()]).status.success());
    let out = run("dist/deb/build", &[binary.to_str().unwrap(), dir.path().to_str().unwrap()]);
    assert!(out.status.success(), "{}", said(&out));
    let package = String::from_utf8(out.stdout).unwrap();
    let package = package.trim();
    assert!(package.contains("/rockpool_1.2.3_"), "{package}");
    let about = said(&run("dpkg-deb", &["-I", package]));
    for line in ["Package: rockpool", "Version: 1.2.3", "Depends: passwd", "conffiles", "postinst", "prerm", "postrm"] {
        assert!(about.contains(line), "no {line:?} in {about}");
    }
    let files = said(&run("dpkg-deb", &["-c", package]));
    for file in [
        "-rwxr-xr-x root/root ./usr/bin/rockpool",
        "-rw-r----- root/root ./etc/rockpool/rockpool.toml",
        "-rw-r--r-- root/root ./lib/systemd/system/rockpool.service",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/rockpool",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_rockpool",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/rockpool.fish",
        "-rw-r--r-- root/root ./usr/share/man/man1/rockpool.1.gz",
        "-rw-r--r-- root/root ./usr/share/doc/rockpool/copyright",
        "-rw-r--r-- root/root ./usr/share/doc/rockpool/operate.md",
        "-rw-r--r-- root/root ./usr/share/doc/rockpool/examples/pi-pruned.toml",
    ] {
        let found = files.lines().any(|line| {
            line.split_whitespace().enumerate().filter(|(at, _)| ![2, 3, 4].contains(at)).map(|(_, word)| word).eq(file.split(' '))
        });
        assert!(found, "no {file:?} in {files}");
    }
    // Nothing of the data is in it: what is not in the package no upgrade touches.
    assert!(!files.contains("var/lib"), "{files}");
    let out = run("dpkg-deb", &["--ctrl-tarfile", package]);
    assert!(out.status.success());
    let conf = said(&run("sh", &["-c", &format!("dpkg-deb --fsys-tarfile {package} | tar -xO ./etc/rockpool/rockpool.toml")]));
    assert!(conf.contains("\ndatadir = \"/var/lib/rockpool\"\n"), "{conf}");
}

#[test]
fn only_purge_takes_the_data() {
    let (postinst, prerm, postrm) = (text("dist/deb/postinst"), text("dist/deb/prerm"), text("dist/deb/postrm"));
    assert!(!postinst.contains("rm ") && !prerm.contains("rm -"));
    let (before, _) = postrm.split_once("rm -rf /var/lib/rockpool").unwrap();
    assert!(before.trim_end().ends_with("if [ \"$1\" = purge ]; then"));
}

#[test]
fn the_unit_is_one_and_shut_in() {
    let unit = text("dist/systemd/rockpool.service");
    if skipped("systemd-analyze") {
        return;
    }
    // With a program that is there in place of the one that the package brings.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rockpool.service");
    let there = unit.replace("/usr/bin/rockpool", "/bin/true").replace("Documentation=man:rockpool(1)\n", "");
    fs::write(&file, there).unwrap();
    let out = run("systemd-analyze", &["verify", "--man=no", file.to_str().unwrap()]);
    assert!(out.status.success() && said(&out).is_empty(), "{}", said(&out));
    let out = run("systemd-analyze", &["security", "--offline=true", "--threshold=20", "--no-pager", file.to_str().unwrap()]);
    assert!(out.status.success(), "its exposure is above 2.0: {}", said(&out).lines().last().unwrap_or_default());
}
