//! Sync: the shares of a better claim, fetched from its owner and from whoever else has them, one sync at a time.
//!
//! Where the chains part its owner says, by locator; from there on ranges of heights are asked of several peers at once and handed to the
//! organiser's bulk lane in order, until our tip is as good as the claim. Who does not answer, or ends below his claim, is dropped, and the
//! next best claim has its turn; who merely helps and does not fit is not asked again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::{LOCATOR_MAX, UNCLES_MAX};
use rockpool_net::wire::message::{Command, GetHeaders, Message, Start};
use rockpool_net::wire::share::Share;
use rockpool_workers::jobs::OrganiseJob;

use crate::limits::{
    SYNC_ANSWER_MAX, SYNC_BARREN_MAX, SYNC_GAP, SYNC_GRACE, SYNC_HANDED_MAX, SYNC_HELP_MAX, SYNC_PARTS_MAX, SYNC_RANGE, SYNC_SETTLE_MAX,
    SYNC_SHARES,
};
use crate::peer::base::Base;
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

/// The one sync under way.
#[derive(Debug)]
pub struct Sync {
    /// Whose claim it is about.
    pub conn: ConnId,
    claim: Claim,
    /// Begun with this base share instead of a fork point.
    base: Option<Base>,
    /// While the owner is asked where the chains part: the answer begins behind one of these, whatever our best chain is by then.
    asked: Vec<ShareId>,
    /// The last share handed to the organiser.
    last: Option<Handed>,
    /// The last share of what the organiser has taken whole.
    taken: Option<Handed>,
    /// Best score of the owner's answers so far.
    brought: u128,
    /// Answers that brought nothing new.
    barren: u32,
    /// The owner has no more.
    ended: bool,
    /// Ranges of heights, ascending without a gap.
    parts: VecDeque<Part>,
    /// The messages that the organiser works on: the last share of each.
    handed: VecDeque<Handed>,
    /// The helper whose message did not hold: nor will those behind it, and when the organiser has seen them the owner says where to go on.
    astray: Option<ConnId>,
    /// Helpers that did not fit.
    useless: BTreeSet<ConnId>,
    /// Whether some of what was handed on is a helper's.
    helped: bool,
    /// Nobody but the owner is asked any more.
    alone: bool,
    /// Answers to come that are wanted no more.
    pub late: Late,
    /// The organiser has seen all; whether our tip is as good as the claim will show when its changes are here.
    settling: Option<Duration>,
}

/// A share that the organiser was given.
#[derive(Clone, Copy, Debug)]
struct Handed {
    /// Who sent it.
    from: ConnId,
    id: ShareId,
    height: u32,
}

/// A range of heights, or the answer that says where the chains part.
#[derive(Debug)]
struct Part {
    /// Its lowest height; unknown where the chains part.
    first: Option<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody is asked.
    Wanted,
    /// Asked of this peer, which has until then.
    Asked(ConnId, Duration),
    /// It waits for what is below it.
    Come(Vec<Share>, Ticket),
}

/// Answers that are still to come and wanted no more, by who owes them: peers answer in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Late {
    owed: BTreeMap<ConnId, usize>,
}

impl Late {
    /// One more of this peer.
    pub fn expect(&mut self, conn: ConnId) {
        *self.owed.entry(conn).or_insert(0) += 1;
    }

    /// An answer of this peer. Whether it is one of these.
    pub fn came(&mut self, conn: ConnId) -> bool {
        let Some(owed) = self.owed.get_mut(&conn) else { return false };
        *owed -= 1;
        if *owed == 0 {
            self.owed.remove(&conn);
        }
        true
    }

    /// A peer has left.
    pub fn gone(&mut self, conn: ConnId) {
        self.owed.remove(&conn);
    }

    /// Whether this peer owes one.
    pub fn owes(&self, conn: ConnId) -> bool {
        self.owed.contains_key(&conn)
    }

    /// Those that owe one.
    pub fn peers(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.owed.keys().copied()
    }

