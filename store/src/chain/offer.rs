//! The judgement of one share: everything but its coinbase, which waits until it is the best chain's turn.

use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;

use super::{BUILDS_ON_INVALID, Chain, Live, Named};
use crate::bitcoin::{Added, HeaderError, prev, start};
use crate::limits::{AROUND_BASE_MAX, BITCOIN_BELOW, HEADERS_BELOW, REACH, SIDE_MAX, SPAM_DEPTH, UNCLE_DEPTH};
use crate::record::{Place, Record, Uncle};
use crate::rules::share::{RuleError, check_alone, check_context};
use crate::rules::uncles::{self, Unreached};
use crate::rules::{Ancestors, difficulty, score};

/// How a share came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of our miners made it: it is stored even beside the best chain, since its miner is told so.
    Own,
    /// A peer pushed it, or sent it because we asked for it by id.
    Peer,
    /// A peer sent it in bulk. If that peer's sync is under way, it may lie far below our tip.
    Bulk(ConnId),
}

/// What became of an offered share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the index.
    Taken,
    /// It was there already.
    Known,
    /// It waits, without blame, for a share that it builds on or credits, or for the Bitcoin header that it builds on.
    Pending {
        /// The id of that share, or the hash of that block: a peer is asked for either in the same way.
        missing: ShareId,
    },
    /// It waits, without blame, for its time: to be offered again then.
    Early {
        /// Unix seconds from which on it may be offered again.
        due: u32,
    },
    /// Not kept, without blame: too far below our tip, or no room.
    Dropped(&'static str),
    /// It breaks a rule on tied fields: it and what builds on it are remembered as invalid.
    Invalid(&'static str),
    /// Not a share: nothing is recorded for its id, and its sender is to blame.
    Bad(&'static str),
}

/// What became of offered Bitcoin headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Hashes that were not known before.
    pub new: Vec<ShareId>,
    /// What the first of them builds on, if that is unknown: nothing from there on was taken.
    pub missing: Option<ShareId>,
    /// Why one of them is no header of Bitcoin's: its sender is to blame.
    pub bad: Option<String>,
}

impl Chain {
    /// Judges a share and, if it is good, puts it into the index.
    ///
    /// The order of checks is that of SHARECHAIN §1 (SPEC, VAL-1); nothing is recorded for a share that fails before "tie".
    pub fn offer(&mut self, now: Now, share: &Share, source: Source) -> Offer {
        let id = share.id();
        if self.get(&id).is_some() {
            return Offer::Known;
        }
        if let Some(why) = self.invalid.get(&id) {
            return Offer::Invalid(why);
        }
        if let Err(error) = check_alone(self.params, share) {
            return self.refuse(id, error);
        }
        if std::iter::once(&share.parent).chain(&share.uncles).any(|id| self.invalid.contains_key(id)) {
            return self.refuse(id, RuleError::Broken(BUILDS_ON_INVALID));
        }
        let Some(parent) = self.get(&share.parent).cloned() else { return self.without_parent(id, share, source) };
        // What the confirmed chain credits was judged before. Or the uncles that it names itself, if they are not at hand any more, would
        // have to come again, and those that these name, and so on down to where the chain began.
        let settled = self.settled_uncles(&id, &share.uncles);
        let bytes = settled.is_none().then(|| share.encode().into());
        let mut uncles = Vec::with_capacity(share.uncles.len());
        for uncle in share.uncles.iter().filter(|_| settled.is_none()) {
            let Some(named) = self.named(uncle) else { return Offer::Pending { missing: *uncle } };
            uncles.push(named);
        }
        let Some(prev) = self.bitcoin.get(&share.bitcoin_prev()).cloned() else {
            return Offer::Pending { missing: ShareId(share.bitcoin_prev()) };
        };
        let newest = self.newest(&parent);
        if Ancestors::new(&newest).near_base() && !self.is_beginning(source) {
            return Offer::Dropped("too near the lowest share that is kept to be judged");
        }
        let best = parent.best_bitcoin();
        let least = self.bitcoin.prev(best).map_or(0, |before| before.work);
        let records: Vec<&Record> = uncles.iter().map(|uncle| &*uncle.record).collect();
        let derived = match check_context(self.params, share, Ancestors::new(&newest), &records, (&prev, least)) {
            Ok(derived) => derived,
            Err(error) => return self.refuse(id, error),
        };
        for named in &mut uncles {
            match self.branch_of(&named.record, Ancestors::new(&newest)) {
                Ok(branch) => named.branch = branch,
                Err(Unreached::Unknown(missing)) => return Offer::Pending { missing },
                Err(Unreached::TooLong) => return self.refuse(id, RuleError::Broken("UNC-4: an uncle's branch is too long")),
            }
        }
        if difficulty::too_new(self.params, share.time, now.unix()) {
            return Offer::Early { due: share.time - self.params.time_ahead_max_s };
        }
        let place = Place {
            allowed_bits: derived.allowed_bits,
            best_bitcoin: Some(best).filter(|best| prev.work < best.work).cloned(),
            script: self.scripts.shared(&share.script),
            bitcoin: prev,
            uncles: settled.unwrap_or_else(|| uncles.iter().map(|uncle| uncle.record.as_uncle()).collect()),
        };
        self.take_in(Arc::new(place.record(share, id)), bytes, uncles, source)
    }

    /// Whether a share of the sync under way may stand where its score cannot be checked: only while the chain is hardly begun, or whoever
    /// found one share on its oldest ones could claim any score for it (SPEC, BASE-2).
    fn is_beginning(&self, source: Source) -> bool {
        let of_sync = matches!(source, Source::Bulk(peer) if self.syncing == Some(peer));
        of_sync && self.tip().height < self.lowest().height + REACH as u32 + UNCLE_DEPTH
    }

    /// Takes Bitcoin headers, ascending, whoever sent them: each proves itself.
    pub fn offer_blocks(&mut self, headers: &[[u8; 80]]) -> Blocks {
        let mut blocks = Blocks::default();
        for header in headers {
            match self.bitcoin.add(header) {
                Ok(Added::New(block)) => {
                    blocks.new.push(ShareId(block.hash));
                    self.bitcoin.pushed_out().iter().for_each(|block| self.rows.delete_block(block));
                    self.rows.put_block(&block);
                    self.news.blocks.push(block);
                }
                Ok(Added::Known) => {}
                Ok(Added::Orphan(prev)) => {
                    blocks.missing = Some(ShareId(prev));
                    break;
                }
                // Whoever told of such a branch told the truth.
                Err(HeaderError::Full) => break,
                Err(why) => {
                    blocks.bad = Some(why.to_string());
                    break;
                }
            }
        }
        blocks
    }

    /// The same, of our own side of Bitcoin, which may tell of all headers there are: begins where the network starts, and forgets those
    /// further below the best one than a fresh node would begin at and than any share asks for.
    pub fn follow_blocks(&mut self, headers: &[[u8; 80]]) -> Blocks {
        if self.bitcoin.is_empty() {
            let (height, header) = start(self.params.network);
            self.root_at(height, header);
        }
        let blocks = self.offer_blocks(headers);
        let best = self.bitcoin.best().map_or(0, |best| best.height);
        let asked = if self.tip().height > 0 { self.lowest().bitcoin.height.saturating_sub(BITCOIN_BELOW) } else { u32::MAX };
        self.forget_blocks(best.saturating_sub(HEADERS_BELOW).min(asked));
        blocks
    }

    /// Takes the word of our own bitcoind for the lowest header, where nothing is built in. One that goes on where we are is a header as
    /// any.
    pub fn root_at(&mut self, height: u32, header: &[u8; 80]) -> Option<ShareId> {
        if self.bitcoin.get(&prev(header)).is_some() {
            return self.offer_blocks(&[*header]).new.first().copied();
        }
        let lower: Vec<_> = self.bitcoin.iter().cloned().collect();
        let block = self.bitcoin.root_at(height, header).ok()??;
        lower.iter().for_each(|block| self.rows.delete_block(block));
        self.rows.put_block(&block);
        self.news.blocks.push(Arc::clone(&block));
        Some(ShareId(block.hash))
    }

    /// The newest ancestors of a child of this share, itself first: [`REACH`] of them, or as many as are kept.
    pub(super) fn newest(&self, parent: &Arc<Record>) -> Vec<Arc<Record>> {
        let mut newest = Vec::with_capacity(REACH);
        newest.extend(std::iter::successors(Some(parent), |record| self.parent_of(record)).take(REACH).cloned());
        newest
    }

    pub(super) fn parent_of(&self, record: &Record) -> Option<&Arc<Record>> {
        let on_chain = self.table.at(record.height.checked_sub(1)?).filter(|below| below.id == record.parent);
        on_chain.or_else(|| self.side.get(&record.parent).map(|live| &live.record))
    }

    /// What lies between an uncle and these ancestors.
    fn branch_of(&self, uncle: &Record, ancestors: Ancestors<'_>) -> Result<Vec<Arc<Record>>, Unreached> {
        if ancestors.near_base() {
            return Ok(Vec::new());
        }
        let credited = |id: &ShareId| self.credited.get(id).map(|named| &named.record);
        uncles::branch(uncle, ancestors, |id| self.get(id).or_else(|| credited(id)).cloned())
    }

    /// A share that another names as its uncle, wherever it is.
    pub(super) fn named(&self, id: &ShareId) -> Option<Named> {
        if let Some(live) = self.side.get(id) {
            return Some(live.named());
        }
        if let Some(record) = self.table.get(id) {
            let candidate = record.height.checked_sub(self.confirmed_height() + 1);
            let settled = || Named { record: Arc::clone(record), bytes: None, proven: true, branch: Vec::new() };
            return Some(candidate.and_then(|index| self.candidates.get(index as usize)).map_or_else(settled, Live::named));
        }
        self.credited.get(id).cloned()
    }

    /// If the confirmed chain credits this share: what that chain says of the uncles that the share itself credits, all of which are of the
    /// chain or credited by it as well (SPEC, UNC-4).
    fn settled_uncles(&self, id: &ShareId, named: &[ShareId]) -> Option<Vec<Uncle>> {
        self.table.uncle(id).filter(|(nephew, _)| nephew.height <= self.confirmed_height())?;
        let on_chain = |id: &ShareId| self.table.get(id).map(|record| record.as_uncle());
        named.iter().map(|id| self.table.uncle(id).map(|(_, uncle)| uncle.clone()).or_else(|| on_chain(id))).collect()
    }

    /// A share whose parent is not here. Around a base that is no reason to wait for it: uncles there build on what is not kept, and of
    /// them nothing is asked but their work and whom they pay (SPEC, BASE-2).
    fn without_parent(&mut self, id: ShareId, share: &Share, source: Source) -> Offer {
        let base = self.lowest().height;
        let around = base > 0 && share.height <= base + UNCLE_DEPTH && share.height + UNCLE_DEPTH > base;
        let of_sync = matches!(source, Source::Bulk(peer) if self.syncing == Some(peer));
        if !(around && of_sync) || self.credited.len() >= AROUND_BASE_MAX {
            return Offer::Pending { missing: share.parent };
        }
        let Some(bitcoin) = self.bitcoin.get(&share.bitcoin_prev()).cloned() else {
            return Offer::Pending { missing: ShareId(share.bitcoin_prev()) };
        };
        let script = self.scripts.shared(&share.script);
        let place = Place { allowed_bits: share.bits, best_bitcoin: None, script, bitcoin, uncles: Vec::new() };
        let named =
            Named { record: Arc::new(place.record(share, id)), bytes: Some(share.encode().into()), proven: true, branch: Vec::new() };
        self.credited.insert(id, named);
        Offer::Taken
    }

    /// Puts a share that passed every check but the rebuilding of its coinbase where it belongs.
    /// One without bytes was proved as another's uncle, and its row is written.
    fn take_in(&mut self, record: Arc<Record>, bytes: Option<Arc<[u8]>>, uncles: Vec<Named>, source: Source) -> Offer {
        let id = record.id;
        let of_sync = matches!(source, Source::Bulk(peer) if self.syncing == Some(peer));
        // Our miners work on the confirmed tip, whatever branch without proof may stand above it.
        let above = if source == Source::Own { self.confirmed_tip() } else { self.tip() };
        if record.score < least_score(above) && !of_sync {
            return Offer::Dropped("too far below the tip");
        }
        self.arrivals += 1;
        // What a sync brings is kept apart: where our tip is hard, thousands of its shares are near it.
        let settled = bytes.is_none();
        let live = Live { record, bytes, proven: settled, uncles, row: settled, scratch: of_sync, seen: self.arrivals };
        if self.side.is_full_for(&live) {
            return Offer::Dropped("no room in the scratch of the sync");
        }
        let no_room = self.side.near_len() >= SIDE_MAX && !self.candidates.is_empty();
        if !of_sync && source != Source::Own && no_room && !score::displaces(live.record.score, self.tip().score) {
            return Offer::Dropped("too many shares beside the best chain");
        }
        self.put_beside(live);
        if source == Source::Own || of_sync {
            self.write(id, source == Source::Own);
        }
        self.select();
        if self.get(&id).is_some() { Offer::Taken } else { Offer::Dropped("too many shares beside the best chain") }
    }

    fn refuse(&mut self, id: ShareId, error: RuleError) -> Offer {
        match error {
            RuleError::Untied(why) => Offer::Bad(why),
            RuleError::Broken(why) => {
                self.mark_invalid(id, why);
                Offer::Invalid(why)
            }
        }
    }
}

/// The score below which a share is too far below this tip to be kept (SPEC, SCORE-4).
pub(super) fn least_score(tip: &Record) -> u128 {
    tip.score.saturating_sub(tip.demand().saturating_mul(SPAM_DEPTH))
}
