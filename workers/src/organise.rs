//! The organiser: the one that changes the chain index. Takes shares, rebuilds coinbases, says what changed and what is to be written.

use std::collections::{BTreeSet, VecDeque};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Layout, Share};
use rockpool_store::chain::{Batch, Chain, Offer, Source};
use rockpool_store::limits::HEADER_AHEAD_MAX_S;
use rockpool_store::organised::ChainChange;
use rockpool_store::params::{Network, Params};
use rockpool_store::pplns::Pplns;
use rockpool_store::rules::share::RuleError;
use rockpool_store::rules::window::window_work;

use crate::credits::Credits;
use crate::jobs::{Answer, BitcoinNews, Claim, Missing, OrganiseJob, Output, ShareFate, Stage, SubmitRefusal, WriteJob};
use crate::limits::{BACKLOG_MAX, BULK_WAIT_MAX, FRONT_KEPT, PENDING_LOOK, PROGRESS_MIN, REBUILT_SLICE, SYNC_IDLE_MAX, TIED_SLICE};
use crate::pending::{Pending, Waiting};
use crate::policy::{Policy, Upon};

/// Candidate and confirmed chain, step by step; own shares before the tip before a sync.
pub struct OrganiseWorker {
    params: &'static Params,
    chain: Chain,
    // The lanes. Bounded by the tickets: each entry holds one.
    own: VecDeque<(Arc<Share>, Claim, Ticket)>,
    tip: VecDeque<(Arc<Share>, Ticket)>,
    blocks: VecDeque<(Vec<[u8; 80]>, bool, Ticket)>,
    bulk: VecDeque<Bulk>,
    /// Shares that may no longer have to wait. Bounded as what waits is.
    retry: VecDeque<Waiting>,
    pending: Pending,
    credits: Credits,
    /// Newest shares of layout front that came by themselves, and who sent them: whether they are tied shows when they are rebuilt.
    front: VecDeque<(ShareId, ConnId)>,
    policy: Policy,
    /// What the policy chose.
    upon: Upon,
    /// When it may choose otherwise.
    upon_due: Option<Duration>,
    /// When the clock's shares were last looked at.
    looked: Duration,
    /// When the sync under way last brought something.
    synced: Duration,
    /// [`BACKLOG_MAX`], less in tests.
    backlog_max: usize,
    report: Report,
    /// Whether our own side of Bitcoin has spoken. On regtest, where headers are free, nobody lies about where they begin.
    heard: bool,
    /// Whether the chain has changed since it was last told.
    changed: bool,
    /// When a change was last told.
    told: Duration,
    /// Rulesets that were met and are not known.
    newer: BTreeSet<u8>,
}

/// A sync's message that is being worked off.
struct Bulk {
    /// Whose sync it is of.
    sync: ConnId,
    shares: Peekable<vec::IntoIter<Share>>,
    /// Whether the chain is to begin with the next one.
    base: bool,
    /// What the next one waits for, and since when.
    waits: Option<(ShareId, Duration)>,
    ticket: Ticket,
    /// Height of the best share that it brought.
    best: u32,
    /// Whether it brought anything new.
    new: bool,
}

/// What is to be told at the end of a step.
#[derive(Default)]
struct Report {
    refused: Vec<(Claim, SubmitRefusal)>,
    fates: Vec<(ConnId, ShareId, ShareFate)>,
    missing: Vec<Missing>,
    bulk_done: Vec<(ConnId, u32)>,
    /// Own shares that were taken: their miners wait for the disk.
    own: Vec<(ShareId, Claim)>,
    /// Tickets that go home with `Stored` if there are rows to write.
    taken: Vec<Ticket>,
    /// Tickets that go home with `Organised`.
    done: Vec<Ticket>,
}

impl OrganiseWorker {
    /// An organiser of this chain.
    pub fn new(params: &'static Params, chain: Chain) -> OrganiseWorker {
        OrganiseWorker {
            params,
            chain,
            own: VecDeque::new(),
            tip: VecDeque::new(),
            blocks: VecDeque::new(),
            bulk: VecDeque::new(),
            retry: VecDeque::new(),
            pending: Pending::default(),
            credits: Credits::default(),
            front: VecDeque::new(),
            policy: Policy::new(params),
            upon: Upon::Tip,
            upon_due: None,
            looked: Duration::ZERO,
            synced: Duration::ZERO,
            backlog_max: BACKLOG_MAX,
            report: Report::default(),
            heard: params.network == Network::Regtest,
            // A chain just opened may have found a better branch among its rows.
            changed: true,
            told: Duration::ZERO,
            newer: BTreeSet::new(),
        }
    }

    /// The same, where its node's miners are a pool of their own, with what they did before.
    pub fn crediting(self, pplns: Pplns) -> OrganiseWorker {
        OrganiseWorker { credits: Credits::new(pplns), ..self }
    }

