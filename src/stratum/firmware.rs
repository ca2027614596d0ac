//! What a miner's coinbase looks like: its class and layout, by what firmware says of itself and by its owner's hints (SHARECHAIN §1, §8).

use rockpool_net::wire::share::{Class, Layout};

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

/// Whether a miner's jobs are a solo lottery: `c=1` in its password, or the firmware if no other class is asked for there.
pub fn is_lottery(agent: &str, password: &str) -> bool {
    let asked = hints(password, "c=").find_map(|outputs| if outputs == "1" { Some(true) } else { asked_class(outputs).map(|_| false) });
    asked.unwrap_or_else(|| LOTTERY.iter().any(|word| agent.to_ascii_lowercase().contains(word)))
}

/// The class and layout of a miner's jobs: `c=12|46|144|360` and `l=front|tail` in its password, else by its user agent. Of whom nothing is
/// known gets the smallest class, which any device holds, and the layout that is cheap for us.
pub fn class_and_layout(agent: &str, password: &str) -> (Class, Layout) {
    let agent = agent.to_ascii_lowercase();
    let known = FAMILIES.iter().find(|(word, ..)| agent.contains(word));
    let (class, layout) = known.map_or((Class::N12, Layout::Tail), |(_, class, layout)| (*class, *layout));
    (hints(password, "c=").find_map(asked_class).unwrap_or(class), hints(password, "l=").find_map(asked_layout).unwrap_or(layout))
}

/// The values of a hint in a password of hints, `d=0.001,l=front`.
pub fn hints<'a>(password: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    password.split([',', ';', ' ']).filter_map(move |hint| hint.trim().strip_prefix(name))
}

fn asked_class(outputs: &str) -> Option<Class> {
    let outputs: usize = outputs.parse().ok()?;
    Class::ALL.into_iter().find(|class| class.outputs() == outputs)
}

fn asked_layout(name: &str) -> Option<Layout> {
    match name {
        "front" => Some(Layout::Front),
        "tail" => Some(Layout::Tail),
        _ => None,
    }
}

#[cfg(test)]
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
            assert_eq!(class_and_layout(agent, "x"), (class, layout), "{agent}");
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
            assert_eq!(is_lottery(agent, password), lottery, "{agent} {password}");
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
            // What says nothing changes nothing, and the first that says something counts.
            ("c=13,l=middle,c=,c=46,c=12", Class::N46, Layout::Front),
            ("abc=12,xl=tail", Class::N144, Layout::Front),
        ] {
            assert_eq!(class_and_layout("bitaxe/BM1368", password), (class, layout), "{password}");
        }
    }
}
