//! Random jobs, stalls and full disks against the real stages and channels, stepped by hand: no ticket and no claim is lost or doubled.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::limits::{TICKETS_PEER, TICKETS_STRATUM};
use rockpool_net::wire::share::Share;
use rockpool_store::kv::{Family, MemKv, Op};
use rockpool_store::schema::share_key;
use rockpool_store::view::ChainView;

use super::*;
use crate::jobs::{BitcoinNews, Claim};
use crate::limits::{ANSWERS_PER_TICKET_MAX, FREE_SPACE_MIN, MAILBOX_SLOTS, ORGANISE_FREE_SLOTS, ROW_SLOTS, TEMPLATE_SLOTS};
use crate::testing::{Grower, at, claim, fresh_chain, regtest, roll, script, work_on};
use crate::work::{Roll, Work};

type Mailbox = Arc<Mutex<VecDeque<Vec<Mail<Answer>>>>>;

/// A reactor, its stages and a disk, in one thread.
struct World {
    rng: ChaCha12Rng,
    ms: u64,
    emission: Vec<(Sender<Vec<EmissionJob>>, Driven<EmissionWorker>)>,
    organise: Sender<Vec<OrganiseJob>>,
    organiser: Driven<OrganiseWorker>,
    writer: Driven<StoreWriter>,
    write: Sender<Vec<WriteJob>>,
    /// Own templates on their way to the disk, and those that were stored.
    templates: usize,
    /// Rows of the node's own, of each family, on their way to the disk.
    rows: BTreeSet<Family>,
    templates_stored: u32,
    /// Until when the writer stands in its write.
    stalled: u64,
    kv: Arc<MemKv>,
    found: Receiver<SubmitJob>,
    bitcoin: EmbeddedChain,
    /// How many of its headers the organiser has heard of.
    headers: u64,
    mailbox: Mailbox,
    view: ChainView,
    works: Vec<Arc<Work>>,
    /// Tickets given, by the connection that stands for them alone, and how many answers spoke of each.
    out: BTreeMap<ConnId, usize>,
    /// Who waits to be told about a submit.
    unanswered: BTreeSet<ConnId>,
    /// Own shares by their claims, and those that were acknowledged.
    shares: BTreeMap<ConnId, ShareId>,
    acknowledged: Vec<ShareId>,
    next: u32,
    /// What a peer has to send: a chain of its own.
    foreign: Vec<Share>,
}