    /// The chain, for invariants in tests and in the simulator.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    fn queue(&mut self, now: Now, job: OrganiseJob) {
        match job {
            OrganiseJob::Own { share, claim, ticket } => self.own.push_back((share, claim, ticket)),
            OrganiseJob::Credit { share, claim, ticket } => self.credits.push(share, claim, ticket),
            OrganiseJob::Tip { share, ticket } => self.tip.push_back((share, ticket)),
            OrganiseJob::Bulk { sync, shares, base, ticket } => {
                self.synced = now.mono;
                self.bulk.push_back(Bulk { sync, shares: shares.into_iter().peekable(), base, waits: None, ticket, best: 0, new: false });
            }
            OrganiseJob::Blocks { headers, own, ticket } => self.blocks.push_back((headers, own, ticket)),
            OrganiseJob::BeginAnew => {
                self.chain.end_sync();
                self.chain.begin_anew();
                self.changed = true;
            }
            OrganiseJob::Bitcoin(BitcoinNews::Root { height, header }) => {
                let root = self.chain.root_at(height, &header);
                self.came(root.as_slice());
            }
            OrganiseJob::Bitcoin(BitcoinNews::Headers(headers)) => {
                self.heard = true;
                let blocks = self.chain.offer_blocks(&headers);
                if let Some(why) = blocks.bad {
                    log::error!("our own Bitcoin node has told a header that breaks Bitcoin's rules as this version knows them: {why}");
                }
                self.came(&blocks.new);
                if let Some(header) = headers.last() {
                    self.policy.told(sha256d(header));
                }
            }
            OrganiseJob::Bitcoin(BitcoinNews::Lost) => self.policy.lost(),
            OrganiseJob::Bitcoin(BitcoinNews::PeersLost) => self.policy.peers_lost(),
            OrganiseJob::Bitcoin(BitcoinNews::Tips(tips)) => self.policy.tips(now.mono, self.chain.bitcoin(), tips),
            OrganiseJob::PeerGone(conn) => {
                self.pending.peer_gone(conn);
                self.retry.retain(|waiting| waiting.from != conn);
                // What it sent in bulk is no longer worth a sync; the messages end, and their tickets come home.
                self.give_up_bulk(conn);
                if self.chain.syncing() == Some(conn) {
                    self.chain.end_sync();
                }
            }
        }
    }

    /// Takes one share of the first lane that has one. Whether there was one.
    fn take_one(&mut self, now: Now) -> bool {
        if let Some((share, claim, ticket)) = self.own.pop_front() {
            self.take_own(now, share, claim, ticket);
        } else if let Some(waiting) = self.retry.pop_front() {
            self.take_peers(now, waiting, true);
        } else if let Some((headers, own, ticket)) = self.blocks.pop_front() {
            self.take_blocks(now, headers, own, ticket);
        } else if let Some((share, ticket)) = self.tip.pop_front() {
            let waiting = Waiting { id: share.id(), share, from: ticket.conn(), since: now.mono };
            let taken = self.take_peers(now, waiting, false);
            self.come_home(taken, ticket);
        } else if self.chain.backlog() <= self.backlog_max
            && self.bulk.front().is_some_and(|bulk| bulk.waits.is_none())
            && let Some(bulk) = self.bulk.pop_front()
        {
            self.take_bulk(now, bulk);
        } else {
            return false;
        }
        true
    }

    fn take_own(&mut self, now: Now, share: Arc<Share>, claim: Claim, ticket: Ticket) {
        let id = share.id();
        let refusal = match self.offer(now, &share, Source::Own) {
            Offer::Taken => {
                self.arrived(&id, now.mono);
                self.report.own.push((id, claim));
                self.report.taken.push(ticket);
                return;
            }
            Offer::Known => SubmitRefusal::Duplicate,
            // Our own work builds on a tip that we know, at a time that we chose: this clock was set back meanwhile.
            Offer::Pending { .. } | Offer::Early { .. } => SubmitRefusal::Refused("its time or its parent is not known to this node"),
            Offer::Dropped(why) | Offer::Invalid(why) | Offer::Bad(why) => SubmitRefusal::Refused(why),
        };
        self.report.refused.push((claim, refusal));
        self.report.done.push(ticket);
    }

    /// Takes a share that a peer sent by itself, or one that waited: of that nobody is told that it waits on. Whether it was taken.
    fn take_peers(&mut self, now: Now, waiting: Waiting, waited: bool) -> bool {
        let (id, from, since) = (waiting.id, waiting.from, waiting.since);
        // What a sync waits for belongs to it, and what that waits for in turn, however far below our tip they lie: uncles that were
        // credited before our chains part credit others, and a restart has forgotten both.
        let of_sync = self.bulk.front().filter(|bulk| bulk.waits.is_some_and(|(missing, _)| self.pending.leads_to(id, missing)));
        let source = of_sync.map_or(Source::Peer, |bulk| Source::Bulk(bulk.sync));
        let bulk = of_sync.is_some();
        let offer = self.offer(now, &waiting.share, source);
        let taken = offer == Offer::Taken;
        if taken {
            self.arrived(&id, since);
            self.remember(id, &waiting.share, from);
        }
        let fate = match offer {
            Offer::Taken | Offer::Known => ShareFate::Taken,
            Offer::Pending { missing } => {
                // What waits itself need not be fetched. For a sync it is asked for again: when it was first missed it may not have been.
                if bulk || !self.pending.contains(&missing) {
                    self.report.missing.push(Missing { id: self.pending.wanted(missing), from, bulk });
                }
                self.pending.add(Some(missing), waiting);
                ShareFate::Pending
            }
            Offer::Early { .. } => {
                self.pending.add(None, waiting);
                ShareFate::Pending
            }
            Offer::Dropped(_) => ShareFate::Pending,
            Offer::Invalid(why) => ShareFate::Invalid(why),
            Offer::Bad(why) => ShareFate::Bad(why),
        };
        if !(waited && fate == ShareFate::Pending) {
            self.report.fates.push((from, id, fate));
        }
        taken
    }

    /// Takes one share of a sync's message; puts the message back, or ends it.
    fn take_bulk(&mut self, now: Now, mut bulk: Bulk) {
        let (from, sync) = (bulk.ticket.conn(), bulk.sync);
        // There is one sync at a time, so a message of another says that the one before is over.
        if !self.chain.begin_sync(sync) {
            self.chain.end_sync();
            self.chain.begin_sync(sync);
        }
        let Some(share) = bulk.shares.peek() else { return self.end_bulk(bulk) };
        let (id, height, parent) = (share.id(), share.height, share.parent);
        let base = std::mem::take(&mut bulk.base);
        let offer = if base { self.begin_at(share) } else { self.offer(now, share, Source::Bulk(sync)) };
        if !matches!(offer, Offer::Taken | Offer::Known) {
            log::debug!("the sync stands still at share {id} at height {height}: {offer:?}");
        }
        let fate = match offer {
            Offer::Taken | Offer::Known => {
                bulk.shares.next();
                bulk.new |= offer == Offer::Taken;
                bulk.best = bulk.best.max(height);
                return self.bulk.push_front(bulk);
            }
            // The rest builds on this one, so it waits for what this one waits for: an uncle, or a Bitcoin header, or a parent that our own
            // chain credits, but is kept no more beside it.
            Offer::Pending { missing } if base || self.chain.get(&parent).is_some() || self.chain.credits(&parent) => {
                self.report.missing.push(Missing { id: self.pending.wanted(missing), from, bulk: true });
                (bulk.base, bulk.waits) = (base, Some((missing, now.mono)));
                return self.bulk.push_front(bulk);
            }
            // It is not kept, nor is the rest: the peer is asked again, from where we stand.
            Offer::Pending { .. } | Offer::Early { .. } | Offer::Dropped(_) => ShareFate::Pending,
            Offer::Invalid(why) => ShareFate::Invalid(why),
            Offer::Bad(why) => ShareFate::Bad(why),
        };
        self.report.fates.push((from, id, fate));
        // An owner's message that brings nothing at all is the end of its sync; a helper's is not. (After a reorg over there some shares
        // come again.)
        if bulk.best == 0 && from == sync {
            self.chain.end_sync();
        }
        self.give_up_bulk(sync);
        bulk.give_up();
        self.end_bulk(bulk);
    }

    /// Takes Bitcoin headers that a peer sent, once our own side of Bitcoin has said where its chain begins, or that a Bitcoin peer told
    /// of. As Bitcoin has it, none from the far future: on testnet4 these cost little, and no clock is looked at further in.
    fn take_blocks(&mut self, now: Now, mut headers: Vec<[u8; 80]>, own: bool, ticket: Ticket) {
        let latest = now.unix().saturating_add(HEADER_AHEAD_MAX_S);
        let timely = headers.iter().take_while(|header| u32::from_le_bytes([68, 69, 70, 71].map(|at| header[at])) <= latest).count();
        self.heard |= own;
        headers.truncate(if self.heard { timely } else { 0 });
        let blocks = if own { self.chain.follow_blocks(&headers) } else { self.chain.offer_blocks(&headers) };
        if let Some(missing) = blocks.missing {
            self.report.missing.push(Missing { id: missing, from: ticket.conn(), bulk: true });
        }
        if let Some(why) = blocks.bad {
            let hash = headers.get(blocks.new.len()).map_or_else(ShareId::default, |header| ShareId(sha256d(header)));
            self.report.fates.push((ticket.conn(), hash, ShareFate::BadHeader(why)));
        }
        self.came(&blocks.new);
        let tree = self.chain.bitcoin();
        if let Some(block) = headers.iter().rev().filter(|_| own).find_map(|header| tree.get(&sha256d(header))) {
            self.policy.heard(now.mono, tree, block);
        }
        self.report.done.push(ticket);
    }

    /// These have come, shares or Bitcoin headers: what waited for them is looked at again.
    fn came(&mut self, ids: &[ShareId]) {
        self.changed |= !ids.is_empty();
        for id in ids {
            self.retry.extend(self.pending.arrived(*id));
            for bulk in self.bulk.iter_mut().filter(|bulk| bulk.waits.is_some_and(|(missing, _)| missing == *id)) {
                bulk.waits = None;
            }
        }
    }

    /// A share was taken that arrived by itself at this time.
    fn arrived(&mut self, id: &ShareId, at: Duration) {
        if let Some(record) = self.chain.get(id) {
            self.policy.arrived(record, at);
        }
    }

    /// Remembers who sent a share that is not known to be tied before its coinbase is rebuilt.
    fn remember(&mut self, id: ShareId, share: &Share, from: ConnId) {
        if share.layout == Layout::Front {
            self.front.push_back((id, from));
            if self.front.len() > FRONT_KEPT {
                self.front.pop_front();
            }
        }
    }

    /// Tells of shares whose coinbase does not match. Where it says that nothing was tied, whoever sent it made it up (SPEC, VAL-2).
    fn blame(&mut self) {
        for (id, error) in self.chain.take_condemned() {
            log::info!("share {id} is invalid: {error}");
            if let RuleError::Untied(why) = error
                && let Some(index) = self.front.iter().rposition(|(sent, _)| *sent == id)
                && let Some((_, from)) = self.front.remove(index)
            {
                self.report.fates.push((from, id, ShareFate::Bad(why)));
            }
        }
    }

    /// Looks which share is to be mined upon.
    fn choose(&mut self, now: Duration) {
        let (chain, tip) = (&self.chain, self.chain.confirmed_tip().id);
        let mut upon = self.policy.choose(now, chain.bitcoin(), chain.confirmed_tip(), || chain.near());
        self.upon_due = self.policy.due(now);
        let other = if let Upon::Other(id) = upon { Some(id) } else { None };
        self.changed |= self.chain.build_upon(other);
        if self.chain.upon() != other {
            upon = Upon::Unfit;
        }
        match (self.upon, upon) {
            (Upon::Tip, Upon::Tip) | (Upon::Other(_), Upon::Other(_)) | (Upon::Unfit, Upon::Unfit) => {}
            (_, Upon::Tip) => log::info!("share {tip} is mined upon, the best one again"),
            (_, Upon::Other(id)) => log::warn!(
                "the best share {tip} is not mined upon, but {id}: our bitcoind calls its Bitcoin block invalid, or lacks it or the one \
                 before, or it is late"
            ),
            (_, Upon::Unfit) => log::warn!(
                "the best share {tip} should not be mined upon, since our bitcoind calls its Bitcoin block invalid or has not got it; \
                 but nor should any share near it, so it is"
            ),
        }
        self.upon = upon;
    }

    /// Begins the chain with a base share.
    fn begin_at(&mut self, share: &Share) -> Offer {
        let offer = self.chain.begin_at(share);
        if offer == Offer::Taken {
            self.came(&[share.id()]);
        }
        offer
    }

    /// A share of this sync is not taken, and the messages behind it build on it.
    fn give_up_bulk(&mut self, sync: ConnId) {
        self.bulk.iter_mut().filter(|bulk| bulk.sync == sync).for_each(Bulk::give_up);
    }

    fn end_bulk(&mut self, bulk: Bulk) {
        self.report.bulk_done.push((bulk.sync, bulk.best));
        self.come_home(bulk.new, bulk.ticket);
    }

    fn come_home(&mut self, taken: bool, ticket: Ticket) {
        if taken { self.report.taken.push(ticket) } else { self.report.done.push(ticket) }
    }

    /// Offers a share to the chain, and looks after what waited for it.
    fn offer(&mut self, now: Now, share: &Share, source: Source) -> Offer {
        let (id, version, height) = (share.id(), share.version, share.height);
        let offer = self.chain.offer(now, share, source);
        match offer {
            Offer::Taken => {
                // Who sent it before, and whose copy went with another's lie, has no part in this one.
                self.front.retain(|(sent, _)| *sent != id);
                self.came(&[id]);
            }
            // Its descendants are invalid too, and learn of it now.
            Offer::Invalid(_) => {
                self.retry.extend(self.pending.arrived(id));
                // It is tied, so somebody has paid for saying this (SHARECHAIN §1).
                if version > self.params.version_at(height) && self.newer.insert(version) {
                    log::warn!("a share {id} has ruleset {version}, newer than this version knows: update Rockpool");
                }
            }
            _ => {}
        }
        offer
    }

    /// What time alone brings: shares whose time has come, shares that waited too long, a sync that has fallen asleep.
    fn look_around(&mut self, now: Now) {
        if now.mono < self.looked + PENDING_LOOK {
            return;
        }
        self.looked = now.mono;
        self.pending.expire(now.mono);
        self.retry.extend(self.pending.clocked());
        // What a sync waits for does not come.
        let waits = self.bulk.front().filter(|bulk| bulk.waits.is_some_and(|(_, since)| since + BULK_WAIT_MAX <= now.mono));
        if let Some(sync) = waits.map(|bulk| bulk.sync) {
            self.give_up_bulk(sync);
        }
        if self.chain.syncing().is_some() && self.bulk.is_empty() && self.synced + SYNC_IDLE_MAX <= now.mono {
            self.chain.end_sync();
        }
    }

    /// Tells what this step did: one message, and the batches behind it.
    fn tell(&mut self, change: Option<(ChainChange, Vec<Batch>)>, out: &mut Output) {
        let Report { mut refused, fates, missing, bulk_done, own, taken, mut done } = std::mem::take(&mut self.report);
        let (change, batches) = change.map_or((None, Vec::new()), |(change, batches)| (Some(Box::new(change)), batches));
        let mut writes: Vec<WriteJob> = Vec::with_capacity(batches.len());
        let mut unwritten: Vec<_> = own;
        for batch in batches {
            let (claims, rest): (Vec<_>, Vec<_>) = unwritten.into_iter().partition(|(id, _)| batch.ids.contains(id));
            unwritten = rest;
            let claims = claims.into_iter().map(|(_, claim)| claim).collect();
            writes.push(WriteJob { ops: batch.ops, sync: batch.own, ids: batch.ids, claims, ..WriteJob::default() });
        }
        match writes.last_mut() {
            Some(last) => last.tickets = taken,
            None => done.extend(taken),
        }
        // An own share without a row was taken, and found wanting when its coinbase was rebuilt, all within this step.
        refused
            .extend(unwritten.into_iter().map(|(_, claim)| (claim, SubmitRefusal::Refused("its coinbase is not what the chain dictates"))));
        out.mail.push((Answer::Organised { change, refused, fates, missing, bulk_done }, done));
        out.write.extend(writes);
    }
}

