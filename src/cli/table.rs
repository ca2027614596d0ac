//! The one table of commands and flags. From it follow the parser, the help, the completions, the man page, the keys of the configuration
//! file with the example of it, and the names of environment variables.

use crate::portfolio::config::{COINGECKO, OKX};

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The words behind its name, as the usage shows them.
    pub words: &'static str,
    /// The first of those words, where they are fixed.
    pub choices: &'static [&'static str],
    /// How many words it takes at most.
    pub words_max: usize,
    /// What it is for.
    pub text: &'static str,
    /// Its flags, `--help` not among them.
    pub flags: &'static [Flag],
    /// Command lines that work, `rockpool` left out, and what they do.
    pub examples: &'static [(&'static str, &'static str)],
}

/// A flag of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name without the dashes; the key in the configuration file has the same.
    pub name: &'static str,
    /// What stands behind it.
    pub takes: Takes,
    /// The default for people; empty if there is none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// May be given several times.
    pub many: bool,
    /// What the example of the configuration file gives the key, the default if there is one; empty for a flag that is no key of the file.
    pub sample: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is there or it is not.
    Nothing,
    /// Text, shown under this name.
    Text(&'static str),
    /// A whole number.
    Number,
    /// The path of a file.
    File,
    /// The path of a directory.
    Dir,
    /// One of these words, shown under this name.
    Choice(&'static str, &'static [&'static str]),
}

impl Verb {
    /// The command of this name.
    pub fn find(name: &str) -> Option<&'static Verb> {
        VERBS.iter().find(|verb| verb.name == name)
    }

    /// Its flag of this name.
    pub fn flag(&self, name: &str) -> Option<&'static Flag> {
        self.flags.iter().find(|flag| flag.name == name)
    }
}

impl Flag {
    /// What stands behind it in a usage; empty if nothing does.
    pub fn value(&self) -> &'static str {
        match self.takes {
            Takes::Nothing => "",
            Takes::Text(name) | Takes::Choice(name, _) => name,
            Takes::Number => "N",
            Takes::File => "FILE",
            Takes::Dir => "DIR",
        }
    }

    /// The environment variable that says the same; empty for a flag that is no key of the configuration.
    pub fn variable(&self) -> String {
        if self.sample.is_empty() { String::new() } else { format!("ROCKPOOL_{}", self.name.to_uppercase().replace('-', "_")) }
    }
}

/// The flags that are keys of the configuration too: those of `run`, but for a few.
pub fn keys() -> impl Iterator<Item = &'static Flag> {
    RUN.iter().filter(|flag| !flag.sample.is_empty())
}

const fn key(name: &'static str, takes: Takes, default: &'static str, sample: &'static str, help: &'static str) -> Flag {
    Flag { name, takes, default, help, many: false, sample }
}

/// A key that takes a list.
const fn keys_of(name: &'static str, takes: Takes, sample: &'static str, help: &'static str) -> Flag {
    Flag { name, takes, default: "", help, many: true, sample }
}

const fn flag(name: &'static str, takes: Takes, default: &'static str, help: &'static str) -> Flag {
    Flag { name, takes, default, help, many: false, sample: "" }
}

const NETWORKS: Takes = Takes::Choice("NAME", &["main", "testnet4", "signet", "regtest"]);

