//! The organiser: the one that changes the chain index. Takes shares, rebuilds coinbases, says what changed and what is to be written.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;
use rockpool_store::chain::{Batch, Chain, Offer, Source};
use rockpool_store::organised::ChainChange;
use rockpool_store::params::Params;

use crate::jobs::{Answer, Claim, OrganiseJob, Output, ShareFate, Stage, SubmitRefusal, WriteJob};
use crate::limits::{BACKLOG_MAX, PENDING_LOOK, PROGRESS_MIN, REBUILT_SLICE, SYNC_IDLE_MAX, TIED_SLICE};
use crate::pending::{Pending, Waiting};

/// Candidate and confirmed chain, step by step; own shares before the tip before a sync.
pub struct OrganiseWorker {
    params: &'static Params,
    chain: Chain,
    // The lanes. Bounded by the tickets: each entry holds one.
    own: VecDeque<(Arc<Share>, Claim, Ticket)>,
    tip: VecDeque<(Arc<Share>, Ticket)>,
    bulk: VecDeque<Bulk>,
    /// Shares that may no longer have to wait. Bounded as what waits is.
    retry: VecDeque<Waiting>,
    pending: Pending,
    /// When the clock's shares were last looked at.
    looked: Duration,
    /// When the sync under way last brought something.
    synced: Duration,
    report: Report,
    /// Whether the chain has changed since it was last told.
    changed: bool,
    /// When a change was last told.
    told: Duration,
    /// Rulesets that were met and are not known.
    newer: BTreeSet<u8>,
}

/// A sync's message that is being worked off.
struct Bulk {
    shares: vec::IntoIter<Share>,
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
    missing: Vec<(ShareId, ConnId)>,
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
            bulk: VecDeque::new(),
            retry: VecDeque::new(),
            pending: Pending::default(),
            looked: Duration::ZERO,
            synced: Duration::ZERO,
            report: Report::default(),
            // A chain just opened may have found a better branch among its rows.
            changed: true,
            told: Duration::ZERO,
            newer: BTreeSet::new(),
        }
    }

    /// The chain, for invariants in tests and in the simulator.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    fn queue(&mut self, now: Now, job: OrganiseJob) {
        match job {
            OrganiseJob::Own { share, claim, ticket } => self.own.push_back((share, claim, ticket)),
            OrganiseJob::Tip { share, ticket } => self.tip.push_back((share, ticket)),
            OrganiseJob::Bulk { shares, ticket } => {
                self.synced = now.mono;
                self.bulk.push_back(Bulk { shares: shares.into_iter(), ticket, best: 0, new: false });
            }
            OrganiseJob::PeerGone(conn) => {
                self.pending.peer_gone(conn);
                self.retry.retain(|waiting| waiting.from != conn);
                // What it sent in bulk is no longer worth a sync; the messages end, and their tickets come home.
                let of_peer = self.bulk.iter_mut().filter(|bulk| bulk.ticket.conn() == conn);
                of_peer.for_each(|bulk| bulk.shares = Vec::new().into_iter());
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
        } else if let Some((share, ticket)) = self.tip.pop_front() {
            let waiting = Waiting { id: share.id(), share, from: ticket.conn(), since: now.mono };
            let taken = self.take_peers(now, waiting, false);
            self.come_home(taken, ticket);
        } else if self.chain.backlog() <= BACKLOG_MAX
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
        let refusal = match self.offer(now, share, Source::Own) {
            Offer::Taken => {
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
        let (id, from) = (waiting.id, waiting.from);
        let offer = self.offer(now, waiting.share.clone(), Source::Peer);
        let taken = offer == Offer::Taken;
        let fate = match offer {
            Offer::Taken | Offer::Known => ShareFate::Taken,
            Offer::Pending { missing } => {
                // What waits itself need not be fetched.
                if !self.pending.contains(&missing) {
                    self.report.missing.push((missing, from));
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
        let from = bulk.ticket.conn();
        self.chain.begin_sync(from);
        let Some(share) = bulk.shares.next() else { return self.end_bulk(bulk) };
        let (id, height) = (share.id(), share.height);
        let fate = match self.offer(now, Arc::new(share), Source::Bulk(from)) {
            offer @ (Offer::Taken | Offer::Known) => {
                bulk.new |= offer == Offer::Taken;
                bulk.best = bulk.best.max(height);
                return self.bulk.push_front(bulk);
            }
            // The rest builds on this one. It is not kept: the peer is asked again, from where we stand.
            Offer::Pending { missing } => {
                self.report.missing.push((missing, from));
                ShareFate::Pending
            }
            Offer::Early { .. } | Offer::Dropped(_) => ShareFate::Pending,
            Offer::Invalid(why) => ShareFate::Invalid(why),
            Offer::Bad(why) => ShareFate::Bad(why),
        };
        self.report.fates.push((from, id, fate));
        bulk.shares = Vec::new().into_iter();
        self.end_bulk(bulk);
    }

    fn end_bulk(&mut self, bulk: Bulk) {
        let from = bulk.ticket.conn();
        // A message that brings nothing new is the end of its sync.
        if !bulk.new && self.chain.syncing() == Some(from) {
            self.chain.end_sync();
        }
        self.report.bulk_done.push((from, bulk.best));
        self.come_home(bulk.new, bulk.ticket);
    }

    fn come_home(&mut self, taken: bool, ticket: Ticket) {
        if taken { self.report.taken.push(ticket) } else { self.report.done.push(ticket) }
    }

    /// Offers a share to the chain, and looks after what waited for it.
    fn offer(&mut self, now: Now, share: Arc<Share>, source: Source) -> Offer {
        let (id, version, height) = (share.id(), share.version, share.height);
        let offer = self.chain.offer(now, share, source);
        match offer {
            Offer::Taken => {
                self.changed = true;
                self.retry.extend(self.pending.arrived(id));
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
            writes.push(WriteJob { ops: batch.ops, sync: batch.own, ids: batch.ids, claims, tickets: Vec::new() });
        }
        match writes.last_mut() {
            Some(last) => last.tickets = taken,
            None => done.extend(taken),
        }
        // An own share without a row was taken, and found wanting when its coinbase was rebuilt, all within this step.
        refused.extend(unwritten.into_iter().map(|(_, claim)| (claim, SubmitRefusal::Refused("its coinbase is not what the chain dictates"))));
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
        if self.chain.backlog() > 0 {
            self.changed |= self.chain.confirm(REBUILT_SLICE) > 0;
        }
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
        let (lanes, backlog) = (self.own.len() + self.retry.len() + self.tip.len(), self.chain.backlog());
        if lanes > 0 || backlog > 0 || !self.bulk.is_empty() {
            return Some(Duration::ZERO);
        }
        let progress = self.changed.then_some(self.told + PROGRESS_MIN);
        let look = (!self.pending.is_empty() || self.chain.syncing().is_some()).then_some(self.looked + PENDING_LOOK);
        progress.into_iter().chain(look).min()
    }
}

impl Report {
    /// Whether somebody waits for it.
    fn is_due(&self) -> bool {
        !(self.fates.is_empty() && self.done.is_empty() && self.taken.is_empty())
    }
}