    /// Those of another sync come first.
    pub fn join(&mut self, other: Late) {
        for (conn, owed) in other.owed {
            *self.owed.entry(conn).or_insert(0) += owed;
        }
    }
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
    /// Begins one: at the base share that the peer has shown, or where the chains part.
    pub fn begin(conn: ConnId, claim: Claim, base: Option<Base>, turn: &mut Turn<'_>) -> Sync {
        turn.counters.syncs.add(1);
        let mut sync = Sync {
            conn,
            claim,
            base,
            asked: Vec::new(),
            last: None,
            taken: None,
            brought: 0,
            barren: 0,
            ended: false,
            parts: VecDeque::new(),
            handed: VecDeque::new(),
            astray: None,
            useless: BTreeSet::new(),
            helped: false,
            alone: false,
            late: Late::default(),
            settling: None,
        };
        sync.find(turn);
        sync
    }

    /// Height of the claim.
    pub fn target(&self) -> u32 {
        self.claim.height
    }

    /// The owner claims less by now: whether that is so.
    pub fn lower(&mut self, claim: Claim) -> bool {
        let lower = claim.score < self.claim.score;
        if lower {
            self.claim = claim;
        }
        lower
    }

    /// Whether our best chain is as good as the claim.
    fn reached(&self, turn: &Turn<'_>) -> bool {
        turn.chain.view.tip().score >= self.claim.score
    }

    /// Whether it is over: nothing is under way and our best chain is as good as the claim.
    pub fn finished(&self, turn: &Turn<'_>) -> bool {
        self.handed.is_empty() && self.reached(turn)
    }

    /// When it is to be looked at again, whatever happens.
    pub fn due(&self) -> Option<Duration> {
        let asked = self.parts.iter().filter_map(|part| if let State::Asked(_, deadline) = part.state { Some(deadline) } else { None });
        asked.chain(self.settling).min()
    }

    /// Gives answers that are waited for their whole time anew, where the peer is not to blame: it is held back by us, or its answer is
    /// coming over a slow line, with a deadline of its own.
    pub fn put_off(&mut self, turn: &Turn<'_>) {
        for part in &mut self.parts {
            if let State::Asked(conn, deadline) = &mut part.state
                && (turn.out.is_held(*conn) || turn.out.is_arriving(*conn, Command::ShareHeaders))
            {
                *deadline = turn.now.mono + SYNC_ANSWER_MAX;
            }
        }
    }

    /// Why the owner of the claim is to be dropped at this time, if so. Helpers that are late are not asked again.
    pub fn look(&mut self, now: Duration) -> Option<Fault> {
        for part in &mut self.parts {
            let State::Asked(conn, deadline) = part.state else { continue };
            if now < deadline {
                continue;
            }
            if conn == self.conn {
                return Some(CloseReason::Timeout("answer to getheaders"));
            }
            self.useless.insert(conn);
            self.late.expect(conn);
            part.state = State::Wanted;
        }
        // Without blame: what it brought may be held for its time, by a clock of ours that is wrong.
        let settled = self.settling.is_some_and(|deadline| now >= deadline);
        if settled && self.helped && !self.alone {
            // In layout front a helper's lie shows only when the coinbase is rebuilt: the owner has one more try, by itself.
            (self.alone, self.ended, self.settling, self.last, self.brought) = (true, false, None, None, 0);
            self.base = self.base.take().filter(|_| self.taken.is_none());
            return None;
        }
        settled.then_some(CloseReason::Done("its chain did not become ours"))
    }

    /// An answer to `getheaders`; `None` if this peer was asked for nothing that is wanted. Its ticket goes with the job.
    pub fn on_shares(&mut self, conn: ConnId, shares: Vec<Share>, turn: &mut Turn<'_>) -> Option<Result<(), Fault>> {
        let of_peer = |part: &Part| matches!(part.state, State::Asked(asked, _) if asked == conn);
        if self.late.came(conn) {
            return Some(Ok(()));
        }
        let index = self.parts.iter().position(of_peer)?;
        self.parts[index].state = State::Wanted;
        let fits = match self.parts[index].first {
            Some(first) => self.on_range(index, first, conn, shares, turn),
            None => self.on_fork(shares, turn),
        };
        Some(fits.and_then(|()| self.hand_on(turn)))
    }

