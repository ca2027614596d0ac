//! What one step of the organiser changed, as it travels to the reactor's view.

use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::bitcoin::Block;
use crate::payouts::Payouts;
use crate::record::Record;

/// A proved share beside the best chain.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Its record.
    pub record: Arc<Record>,
    /// Its encoding; `None` where its row is on disk.
    pub bytes: Option<Arc<[u8]>>,
}

/// The difference that one step of the organiser made to the chain. Applied to `ChainView` in the order of its making.
#[derive(Clone, Debug, Default)]
pub struct ChainChange {
    /// The lowest share that is kept, if it is another one now: all below it is forgotten, and if it is not of the chain so far, that too.
    pub base: Option<Arc<Record>>,
    /// The best chain (candidate) keeps its heights up to and including this one; what stood above is replaced by `added`.
    pub fork_height: u32,
    /// Records above `fork_height`, ascending by one.
    pub added: Vec<Arc<Record>>,
    /// Height up to which the best chain is confirmed after the change: coinbases rebuilt and matching.
    pub confirmed_height: u32,
    /// Ids newly confirmed, ascending by height.
    pub confirmed: Vec<ShareId>,
    /// Encoded shares that are new and not yet stored (best chain, its uncles and own side shares); the view serves them until `Stored`.
    pub bytes: Vec<(ShareId, Arc<[u8]>)>,
    /// Payouts at the confirmed tip, if that moved.
    pub payouts: Option<Arc<Payouts>>,
    /// Payouts at the share that work builds on from now on; `None` where that is the confirmed tip.
    pub upon: Option<Arc<Payouts>>,
    /// Shares beside the best chain that were proved: they may be relayed, and credited as uncles.
    pub beside: Vec<Beside>,
    /// New Bitcoin headers, parents first.
    pub blocks: Vec<Arc<Block>>,
    /// Bitcoin headers that shares of the chain or their uncles build on, told once: they are never pushed out by others. Each with the
    /// number of new headers that came before this was so.
    pub held: Vec<(usize, [u8; 32])>,
    /// Bitcoin headers below this height are forgotten.
    pub blocks_below: Option<u32>,
}
