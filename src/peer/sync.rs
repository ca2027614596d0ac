//! Sync: shares by locator, from one peer at a time, begun on a better claim.
//!
//! `getheaders` → `shareheaders` → the organiser's bulk lane → `getheaders` from the last share on, until our tip is as good as the claim.
//! Who does not answer, or ends below his claim, is dropped, and the next best claim has its turn.

use std::collections::BTreeSet;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::UNCLES_MAX;
use rockpool_net::wire::message::{Command, GetHeaders, Message, Start};
use rockpool_net::wire::share::Share;
use rockpool_workers::jobs::OrganiseJob;

use crate::limits::{SYNC_ANSWER_MAX, SYNC_BARREN_MAX, SYNC_GAP, SYNC_GRACE, SYNC_SETTLE_MAX, SYNC_SHARES};
use crate::turn::Turn;

/// Where a peer says its chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The tip's height.
    pub height: u32,
    /// The tip's score.
    pub score: u128,
    /// Since when it has been better than what we have.
    pub since: Duration,
}

/// How far the sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `getheaders` is out.
    Asked { deadline: Duration },
    /// The organiser works on an answer; `ended`: it was the peer's last.
    Organising { ended: bool },
    /// The organiser has seen all; whether our tip is as good as the claim will show when its changes are here.
    Settling { deadline: Duration },
}

/// The one sync under way.
#[derive(Debug)]
pub struct Sync {
    /// With whom.
    pub conn: ConnId,
    /// Score of the claim it was begun on.
    score: u128,
    /// The locator of the last `getheaders`: the answer begins behind one of these, whatever our best chain is by then.
    asked: Vec<ShareId>,
    /// The last share that came, and its height.
    last: Option<(ShareId, u32)>,
    /// Best score of an answer so far.
    brought: u128,
    /// Answers that brought nothing new.
    barren: u32,
    stage: Stage,
}

/// Why a sync is over before its end.
pub type Fault = CloseReason;

impl Claim {
    /// Whether a sync on this claim is due: at once if it is far ahead, else after push and fetcher had their time.
    pub fn due(&self, height: u32) -> Duration {
        if self.height > height.saturating_add(SYNC_GAP) { self.since } else { self.since + SYNC_GRACE }
    }
}

impl Sync {
    /// Begins one.
    pub fn begin(conn: ConnId, claim: &Claim, turn: &mut Turn<'_>) -> Sync {
        turn.counters.syncs.add(1);
        let stage = Stage::Settling { deadline: Duration::ZERO };
        let mut sync = Sync { conn, score: claim.score, asked: Vec::new(), last: None, brought: 0, barren: 0, stage };
        sync.ask(turn);
        sync
    }

    /// Whether our best chain is as good as the claim.
    fn reached(&self, turn: &Turn<'_>) -> bool {
        turn.chain.view.tip().score >= self.score
    }

    /// Whether it is over: nothing is under way and our best chain is as good as the claim.
    pub fn finished(&self, turn: &Turn<'_>) -> bool {
        matches!(self.stage, Stage::Settling { .. }) && self.reached(turn)
    }

    /// When it is to be looked at again, whatever happens.
    pub fn due(&self) -> Option<Duration> {
        match self.stage {
            Stage::Asked { deadline } | Stage::Settling { deadline } => Some(deadline),
            // The organiser waits for nothing but its input.
            Stage::Organising { .. } => None,
        }
    }

    /// Gives an answer that is waited for its whole time anew.
    pub fn put_off(&mut self, now: Duration) {
        if let Stage::Asked { deadline } = &mut self.stage {
            *deadline = now + SYNC_ANSWER_MAX;
        }
    }

    /// Why the peer is to be dropped at this time, if so.
    pub fn late(&self, now: Duration) -> Option<Fault> {
        match self.stage {
            Stage::Asked { deadline } if now >= deadline => Some(CloseReason::Timeout("answer to getheaders")),
            // Without blame: what it brought may be held for its time, by a clock of ours that is wrong.
            Stage::Settling { deadline } if now >= deadline => Some(CloseReason::Done("its chain did not become ours")),
            _ => None,
        }
    }