impl Stage for OrganiseWorker {
    type Job = OrganiseJob;

    fn step(&mut self, now: Now, jobs: &mut Vec<OrganiseJob>, out: &mut Output) {
        for job in jobs.drain(..) {
            self.queue(now, job);
        }
        self.look_around(now);
        for _ in 0..TIED_SLICE {
            if !self.take_one(now) {
                break;
            }
        }
        if self.chain.has_unproven() {
            self.changed |= self.chain.confirm(REBUILT_SLICE) > 0;
            self.blame();
        }
        self.choose(now.mono);
        let wanted = self.chain.bitcoin().best().map_or(u128::MAX, |best| window_work(self.params, best));
        self.credits.step(now, wanted, out);
        // What nobody waits for is told of now and then.
        let due = self.report.is_due();
        if due || (self.changed && self.told + PROGRESS_MIN <= now.mono) {
            let change = self.chain.take_change();
            self.changed = false;
            self.told = now.mono;
            if due || change.is_some() {
                self.tell(change, out);
            }
        }
    }

    fn due(&self) -> Option<Duration> {
        if self.owes() || self.chain.has_unproven() {
            return Some(Duration::ZERO);
        }
        let progress = self.changed.then_some(self.told + PROGRESS_MIN);
        let look = (!self.pending.is_empty() || self.chain.syncing().is_some()).then_some(self.looked + PENDING_LOOK);
        progress.into_iter().chain(look).chain(self.upon_due).min()
    }

