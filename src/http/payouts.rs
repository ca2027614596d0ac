//! Whom the next block pays, and what somebody has of it.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::hex::DisplayHex;
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::bitcoin::Tree;
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::record::Record;
use rockpool_store::rules::draw::{self, Drawn, Odds};
use rockpool_store::view::ChainView;
use serde::Serialize;

use crate::config::Mode;
use crate::http::json::address;
use crate::limits::DRAWS_KEPT;
use crate::miners::pool::block_work;
use crate::stratum::request::login;

/// All satoshis that there will ever be.
pub const SATS_MAX: u64 = 2_100_000_000_000_000;

/// A draw that is made: of one share's payouts, for one class. What a block is worth changes only what its outputs are worth.
#[derive(Debug)]
pub struct Draw {
    payouts: Payouts,
    class: Class,
    dust: u64,
    /// Bitcoin's at the block's height.
    subsidy: u64,
    drawn: Drawn,
    /// Made when somebody first asks for his chance.
    odds: OnceCell<Odds>,
}

impl Draw {
    /// Of a block at this height in Bitcoin's chain.
    pub fn new(params: &Params, payouts: &Payouts, class: Class, bitcoin_height: u32) -> Draw {
        let (dust, subsidy) = (params.dust, params.subsidy(bitcoin_height));
        let drawn = draw::draw(&payouts.weights, &payouts.parent, dust, subsidy, class);
        Draw { payouts: payouts.clone(), class, dust, subsidy, drawn, odds: OnceCell::new() }
    }

    fn is_of(&self, params: &Params, payouts: &Payouts, class: Class, bitcoin_height: u32) -> bool {
        // Where miners are a pool of their own, weights change while the parent stays.
        let same = self.payouts.parent == payouts.parent && Arc::ptr_eq(&self.payouts.weights, &payouts.weights);
        same && self.class == class && self.subsidy == params.subsidy(bitcoin_height)
    }

    fn odds(&self) -> &Odds {
        self.odds.get_or_init(|| Odds::new(&self.payouts.weights, self.dust, self.subsidy, self.class))
    }

    /// What a script has in the window, in tenths of work.
    fn weight(&self, script: &Script) -> u128 {
        let weights = &self.payouts.weights;
        weights.binary_search_by(|(of, _)| of.cmp(script)).map_or(0, |place| weights[place].1)
    }
}

/// The newest draws: each is made once, however often it is asked for.
#[derive(Debug, Default)]
pub struct Draws(VecDeque<Draw>);

impl Draws {
    /// The draw of these payouts.
    pub fn of(&mut self, params: &Params, payouts: &Payouts, class: Class, bitcoin_height: u32) -> &Draw {
        let place = self.0.iter().position(|draw| draw.is_of(params, payouts, class, bitcoin_height));
        let place = place.unwrap_or_else(|| {
            self.0.truncate(DRAWS_KEPT - 1);
            self.0.push_front(Draw::new(params, payouts, class, bitcoin_height));
            0
        });
        &self.0[place]
    }
}

/// `GET /api/v1/payouts`.
#[derive(Debug, Serialize)]
pub struct PayoutsView {
    /// Whom blocks pay: "chain", "solo" or "standalone".
    mode: &'static str,
    /// The share that they follow from; without a share chain the block of Bitcoin that is built on.
    parent: String,
    height: u32,
    class: &'static str,
    value: u64,
    bitcoin_height: u32,
    /// Scripts that have something in the window; where a class has no room for all of them, some are drawn.
    payees: usize,
    pays: Vec<Pay>,
    note: Option<&'static str>,
    /// What the address that was asked for has of it; nothing that could be told where the finder gets all.
    #[serde(skip_serializing_if = "Option::is_none")]
    you: Option<You>,
}

#[derive(Debug, Serialize)]
struct Pay {
    script: String,
    address: Option<String>,
    sats: u64,
    /// Its part of the window's work.
    weight: f64,
}

/// `you` of the payouts.
#[derive(Debug, Serialize)]
pub struct You {
    address: String,
    /// What the block pays it as it was drawn.
    sats: u64,
    /// Its part of the window's work.
    weight: f64,
    /// Of a block on a parent that nobody knows yet: the chance that it pays this address at all. Pay is so much more where it is below 1
    /// that it comes to the same.
    chance: f64,
    /// Its work in the window, in shares of the difficulty that is demanded now; null without a share chain.
    credit_shares: Option<f64>,
    pending: Pending,
}