const RUN: &[Flag] = &[
    key("network", NETWORKS, "main", "\"main\"", "the Bitcoin network, and with it the share chain: main, testnet4, signet or regtest"),
    key("datadir", Takes::Dir, "~/.rockpool/NETWORK", "\"/var/lib/rockpool\"", "where the node keeps its data"),
    keys_of(
        "bitcoind",
        Takes::Text("URL"),
        "[\"http://127.0.0.1:8332\"]",
        "your bitcoind's RPC: http://host:port with a cookie file, or http://user:password@host:port; up to 4, the best first: when \
         it is away the next one takes over; found blocks go to all; regtest goes without",
    ),
    key(
        "bitcoind-cookie",
        Takes::File,
        "",
        "\"/var/lib/bitcoind/.cookie\"",
        "the .cookie file of bitcoind, for URLs without user and password",
    ),
    keys_of(
        "bitcoin-peer",
        Takes::Text("ADDR"),
        "[\"127.0.0.1\"]",
        "a Bitcoin node to hear of blocks from and to hand found ones to at first hand, over Bitcoin's own protocol; IP or IP:port, up \
         to 8; your own or one that you trust",
    ),
    key("propose", Takes::Nothing, "no", "false", "have bitcoind judge each template as a block before miners get it"),
    key("stratum", Takes::Text("ADDR"), "0.0.0.0:3333", "\"0.0.0.0:3333\"", "listen for miners here"),
    keys_of(
        "firmware",
        Takes::Text("RULE"),
        "[\"nerdqaxe=46\"]",
        "what miners of a kind hold: WORD=OUTPUTS[,LAYOUT] for all whose user agent has the WORD; OUTPUTS of a coinbase 12, 46, 144 or \
         360, or 1 for a solo lottery; LAYOUT front (firmware that shows outputs) or tail (default); up to 64",
    ),
    key("solo", Takes::Nothing, "no", "false", "no share chain: a block pays all to the miner that finds it"),
    key("standalone", Takes::Nothing, "no", "false", "no share chain: a pool of this node's own miners, paid by what each did lately"),
    key("p2p", Takes::Text("ADDR"), "0.0.0.0:9333", "\"0.0.0.0:9333\"", "listen for other nodes here"),
    keys_of(
        "peer",
        Takes::Text("ADDR"),
        "[\"192.0.2.7:9333\"]",
        "always connect to this node, IP or IP:port (port 9333 if none is given); up to 64; one is enough: it tells of others",
    ),
    key(
        "alone",
        Takes::Nothing,
        "no; yes on regtest",
        "false",
        "serve miners even while no peer is connected: they mine on an island then",
    ),
    key("max-peers", Takes::Number, "1000", "1000", "most nodes connected at once"),
    key(
        "http",
        Takes::Text("ADDR"),
        "127.0.0.1:9332",
        "\"127.0.0.1:9332\"",
        "dashboard, API and metrics; 0.0.0.0:9332 shows them to your whole network",
    ),
    keys_of(
        "http-host",
        Takes::Text("NAME"),
        "[\"pool.example.org\"]",
        "answer HTTP under this name too; addresses, localhost and names of the house (pi, pi.local, pi.lan) are answered anyway",
    ),
    keys_of(
        "http-origin",
        Takes::Text("ORIGIN"),
        "[\"https://stats.example.org\"]",
        "let pages from here read the API in a browser (CORS); none may unless named, and none may change anything",
    ),
    key(
        "portfolios",
        Takes::Nothing,
        "no",
        "false",
        "keep portfolios for users with a token: accounts, holdings and what they are worth; the services below are asked for it",
    ),
    key(
        "portfolio-key",
        Takes::File,
        "",
        "\"/etc/rockpool/portfolio.key\"",
        "the key that users' secrets are sealed with, for accounts at OKX; made if it is not there; outside the data directory",
    ),
    keys_of(
        "currency",
        Takes::Text("CODE"),
        "[\"usd\", \"eur\", \"btc\"]",
        "tell values in this currency, by CoinGecko's code; up to 8, the usual one first; usd, eur and btc if none is named",
    ),
    key("coingecko", Takes::Text("URL"), COINGECKO, "\"https://api.coingecko.com/api/v3\"", "ask for prices here"),
    key(
        "coingecko-key",
        Takes::Text("KEY"),
        "",
        "\"CG-0123456789\"",
        "your key of CoinGecko's demo API; keep it in the file or environment",
    ),
    key("okx", Takes::Text("URL"), OKX, "\"https://www.okx.com\"", "ask for balances of users' accounts at OKX here"),
    keys_of(
        "evm",
        Takes::Text("CHAIN=URL"),
        "[\"ethereum=http://127.0.0.1:8545\"]",
        "ask for balances on this chain here and not at a public endpoint: ethereum, arbitrum, optimism, base, polygon or bsc",
    ),
    keys_of(
        "outside",
        Takes::Text("LIMITS"),
        "[\"coingecko=5,2000\"]",
        "how a service is asked: SERVICE=IN_FLIGHT,DELAY_MS; coingecko, okx, evm, identity or bitcoind; so many calls at once at \
         most, so many milliseconds apart at least",
    ),
    key(
        "jwt-issuer",
        Takes::Text("URL"),
        "",
        "\"https://login.example.org/realms/home\"",
        "take tokens that this issuer signs for users, Keycloak for one, beside the node's own",
    ),
    key("jwt-audience", Takes::Text("NAME"), "", "\"rockpool\"", "if they are for this audience"),
    key(
        "jwt-jwks",
        Takes::Text("URL"),
        "",
        "\"https://login.example.org/realms/home/protocol/openid-connect/certs\"",
        "with the issuer's keys from here",
    ),
    flag("config", Takes::File, "", "read this TOML file; in the environment ROCKPOOL_CONFIG"),
    flag("resync", Takes::Nothing, "", "delete the share chain first and fetch it anew"),
    flag("print-config", Takes::Nothing, "", "print what all of this comes to and where each value is from, passwords hidden, and end"),
];

