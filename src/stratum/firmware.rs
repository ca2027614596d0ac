//! What a miner's coinbase looks like: its class and layout, by what firmware says of itself and by its owner's hints (SHARECHAIN §1, §8).

use std::str::FromStr;

use rockpool_net::wire::share::{Class, Layout};

use crate::limits::AGENT_BYTES_MAX;

/// Families of firmware: words of their user agents, in small letters; how large a coinbase they hold; and where the extranonce stands for
/// them. The first that fits counts. Sizes are those that DATUM's gateway has found to work: 2,250, 6,500 and 16,000 bytes.
const FAMILIES: [(&str, Class, Layout); 10] = [
    // ESP-Miner and its kin show what they read out of `coinb2`. Of the forks no size is known.
    ("bitaxe", Class::N144, Layout::Front),
    ("nerdqaxe", Class::N12, Layout::Front),
    ("nerdoctaxe", Class::N12, Layout::Front),
    ("esp-miner", Class::N12, Layout::Front),
    ("esp32", Class::N12, Layout::Front),
    ("antminer s21/", Class::N46, Layout::Tail),
    ("bosminer-plus-tuner", Class::N46, Layout::Tail),
    ("whatsminer/v1", Class::N144, Layout::Tail),
    ("powerplay-bm/", Class::N360, Layout::Tail),
    ("xminer-1.", Class::N360, Layout::Tail),
];

/// Words of devices that hold less than the smallest class: NerdMiner keeps a coinbase in 255 bytes.
const LOTTERY: [&str; 2] = ["nerdminer", "sparkminer"];

/// Least difficulties of rental markets' proxies, which refuse a pool that offers less. NiceHash's, for SHA-256.
///
/// NiceHash is said to hold 500 bytes of coinbase (DATUM's gateway); the smallest class has up to 752, so that with twelve payees it may be
/// too large. It gets that class all the same, since a solo lottery would pay a renter nothing, and its own check of a pool tells before
/// anything is paid; where it does refuse, the owner can say `c=1`. Mining Rig Rentals passes on the user agent of the rig itself, and so
/// its class; its renters set the difficulty by `d=` in the password.
const LEAST: [(&str, f64); 1] = [("nicehash/", 500_000.0)];

/// The least difficulty that a miner works at, if its user agent tells.
pub fn least_difficulty(agent: &str) -> Option<f64> {
    let agent = agent.to_ascii_lowercase();
    LEAST.iter().find(|(word, _)| agent.contains(word)).map(|(_, least)| *least)
}

/// What a miner's jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A solo lottery.
    Lottery,
    /// Shares.
    Shares(Class, Layout),
}

/// What an operator says of a kind of firmware: `WORD=OUTPUTS[,LAYOUT]`, as in `my-asic/=144,front`. It concerns all whose user agent
/// holds the word, in letters of either size. Outputs are 12, 46, 144 or 360, or 1 for a solo lottery; the layout is *tail* if not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    word: String,
    form: Form,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let mistake = || format!("{text:?} is no rule for firmware: give WORD=12|46|144|360[,front|tail], or WORD=1 for a solo lottery");
        let (word, form) = text.rsplit_once('=').ok_or_else(mistake)?;
        let (outputs, layout) = form.split_once(',').map_or((form, None), |(outputs, layout)| (outputs, Some(layout.trim())));
        let form = match (outputs.trim(), layout) {
            ("1", None) => Form::Lottery,
            (outputs, layout) => {
                let layout = layout.map_or(Some(Layout::Tail), asked_layout);
                Form::Shares(asked_class(outputs).ok_or_else(mistake)?, layout.ok_or_else(mistake)?)
            }
        };
        // An empty word is everybody's.
        let word = Some(word.trim()).filter(|word| !word.is_empty() && word.len() <= AGENT_BYTES_MAX).ok_or_else(mistake)?;
        Ok(Rule { word: word.to_ascii_lowercase(), form })
    }
}

/// What is known of firmware.
#[derive(Clone, Debug, Default)]
pub struct Firmware {
    /// The operator's rules, which go before what is known here; the first that fits counts.
    pub rules: Vec<Rule>,
}

impl Firmware {
    /// The form of a miner's jobs: `c=1|12|46|144|360` and `l=front|tail` in its password, else by the operator's rules, else by what is
    /// known of its user agent. Of whom nothing is known gets the smallest class, which any device holds, and the layout that is cheap for
    /// us.
    pub fn form(&self, agent: &str, password: &str) -> Form {
        let agent = agent.to_ascii_lowercase();
        let known = self.rules.iter().find(|rule| agent.contains(&rule.word)).map_or_else(|| known(&agent), |rule| rule.form);
        let class = hints(password, "c=").find_map(|outputs| if outputs == "1" { Some(None) } else { asked_class(outputs).map(Some) });
        let (known_class, known_layout) = match known {
            Form::Lottery => (None, Layout::Tail),
            Form::Shares(class, layout) => (Some(class), layout),
        };
        match class.unwrap_or(known_class) {
            None => Form::Lottery,
            Some(class) => Form::Shares(class, hints(password, "l=").find_map(asked_layout).unwrap_or(known_layout)),
        }
    }
}

/// What is known of a user agent in small letters.
fn known(agent: &str) -> Form {
    if LOTTERY.iter().any(|word| agent.contains(word)) {
        return Form::Lottery;
    }
    let family = FAMILIES.iter().find(|(word, ..)| agent.contains(word));
    family.map_or(Form::Shares(Class::N12, Layout::Tail), |(_, class, layout)| Form::Shares(*class, *layout))
}