    /// The answer to `getheaders`. Its ticket goes with the job.
    pub fn on_shares(&mut self, shares: Vec<Share>, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if !matches!(self.stage, Stage::Asked { .. }) {
            return Err(misbehaviour("shareheaders that were not asked for"));
        }
        // After a reorg over there the answer begins at our best chain again instead of where the last one ended.
        if !follows(&shares, |id| self.asked.contains(id) || turn.chain.view.get(id).is_some()) {
            return Err(misbehaviour("shareheaders that do not follow each other"));
        }
        let last = shares.last().map(Share::id);
        // The next share may not have fitted with its uncles.
        let ended = shares.len() < SYNC_SHARES - UNCLES_MAX;
        let score = shares.last().map_or(0, |share| share.score);
        if ended && score < self.score && !self.reached(turn) {
            return Err(below_claim());
        }
        // Nobody holds the one sync with shares that we have: after a reorg over there some come again, but not time and again.
        if let Some(last) = last
            && !self.reached(turn)
            && (score <= self.brought || turn.chain.view.get(&last).is_some())
        {
            self.barren += 1;
            if self.barren > SYNC_BARREN_MAX {
                return Err(misbehaviour("shareheaders that bring nothing new"));
            }
        }
        self.brought = self.brought.max(score);
        self.last = last.zip(shares.last().map(|share| share.height)).or(self.last);
        // A ticket is not taken for nothing: who drops it loses it to its lane for ever.
        let ticket = if shares.is_empty() { None } else { turn.out.take_ticket() };
        let Some(ticket) = ticket else {
            self.stage = Stage::Settling { deadline: turn.now.mono + SYNC_SETTLE_MAX };
            return Ok(());
        };
        self.stage = Stage::Organising { ended };
        turn.jobs.organise.push(OrganiseJob::Bulk { shares, base: false, ticket });
        Ok(())
    }

    /// The organiser has worked off the last answer; the best share that it could take had this height.
    pub fn on_bulk_done(&mut self, height: u32, turn: &mut Turn<'_>) {
        let Stage::Organising { ended } = self.stage else { return };
        let whole = self.last.is_some_and(|(_, last)| last == height);
        if self.reached(turn) || ended || !whole {
            self.stage = Stage::Settling { deadline: turn.now.mono + SYNC_SETTLE_MAX };
        } else {
            self.ask(turn);
        }
    }

    fn ask(&mut self, turn: &mut Turn<'_>) {
        // What came last is not of our best chain yet, so the locator alone would bring it again.
        let last = self.last.map(|(id, _)| id);
        self.asked = last.into_iter().chain(turn.chain.view.locator()).take(rockpool_net::limits::LOCATOR_MAX).collect();
        turn.out.expect(self.conn, Command::ShareHeaders);
        let wanted = GetHeaders { from: Start::Locator(self.asked.clone()), stop: ShareId::default() };
        super::say(self.conn, &Message::GetHeaders(wanted), turn);
        self.stage = Stage::Asked { deadline: turn.now.mono + SYNC_ANSWER_MAX };
    }
}

/// Whether these are a piece of a chain on a share that is known: each the parent of the next, but for uncles of a later one.
fn follows(shares: &[Share], known: impl Fn(&ShareId) -> bool) -> bool {
    let Some(mut wanted) = shares.last().map(Share::id) else { return true };
    let mut uncles: BTreeSet<&ShareId> = BTreeSet::new();
    for share in shares.iter().rev() {
        let id = share.id();
        if id == wanted {
            uncles.extend(&share.uncles);
            wanted = share.parent;
        } else if !uncles.remove(&id) {
            return false;
        }
    }
    known(&wanted)
}

fn below_claim() -> Fault {
    misbehaviour("a chain that ends below its claim")
}

fn misbehaviour(what: &str) -> Fault {
    CloseReason::Misbehaviour(what.to_owned())
}
