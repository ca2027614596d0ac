//! A random history: shares on many branches, good ones and every kind of bad ones, on several Bitcoin blocks.

use std::sync::OnceLock;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::sha256::{Midstate, sha256, sha256d};
use rockpool_net::wire::share::{Class, Layout, Script, Share, merkle_root};

use super::slow::{Slow, SlowBlock};
use crate::params::{Network, Params, params};
use crate::rules::target::hash_meets;
use crate::testing::ShareBuilder;

/// What is there to be told, and the dice.
pub struct World {
    pub slow: Slow,
    pub rng: ChaCha12Rng,
    /// All shares in the order of their making, genesis first.
    pub made: Vec<ShareId>,
    /// Hashes of all Bitcoin headers in the order of their making.
    pub blocks: Vec<[u8; 32]>,
    /// How often bad shares and bad uncles come: one in so many.
    bad_every: u32,
    /// Two branches that grow side by side, if this history is such a one.
    rivals: Option<[ShareId; 2]>,
    people: u32,
}

/// Regtest with small windows, so that their edges are met.
pub fn small_windows() -> &'static [&'static Params] {
    static SMALL: OnceLock<Vec<&'static Params>> = OnceLock::new();
    SMALL.get_or_init(|| {
        let sizes = [(1, 1), (1, 2), (1, 7), (2, 2), (2, 30), (3, 9), (5, 5), (8, 40), (13, 20), (21, 34), (40, 60), (2_160, 120_960)];
        let small = sizes.map(|(window_min, window_max)| {
            let mut small = params(Network::Regtest).clone();
            (small.window_min, small.window_max) = (window_min, window_max);
            &*Box::leak(Box::new(small))
        });
        small.to_vec()
    })
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let params = small_windows()[rng.next_u32() as usize % small_windows().len()];
        World::with(params, rng)
    }

    pub fn with(params: &'static Params, mut rng: ChaCha12Rng) -> World {
        let slow = Slow::new(params);
        let (made, first) = (vec![slow.genesis()], sha256d(&params.bitcoin.genesis));
        let rivals = rng.next_u32().is_multiple_of(3).then(|| [slow.genesis(); 2]);
        let (bad_every, people) = ([6, 12, 30, 1_000_000][rng.next_u32() as usize % 4], 1 + rng.next_u32() % 30);
        let mut world = World { slow, rng, made, blocks: vec![first], bad_every, rivals, people };
        for _ in 0..2 + world.below(4) {
            world.mine_block();
        }
        world
    }

    /// A history without bad shares.
    pub fn good(params: &'static Params, rng: ChaCha12Rng) -> World {
        let mut world = World::with(params, rng);
        world.bad_every = u32::MAX;
        world
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.rng.next_u32() % end
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.rng.next_u32().is_multiple_of(times)
    }

    /// The good share of the highest score; of equals the first made.
    pub fn best(&self) -> ShareId {
        let good = self.made.iter().filter(|id| self.slow.known[id].good);
        *good.reduce(|best, id| if self.slow.share(id).score > self.slow.share(best).score { id } else { best }).unwrap()
    }

    /// A Bitcoin header on one of the newest ones, mostly on the very newest.
    pub fn mine_block(&mut self) {
        let back = if self.once_in(4) { 1 + self.below(3) as usize } else { 0 };
        let prev = self.blocks[self.blocks.len().saturating_sub(1 + back)];
        let mut times: Vec<u32> = Vec::new();
        let mut at = self.slow.blocks.get(&prev);
        while let Some(block) = at.filter(|_| times.len() < 11) {
            times.push(u32::from_le_bytes(block.header[68..72].try_into().unwrap()));
            at = self.slow.blocks.get(&block.header[4..36]);
        }
        times.sort_unstable();
        let time = times[times.len() / 2] + 1 + self.below(3);
        let mut header = [0; 80];
        header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
        header[4..36].copy_from_slice(&prev);
        header[36..40].copy_from_slice(&self.rng.next_u32().to_le_bytes());
        header[68..72].copy_from_slice(&time.to_le_bytes());
        let bits = self.slow.params.bitcoin.limit_bits;
        header[72..76].copy_from_slice(&bits.to_le_bytes());
        for nonce in 0u32.. {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            if hash_meets(&sha256d(&header), bits) {
                break;
            }
        }
        let height = self.slow.blocks[&prev].height + 1;
        self.slow.blocks.insert(sha256d(&header), SlowBlock { header, height });
        self.blocks.push(sha256d(&header));
    }

    /// A share to build on: the best, the top of a rival branch, one of the newest, or any ancestor of the best.
    fn draw_parent(&mut self) -> ShareId {
        let best = self.best();
        if let Some(rivals) = self.rivals
            && !self.once_in(8)
        {
            return rivals[self.below(2) as usize];
        }
        let line = self.slow.line(&best);
        let newest = self.made[self.made.len().saturating_sub(16)..].to_vec();
        match self.below(16) {
            0..8 => best,
            8..12 => {
                let rivals = newest.iter().filter(|id| !line.contains(id) && self.slow.known[id].good);
                *rivals.max_by_key(|id| self.slow.share(id).score).unwrap_or(&best)
            }
            12..15 => newest[self.below(newest.len() as u32) as usize],
            _ => line[self.below(line.len() as u32) as usize],
        }
    }

    fn draw_script(&mut self) -> Script {
        let who = self.below(self.people);
        let program = sha256(&who.to_le_bytes());
        match who % 3 {
            0 => Script::P2wpkh(*program.first_chunk().unwrap()),
            1 => Script::P2wsh(program),
            _ => Script::P2tr(program),
        }
    }

    /// Up to three uncles that a child of this share may credit, or now and then any shares.
    fn draw_uncles(&mut self, parent: &ShareId) -> Vec<ShareId> {
        let newest = self.made[self.made.len().saturating_sub(40)..].to_vec();
        let mut uncles: Vec<ShareId> = Vec::new();
        let (most, any) = (self.below(4) as usize, self.once_in(self.bad_every));
        for _ in 0..if most == 0 { 0 } else { 12 } {
            let uncle = newest[self.below(newest.len() as u32) as usize];
            let mut more = uncles.clone();
            more.push(uncle);
            more.sort_unstable();
            let allowed = self.slow.known[&uncle].good && self.slow.may_credit(parent, &more);
            if uncles.len() < most && !uncles.contains(&uncle) && (allowed || any) {
                uncles = more;
            }
        }
        uncles
    }

    /// A share that builds on what there is.
    pub fn make_share(&mut self) -> ShareId {
        let parent = self.draw_parent();
        let share = self.draw_share(&parent);
        if self.slow.known.contains_key(&share.id()) {
            return share.id();
        }
        let id = self.slow.add(&share);
        self.made.push(id);
        if let Some(rivals) = &mut self.rivals
            && self.slow.known[&id].good
            && let Some(rival) = rivals.iter_mut().find(|rival| **rival == parent)
        {
            *rival = id;
        }
        id
    }

    pub fn draw_share(&mut self, parent: &ShareId) -> Share {
        let mut times: Vec<u32> = self.slow.line(parent).iter().take(11).map(|id| self.slow.share(id).time).collect();
        times.sort_unstable();
        let (median, last) = (times[times.len() / 2], self.slow.share(parent).time);
        let time = match self.below(20) {
            0 => median + 1,
            1 => last + 10 + self.below(60),
            2 if self.once_in(self.bad_every) => median,
            _ => (last + self.below(4)).max(median + 1),
        };
        let uncles = self.draw_uncles(parent);
        let harder = [0, 0, 0, 0, 0, 1, 2, 4][self.below(8) as usize];
        let class = Class::ALL[self.below(4) as usize];
        let layout = if self.once_in(4) { Layout::Front } else { Layout::Tail };
        let builder = ShareBuilder::new(self.slow.params).script(self.draw_script()).salt(self.rng.next_u32()).time(time);
        let mut builder = builder.uncles(&uncles).harder(harder).class(class).layout(layout);
        if self.once_in(3) {
            let back = if self.once_in(2) { 0 } else { self.below(5) as usize };
            let prev = self.blocks[self.blocks.len().saturating_sub(1 + back)];
            builder = builder.bitcoin(prev, self.slow.blocks[&prev].height + 1, self.slow.params.bitcoin.limit_bits);
        }
        if self.once_in(self.bad_every) {
            builder = builder.bad_coinbase();
        }
        let share = builder.build(&self.slow, parent);
        if self.once_in(self.bad_every) { self.spoil(share) } else { share }
    }

    /// Changes one field, and ties the share again.
    fn spoil(&mut self, mut share: Share) -> Share {
        let limit = self.slow.params.bitcoin.limit_bits;
        match self.below(17) {
            0 => share.version = 2,
            1 => share.lead += 1,
            2 => share.score += 1,
            3 => share.score -= 1,
            4 => share.height += 1,
            5 => share.bits = limit,
            6 => share.bits = 0x207f_fffe,
            7 => share.bits = 0x2100_7fff,
            8 => share.bits = 0x1f0f_ffff,
            9 => share.header[3] = 0,
            10 => share.header[68..72].copy_from_slice(&(share.time + 7_201).to_le_bytes()),
            11 => share.header[68..72].copy_from_slice(&1_296_688_602u32.to_le_bytes()),
            12 => share.bitcoin_height += 1,
            13 => share.header[72..76].copy_from_slice(&0x207f_fffeu32.to_le_bytes()),
            14 => share.value -= 1,
            // Twice the same.
            15 if !share.uncles.is_empty() => share.uncles.insert(0, share.uncles[0]),
            _ => {
                // Untied, and worked for or not.
                share.salt ^= 1;
                return share;
            }
        }
        tie(self.slow.params, &mut share);
        share
    }
}

/// Ties a share's fields to its header, and works until the hash meets its target or it is too hard.
pub fn tie(params: &Params, share: &mut Share) {
    let x = if share.layout == Layout::Tail { share.proof.extranonce } else { [0; 12] };
    let tail = [&x[..], &share.commitment(&params.genesis_id()), &(share.bitcoin_height - 1).to_le_bytes()].concat();
    let start = Midstate::from_bytes(share.proof.midstate, u64::from(share.proof.prefix_len));
    let root = merkle_root(sha256(&start.finish(&tail)), &share.proof.branch);
    share.header[36..68].copy_from_slice(&root);
    for nonce in 0..20_000u32 {
        share.header[76..].copy_from_slice(&nonce.to_le_bytes());
        if hash_meets(&share.id().0, share.bits) {
            break;
        }
    }
}