/// `pending` of `you`. Every block that is found while work is in the window pays for it.
#[derive(Debug, Serialize)]
struct Pending {
    /// What its work in the window is worth at today's subsidy and Bitcoin's difficulty, before what blocks since have paid for it; null
    /// where every share is a block, so that no difficulty tells.
    sats: Option<u64>,
    /// What a block pays it on average, whoever is drawn.
    block_sats: u64,
}

/// What work is worth at present.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    /// Work that the next share must have, if there is a share chain.
    share: Option<u128>,
    /// Work that the next Bitcoin block takes, if that says something.
    block: Option<u128>,
}

impl Worth {
    /// At the tip.
    pub fn of(view: &ChainView, mode: Mode) -> Worth {
        Worth { share: (mode == Mode::Chain).then(|| view.confirmed_tip().demand().max(1)), block: block_work(view) }
    }
}

impl You {
    /// Of the miner at this address; else why it is none.
    pub fn of(draw: &Draw, params: &Params, value: u64, worth: Worth, address: &str) -> Result<You, String> {
        let (script, rest) = login(address, params.network)?;
        if !rest.is_empty() {
            return Err("address is a Bitcoin address, without a worker".into());
        }
        let (own, all) = (draw.weight(&script), draw.payouts.weights.iter().map(|(_, weight)| *weight as f64).sum::<f64>());
        let mine = own as f64;
        let weight = if all > 0.0 { mine / all } else { 0.0 };
        let work = mine / 10.0;
        Ok(You {
            address: address.to_owned(),
            sats: outputs(draw, value).into_iter().find(|(of, _)| *of == script).map_or(0, |(_, sats)| sats),
            weight,
            chance: draw.odds().chance(own).min(1.0),
            credit_shares: worth.share.map(|share| work / share as f64),
            pending: Pending {
                sats: worth.block.map(|block| ((work / block as f64 * draw.subsidy as f64) as u64).min(SATS_MAX)),
                block_sats: (weight * value as f64) as u64,
            },
        })
    }
}

/// Height of the block that is looked for on this tip, where no template tells it: above the best of Bitcoin's headers that is known.
pub fn next_height(tip: &Record, bitcoin: &Tree) -> u32 {
    bitcoin.best().map_or(0, |best| best.height.saturating_add(1)).max(tip.bitcoin_height())
}

/// Without weights all goes to the share's own script, which nobody has told us here (SHARECHAIN §7).
fn outputs(draw: &Draw, value: u64) -> Vec<(Script, u64)> {
    if draw.payouts.weights.is_empty() { Vec::new() } else { draw::pay(&draw.drawn, value) }
}

/// What a block of this value and height pays by this draw.
pub fn payouts(params: &Params, mode: Mode, draw: &Draw, (value, bitcoin_height): (u64, u32), you: Option<You>) -> PayoutsView {
    let payouts = &draw.payouts;
    let first = payouts.weights.is_empty();
    let all: f64 = payouts.weights.iter().map(|(_, weight)| *weight as f64).sum();
    let pays = outputs(draw, value).into_iter().map(|(script, sats)| Pay {
        script: script.script_pubkey().to_lower_hex_string(),
        address: address(&script, params),
        sats,
        weight: draw.weight(&script) as f64 / all,
    });
    PayoutsView {
        mode: mode.name(),
        parent: payouts.parent.to_string(),
        height: payouts.parent_height,
        class: class(draw.class),
        value,
        bitcoin_height,
        payees: payouts.weights.len(),
        pays: pays.collect(),
        note: match mode {
            Mode::Solo => Some("solo: a block pays all to the miner that finds it"),
            Mode::Standalone if first => Some("nobody has done any work yet: a block pays all to the miner that finds it"),
            Mode::Chain if first => Some("the first share after genesis pays all to its own miner"),
            Mode::Chain | Mode::Standalone => None,
        },
        you,
    }
}

