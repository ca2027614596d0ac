//! How the node's miners stand, told to the stage `upstream` whenever it changes: one word at a time, and always the newest.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::blocks::Standing;
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::view::ChainView;
use rockpool_workers::jobs::{Mined, UpstreamJob};

use crate::blocks::Blocks;
use crate::config::Mode;
use crate::http::payouts::next_height;
use crate::limits::MINED_EVERY;
use crate::stratum::jobs::{Boards, own_payouts};

/// The way of such words.
#[derive(Debug, Default)]
pub struct MinedLine {
    /// One is out, and has not been heard yet.
    out: bool,
    /// What the last one said, and when.
    told: Option<(Told, Duration)>,
}

/// All that a word depends on.
#[derive(Debug)]
struct Told {
    upon: ShareId,
    credited: Arc<[(Script, u128)]>,
    /// Value and height of the next block.
    next: (u64, u32),
    best: Option<[u8; 32]>,
    blocks: usize,
}

impl Told {
    fn is(&self, other: &Told) -> bool {
        let of = |told: &Told| (told.upon, told.next, told.best, told.blocks);
        of(self) == of(other) && Arc::ptr_eq(&self.credited, &other.credited)
    }
}

impl MinedLine {
    /// What is to be said now, if something has changed and the last word was heard; or when it may be said.
    pub fn look(
        &mut self,
        now: Duration,
        view: &ChainView,
        boards: &Boards,
        blocks: &Blocks,
        params: &Params,
    ) -> Result<UpstreamJob, Option<Duration>> {
        if self.out {
            return Err(None);
        }
        let template = boards.template();
        let height = template.map_or_else(|| next_height(view.confirmed_tip(), view.bitcoin()), |template| template.height);
        let value = template.map_or_else(|| params.subsidy(height), |template| template.trim(Class::N12).value);
        let best = view.bitcoin().best().map(|best| best.hash);
        let (upon, credited) = (view.upon().parent, Arc::clone(&boards.credited));
        let tell = Told { upon, credited, next: (value, height), best, blocks: blocks.iter().len() };
        if let Some((told, at)) = &self.told {
            if told.is(&tell) {
                return Err(None);
            }
            if now < *at + MINED_EVERY {
                return Err(Some(*at + MINED_EVERY));
            }
        }
        let confirmed = blocks.iter().filter_map(|block| match block.standing(view.bitcoin()) {
            Standing::Best(depth) => Some((block.hash, block.height, depth)),
            Standing::Open | Standing::Stale(_) => None,
        });
        let mut blocks: Vec<_> = confirmed.collect();
        blocks.reverse();
        let mined = Mined { payouts: payouts(view, boards, best.unwrap_or_default(), height), value, height, blocks };
        (self.told, self.out) = (Some((tell, now)), true);
        Ok(UpstreamJob::Mined(Box::new(mined)))
    }

    /// The last word was heard.
    pub fn credit(&mut self) {
        self.out = false;
    }
}