impl World {
    fn new(seed: u64, foreign: Vec<Share>) -> World {
        let mailbox: Mailbox = Arc::default();
        let slots = mailbox.clone();
        let post: Post = Arc::new(move |mail| {
            let mut mailbox = slots.lock().unwrap();
            mailbox.push_back(mail);
            mailbox.len() <= MAILBOX_SLOTS
        });
        let (submit, found) = bounded(10_000);
        let (organise, organise_inbox) = bounded(ORGANISE_SLOTS);
        let (write, write_inbox) = bounded(WRITE_SLOTS);
        let kv = Arc::new(MemKv::new());
        let emission = (0..2).map(|_| {
            let (jobs, inbox) = bounded(EMISSION_SLOTS);
            let out = Outlets { submit: vec![submit.clone()], organise: Some(organise.clone()), ..Outlets::new(&post) };
            (jobs, Driven::new("emission", EmissionWorker::new(regtest()), inbox, out))
        });
        let out = Outlets { write: Some(write.clone()), ..Outlets::new(&post) };
        let chain = fresh_chain();
        World {
            emission: emission.collect(),
            view: chain.view(),
            organiser: Driven::new("organiser", OrganiseWorker::new(regtest(), chain), organise_inbox, out),
            writer: Driven::new("writer", StoreWriter::new(kv.clone()), write_inbox, Outlets::new(&post)),
            write,
            templates: 0,
            rows: BTreeSet::new(),
            templates_stored: 0,
            rng: ChaCha12Rng::seed_from_u64(seed),
            bitcoin: EmbeddedChain::new(regtest(), None),
            headers: 0,
            ms: 0,
            organise,
            stalled: 0,
            kv,
            found,
            mailbox,
            works: Vec::new(),
            out: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            shares: BTreeMap::new(),
            acknowledged: Vec::new(),
            next: 0,
            foreign,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.rng.next_u32() as usize % below
    }

    /// A ticket of a connection that nobody else has; `None` while the lane has none.
    fn ticket(&mut self, lane: Lane) -> Option<Ticket> {
        let (max, parity) = if lane == Lane::Stratum { (TICKETS_STRATUM, 0) } else { (TICKETS_PEER, 1) };
        if self.out.keys().filter(|conn| conn.slot % 2 == parity).count() >= max {
            return None;
        }
        self.next += 2;
        let conn = ConnId { slot: self.next + parity, generation: 1 };
        self.out.insert(conn, 0);
        Some(Ticket::for_test(lane, conn))
    }

    fn submits(&mut self) {
        let now = at(self.ms);
        let (headers, heard) = self.bitcoin.headers(self.headers);
        if !headers.is_empty() && self.organise.len() < ORGANISE_FREE_SLOTS {
            self.headers = heard;
            give(&self.organise, vec![OrganiseJob::Bitcoin(BitcoinNews::Headers(headers.concat()))]).unwrap();
        }
        if self.works.is_empty() || self.draw(4) == 0 {
            let chain = self.organiser.stage.chain();
            let work = work_on(chain, &self.bitcoin, now, script(1), self.next);
            self.works.insert(0, work);
            self.works.truncate(3);
        }
        let mut messages = vec![Vec::new(), Vec::new()];
        for _ in 0..self.draw(40) {
            let Some(ticket) = self.ticket(Lane::Stratum) else { break };
            let pick = self.draw(self.works.len());
            let work = self.works[pick].clone();
            // The same submit may come twice: a duplicate that dispatch did not catch. A wrong version is refused at once.
            let Roll { extranonce, mut version, ntime, nonce } = roll(&work, &script(1), self.draw(3) == 0);
            if self.draw(20) == 0 {
                version ^= 1;
            }
            let claim: Claim = claim(ticket.conn().slot);
            self.unanswered.insert(claim.conn);
            let target = [if self.draw(2) == 0 { 0xff } else { 0 }; 32];
            let to = claim.conn.slot as usize / 2 % 2;
            let bits = work.draft.bits;
            messages[to].push(EmissionJob {
                claim,
                work,
                script: script(1),
                bits,
                extranonce,
                version,
                ntime,
                nonce,
                target,
                unpaid: None,
                ticket,
            });
        }
        for ((to, _), message) in self.emission.iter().zip(messages) {
            give(to, message).unwrap();
        }
    }

    fn peers(&mut self) {
        let mut message = Vec::new();
        for _ in 0..self.draw(6) {
            let Some(ticket) = self.ticket(Lane::Peer) else { break };
            let first = self.draw(self.foreign.len());
            let job = match self.draw(4) {
                0 => {
                    // Mostly from where it stands, so that it gets on.
                    let first = if self.draw(4) == 0 { first } else { (self.view.tip().height as usize).min(self.foreign.len() - 1) };
                    let count = 1 + self.draw(150);
                    OrganiseJob::Bulk {
                        sync: ticket.conn(),
                        shares: self.foreign[first..].iter().take(count).cloned().collect(),
                        base: false,
                        ticket,
                    }
                }
                1 => {
                    let mut share = self.foreign[first].clone();
                    share.salt ^= 1;
                    OrganiseJob::Tip { share: Arc::new(share), ticket }
                }
                _ => OrganiseJob::Tip { share: Arc::new(self.foreign[first].clone()), ticket },
            };
            if self.draw(10) == 0 {
                message.push(OrganiseJob::PeerGone(ConnId { slot: self.next.saturating_sub(7) | 1, generation: 1 }));
            }
            message.push(job);
        }
        give(&self.organise, message).unwrap();
    }

    /// The reactor takes one answer.
    fn take(&mut self, Mail { answer, tickets }: Mail<Answer>) {
        // Of whose submits and frames it speaks.
        let mut about: BTreeSet<ConnId> = tickets.iter().map(Ticket::conn).collect();
        match answer {
            Answer::BlockFound { hash, conn, .. } => {
                // On regtest a block is a share, and every share a block.
                self.shares.insert(conn, hash);
                about.insert(conn);
            }
            Answer::Verdict { claim, .. } => self.told(&claim, &mut about),
            Answer::Organised { change, refused, fates, bulk_done, .. } => {
                refused.iter().for_each(|(claim, _)| self.told(claim, &mut about));
                about.extend(fates.iter().map(|(conn, ..)| *conn).chain(bulk_done.iter().map(|(conn, _)| *conn)));
                if let Some(change) = change {
                    self.view.apply(&change);
                    self.view.sanity_check().unwrap();
                    let new: BTreeSet<_> = change.bytes.iter().map(|(id, _)| *id).collect();
                    about.extend(self.shares.iter().filter(|(_, id)| new.contains(id)).map(|(conn, _)| *conn));
                }
            }
            Answer::Stored { ids, claims } => {
                assert!(ids.iter().all(|id| self.view.bytes(id).is_some()), "told of as stored before it was told of at all");
                self.view.stored(&ids);
                for claim in &claims {
                    self.acknowledged.push(self.shares[&claim.conn]);
                    self.told(claim, &mut about);
                }
            }
            Answer::RowsStored(family) => assert!(self.rows.remove(&family), "{family:?} twice"),
            Answer::TemplateStored => {
                self.templates -= 1;
                self.templates_stored += 1;
            }
            Answer::DiskFull(_) => {}
            other => panic!("{other:?}"),
        }
        for conn in about {
            // A share that waited is spoken of after its own ticket went home, in an answer that another one pays for.
            if let Some(answers) = self.out.get_mut(&conn) {
                *answers += 1;
                assert!(*answers <= ANSWERS_PER_TICKET_MAX, "{conn}");
            }
        }
        for ticket in tickets {
            assert!(self.out.remove(&ticket.conn()).is_some(), "a ticket came home twice");
        }
    }

    fn told(&mut self, claim: &Claim, about: &mut BTreeSet<ConnId>) {
        assert!(self.unanswered.remove(&claim.conn), "a claim was answered twice");
        about.insert(claim.conn);
    }

    fn turn(&mut self) {
        self.ms += [0, 0, 1, 5, 20, 700][self.draw(6)];
        match self.draw(8) {
            0 => self.submits(),
            1 => self.peers(),
            2 | 3 => {
                for index in 0..2 {
                    if self.draw(2) == 0 {
                        self.emission_step(index);
                    }
                }
            }
            4 | 5 => self.organiser.step(at(self.ms), Vec::new()).unwrap(),
            6 if self.ms >= self.stalled => {
                self.writer.step(at(self.ms), Vec::new()).unwrap();
                if self.draw(30) == 0 {
                    self.stalled = self.ms + 5_000;
                }
                if self.draw(20) == 0 {
                    let free = [FREE_SPACE_MIN, 0][self.draw(2)];
                    self.kv.set_free_space(free);
                }
            }
            6 => {}
            _ => {
                let count = self.draw(200);
                self.reactor(count);
            }
        }
    }

    fn emission_step(&mut self, index: usize) {
        let driven = &mut self.emission[index].1;
        driven.step(at(self.ms), Vec::new()).unwrap();
    }

    /// Each stage takes what there is, and time goes on as shares do: faster would make them harder.
    fn one_each(&mut self) {
        self.ms += 10_000;
        self.emission_step(0);
        self.organiser.step(at(self.ms), Vec::new()).unwrap();
        self.writer.step(at(self.ms), Vec::new()).unwrap();
    }

    fn reactor(&mut self, count: usize) {
        for _ in 0..count {
            let Some(message) = self.mailbox.lock().unwrap().pop_front() else { break };
            message.into_iter().for_each(|mail| self.take(mail));
        }
        // As often as the node may; a row each.
        while self.templates < TEMPLATE_SLOTS && count < usize::MAX {
            self.templates += 1;
            let row = self.templates_stored.to_be_bytes().to_vec();
            let ops = vec![Op::Put(Family::Templates, row, vec![0; 100])];
            give(&self.write, vec![WriteJob { ops, ..WriteJob::default() }]).unwrap();
        }
        let families: [Family; ROW_SLOTS] = [Family::Blocks, Family::Peers, Family::Figures];
        for family in families.into_iter().filter(|_| count < usize::MAX) {
            if self.rows.insert(family) {
                let part = |ends| WriteJob { ops: vec![Op::Put(family, vec![1], vec![0; 100])], ends, ..WriteJob::default() };
                give(&self.write, vec![part(Vec::new()), part(vec![family])]).unwrap();
            }
        }
        for job in self.found.try_iter() {
            self.bitcoin.submit(&job.block, at(self.ms).unix());
        }
    }

    fn settle(&mut self) {
        self.kv.set_free_space(u64::MAX);
        for _ in 0..100_000 {
            self.ms += 100;
            (0..2).for_each(|index| self.emission_step(index));
            self.organiser.step(at(self.ms), Vec::new()).unwrap();
            self.writer.step(at(self.ms), Vec::new()).unwrap();
            self.reactor(usize::MAX);
            let busy =
                self.emission.iter().any(|(_, driven)| driven.stage.due().is_some()) || self.organiser.stage.due() == Some(Duration::ZERO);
            if self.out.is_empty() && self.templates + self.rows.len() == 0 && !busy {
                return;
            }
        }
        panic!("{} tickets never came home", self.out.len());
    }
}

#[test]
fn no_ticket_and_no_claim_is_lost_or_doubled() {
    let mut grower = Grower::new();
    let foreign: Vec<_> = (0..150).map(|n| grower.grow(script(n), 5)).collect();
    let (mut acknowledged, mut tickets) = (0, 0);
    for seed in 0..12 {
        let mut world = World::new(seed, foreign.clone());
        for _ in 0..1_500 {
            world.turn();
        }
        world.settle();
        assert!(world.unanswered.is_empty(), "seed {seed}: {} claims were never answered", world.unanswered.len());
        world.organiser.stage.chain().sanity_check().unwrap();
        assert_eq!(world.view.tip().id, world.organiser.stage.chain().tip().id);
        // Power fails: what was acknowledged has survived.
        world.kv.crash(0);
        for id in &world.acknowledged {
            let mut rows = (0..400).map(|height| world.kv.get(Family::Shares, &share_key(height, id)).unwrap());
            assert!(rows.any(|row| row.is_some()), "seed {seed}: share {id} is gone");
        }
        assert!(world.templates_stored > 20, "seed {seed}: {} templates", world.templates_stored);
        acknowledged += world.acknowledged.len();
        tickets += world.next;
    }
    assert!(acknowledged > 500 && tickets > 5_000, "{acknowledged} shares, {tickets} tickets: too quiet to show anything");
}

#[test]
fn the_fullest_mailbox_has_room_for_every_answer_of_every_ticket() {
    let mut grower = Grower::new();
    let foreign: Vec<_> = (0..TICKETS_PEER as u8).map(|n| grower.grow(script(n), 5)).collect();
    let mut world = World::new(77, foreign);
    // The reactor stands still; every ticket is out, and each stage answers one job at a time: no two answers share a message.
    while let Some(ticket) = world.ticket(Lane::Stratum) {
        let claim: Claim = claim(ticket.conn().slot);
        let work = work_on(world.organiser.stage.chain(), &world.bitcoin, at(world.ms), script(1), world.next);
        let Roll { extranonce, version, ntime, nonce } = roll(&work, &script(1), true);
        world.unanswered.insert(claim.conn);
        let (bits, target) = (work.draft.bits, [0xff; 32]);
        let job = EmissionJob { claim, work, script: script(1), bits, extranonce, version, ntime, nonce, target, unpaid: None, ticket };
        give(&world.emission[0].0, vec![job]).unwrap();
        world.one_each();
    }
    for share in world.foreign.clone() {
        let ticket = world.ticket(Lane::Peer).unwrap();
        give(&world.organise, vec![OrganiseJob::Tip { share: Arc::new(share), ticket }]).unwrap();
        world.one_each();
    }
    let fullest = world.mailbox.lock().unwrap().len();
    let most = ANSWERS_PER_TICKET_MAX * (TICKETS_STRATUM + TICKETS_PEER);
    assert!(fullest >= ANSWERS_PER_TICKET_MAX * TICKETS_STRATUM && fullest <= most, "{fullest} messages, {most} at most");
    assert!(most < MAILBOX_SLOTS);
    world.settle();
    assert!(world.unanswered.is_empty() && world.mailbox.lock().unwrap().is_empty());
}