    /// The owner's answer to where the chains part, or where it begins.
    fn on_fork(&mut self, mut shares: Vec<Share>, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.parts.clear();
        if self.base.is_some() {
            // Uncles of the base are in no window.
            let lowest = spine(&shares).and_then(|spine| spine.first().copied());
            shares.drain(..lowest.unwrap_or(0));
        }
        let known = |id: &ShareId| self.asked.contains(id) || turn.chain.view.get(id).is_some();
        let fits = match &self.base {
            Some(base) => base.begins(&shares),
            // After a reorg over there the answer begins at our best chain again instead of where the last one ended.
            None => follows(&shares, known),
        };
        if !fits {
            return Err(misbehaviour("shareheaders that do not follow each other"));
        }
        if shares.is_empty() && self.claim.height > turn.chain.view.tip().height.saturating_add(turn.config.params.kept) {
            let (ours, theirs) = (turn.chain.view.tip().height, self.claim.height);
            log::warn!("our chain ends at {ours}, a peer's at {theirs}, and nothing that is kept is common to both: start with --resync");
            return Err(CloseReason::Done("its chain and ours have nothing in common that is kept"));
        }
        self.note_end(&shares, turn)?;
        let score = shares.last().map_or(0, |share| share.score);
        let last = shares.last().map(Share::id);
        if last.is_some_and(|last| score <= self.brought || turn.chain.view.get(&last).is_some()) && !self.reached(turn) {
            self.count_barren()?;
        }
        self.brought = self.brought.max(score);
        // A ticket is not taken for nothing: who drops it loses it to its lane for ever.
        if !shares.is_empty()
            && let Some(ticket) = turn.out.take_ticket()
        {
            self.give(shares, ticket, turn);
        }
        Ok(())
    }

    /// A range's shares. One that does not fit is asked of the owner; the owner's own says that it has reorganised itself.
    fn on_range(&mut self, index: usize, first: u32, conn: ConnId, mut shares: Vec<Share>, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if conn == self.conn && !shares.is_empty() {
            self.note_end(&shares, turn)?;
            let score = shares.last().map_or(0, |share| share.score);
            self.barren = if score > self.brought { 0 } else { self.barren };
            self.brought = self.brought.max(score);
        }
        // What is above the range, its uncles with it, belongs to the next one, which begins sooner where this is the rest of a range.
        let end = self.parts.get(index + 1).and_then(|next| next.first).unwrap_or(first.saturating_add(SYNC_RANGE));
        let spine = spine(&shares).unwrap_or_default();
        let fits = spine.first().is_some_and(|lowest| shares[*lowest].height == first);
        let highest = spine.into_iter().rev().find(|main| shares[*main].height < end);
        shares.truncate(highest.map_or(0, |highest| highest + 1));
        if let Some(ticket) = if fits { turn.out.take_ticket() } else { None } {
            self.parts[index].state = State::Come(shares, ticket);
        } else if conn == self.conn {
            return self.start_over(turn);
        } else {
            self.useless.insert(conn);
            self.parts[index].state = State::Wanted;
        }
        Ok(())
    }

    /// Whether an answer of the owner is his last, and then as good as his claim.
    fn note_end(&mut self, shares: &[Share], turn: &Turn<'_>) -> Result<(), Fault> {
        // The next share may not have fitted with its uncles.
        self.ended = shares.len() < SYNC_SHARES - UNCLES_MAX;
        let score = shares.last().map_or(0, |share| share.score);
        if self.ended && score < self.claim.score && !self.reached(turn) {
            return Err(misbehaviour("a chain that ends below its claim"));
        }
        Ok(())
    }

