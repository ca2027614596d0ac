//! What the coinbase of a share on a given parent must pay, to whom (SPEC, PAY-2).

use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Class, Script};

use crate::params::Params;
use crate::record::Record;
use crate::rules::draw;
use crate::rules::window::Window;

/// The weights that share the coinbases of all children of one share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payouts {
    /// The share that they follow from.
    pub parent: ShareId,
    /// Its height.
    pub parent_height: u32,
    /// Each script's part, in tenths of work, in script order. Empty on genesis: a child's own script gets all.
    pub weights: Arc<[(Script, u128)]>,
}

impl Payouts {
    /// Those of the children of `parent`, with which the window ends.
    pub fn new(parent: &Record, window: &Window) -> Payouts {
        Payouts { parent: parent.id, parent_height: parent.height, weights: window.weights().collect() }
    }

    /// PAY-2: the outputs that a child's coinbase must have before BIP141's commitment, in script order; they sum to `value`.
    /// `own` is the child's script.
    pub fn outputs(&self, params: &Params, class: Class, value: u64, bitcoin_height: u32, own: &Script) -> Vec<(Script, u64)> {
        if self.weights.is_empty() {
            return vec![(*own, value)];
        }
        let drawn = draw::draw(&self.weights, &self.parent, params.dust, params.subsidy(bitcoin_height), class);
        draw::pay(&drawn, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Network, params};
    use crate::rules::window::{Credit, Level};

    #[test]
    fn on_genesis_all_goes_to_the_own_script() {
        let params = params(Network::Main);
        let payouts = Payouts::new(&params.genesis_record(), &Window::new(0));
        let own = Script::P2wpkh([9; 20]);
        assert_eq!((payouts.parent, payouts.parent_height), (params.genesis_id(), 0));
        assert_eq!(payouts.outputs(params, Class::N46, 312_500_007, 840_001, &own), [(own, 312_500_007)]);
    }

    #[test]
    fn later_the_window_is_paid_and_not_the_finder() {
        let params = params(Network::Main);
        let (first, second, own) = (Script::P2wpkh([1; 20]), Script::P2tr([2; 32]), Script::P2wsh([3; 32]));
        let mut window = Window::new(0);
        for (script, work) in [(second, 300), (first, 100)] {
            let credits = vec![Credit { script, tenths: 10 * work }];
            window.push(params, 0, |_| Level { work, credits: credits.clone() });
        }
        let two = Record { id: ShareId([2; 32]), height: 2, ..params.genesis_record() };
        let payouts = Payouts::new(&two, &window);
        assert_eq!(payouts.outputs(params, Class::N12, 400_000_001, 840_001, &own), [(first, 100_000_001), (second, 300_000_000)]);
        assert_eq!(*payouts.weights, [(first, 1_000), (second, 3_000)]);
    }
}