/// A class by its name.
pub fn class(class: Class) -> &'static str {
    match class {
        Class::N12 => "N12",
        Class::N46 => "N46",
        Class::N144 => "N144",
        Class::N360 => "N360",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_net::id::ShareId;
    use rockpool_store::params::{Network, params};
    use serde_json::Value;

    use super::*;

    fn many(parent: u8, count: u32) -> Payouts {
        let script = |who: u32| Script::P2wpkh(std::array::from_fn(|at| who.to_be_bytes().get(at).copied().unwrap_or(0)));
        let weights = (0..count).map(|who| (script(who), 1_000 + u128::from(who) * 10)).collect();
        Payouts { parent: ShareId([parent; 32]), parent_height: 9, weights }
    }

    fn worth() -> Worth {
        Worth { share: Some(100), block: Some(1_000_000) }
    }

    #[test]
    fn a_draw_is_made_once_for_a_parent_a_class_and_a_subsidy() {
        let (params, mut draws) = (params(Network::Regtest), Draws::default());
        let payouts = many(1, 500);
        let made = |draws: &mut Draws, payouts: &Payouts, class, height| {
            let draw: *const Odds = draws.of(params, payouts, class, height).odds();
            draw
        };
        let first = made(&mut draws, &payouts, Class::N12, 100);
        for _ in 0..3 {
            assert_eq!(made(&mut draws, &payouts, Class::N12, 101), first, "another value or height of the same subsidy is the same draw");
        }
        assert_eq!(draws.0.len(), 1);
        made(&mut draws, &payouts, Class::N46, 100);
        made(&mut draws, &payouts, Class::N12, 100 + 150);
        made(&mut draws, &many(1, 500), Class::N12, 100);
        assert_eq!(draws.0.len(), 4, "another class, subsidy, or weights of the same parent");
        for parent in 0..100 {
            draws.of(params, &many(parent, 3), Class::N12, 100);
        }
        assert_eq!(draws.0.len(), DRAWS_KEPT);
        let kept = draws.of(params, &payouts, Class::N12, 100);
        assert_eq!(kept.drawn, Draw::new(params, &payouts, Class::N12, 100).drawn);
    }

    #[test]
    fn you_are_told_what_you_have_and_your_chance() {
        let params = params(Network::Regtest);
        let draw = Draw::new(params, &many(3, 500), Class::N12, 100);
        let (value, mut paid, mut chances) = (5_000_000_000, 0, 0.0);
        for who in 0..500 {
            let (script, weight) = draw.payouts.weights[who];
            let you = You::of(&draw, params, value, worth(), &address(&script, params).unwrap()).unwrap();
            let view = serde_json::to_value(payouts(params, Mode::Chain, &draw, (value, 100), Some(you))).unwrap();
            let you = &view["you"];
            let is = |name: &str| you[name].as_f64().unwrap();
            let script = script.script_pubkey().to_lower_hex_string();
            let pay = view["pays"].as_array().unwrap().iter().find(|pay| pay["script"] == script);
            assert_eq!(you["sats"].as_u64(), pay.map_or(Some(0), |pay| pay["sats"].as_u64()));
            if let Some(pay) = pay {
                assert_eq!(pay["weight"], you["weight"]);
                assert!((is("chance") * is("sats") - is("weight") * value as f64).abs() < 1.0, "pay is the weight's over the chance");
            }
            assert!((is("credit_shares") - weight as f64 / 1_000.0).abs() < 1e-9);
            assert_eq!(you["pending"]["block_sats"], (is("weight") * value as f64) as u64);
            assert_eq!(you["pending"]["sats"], (weight as f64 / 10.0 / 1e6 * draw.subsidy as f64) as u64);
            (paid, chances) = (paid + you["sats"].as_u64().unwrap(), chances + is("chance"));
        }
        assert!(paid == value && (chances - 12.0).abs() < 1e-6, "{paid} of {value}, {chances} of 12 places");
        let nobody = address(&Script::P2wpkh([9; 20]), params).unwrap();
        let you = serde_json::to_value(You::of(&draw, params, value, worth(), &nobody).unwrap()).unwrap();
        let nothing = |name: &str| you[name].as_f64() == Some(0.0);
        assert!(["sats", "weight", "chance", "credit_shares"].into_iter().all(nothing), "{you}");
        let main = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
        for bad in ["", "x", main, &format!("{nobody}.worker")] {
            assert!(You::of(&draw, params, value, worth(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn where_nobody_has_anything_nothing_is_divided_by_it() {
        let params = params(Network::Regtest);
        let draw = Draw::new(params, &many(3, 0), Class::N360, 100);
        let nobody = address(&Script::P2wpkh([9; 20]), params).unwrap();
        let you = You::of(&draw, params, 7, worth(), &nobody).unwrap();
        let unknown = You::of(&draw, params, 7, Worth { share: None, block: None }, &nobody).unwrap();
        let unknown = serde_json::to_value(unknown).unwrap();
        assert_eq!((&unknown["credit_shares"], &unknown["pending"]["sats"]), (&Value::Null, &Value::Null));
        let view: Value = serde_json::to_value(payouts(params, Mode::Chain, &draw, (7, 100), Some(you))).unwrap();
        assert_eq!((&view["pays"], &view["you"]["weight"], &view["payees"]), (&Value::Array(Vec::new()), &0.0.into(), &0.into()));
    }
}