const JSON: Flag = flag("json", Takes::Nothing, "", "print JSON, for scripts");
const OF_DIR: Flag = flag("datadir", Takes::Dir, "", "ask the node that runs on this data directory; while none runs, read the directory");
const OF_HTTP: Flag = flag("http", Takes::Text("ADDR"), "127.0.0.1:9332", "ask the node at this address");

/// All commands, in the order in which they are listed.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "demo",
        summary: "see it mine: two nodes and a CPU miner on this machine; needs nothing else",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Two nodes, a regtest chain inside the process and a CPU miner over real Stratum. It prints a line a second, and where to \
               point a browser or a miner of your own. Nothing of it touches a real network unless you ask for portfolios, and its \
               coins are worth nothing.",
        flags: &[
            flag("seconds", Takes::Number, "at Ctrl-C", "end after so many seconds"),
            flag("datadir", Takes::Dir, "a temporary directory", "keep the two nodes' data in DIR/a and DIR/b"),
            flag(
                "portfolios",
                Takes::Nothing,
                "",
                "keep portfolios on the first node and print a token for them; it asks CoinGecko for prices, and those whom your accounts \
                 name",
            ),
        ],
        examples: &[("demo", "until Ctrl-C"), ("demo --seconds 30", "for thirty seconds")],
    },
    Verb {
        name: "run",
        summary: "run a node of the pool",
        words: "",
        choices: &[],
        words_max: 0,
        text: "A node that serves your miners, keeps the share chain with the other nodes, and takes work from your bitcoind. All flags \
               but the last three may stand in a TOML file under their names without the dashes, or in the environment: \
               ROCKPOOL_MAX_PEERS is --max-peers, lists are separated by spaces or commas. Flags win over the environment, that over \
               the file. It ends in order at Ctrl-C and at SIGTERM.",
        flags: RUN,
        examples: &[
            ("run --network regtest", "nothing but this: a chain of its own, to try a miner on"),
            (
                "run --network testnet4 --bitcoind http://127.0.0.1:48332 --bitcoind-cookie ~/.bitcoin/testnet4/.cookie",
                "a node of the test pool beside a bitcoind on this machine",
            ),
            ("run --config /etc/rockpool/rockpool.toml", "as the file says"),
            ("run --config /etc/rockpool/rockpool.toml --print-config", "what that comes to"),
        ],
    },
    Verb {
        name: "status",
        summary: "how a node is, and what became of the blocks it found",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Tells of a running node its chain, its peers, its miners, how far a sync is and what troubles it; of each found block \
               when and by whom it was found, what every bitcoind said of it and where it stands in Bitcoin's chain. Of a node that is \
               stopped: what its directory knows of this. Ends with exit code 2 if no node answers.",
        flags: &[JSON, OF_DIR, OF_HTTP],
        examples: &[("status", "the node on this machine"), ("status --http 192.168.1.5:9332 --json", "another one, for a script")],
    },
    Verb {
        name: "shares",
        summary: "the newest shares of the share chain",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Lists shares of the confirmed chain, the newest first: when, how difficult, how many uncles, and whom they pay. The JSON \
               is the same from a node and from a directory.",
        flags: &[
            JSON,
            OF_DIR,
            OF_HTTP,
            flag("from", Takes::Number, "the newest", "begin with this height and go down"),
            flag("count", Takes::Number, "20", "so many, at most 200"),
        ],
        examples: &[("shares", "the newest twenty"), ("shares --from 1000 --count 200", "heights 1000 to 801")],
    },
    Verb {
        name: "payouts",
        summary: "whom the next block would pay, and how much",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Lists the outputs of the coinbase that the next block would have, in satoshis, with each payee's part of the work. The \
               JSON is the same from a node and from a directory.",
        flags: &[JSON, OF_DIR, OF_HTTP],
        examples: &[("payouts", "by the node on this machine"), ("payouts --json | jq '.pays[0]'", "the largest one, for a script")],
    },
    Verb {
        name: "miners",
        summary: "who mines on it: hash rates, best difficulty, refused submits",
        words: "[ADDRESS]",
        choices: &[],
        words_max: 1,
        text: "Lists the addresses that are mined for, the fastest first: hash rates over 15 minutes, an hour and a day, submits \
               accepted and refused, the best difficulty ever and when the last submit was accepted. With an address, its workers. Of a \
               node that is stopped what was written last, rates of that moment. The JSON is the same from a node and from a \
               directory.",
        flags: &[JSON, OF_DIR, OF_HTTP],
        examples: &[("miners", "all addresses"), ("miners bc1q… --json", "the workers of one, for a script")],
    },
    Verb {
        name: "peers",
        summary: "the nodes it is connected to, and bans; add, ban or unban some",
        words: "[add ADDR | ban ADDR|SUBNET | unban ADDR|SUBNET]",
        choices: &["add", "ban", "unban"],
        words_max: 2,
        text: "Lists the nodes that a node is connected to, those that left lately and why, and bans; while none runs on --datadir its \
               address book, anchors and bans. `add` connects to one more now, and again whenever it is lost, until the node stops. \
               `ban` closes an address's or a subnet's connections, lets it in no more and dials it no more, over restarts too; `unban` \
               lifts that, named as it was given.",
        flags: &[
            JSON,
            OF_DIR,
            OF_HTTP,
            flag("seconds", Takes::Number, "86400, a day", "ban: for so long"),
            flag("reason", Takes::Text("TEXT"), "", "ban: why, to remember it by"),
        ],
        examples: &[
            ("peers", "a list"),
            ("peers add 203.0.113.7", "port 9333 if none is given"),
            ("peers ban 203.0.113.0/24 --seconds 604800 --reason spam", "a week of rest"),
        ],
    },
    Verb {
        name: "token",
        summary: "print a token for who may change the node over HTTP",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Signs a token with DATADIR/secret, which the node makes at its first start, and prints it. Who sends it as \
               `Authorization: Bearer TOKEN` may change the node from anywhere: keep it as you keep a password, and send it over \
               networks that others read through a proxy with TLS alone. A token cannot be called back; to end all of them delete \
               DATADIR/secret and restart the node. `peers add`, `ban` and `unban` sign their own where they are given --datadir, or \
               else take it from ROCKPOOL_TOKEN.",
        flags: &[
            flag("network", NETWORKS, "main", "the network whose data directory it is"),
            flag("datadir", Takes::Dir, "~/.rockpool/NETWORK", "the node's data directory"),
            flag("sub", Takes::Text("NAME"), "admin", "whose token it is, to tell tokens apart"),
            flag("scope", Takes::Choice("SCOPE", &["admin", "user"]), "admin", "what it is good for: admin for all, user for portfolios"),
            flag("days", Takes::Number, "30", "for so long, at most 3650"),
        ],
        examples: &[
            ("token --datadir /var/lib/rockpool", "for thirty days"),
            ("token --sub ann --scope user --days 365", "for a user of portfolios"),
        ],
    },
    Verb {
        name: "check",
        summary: "verify a stopped node's data directory from scratch",
        words: "",
        choices: &[],
        words_max: 0,
        text: "Reads every row of the directory and checks every rule and every coinbase. It changes nothing, says what is wrong, and \
               ends with exit code 3 if anything is; `run --resync` mends it.",
        flags: &[
            flag("json", Takes::Nothing, "", "print one JSON object, for scripts"),
            flag("network", NETWORKS, "whichever it is", "the network that it must be of"),
            flag("datadir", Takes::Dir, "~/.rockpool/NETWORK, main if there is no --network", "the directory"),
        ],
        examples: &[("check --datadir /var/lib/rockpool", "the directory of the Debian package")],
    },
    Verb {
        name: "completions",
        summary: "print what completes these commands in a shell",
        words: "bash|zsh|fish",
        choices: &["bash", "zsh", "fish"],
        words_max: 1,
        text: "Prints a script for the shell that completes commands, flags and their values. The Debian package installs them.",
        flags: &[],
        examples: &[
            ("completions bash > ~/.local/share/bash-completion/completions/rockpool", "for bash"),
            ("completions fish > ~/.config/fish/completions/rockpool.fish", "for fish"),
            ("completions zsh > ~/.zfunc/_rockpool", "for zsh, with ~/.zfunc in $fpath"),
        ],
    },
    Verb {
        name: "help",
        summary: "what a command is for, its flags and examples",
        words: "[COMMAND]",
        choices: &[],
        words_max: 1,
        text: "The same as `rockpool COMMAND --help`.",
        flags: &[],
        examples: &[("help run", "all that a node can be told")],
    },
];