/// Whom the next block pays: the pool, or this node's own miners by what they did lately; in solo mode whoever finds it, so nobody yet.
fn payouts(view: &ChainView, boards: &Boards, prev: [u8; 32], height: u32) -> Arc<Payouts> {
    match boards.mode {
        Mode::Chain => Arc::clone(view.upon()),
        Mode::Solo | Mode::Standalone => Arc::new(own_payouts(ShareId(prev), height.saturating_sub(1), &boards.credited)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_workers::embedded::EmbeddedChain;
    use rockpool_workers::jobs::Answer;

    use super::*;
    use crate::testing::{Grower, HTTP, Recorder, World, block_found, regtest};

    fn words(world: &mut World<Recorder>) -> Vec<Mined> {
        let jobs = std::mem::take(&mut world.node.stages_mut().jobs.upstream);
        jobs.into_iter().map(|job| if let UpstreamJob::Mined(mined) = job { *mined } else { panic!("{job:?}") }).collect()
    }

    fn on() -> World<Recorder> {
        let mut world = World::recorded(&[], true);
        world.node.config.portfolios = true;
        world
    }

    #[test]
    fn one_word_at_a_time_and_the_newest() {
        let mut world = on();
        let mut grower = Grower::new();
        world.turns();
        let first = words(&mut world);
        assert_eq!(first.len(), 1, "at the start");
        assert_eq!((first[0].payouts.parent, first[0].height), (regtest().genesis_id(), 1));
        assert_eq!((first[0].value, first[0].blocks.len()), (regtest().subsidy(1), 0));
        // Not heard yet: whatever happens, nothing more is said.
        let shares = grower.grow_many(3, Script::P2wpkh([1; 20]));
        world.confirm(&shares[..1]);
        world.pass(MINED_EVERY * 3);
        assert!(words(&mut world).is_empty());
        world.confirm(&shares);
        world.mail(Answer::MinedHeard, Vec::new());
        let next = words(&mut world);
        assert_eq!((next.len(), next[0].payouts.parent), (1, shares[2].id()));
        assert_eq!(next[0].payouts.weights.len(), 1);
        // Heard, and nothing is new.
        world.mail(Answer::MinedHeard, Vec::new());
        world.pass(MINED_EVERY * 3);
        assert!(words(&mut world).is_empty());
    }

    #[test]
    fn what_changes_at_once_again_waits_for_its_second() {
        let mut world = on();
        world.turns();
        world.mail(Answer::MinedHeard, Vec::new());
        assert_eq!(words(&mut world).len(), 1);
        let shares = Grower::new().grow_many(2, Script::P2wpkh([1; 20]));
        for count in 1..=2 {
            world.confirm(&shares[..count]);
            assert!(words(&mut world).is_empty());
        }
        // Nothing but the clock wakes it.
        world.pass(MINED_EVERY);
        assert_eq!(words(&mut world).into_iter().map(|mined| mined.payouts.parent).collect::<Vec<_>>(), [shares[1].id()]);
    }

    #[test]
    fn templates_and_found_blocks_are_told_of() {
        let mut world = on();
        let bitcoin = EmbeddedChain::new(regtest(), None);
        world.template(&bitcoin, 1);
        let conn = world.connect(HTTP);
        world.bitcoin_blocks(3);
        let best = world.node.chain().view.bitcoin().best().unwrap();
        let (hash, height) = (ShareId(best.hash), best.height);
        world.mail(block_found(conn, hash, height, None), Vec::new());
        world.mail(block_found(conn, ShareId([9; 32]), height - 1, None), Vec::new());
        world.mail(block_found(conn, ShareId([8; 32]), height + 1, None), Vec::new());
        words(&mut world);
        world.mail(Answer::MinedHeard, Vec::new());
        world.pass(MINED_EVERY);
        let told = words(&mut world).pop().unwrap();
        assert_eq!(told.blocks, [(hash, height, 1)], "stale ones pay nobody, and what is open may come to be");
        let template = bitcoin.template(world.now().unix());
        assert_eq!((told.value, told.height), (template.trim(Class::N12).value, template.height));
    }

    #[test]
    fn a_pool_of_its_own_miners_tells_what_they_are_credited_with_and_a_lottery_nothing() {
        for (mode, wanted) in [(Mode::Standalone, 1), (Mode::Solo, 0)] {
            let mut world = on();
            world.node.server.boards.mode = mode;
            if mode == Mode::Standalone {
                world.mail(Answer::Credited(Arc::from([(Script::P2wpkh([3; 20]), 5)])), Vec::new());
            }
            world.turns();
            assert_eq!(words(&mut world).pop().unwrap().payouts.weights.len(), wanted, "{mode:?}");
        }
    }

    #[test]
    fn without_portfolios_nobody_is_told() {
        let mut world = World::recorded(&[], true);
        world.pass(MINED_EVERY * 2);
        assert!(words(&mut world).is_empty());
    }
}
