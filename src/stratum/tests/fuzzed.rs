//! A miner's line as bytes that nobody has looked at. The target `stratum` in `tests/fuzz` is this file, too.

use super::stratum::difficulty::rounded;
use super::stratum::firmware::{Firmware, Form, Rule};
use super::stratum::request::{Line, Request, address, granted, login, password_difficulty, rolled};
use rockpool_store::params::Network;
use rockpool_workers::work::VERSION_MASK;

/// Whatever stands in it, a line is read without harm, and what is kept of it is bounded and in range.
pub fn line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    user(&text);
    let Some(line) = Line::of(&text) else { return };
    if let Some(id) = line.id {
        assert!(text.contains(id.get()), "an id goes back as it came");
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(id.get()).is_ok());
    }
    let request = line.request();
    let same = Line::of(&text).map(|line| line.request());
    assert_eq!(format!("{:?}", Some(&request)), format!("{same:?}"), "the same line twice");
    match request {
        Request::Configure(asked) => {
            let mut names = asked.extensions.clone();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), asked.extensions.len(), "each is answered once");
            assert_eq!(granted(asked.mask) & !VERSION_MASK, 0);
        }
        Request::Subscribe { agent, .. } => {
            assert!(agent.len() <= 128);
            form(&agent, &text);
        }
        Request::Authorize { user: name, password } => {
            assert!(name.len() <= 193 && password.len() <= 128);
            user(&name);
            form(&name, &password);
        }
        Request::Submit(Ok(submit)) => {
            for mask in [VERSION_MASK, 0x6000, 0] {
                if let Ok(version) = rolled(0x2000_0001, mask, submit.version_bits) {
                    assert_eq!((version ^ 0x2000_0001) & !mask, 0);
                }
            }
        }
        Request::SuggestDifficulty(Some(difficulty)) => {
            assert!((1e-5..=1e15).contains(&difficulty) && rounded(difficulty) <= difficulty && rounded(difficulty) > 0.0);
        }
        _ => {}
    }
}

fn user(text: &str) {
    assert!(address(text).bytes().all(|byte| byte.is_ascii_alphanumeric()));
    for network in Network::ALL {
        match login(text, network) {
            Ok((_, worker)) => assert!(text.ends_with(&worker) || text.trim().ends_with(&worker)),
            Err(why) => assert!(why.len() < 200 && why.is_ascii(), "{why:?}"),
        }
    }
}

fn form(agent: &str, password: &str) {
    if let Some(difficulty) = password_difficulty(password) {
        assert!((1e-5..=1e15).contains(&difficulty));
    }
    let known = Firmware::default().form(agent, password);
    if let Ok(rule) = agent.parse::<Rule>() {
        let ruled = Firmware { rules: vec![rule] }.form(agent, password);
        assert!(matches!(ruled, Form::Lottery | Form::Shares(..)), "{known:?}");
    }
}