    /// Gives the organiser what has come and follows on what it has.
    fn hand_on(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        while self.handed.len() < SYNC_HANDED_MAX
            && self.astray.is_none()
            && let Some(Part { state: State::Come(..), .. }) = self.parts.front()
            && let Some(Part { first, state: State::Come(shares, ticket) }) = self.parts.pop_front()
        {
            let last = self.last;
            if !follows(&shares, |id| last.is_some_and(|last| last.id == *id)) {
                let conn = ticket.conn();
                turn.out.home(ticket);
                if conn == self.conn {
                    // What is below came from the owner too, or it is the helper who has another chain.
                    return match last.filter(|last| last.from != self.conn) {
                        Some(last) => self.mistrust(last.from, turn),
                        None => self.start_over(turn),
                    };
                }
                self.useless.insert(conn);
                self.parts.push_front(Part { first, state: State::Wanted });
                return Ok(());
            }
            self.give(shares, ticket, turn);
            // Of a range with many uncles the rest is still to be asked for.
            let next = self.last.map(|last| last.height + 1);
            if let Some(next) = next.filter(|next| self.parts.front().is_some_and(|part| part.first.is_some_and(|first| first > *next))) {
                self.parts.push_front(Part { first: Some(next), state: State::Wanted });
            }
        }
        Ok(())
    }

    fn give(&mut self, shares: Vec<Share>, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(last) = shares.last() else { return turn.out.home(ticket) };
        let base = self.base.is_some() && self.last.is_none();
        let handed = Handed { from: ticket.conn(), id: last.id(), height: last.height };
        self.helped |= handed.from != self.conn;
        self.last = Some(handed);
        self.handed.push_back(handed);
        self.settling = None;
        turn.jobs.organise.push(OrganiseJob::Bulk { sync: self.conn, shares, base, ticket });
    }

    /// The organiser has worked off a message; the best share of it that it could take had this height.
    pub fn on_bulk_done(&mut self, height: u32, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let Some(handed) = self.handed.pop_front() else { return Ok(()) };
        if self.astray.is_none() {
            if height == handed.height {
                self.taken = Some(handed);
            } else {
                // It could not take all of it, nor what follows. Of the owner's own words what became of them will show.
                self.drop_parts(turn);
                self.astray = Some(handed.from).filter(|from| *from != self.conn);
                self.ended = self.astray.is_none();
            }
        }
        if self.handed.is_empty()
            && let Some(helper) = self.astray.take()
        {
            self.last = self.taken;
            return self.mistrust(helper, turn);
        }
        self.hand_on(turn)
    }

    /// Asks for what is wanted: of the owner, and of these peers whose claims reach as far. Where there is nothing left to ask for, it will
    /// show whether the claim was true.
    pub fn ask(&mut self, helpers: &[(ConnId, Claim)], turn: &mut Turn<'_>) {
        if self.astray.is_some() || self.parts.iter().any(|part| part.first.is_none()) {
            return;
        }
        while self.parts.len() < SYNC_PARTS_MAX && !self.ended {
            let above = self.last.map_or(0, |last| last.height);
            let next = self.parts.back().and_then(|part| part.first).map_or(above + 1, |first| first.saturating_add(SYNC_RANGE));
            if next > self.claim.height || self.last.is_none() {
                break;
            }
            self.parts.push_back(Part { first: Some(next), state: State::Wanted });
        }
        let mut busy: BTreeSet<ConnId> = self.late.peers().collect();
        busy.extend(self.parts.iter().filter_map(|part| if let State::Asked(conn, _) = part.state { Some(conn) } else { None }));
        for part in &mut self.parts {
            let (Some(first), State::Wanted) = (part.first, &part.state) else { continue };
            let reach = first.saturating_add(SYNC_RANGE).min(self.claim.height);
            let helper = helpers.iter().filter(|(_, claim)| !self.alone && claim.height >= reach).map(|(conn, _)| *conn);
            let mut able = [self.conn].into_iter().chain(helper).filter(|conn| !busy.contains(conn) && !self.useless.contains(conn));
            let Some(conn) = able.next() else { continue };
            busy.insert(conn);
            let time = if conn == self.conn { SYNC_ANSWER_MAX } else { SYNC_HELP_MAX };
            part.state = State::Asked(conn, turn.now.mono + time);
            get_headers(conn, Start::Height(first), turn);
        }
        let idle = self.parts.is_empty() && self.handed.is_empty();
        if idle && self.settling.is_none() {
            // The owner's chain may have grown, or become another, while we asked by height.
            if self.reached(turn) || self.ended {
                self.settling = Some(turn.now.mono + SYNC_SETTLE_MAX);
            } else {
                self.find(turn);
            }
        }
    }