/// The values of a hint in a password of hints, `d=0.001,l=front`, whatever stands between them and in letters of either size.
pub fn hints<'a>(password: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let value = move |hint: &'a str| hint.split_at_checked(name.len()).filter(|(begin, _)| begin.eq_ignore_ascii_case(name));
    password.split(|c: char| c == ',' || c == ';' || c.is_whitespace()).filter_map(move |hint| value(hint).map(|(_, value)| value))
}

fn asked_class(outputs: &str) -> Option<Class> {
    let outputs: usize = outputs.parse().ok()?;
    Class::ALL.into_iter().find(|class| class.outputs() == outputs)
}

fn asked_layout(name: &str) -> Option<Layout> {
    let named = [("front", Layout::Front), ("tail", Layout::Tail)];
    named.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, layout)| layout)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_known_by_its_user_agent() {
        for (agent, class, layout) in [
            ("bitaxe/BM1370/v2.9.0", Class::N144, Layout::Front),
            ("Bitaxe", Class::N144, Layout::Front),
            ("NerdQAxe++/BM1370/v1.0.30", Class::N12, Layout::Front),
            ("NerdOCTAXE/BM1370/v1", Class::N12, Layout::Front),
            ("ESP32-miner/1", Class::N12, Layout::Front),
            ("Antminer S21/Mon Mar 4", Class::N46, Layout::Tail),
            ("bosminer-plus-tuner 0.2.0", Class::N46, Layout::Tail),
            ("whatsminer/v1.0", Class::N144, Layout::Tail),
            ("PowerPlay-BM/1", Class::N360, Layout::Tail),
            ("xminer-1.2.7", Class::N360, Layout::Tail),
            ("Antminer S19k Pro|LUXminer 2024", Class::N12, Layout::Tail),
            ("cpuminer/2.5.1", Class::N12, Layout::Tail),
            ("", Class::N12, Layout::Tail),
        ] {
            assert_eq!(Firmware::default().form(agent, "x"), Form::Shares(class, layout), "{agent}");
        }
    }

    #[test]
    fn small_devices_and_who_asks_for_it_play_the_lottery() {
        for (agent, password, lottery) in [
            ("NerdMinerV2/V1.8.3", "x", true),
            ("SparkMiner", "", true),
            ("NerdMinerV2/V1.8.3", "d=0.001,c=12", false),
            ("NerdMinerV2/V1.8.3", "c=2,l=tail", true),
            ("NerdQAxe++/BM1370", "x", false),
            ("bitaxe/BM1370", "c=1", true),
            ("", "x", false),
        ] {
            assert_eq!(Firmware::default().form(agent, password) == Form::Lottery, lottery, "{agent} {password}");
        }
    }

    #[test]
    fn the_owner_knows_better() {
        for (password, class, layout) in [
            ("l=tail", Class::N144, Layout::Tail),
            ("d=5,c=360", Class::N360, Layout::Front),
            ("c=12;l=tail", Class::N12, Layout::Tail),
            (" c=46 l=front ", Class::N46, Layout::Front),
            ("c=144", Class::N144, Layout::Front),
            ("L=Tail\tC=46", Class::N46, Layout::Tail),
            ("x\u{a0}c=46;;, é=1,l", Class::N46, Layout::Front),
            // What says nothing changes nothing, and the first that says something counts.
            ("c=13,l=middle,c=,c=46,c=12", Class::N46, Layout::Front),
            ("abc=12,xl=tail", Class::N144, Layout::Front),
        ] {
            assert_eq!(Firmware::default().form("bitaxe/BM1368", password), Form::Shares(class, layout), "{password}");
        }
    }

    #[test]
    fn the_operator_knows_better_than_we_and_the_owner_better_than_both() {
        let rules = ["My-ASIC/2=144", "my-asic=360,front", "bitaxe=12,tail", "a=b=46, front", "blinker=1"];
        let firmware = Firmware { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() };
        for (agent, password, form) in [
            ("my-asic/2.7", "x", Form::Shares(Class::N144, Layout::Tail)),
            ("MY-ASIC/1", "x", Form::Shares(Class::N360, Layout::Front)),
            ("my-asic/1", "c=12", Form::Shares(Class::N12, Layout::Front)),
            ("bitaxe/BM1370", "", Form::Shares(Class::N12, Layout::Tail)),
            ("bitaxe/BM1370", "l=front", Form::Shares(Class::N12, Layout::Front)),
            ("A=B", "", Form::Shares(Class::N46, Layout::Front)),
            ("blinker", "", Form::Lottery),
            ("blinker", "c=46", Form::Shares(Class::N46, Layout::Tail)),
            ("xminer-1.2", "", Form::Shares(Class::N360, Layout::Tail)),
        ] {
            assert_eq!(firmware.form(agent, password), form, "{agent} {password}");
        }
    }

    #[test]
    fn a_rule_out_of_form_is_told() {
        for bad in ["", "x", "=12", " =12", "x=", "x=13", "x=12,middle", "x=12,", "x=1,front", "x=12,front,tail", "x=-1"] {
            let error = bad.parse::<Rule>().unwrap_err();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("WORD="), "{error}");
        }
        assert!(format!("{}=12", "x".repeat(AGENT_BYTES_MAX)).parse::<Rule>().is_ok());
        assert!(format!("{}=12", "x".repeat(AGENT_BYTES_MAX + 1)).parse::<Rule>().is_err());
    }

    #[test]
    fn rental_markets_begin_where_they_must() {
        assert_eq!(least_difficulty("NiceHash/1.0.0"), Some(500_000.0));
        assert_eq!(least_difficulty("bitaxe"), None);
    }
}