    fn owes(&self) -> bool {
        let lanes = self.own.len() + self.retry.len() + self.blocks.len() + self.tip.len();
        lanes > 0 || !self.credits.is_empty() || self.bulk.front().is_some_and(|bulk| bulk.waits.is_none())
    }
}

impl Bulk {
    /// Nothing more is taken of it: it ends when its turn comes.
    fn give_up(&mut self) {
        self.shares = Vec::new().into_iter().peekable();
        self.waits = None;
    }
}

impl Report {
    /// Whether somebody waits for it.
    fn is_due(&self) -> bool {
        !(self.fates.is_empty() && self.done.is_empty() && self.taken.is_empty() && self.missing.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use rockpool_store::bitcoin::{Block, Rules};
    use rockpool_store::kv::MemKv;
    use rockpool_store::testing::{ShareBuilder, bitcoin_header};

    use super::*;
    use crate::embedded::EmbeddedChain;
    use crate::jobs::Tips;
    use crate::limits::{LACKED_MAX, LATE_AFTER, PENDING_AGE_MAX, PENDING_PEER_MAX};
    use crate::testing::{Grower, at, claim, conn, fresh_chain, regtest, roll, script, ticket, work_on};

    fn worker() -> OrganiseWorker {
        let mut worker = OrganiseWorker::new(regtest(), fresh_chain());
        // What a start may have to tell is behind us.
        worker.changed = false;
        worker
    }

    fn step(worker: &mut OrganiseWorker, ms: u64, jobs: Vec<OrganiseJob>) -> Output {
        let (mut jobs, mut out) = (jobs, Output::default());
        worker.step(at(ms), &mut jobs, &mut out);
        assert!(jobs.is_empty() && out.mail.len() <= 1, "one message a step at most");
        out
    }

    fn steps(worker: &mut OrganiseWorker, ms: u64, jobs: Vec<OrganiseJob>) -> Vec<Output> {
        let mut outs = vec![step(worker, ms, jobs)];
        while worker.due() == Some(Duration::ZERO) {
            outs.push(step(worker, ms, vec![]));
        }
        outs
    }

    fn own(share: &Share, n: u32) -> OrganiseJob {
        OrganiseJob::Own { share: Arc::new(share.clone()), claim: claim(n), ticket: ticket(n) }
    }

    fn tip(share: &Share, from: u32) -> OrganiseJob {
        OrganiseJob::Tip { share: Arc::new(share.clone()), ticket: ticket(from) }
    }

    fn bulk(shares: &[Share], from: u32) -> OrganiseJob {
        OrganiseJob::Bulk { sync: conn(from), shares: shares.to_vec(), base: false, ticket: ticket(from) }
    }

    fn grown(count: usize) -> Vec<Share> {
        let mut grower = Grower::new();
        (0..count).map(|n| grower.grow(script(n as u8), 0)).collect()
    }

    #[test]
    fn a_sync_waits_while_too_many_coinbases_are_to_be_rebuilt_and_ends_all_the_same() {
        // Each step ties more than it rebuilds.
        let surplus = TIED_SLICE - REBUILT_SLICE;
        let mut worker = worker();
        assert_eq!(worker.backlog_max, BACKLOG_MAX);
        // Two weeks take too long to make here.
        let most_wanted = 4_000;
        worker.backlog_max = most_wanted;
        let shares = grown((most_wanted / surplus + 3) * TIED_SLICE);
        let mut most = 0;
        // Late enough that none of them is early.
        let late = 100_000 * shares.len() as u64;
        step(&mut worker, late, shares.chunks(500).map(|part| bulk(part, 1)).collect());
        while worker.due() == Some(Duration::ZERO) {
            step(&mut worker, late, vec![]);
            most = most.max(worker.chain.backlog());
        }
        assert!(most > most_wanted - TIED_SLICE && most <= most_wanted + 1, "{most}");
        assert_eq!((worker.chain.backlog(), worker.bulk.len()), (0, 0));
    }

    /// A first share whose work was changed before it was mined.
    fn mined(change: impl FnOnce(&mut crate::work::Work)) -> Share {
        let work = work_on(&fresh_chain(), &EmbeddedChain::new(regtest(), None), at(0), script(1), 0);
        let mut work = Arc::try_unwrap(work).unwrap_or_else(|_| panic!("one owner"));
        change(&mut work);
        work.share(regtest(), &script(1), work.draft.bits, &roll(&work, &script(1), true))
    }

    /// The parts of the one answer: change, refusals, fates, tickets.
    type Organised<'a> = (&'a Option<Box<ChainChange>>, &'a [(Claim, SubmitRefusal)], &'a [(ConnId, ShareId, ShareFate)], &'a [Ticket]);

    fn organised(out: &Output) -> Organised<'_> {
        match &out.mail[..] {
            [(Answer::Organised { change, refused, fates, .. }, tickets)] => (change, refused, fates, tickets),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_own_share_is_told_at_once_and_its_claim_goes_with_the_synced_batch() {
        let (mut worker, share) = (worker(), &grown(1)[0]);
        let out = step(&mut worker, 0, vec![own(share, 1)]);
        let (change, refused, fates, tickets) = organised(&out);
        let Some(change) = change else { panic!("a change") };
        assert_eq!((change.fork_height, change.confirmed_height, change.added[0].id), (0, 1, share.id()));
        assert!(refused.is_empty() && fates.is_empty() && tickets.is_empty());
        let [write] = &out.write[..] else { panic!("one batch") };
        assert!(write.sync && write.ids == [share.id()] && write.claims.len() == 1 && write.tickets == [ticket(1)]);
        // The same again is a duplicate, and needs no disk.
        let out = step(&mut worker, 1, vec![own(share, 2)]);
        let (_, refused, _, tickets) = organised(&out);
        assert!(matches!(refused, [(_, SubmitRefusal::Duplicate)]) && *tickets == [ticket(2)] && out.write.is_empty());
    }

    #[test]
    fn an_own_share_that_does_not_pay_what_it_must_is_refused() {
        let mut worker = worker();
        let first = grown(1).remove(0);
        step(&mut worker, 0, vec![own(&first, 1)]);
        // Work on the second height that pays out as if it were the first.
        let sound = work_on(&worker.chain, &EmbeddedChain::new(regtest(), None), at(2_000), script(9), 0);
        let share = mined(|work| {
            work.draft = Share { proof: work.draft.proof.clone(), script: script(1), ..sound.draft.clone() };
        });
        let outs = steps(&mut worker, 2_000, vec![own(&share, 2)]);
        let refused: Vec<_> = outs.iter().filter(|out| !out.mail.is_empty()).flat_map(|out| organised(out).1).collect();
        assert!(matches!(refused[..], [(_, SubmitRefusal::Refused(why))] if why.contains("coinbase")), "{refused:?}");
        assert_eq!(worker.chain.tip().id, first.id());
    }

    #[test]
    fn a_peers_share_waits_for_its_parent_and_follows_it() {
        let (mut worker, shares) = (worker(), grown(3));
        let out = step(&mut worker, 0, vec![tip(&shares[2], 1), tip(&shares[1], 2)]);
        let Answer::Organised { fates, missing, .. } = &out.mail[0].0 else { panic!("{out:?}") };
        assert_eq!(fates[..], [(conn(1), shares[2].id(), ShareFate::Pending), (conn(2), shares[1].id(), ShareFate::Pending)]);
        let missing: Vec<_> = missing.iter().map(|missing| (missing.id, missing.from, missing.bulk)).collect();
        assert_eq!(missing, [(shares[1].id(), conn(1), false), (shares[0].id(), conn(2), false)]);
        assert_eq!(out.mail[0].1.len(), 2);
        let outs = steps(&mut worker, 1, vec![tip(&shares[0], 3)]);
        let taken: Vec<_> = outs.iter().filter(|out| !out.mail.is_empty()).flat_map(|out| organised(out).2.to_vec()).collect();
        let fate = |n: u32, share: &Share| (conn(n), share.id(), ShareFate::Taken);
        assert_eq!(taken, [fate(3, &shares[0]), fate(2, &shares[1]), fate(1, &shares[2])]);
        assert_eq!(worker.chain.tip().id, shares[2].id());
        assert!(worker.pending.is_empty());
        let tickets: usize = outs.iter().flat_map(|out| &out.write).map(|write| write.tickets.len()).sum();
        assert_eq!(tickets, 1);
    }

    #[test]
    fn what_a_peer_had_pending_is_forgotten_when_it_leaves_or_after_ten_minutes() {
        let (mut worker, shares) = (worker(), grown(3));
        step(&mut worker, 0, vec![tip(&shares[1], 1), tip(&shares[2], 2)]);
        step(&mut worker, 1, vec![OrganiseJob::PeerGone(conn(1))]);
        assert!(!worker.pending.contains(&shares[1].id()) && worker.pending.contains(&shares[2].id()));
        assert!(worker.due().is_some());
        step(&mut worker, PENDING_AGE_MAX.as_millis() as u64, vec![]);
        assert!(worker.pending.is_empty());
        assert_eq!(worker.due(), None);
    }

    #[test]
    fn a_share_from_the_future_is_looked_at_again_when_its_time_has_come() {
        let mut worker = worker();
        let ahead = u64::from(regtest().time_ahead_max_s + 5) * 1_000;
        let work = work_on(&fresh_chain(), &EmbeddedChain::new(regtest(), None), at(ahead), script(1), 0);
        let share = work.share(regtest(), &script(1), work.draft.bits, &roll(&work, &script(1), true));
        let out = step(&mut worker, 0, vec![tip(&share, 1)]);
        assert_eq!(organised(&out).2, [(conn(1), share.id(), ShareFate::Pending)]);
        let mut told = 0;
        for ms in (1_000..=6_000).step_by(1_000) {
            assert!(worker.due().is_none_or(|due| due <= Duration::from_millis(ms)));
            let outs = steps(&mut worker, ms, vec![]);
            told += outs.iter().filter(|out| !out.mail.is_empty()).flat_map(|out| organised(out).2).count();
        }
        assert_eq!((told, worker.chain.tip().id), (1, share.id()));
    }

    #[test]
    fn a_syncs_message_is_told_of_when_it_is_done_and_yields_to_own_shares() {
        let (mut worker, shares) = (worker(), grown(300));
        // Our own miner's share turns out to be one of those that the message holds further on.
        let mine = &shares[TIED_SLICE];
        let first = step(&mut worker, 300_000, vec![bulk(&shares, 4)]);
        assert_eq!(worker.bulk[0].shares.len(), 300 - TIED_SLICE);
        assert!(first.write.iter().all(|write| write.tickets.is_empty()));
        let out = step(&mut worker, 300_000, vec![own(mine, 1)]);
        assert!(out.write.iter().any(|write| write.sync && write.ids.contains(&mine.id()) && write.claims.len() == 1));
        assert_eq!(worker.bulk[0].shares.len(), 300 - 2 * TIED_SLICE + 1);
        let outs = steps(&mut worker, 300_000, vec![]);
        let done: Vec<_> = outs.iter().flat_map(|out| &out.mail).collect();
        let [(Answer::Organised { bulk_done, .. }, none), rest @ ..] = &done[..] else { panic!("{done:?}") };
        assert!(bulk_done[..] == [(conn(4), 300)] && none.is_empty() && rest.is_empty());
        let writes: Vec<_> = outs.iter().flat_map(|out| &out.write).collect();
        assert_eq!(writes.iter().flat_map(|write| &write.tickets).count(), 1);
        assert_eq!(worker.chain.backlog(), 0);
        // The last confirmations are told of a little later, unasked.
        assert_eq!(worker.due().map(|due| due > Duration::from_secs(300)), Some(true));
        let out = step(&mut worker, 301_000, vec![]);
        assert_eq!(organised(&out).0.as_ref().map(|change| change.confirmed_height), Some(300));
        assert_eq!((worker.chain.tip().id, worker.due()), (shares[299].id(), Some(Duration::from_secs(301) + PENDING_LOOK)));
    }

    #[test]
    fn a_helpers_message_that_does_not_hold_ends_those_behind_it_and_not_the_sync() {
        let (mut worker, shares) = (worker(), grown(9));
        let mut forged = shares[3..6].to_vec();
        forged[1].salt ^= 1;
        let by =
            |from: u32, shares: &[Share]| OrganiseJob::Bulk { sync: conn(4), shares: shares.to_vec(), base: false, ticket: ticket(from) };
        // Of another sync, which has nothing to do with it.
        let other = OrganiseJob::Bulk { sync: conn(6), shares: shares[3..].to_vec(), base: false, ticket: ticket(6) };
        steps(&mut worker, 5_000, vec![by(4, &shares[..3])]);
        let outs = steps(&mut worker, 5_000, vec![by(5, &forged[1..]), by(4, &shares[6..])]);
        let told: Vec<_> = outs.iter().filter(|out| !out.mail.is_empty()).collect();
        let fates: Vec<_> = told.iter().flat_map(|out| organised(out).2).collect();
        assert!(matches!(fates[..], [(from, _, ShareFate::Bad(_))] if *from == conn(5)), "{fates:?}");
        let done = |outs: &[Output]| -> Vec<(ConnId, u32)> {
            let answers = outs.iter().flat_map(|out| &out.mail).filter_map(|(answer, _)| match answer {
                Answer::Organised { bulk_done, .. } => Some(bulk_done.clone()),
                _ => None,
            });
            answers.flatten().collect()
        };
        assert_eq!((done(&outs), worker.chain.syncing()), (vec![(conn(4), 0), (conn(4), 0)], Some(conn(4))));
        let outs = steps(&mut worker, 5_000, vec![by(5, &forged), other]);
        assert_eq!((done(&outs), worker.chain.syncing()), (vec![(conn(4), 4), (conn(6), 9)], Some(conn(6))));
    }

    #[test]
    fn a_sync_ends_with_a_message_without_news_or_its_peer_or_in_silence() {
        let shares = grown(5);
        let begun = || {
            let mut worker = worker();
            steps(&mut worker, 5_000, vec![bulk(&shares, 4)]);
            assert_eq!(worker.chain.syncing(), Some(conn(4)));
            worker
        };
        let mut nothing_new = begun();
        steps(&mut nothing_new, 5_000, vec![bulk(&shares[3..], 4)]);
        assert_eq!(nothing_new.chain.syncing(), Some(conn(4)), "after a reorg over there shares come again");
        steps(&mut nothing_new, 5_000, vec![bulk(&grown(8)[7..], 4)]);
        assert_eq!(nothing_new.chain.syncing(), None, "a message of which nothing can be taken");
        let mut gone = begun();
        step(&mut gone, 5_000, vec![OrganiseJob::PeerGone(conn(4))]);
        assert_eq!(gone.chain.syncing(), None);
        let mut silent = begun();
        step(&mut silent, 5_000 + SYNC_IDLE_MAX.as_millis() as u64 - 1, vec![]);
        assert_eq!(silent.chain.syncing(), Some(conn(4)));
        step(&mut silent, 6_000 + SYNC_IDLE_MAX.as_millis() as u64, vec![]);
        assert_eq!(silent.chain.syncing(), None);
    }

    /// What is told of a sync's message: what it lacks, and what it brought when it is done.
    fn told(outs: &[Output]) -> (Vec<Missing>, Vec<(ConnId, u32)>) {
        let (mut lacks, mut brought) = (Vec::new(), Vec::new());
        for (answer, _) in outs.iter().flat_map(|out| &out.mail) {
            let Answer::Organised { missing, bulk_done, .. } = answer else { panic!("{answer:?}") };
            lacks.extend(missing.iter().copied());
            brought.extend(bulk_done);
        }
        (lacks, brought)
    }

    #[test]
    fn a_syncs_message_waits_for_an_uncle_or_a_bitcoin_header_and_ends_without_it() {
        let (mut other, build) = (fresh_chain(), ShareBuilder::new(regtest()));
        let Some(root) = other.bitcoin().root().cloned() else { panic!("no Bitcoin header") };
        let headers = vec![bitcoin_header(&root, 600)];
        let block = other.offer_blocks(&headers).new[0];
        let uncle = build.clone().miner(2).build(&other, &regtest().genesis_id());
        let mut shares: Vec<Share> = Vec::new();
        // The second credits the uncle, the third builds on the block.
        for build in
            [build.clone(), build.clone().uncles(&[uncle.id()]), build.clone().bitcoin(block.0, 2, root.bits()).time(root.time() + 10_000)]
        {
            let share = build.build(&other, &other.tip().id);
            assert_eq!(other.offer(at(0), &share, Source::Peer), Offer::Taken);
            assert!(matches!(other.offer(at(0), &uncle, Source::Peer), Offer::Taken | Offer::Known));
            other.confirm(9);
            shares.push(share);
        }
        let lacks = |id| vec![Missing { id, from: conn(1), bulk: true }];
        let wait = BULK_WAIT_MAX.as_millis() as u64;
        let mut worker = worker();
        step(&mut worker, 0, vec![OrganiseJob::Bitcoin(BitcoinNews::Headers(Vec::new()))]);
        assert_eq!(told(&steps(&mut worker, 0, vec![bulk(&shares, 1)])), (lacks(uncle.id()), vec![]));
        assert!(!worker.owes(), "it rests until the uncle comes");
        assert_eq!(told(&steps(&mut worker, wait - 1, vec![])), (vec![], vec![]));
        // The uncle comes, of another peer, and then the header has as much time again.
        assert_eq!(told(&steps(&mut worker, wait - 1, vec![tip(&uncle, 2)])), (lacks(ShareId(block.0)), vec![]));
        assert_eq!(told(&steps(&mut worker, 2 * wait - 2, vec![])), (vec![], vec![]));
        let blocks = OrganiseJob::Blocks { headers, own: false, ticket: ticket(2) };
        assert_eq!(told(&steps(&mut worker, 2 * wait - 2, vec![blocks])), (vec![], vec![(conn(1), 3)]));
        assert_eq!((worker.chain.tip().id, worker.bulk.len()), (shares[2].id(), 0));
        // Nobody has the uncle: so far the message was of use, and its ticket comes home.
        let mut worker = self::worker();
        steps(&mut worker, 0, vec![bulk(&shares, 1)]);
        let outs = steps(&mut worker, wait, vec![]);
        assert_eq!(told(&outs), (vec![], vec![(conn(1), 1)]));
        assert!(outs.iter().flat_map(|out| &out.mail).any(|(_, tickets)| *tickets == [ticket(1)]));
        assert_eq!((worker.chain.tip().id, worker.bulk.len()), (shares[0].id(), 0));
    }

    /// An uncle on another one that both chains credit, below where they part and far below our tip: no answer of the owner's holds that.
    #[test]
    fn a_syncs_message_waits_for_the_parent_of_an_uncle_that_our_own_chain_credits() {
        let (build, late) = (ShareBuilder::new(regtest()), 200_000);
        let take = |chain: &mut Chain, share: &Share| {
            assert_eq!(chain.offer(at(late), share, Source::Peer), Offer::Taken);
            chain.confirm(9);
        };
        let grow = |chain: &mut Chain, salt: u32, uncles: &[ShareId], count: usize| -> Vec<Share> {
            let shares = (0..count).map(|i| {
                let share = build.clone().salt(salt).uncles(if i == 0 { uncles } else { &[] }).build(chain, &chain.tip().id);
                take(chain, &share);
                share
            });
            shares.collect()
        };
        let (mut ours, mut theirs) = (fresh_chain(), fresh_chain());
        let mut shares = grow(&mut theirs, 0, &[], 4);
        let parent = build.clone().miner(2).build(&theirs, &shares[1].id());
        take(&mut theirs, &parent);
        shares.push(parent.clone());
        shares.extend(grow(&mut theirs, 0, &[parent.id()], 2));
        shares.iter().for_each(|share| take(&mut ours, share));
        shares.extend(grow(&mut ours, 1, &[], 54));
        let uncle = build.clone().miner(2).build(&theirs, &parent.id());
        take(&mut theirs, &uncle);
        let mut others = vec![uncle.clone()];
        others.extend(grow(&mut theirs, 2, &[uncle.id()], 64));
        let mut worker = worker();
        steps(&mut worker, late, vec![bulk(&shares, 4)]);
        steps(&mut worker, late, vec![OrganiseJob::PeerGone(conn(4))]);
        assert!(worker.chain.confirmed_height() == 60 && worker.chain.get(&parent.id()).is_none());
        let lacks = vec![Missing { id: parent.id(), from: conn(1), bulk: true }];
        assert_eq!(told(&steps(&mut worker, late, vec![bulk(&others, 1)])), (lacks, vec![]));
        assert_eq!(told(&steps(&mut worker, late, vec![tip(&parent, 2)])), (vec![], vec![(conn(1), 70)]));
        assert_eq!(worker.chain.tip().id, theirs.tip().id);
    }

    /// Regtest, had it easier bits than those of its blocks: so these cost something.
    fn costly() -> &'static Params {
        let mut params = regtest().clone();
        let (limit_bits, genesis) = (0x2100_ffff, params.bitcoin.genesis);
        params.bitcoin = Box::leak(Box::new(Rules { limit_bits, retargets: false, min_difficulty: false, bip94: false, genesis }));
        Box::leak(Box::new(params))
    }

    /// A worker that has heard of two Bitcoin blocks, each with a share on it that a peer made, and of a bitcoind that mines on the first.
    fn with_bitcoind() -> Option<(OrganiseWorker, Vec<Share>, [Arc<Block>; 2])> {
        let params = costly();
        let open = || Chain::open(params, [1, 2], &MemKv::new()).ok();
        let (mut other, mut worker) = (open()?, OrganiseWorker::new(params, open()?));
        let root = Arc::clone(other.bitcoin().root()?);
        let mut above = |on: &Block| {
            let id = other.offer_blocks(&[bitcoin_header(on, 600)]).new[0];
            other.bitcoin().get(&id.0).cloned()
        };
        let first = above(&root)?;
        let second = above(&first)?;
        let mut shares: Vec<Share> = Vec::new();
        for block in [&first, &second] {
            let build = ShareBuilder::new(params).bitcoin(block.hash, block.height + 1, block.bits()).time(block.time() + 10);
            let share = build.build(&other, &other.tip().id);
            assert_eq!(other.offer(at(0), &share, Source::Peer), Offer::Taken);
            other.confirm(9);
            shares.push(share);
        }
        let tips = BitcoinNews::Tips(Tips { active: first.hash, ..Tips::default() });
        let jobs = vec![BitcoinNews::Headers(vec![first.header]), tips].into_iter().map(OrganiseJob::Bitcoin).collect();
        steps(&mut worker, 1_000, jobs);
        Some((worker, shares, [first, second]))
    }

    /// What is told of the share that work builds on.
    fn upon(out: &Output) -> Option<Option<ShareId>> {
        organised(out).0.as_ref().map(|change| change.upon.as_ref().map(|upon| upon.parent))
    }

    #[test]
    fn work_leaves_a_share_when_its_block_was_lacked_for_long_enough_and_nothing_else_happens() {
        let Some((mut worker, shares, [_, second])) = with_bitcoind() else { panic!("no world") };
        steps(&mut worker, 2_000, vec![tip(&shares[0], 1)]);
        let blocks = OrganiseJob::Blocks { headers: vec![second.header], own: false, ticket: ticket(1) };
        let outs = steps(&mut worker, 3_000, vec![blocks, tip(&shares[1], 1)]);
        assert!(outs.iter().filter(|out| !out.mail.is_empty()).all(|out| upon(out) == Some(None)));
        let due = Duration::from_secs(3) + LACKED_MAX;
        assert_eq!(worker.due(), Some(due));
        let due = due.as_millis() as u64;
        assert!(step(&mut worker, due - 1, vec![]).mail.is_empty());
        assert_eq!(upon(&step(&mut worker, due, vec![])), Some(Some(shares[0].id())));
        assert_eq!((worker.due(), worker.chain.confirmed_tip().id), (None, shares[1].id()));
        // It has come.
        let tips = BitcoinNews::Tips(Tips { active: second.hash, ..Tips::default() });
        assert_eq!(upon(&step(&mut worker, due + 1_000, vec![OrganiseJob::Bitcoin(tips)])), Some(None));
    }

    #[test]
    fn work_does_not_build_on_a_share_that_arrives_late_by_itself() {
        let late = 1_000 + LATE_AFTER.as_millis() as u64 + 1_001;
        let come = |job: fn(&Share) -> OrganiseJob, ms: u64| {
            let (mut worker, shares, [_, second]) = with_bitcoind()?;
            steps(&mut worker, 1_000, vec![tip(&shares[0], 1)]);
            let tips = BitcoinNews::Tips(Tips { active: second.hash, ..Tips::default() });
            let news = [BitcoinNews::Headers(vec![second.header]), tips];
            steps(&mut worker, 2_000, news.into_iter().map(OrganiseJob::Bitcoin).collect());
            // Another share on the first block, which is not the newest any more.
            let share = ShareBuilder::new(worker.params).miner(7).build(&worker.chain, &shares[0].id());
            let out = steps(&mut worker, ms, vec![job(&share)]);
            assert_eq!(worker.chain.confirmed_tip().id, share.id());
            let told = out.iter().rev().filter(|out| !out.mail.is_empty()).find_map(upon);
            told.map(|upon| upon == Some(shares[0].id()))
        };
        let by_peer: fn(&Share) -> OrganiseJob = |share| tip(share, 1);
        assert_eq!([late - 1, late].map(|ms| come(by_peer, ms)), [Some(false), Some(true)]);
        assert_eq!(
            (come(|share| own(share, 1), late), come(|share| bulk(std::slice::from_ref(share), 1), late)),
            (Some(true), Some(false))
        );
    }

    #[test]
    fn a_bad_share_ends_its_message() {
        let (mut worker, mut shares) = (worker(), grown(10));
        shares[4].salt ^= 1;
        let outs = steps(&mut worker, 20_000, vec![bulk(&shares, 4)]);
        let (_, _, fates, _) = organised(&outs[0]);
        assert!(matches!(fates, [(peer, id, ShareFate::Bad(_))] if *peer == conn(4) && *id == shares[4].id()));
        assert!(matches!(&outs[0].mail[0].0, Answer::Organised { bulk_done, .. } if bulk_done[..] == [(conn(4), 4)]));
        assert_eq!(worker.chain.tip().height, 4);
        // The honest share of the same id is as good as ever.
        shares[4].salt ^= 1;
        steps(&mut worker, 20_000, vec![tip(&shares[4], 5)]);
        assert_eq!(worker.chain.tip().height, 5);
    }

    #[test]
    fn shares_of_a_newer_ruleset_are_noticed_once_they_are_tied() {
        let mut worker = worker();
        let newer = mined(|work| work.draft.version = 2);
        let mut forged = newer.clone();
        forged.version = 3;
        let out = step(&mut worker, 0, vec![tip(&forged, 1), tip(&newer, 2)]);
        assert!(matches!(organised(&out).2, [(_, _, ShareFate::Bad(_)), (_, _, ShareFate::Invalid(_))]));
        assert_eq!(worker.newer, BTreeSet::from([2]));
    }

    /// SPEC, VAL-2: it costs nothing to change the extranonce of an honest share in layout front, and until its coinbase is rebuilt the
    /// honest one counts as known.
    #[test]
    fn who_changed_the_extranonce_of_a_share_in_layout_front_is_told_of() {
        let mut worker = worker();
        let front = ShareBuilder::new(regtest()).layout(Layout::Front);
        let mut share = front.build(&fresh_chain(), &regtest().genesis_id());
        share.proof.extranonce[0] ^= 1;
        let outs = steps(&mut worker, 1_000_000_000, vec![tip(&share, 1)]);
        assert!(worker.chain.get(&share.id()).is_none(), "its coinbase was rebuilt");
        let answers = outs.iter().flat_map(|out| &out.mail).map(|(answer, _)| answer);
        let fates = answers.filter_map(|answer| if let Answer::Organised { fates, .. } = answer { Some(fates) } else { None });
        let fates: Vec<_> =
            fates.flatten().filter(|(from, id, _)| (*from, *id) == (conn(1), share.id())).map(|(_, _, fate)| fate).collect();
        assert!(matches!(fates[..], [ShareFate::Taken, ShareFate::Bad(_)]), "{fates:?}");
        // The honest one is taken, whoever sends it, and is nobody's fault.
        share.proof.extranonce[0] ^= 1;
        let outs = steps(&mut worker, 1_000_000_000, vec![tip(&share, 2)]);
        assert_eq!((worker.chain.confirmed_tip().id, organised(&outs[0]).2), (share.id(), &[(conn(2), share.id(), ShareFate::Taken)][..]));
        for n in 0..FRONT_KEPT {
            worker.remember(ShareId([n as u8; 32]), &share, conn(3));
        }
        assert_eq!((worker.front.len(), worker.front[0]), (FRONT_KEPT, (ShareId([0; 32]), conn(3))));
    }

    /// A share that went because what it builds on was a lie is changed by another when it comes in bulk.
    #[test]
    fn nobody_is_blamed_for_a_copy_of_his_share_that_another_changed() {
        let (mut worker, mut other) = (worker(), fresh_chain());
        let build = ShareBuilder::new(regtest()).layout(Layout::Front);
        let parent = build.build(&other, &regtest().genesis_id());
        assert_eq!(other.offer(at(1_000_000_000), &parent, Source::Peer), Offer::Taken);
        other.confirm(1);
        let share = build.build(&other, &parent.id());
        let changed = |share: &Share| {
            let mut changed = share.clone();
            changed.proof.extranonce[0] ^= 1;
            changed
        };
        let blamed = |outs: &[Output]| -> Vec<ConnId> {
            let fates = outs.iter().filter(|out| !out.mail.is_empty()).flat_map(|out| organised(out).2);
            fates.filter(|(_, _, fate)| matches!(fate, ShareFate::Bad(_))).map(|(from, _, _)| *from).collect()
        };
        let outs = steps(&mut worker, 1_000_000_000, vec![tip(&changed(&parent), 1), tip(&share, 2)]);
        assert_eq!((blamed(&outs), worker.chain.tip().height), (vec![conn(1)], 0));
        let outs = steps(&mut worker, 1_000_000_000, vec![bulk(&[parent.clone(), changed(&share)], 3)]);
        assert_eq!((blamed(&outs), worker.chain.tip().id), (vec![], parent.id()));
    }

    #[test]
    fn a_peer_can_make_only_so_many_shares_wait() {
        let (mut worker, shares) = (worker(), grown(PENDING_PEER_MAX + 10));
        let jobs = shares[1..].iter().rev().map(|share| tip(share, 1)).collect();
        steps(&mut worker, 100_000, jobs);
        let waiting = shares.iter().filter(|share| worker.pending.contains(&share.id())).count();
        assert_eq!(waiting, PENDING_PEER_MAX);
    }
}
