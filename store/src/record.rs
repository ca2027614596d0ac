//! What the chain index keeps of a share: everything the rules ask of an ancestor, without the proof.

use std::collections::BTreeSet;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Script, Share};

use crate::bitcoin::Block;
use crate::rules::target;

/// One share of the index. Shared between the organiser's index and the reactor's view, never changed. There are hundreds of thousands:
/// what many of them have in common is kept once, and work is computed where it is asked for.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub id: ShareId,
    /// The share it builds on.
    pub parent: ShareId,
    /// The sum that decides between branches.
    pub score: u128,
    /// Height; genesis is 0.
    pub height: u32,
    /// Seconds that the chain runs ahead of its schedule.
    pub lead: u32,
    /// Share time, Unix seconds.
    pub time: u32,
    /// Its own target, compact.
    pub bits: u32,
    /// The easiest target that was allowed to it, compact; zero for genesis, of which no work was demanded.
    pub allowed_bits: u32,
    /// Who is paid.
    pub script: Arc<Script>,
    /// The Bitcoin block that its header builds on.
    pub bitcoin: Arc<Block>,
    /// What few shares have, if it has any of it.
    pub rare: Option<Box<Rare>>,
}

/// What few shares have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// Uncles it credits, in the order of their ids.
    pub uncles: Vec<Uncle>,
    /// The best Bitcoin block that an ancestor of it built on, where that has more work than its own. Kept here so that it need not be
    /// looked for: of a whole branch each share may be one block behind.
    pub best_bitcoin: Option<Arc<Block>>,
}

/// What a nephew's index entry keeps of an uncle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncle {
    /// Its id.
    pub id: ShareId,
    /// Its height, which is part of its row's key.
    pub height: u32,
    /// Its own target, compact.
    pub bits: u32,
    /// Who is paid for it.
    pub script: Arc<Script>,
}

impl Record {
    /// Work of its own target; genesis has none.
    pub fn work(&self) -> u128 {
        if self.height == 0 { 0 } else { target::work(self.bits) }
    }

    /// Work of the easiest target that was allowed to it (SPEC, SCORE-1).
    pub fn demand(&self) -> u128 {
        target::work(self.allowed_bits)
    }

    /// The uncles it credits, by ascending ids.
    pub fn uncles(&self) -> &[Uncle] {
        self.rare.as_ref().map_or(&[], |rare| &rare.uncles)
    }

    /// The Bitcoin block of most work that it or an ancestor of it builds on (SPEC, BTC-6).
    pub fn best_bitcoin(&self) -> &Arc<Block> {
        self.rare.as_ref().and_then(|rare| rare.best_bitcoin.as_ref()).unwrap_or(&self.bitcoin)
    }

    /// Whether it credits this share.
    pub fn credits(&self, id: &ShareId) -> bool {
        self.uncles().iter().any(|uncle| uncle.id == *id)
    }

    /// Height of the Bitcoin block that it tried to be.
    pub fn bitcoin_height(&self) -> u32 {
        self.bitcoin.height.saturating_add(1)
    }

    /// What a nephew keeps of it.
    pub fn as_uncle(&self) -> Uncle {
        Uncle { id: self.id, height: self.height, bits: self.bits, script: Arc::clone(&self.script) }
    }
}

impl PartialEq for Record {
    /// Records are made of a share and of what follows from its place, so the same id is the same record.
    fn eq(&self, other: &Record) -> bool {
        self.id == other.id
    }
}

impl Eq for Record {}

/// Payees, each once, however many shares name them.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    scripts: BTreeSet<Arc<Script>>,
    /// How many there were after those in use were last counted.
    counted: usize,
}

impl Scripts {
    /// The one copy of this script.
    pub fn shared(&mut self, script: &Script) -> Arc<Script> {
        if let Some(shared) = self.scripts.get(script) {
            return Arc::clone(shared);
        }
        // What no record names any more is forgotten, now and then.
        if self.scripts.len() > 2 * self.counted + 64 {
            self.scripts.retain(|shared| Arc::strong_count(shared) > 1);
            self.counted = self.scripts.len();
        }
        let shared = Arc::new(*script);
        self.scripts.insert(Arc::clone(&shared));
        shared
    }
}

/// What the rules made of a share's place, and what the record shares with others.
pub struct Place {
    /// [`Record::allowed_bits`].
    pub allowed_bits: u32,
    /// [`Record::best_bitcoin`] of its parent, if that has more work than its own block.
    pub best_bitcoin: Option<Arc<Block>>,
    /// The one copy of its script.
    pub script: Arc<Script>,
    /// The Bitcoin block that it builds on.
    pub bitcoin: Arc<Block>,
    /// The uncles it names.
    pub uncles: Vec<Uncle>,
}

impl Place {
    /// The record of a share in this place.
    pub fn record(self, share: &Share, id: ShareId) -> Record {
        let Place { allowed_bits, best_bitcoin, script, bitcoin, uncles } = self;
        let is_rare = best_bitcoin.is_some() || !uncles.is_empty();
        Record {
            id,
            parent: share.parent,
            score: share.score,
            height: share.height,
            lead: share.lead,
            time: share.time,
            bits: share.bits,
            allowed_bits,
            script,
            bitcoin,
            rare: is_rare.then(|| Box::new(Rare { uncles, best_bitcoin })),
        }
    }
}
