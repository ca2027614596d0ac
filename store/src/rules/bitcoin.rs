//! Bitcoin's side of a share (SPEC, BTC-4 to BTC-8): where its header stands in the tree of Bitcoin's headers.

use rockpool_net::wire::share::Share;

use crate::bitcoin::{Block, required_bits};
use crate::params::Params;
use crate::rules::share::RuleError;

/// BTC-5 to BTC-8: whether the header of a share on the Bitcoin block `prev` is one that Bitcoin would take there, as far as a header
/// shows. `least_work` is the work of the block one before the best that an ancestor of the share built on.
pub fn check(params: &Params, share: &Share, prev: &Block, least_work: u128) -> Result<(), RuleError> {
    use RuleError::Broken;
    if share.bitcoin_height != prev.height.saturating_add(1) {
        return Err(Broken("BTC-5: its Bitcoin height is not that of its header"));
    }
    if prev.work < least_work {
        return Err(Broken("BTC-6: its Bitcoin block is more than one behind the best that its ancestors used"));
    }
    if share.header_bits() != required_bits(params, prev, share.header_time()) {
        return Err(Broken("BTC-7: the header's bits are not those that Bitcoin demands"));
    }
    if share.header_time() <= prev.median_time {
        return Err(Broken("BTC-8: the header's time is not above Bitcoin's median"));
    }
    Ok(())
}