    /// A peer has left: what it was asked for is asked of another.
    pub fn on_closed(&mut self, conn: ConnId) {
        self.late.gone(conn);
        for part in &mut self.parts {
            if matches!(part.state, State::Asked(asked, _) if asked == conn) {
                part.state = State::Wanted;
            }
        }
    }

    /// Tickets of what has not been handed on go home. To be called before it is dropped.
    pub fn drop_parts(&mut self, turn: &mut Turn<'_>) {
        for part in self.parts.drain(..) {
            match part.state {
                State::Come(_, ticket) => turn.out.home(ticket),
                State::Asked(conn, _) => self.late.expect(conn),
                State::Wanted => {}
            }
        }
    }

    /// The owner's chain is another one now: it says again where the chains part.
    fn start_over(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.drop_parts(turn);
        self.count_barren()?;
        self.find(turn);
        Ok(())
    }

    /// A helper's shares were of no use: the owner says again where to go on, and is not blamed for what comes twice.
    fn mistrust(&mut self, helper: ConnId, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.useless.insert(helper);
        self.brought = 0;
        self.drop_parts(turn);
        self.find(turn);
        Ok(())
    }

    /// Nobody holds the one sync with shares that we have: after a reorg over there some come again, but not time and again.
    fn count_barren(&mut self) -> Result<(), Fault> {
        self.barren += 1;
        if self.barren > SYNC_BARREN_MAX { Err(misbehaviour("shareheaders that bring nothing new")) } else { Ok(()) }
    }

    /// Asks the owner where the chains part, or for its base.
    fn find(&mut self, turn: &mut Turn<'_>) {
        let start = match (&self.base, self.last) {
            (Some(base), None) => Start::Height(base.height),
            _ => {
                self.base = None;
                // What came last is not of our best chain yet, so the locator alone would bring it again.
                let last = self.last.map(|last| last.id);
                self.asked = last.into_iter().chain(turn.chain.view.locator()).take(LOCATOR_MAX).collect();
                Start::Locator(self.asked.clone())
            }
        };
        self.parts.push_back(Part { first: None, state: State::Asked(self.conn, turn.now.mono + SYNC_ANSWER_MAX) });
        get_headers(self.conn, start, turn);
    }
}

/// Asks for shares, as many as one answer holds.
pub fn get_headers(conn: ConnId, from: Start, turn: &mut Turn<'_>) {
    turn.out.expect(conn, Command::ShareHeaders);
    super::say(conn, &Message::GetHeaders(GetHeaders { from, stop: ShareId::default() }), turn);
}

/// Whether these are a piece of a chain on a share that is known.
fn follows(shares: &[Share], known: impl Fn(&ShareId) -> bool) -> bool {
    let Some(spine) = spine(shares) else { return false };
    spine.first().is_none_or(|lowest| known(&shares[*lowest].parent))
}

/// Where in a piece of a chain its shares stand, ascending: each the parent of the next. All others must be uncles of a later one.
pub fn spine(shares: &[Share]) -> Option<Vec<usize>> {
    let mut spine = Vec::with_capacity(shares.len());
    let mut wanted = shares.last().map(Share::id);
    let mut uncles: BTreeSet<&ShareId> = BTreeSet::new();
    for (index, share) in shares.iter().enumerate().rev() {
        let id = share.id();
        if wanted == Some(id) {
            uncles.extend(&share.uncles);
            wanted = Some(share.parent);
            spine.push(index);
        } else if !uncles.remove(&id) {
            return None;
        }
    }
    spine.reverse();
    Some(spine)
}

fn misbehaviour(what: &str) -> Fault {
    CloseReason::Misbehaviour(what.to_owned())
}
