//! The fetcher: whom to ask for a share that is missing. Pure policy; the reactor sends what it says.
//!
//! At most [`FETCH_PEER_MAX`] in flight to a peer; a deadline for each, doubled with every peer tried; never the same peer twice for an
//! id; asked of another when a peer leaves or has not got it; forgotten when nobody is left to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;

use crate::jobs::{Answer, FetchJob, Output, Stage};
use crate::limits::{
    FETCH_DEADLINE, FETCH_DEADLINE_MAX, FETCH_FORGET, FETCH_FROM_PEER_MAX, FETCH_MISSING_MAX, FETCH_PEER_MAX, FETCH_RETRY_MIN,
    FETCH_TRIES_MAX,
};

/// Whom to ask for what.
#[derive(Debug, Default)]
pub struct BlockFetcher {
    /// Peers that can be asked, with how many shares they are asked for.
    peers: BTreeMap<ConnId, usize>,
    /// What is missing, oldest first.
    missing: BTreeMap<u64, Missing>,
    /// Where in `missing` an id is.
    numbers: BTreeMap<ShareId, u64>,
    /// How much of it each peer made known as missing.
    named: BTreeMap<ConnId, usize>,
    /// Counts what was ever missing.
    next: u64,
    /// When retries were last spoken of unasked.
    spoke: Duration,
}

#[derive(Debug)]
struct Missing {
    id: ShareId,
    /// Who made it known as missing.
    from: ConnId,
    /// Peers that know it, in the order in which they said so. Those that left or were asked are not in it.
    givers: Vec<ConnId>,
    /// Peers asked before, as far as they are still there.
    tried: BTreeSet<ConnId>,
    /// How often it was asked for.
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Asked of this peer, which has until then.
    Asked(ConnId, Duration),
    /// Nobody is left to ask, or they are busy; forgotten at this time.
    Waits(Duration),
}

impl BlockFetcher {
    /// A fetcher that knows no peers.
    pub fn new() -> BlockFetcher {
        BlockFetcher::default()
    }

    fn learn(&mut self, now: Now, job: FetchJob) {
        match job {
            FetchJob::PeerUp(conn) => {
                self.peers.entry(conn).or_insert(0);
            }
            FetchJob::PeerDown(conn) => {
                self.peers.remove(&conn);
                for missing in self.missing.values_mut() {
                    missing.givers.retain(|giver| *giver != conn);
                    missing.tried.remove(&conn);
                    if matches!(missing.state, State::Asked(asked, _) if asked == conn) {
                        missing.state = State::Waits(now.mono + FETCH_FORGET);
                    }
                }
            }
            FetchJob::Missing(id, from) => self.miss(now, id, from),
            FetchJob::Arrived(id) => {
                if let Some(missing) = self.numbers.get(&id).copied().and_then(|number| self.forget(number)) {
                    self.free(missing.state);
                }
            }
            FetchJob::NotFound(id, from) => {
                let Some(missing) = self.numbers.get(&id).and_then(|number| self.missing.get_mut(number)) else { return };
                missing.givers.retain(|giver| *giver != from);
                // Only an answer to what we asked ends the asking.
                if matches!(missing.state, State::Asked(asked, _) if asked == from) {
                    let state = std::mem::replace(&mut missing.state, State::Waits(now.mono + FETCH_FORGET));
                    self.free(state);
                }
            }
        }
    }

    fn miss(&mut self, now: Now, id: ShareId, from: ConnId) {
        if let Some(missing) = self.numbers.get(&id).and_then(|number| self.missing.get_mut(number)) {
            if self.peers.contains_key(&from) && !missing.tried.contains(&from) && !missing.givers.contains(&from) {
                missing.givers.push(from);
            }
            return;
        }
        // Over the limit the share stays unknown for now: whoever sends its child again makes it missing again.
        // One peer's words fill no more than its part, or an `inv` of invented ids would be asked of everybody.
        let of_peer = self.named.get(&from).copied().unwrap_or(0);
        if self.missing.len() >= FETCH_MISSING_MAX || of_peer >= FETCH_FROM_PEER_MAX {
            return;
        }
        self.named.insert(from, of_peer + 1);
        let givers = if self.peers.contains_key(&from) { vec![from] } else { Vec::new() };
        let state = State::Waits(now.mono + FETCH_FORGET);
        self.missing.insert(self.next, Missing { id, from, givers, tried: BTreeSet::new(), attempts: 0, state });
        self.numbers.insert(id, self.next);
        self.next += 1;
    }

    /// It is missing no more.
    fn forget(&mut self, number: u64) -> Option<Missing> {
        let missing = self.missing.remove(&number)?;
        self.numbers.remove(&missing.id);
        match self.named.get_mut(&missing.from) {
            Some(named) if *named > 1 => *named -= 1,
            _ => drop(self.named.remove(&missing.from)),
        }
        Some(missing)
    }

    /// A peer has one share less to bring.
    fn free(&mut self, state: State) {
        if let State::Asked(conn, _) = state
            && let Some(in_flight) = self.peers.get_mut(&conn)
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Ends what has passed its deadline.
    fn expire(&mut self, now: Now) {
        let passed = |missing: &Missing| match missing.state {
            State::Asked(_, deadline) | State::Waits(deadline) => deadline <= now.mono,
        };
        let late: Vec<u64> = self.missing.iter().filter(|(_, missing)| passed(missing)).map(|(number, _)| *number).collect();
        for number in late {
            let Some(missing) = self.missing.get_mut(&number) else { continue };
            match missing.state {
                state @ State::Asked(..) => {
                    missing.state = State::Waits(now.mono + FETCH_FORGET);
                    self.free(state);
                }
                State::Waits(_) => drop(self.forget(number)),
            }
        }
    }

    /// Asks for all that waits and that somebody can be asked for, oldest first.
    fn ask(&mut self, now: Now) -> Vec<(ConnId, Vec<ShareId>)> {
        let mut requests: BTreeMap<ConnId, Vec<ShareId>> = BTreeMap::new();
        for missing in self.missing.values_mut().filter(|missing| matches!(missing.state, State::Waits(_))) {
            let Some(conn) = choose(&self.peers, missing) else { continue };
            if let Some(in_flight) = self.peers.get_mut(&conn) {
                *in_flight += 1;
            }
            missing.givers.retain(|giver| *giver != conn);
            missing.tried.insert(conn);
            let time = FETCH_DEADLINE.saturating_mul(1 << missing.attempts.min(8)).min(FETCH_DEADLINE_MAX);
            missing.attempts += 1;
            missing.state = State::Asked(conn, now.mono + time);
            requests.entry(conn).or_default().push(missing.id);
        }
        requests.into_iter().collect()
    }
}

/// The first of those that know it, else the least busy of those not tried, if not many were.
fn choose(peers: &BTreeMap<ConnId, usize>, missing: &Missing) -> Option<ConnId> {
    let free = |conn: &ConnId| peers.get(conn).is_some_and(|in_flight| *in_flight < FETCH_PEER_MAX);
    let giver = missing.givers.iter().copied().find(free);
    let other = || {
        let untried = peers.iter().filter(|(conn, _)| free(conn) && !missing.tried.contains(conn));
        untried.min_by_key(|(_, in_flight)| **in_flight).map(|(conn, _)| *conn)
    };
    // While one that knows it is merely busy, it is waited for.
    giver.or_else(|| if missing.givers.is_empty() && missing.attempts < FETCH_TRIES_MAX { other() } else { None })
}

impl Stage for BlockFetcher {
    type Job = FetchJob;

    fn step(&mut self, now: Now, jobs: &mut Vec<FetchJob>, out: &mut Output) {
        let asked = !jobs.is_empty();
        for job in jobs.drain(..) {
            self.learn(now, job);
        }
        // Between messages deadlines are looked at no more often than may be spoken.
        if !asked && now.mono < self.spoke + FETCH_RETRY_MIN {
            return;
        }
        self.expire(now);
        let requests = self.ask(now);
        if asked {
            out.mail.push((Answer::Requests(requests), Vec::new()));
        } else if !requests.is_empty() {
            self.spoke = now.mono;
            out.mail.push((Answer::Retry(requests), Vec::new()));
        }
    }

    fn due(&self) -> Option<Duration> {
        let deadline = |missing: &Missing| match missing.state {
            State::Asked(_, deadline) | State::Waits(deadline) => deadline,
        };
        self.missing.values().map(deadline).min().map(|first| first.max(self.spoke + FETCH_RETRY_MIN))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::testing::{at, conn, id};

    type Requests = Vec<(ConnId, Vec<ShareId>)>;

    /// What a step says: requests, and whether they give the credit back.
    fn step(fetcher: &mut BlockFetcher, ms: u64, mut jobs: Vec<FetchJob>) -> Option<(bool, Requests)> {
        let mut out = Output::default();
        fetcher.step(at(ms), &mut jobs, &mut out);
        assert!(jobs.is_empty() && out.mail.len() <= 1);
        out.mail.pop().map(|(answer, _)| match answer {
            Answer::Requests(requests) => (true, requests),
            Answer::Retry(requests) => (false, requests),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn every_message_is_answered_once_even_if_nothing_is_to_be_asked() {
        let mut fetcher = BlockFetcher::new();
        assert_eq!(step(&mut fetcher, 0, vec![FetchJob::PeerUp(conn(1))]), Some((true, vec![])));
        assert_eq!(step(&mut fetcher, 1, vec![FetchJob::Missing(id(1), conn(1))]), Some((true, vec![(conn(1), vec![id(1)])])));
        assert_eq!(step(&mut fetcher, 2, vec![FetchJob::Arrived(id(1))]), Some((true, vec![])));
        assert_eq!(fetcher.due(), None);
    }

    #[test]
    fn after_the_deadline_another_is_asked_and_never_the_same_twice() {
        let mut fetcher = BlockFetcher::new();
        let up = [1, 2, 3].map(|n| FetchJob::PeerUp(conn(n)));
        step(&mut fetcher, 0, up.into_iter().chain([FetchJob::Missing(id(7), conn(2))]).collect());
        // The giver first, then who was not tried; each has twice the time of the one before.
        assert_eq!(fetcher.due(), Some(Duration::from_secs(2)));
        assert_eq!(step(&mut fetcher, 1_999, vec![]), None);
        assert_eq!(step(&mut fetcher, 2_000, vec![]), Some((false, vec![(conn(1), vec![id(7)])])));
        assert_eq!(fetcher.due(), Some(Duration::from_secs(6)));
        assert_eq!(step(&mut fetcher, 6_000, vec![]), Some((false, vec![(conn(3), vec![id(7)])])));
        assert_eq!(step(&mut fetcher, 14_000, vec![FetchJob::Missing(id(7), conn(2))]), Some((true, vec![])));
        // Nobody is left: it is forgotten, and can be asked for anew.
        assert_eq!(fetcher.due(), Some(Duration::from_secs(14) + FETCH_FORGET));
        assert_eq!(step(&mut fetcher, 74_000, vec![]), None);
        assert!(fetcher.missing.is_empty() && fetcher.numbers.is_empty());
        assert_eq!(step(&mut fetcher, 74_001, vec![FetchJob::Missing(id(7), conn(2))]), Some((true, vec![(conn(2), vec![id(7)])])));
    }

    /// All are silent: each has twice the time of the one before, up to the longest, until as many were tried as may be.
    #[test]
    fn deadlines_double_up_to_the_longest() {
        let mut fetcher = BlockFetcher::new();
        let up = (1..=20).map(|n| FetchJob::PeerUp(conn(n)));
        let (_, first) = step(&mut fetcher, 0, up.chain([FetchJob::Missing(id(1), conn(1))]).collect()).unwrap();
        let (mut asked, mut now, mut times) = (BTreeSet::from([first[0].0]), Duration::ZERO, Vec::new());
        loop {
            let due = fetcher.due().unwrap();
            assert_eq!(step(&mut fetcher, due.as_millis() as u64 - 1, vec![]), None);
            times.push(due - now);
            now = due;
            let Some((_, requests)) = step(&mut fetcher, due.as_millis() as u64, vec![]) else { break };
            assert!(requests.len() == 1 && asked.insert(requests[0].0), "{requests:?}");
        }
        let wanted = |attempt: u32| FETCH_DEADLINE.saturating_mul(1 << attempt.min(8)).min(FETCH_DEADLINE_MAX);
        assert_eq!(times, (0..FETCH_TRIES_MAX).map(wanted).collect::<Vec<_>>());
        assert_eq!((times[0], times[times.len() - 1]), (FETCH_DEADLINE, FETCH_DEADLINE_MAX));
    }

    #[test]
    fn a_peer_that_leaves_or_has_not_got_it_is_replaced_at_once() {
        let mut fetcher = BlockFetcher::new();
        step(&mut fetcher, 0, (1..=3).map(|n| FetchJob::PeerUp(conn(n))).collect());
        step(&mut fetcher, 1, vec![FetchJob::Missing(id(1), conn(1))]);
        assert_eq!(step(&mut fetcher, 2, vec![FetchJob::PeerDown(conn(1))]), Some((true, vec![(conn(2), vec![id(1)])])));
        // A word from someone who was not asked changes nothing.
        assert_eq!(step(&mut fetcher, 3, vec![FetchJob::NotFound(id(1), conn(3))]), Some((true, vec![])));
        assert_eq!(step(&mut fetcher, 4, vec![FetchJob::NotFound(id(1), conn(2))]), Some((true, vec![(conn(3), vec![id(1)])])));
        assert_eq!(fetcher.peers[&conn(2)], 0);
    }

    /// What nobody has is not asked of everybody; who says that it has it is asked all the same.
    #[test]
    fn an_invented_id_costs_few_questions() {
        let mut fetcher = BlockFetcher::new();
        step(&mut fetcher, 0, (1..=100).map(|n| FetchJob::PeerUp(conn(n))).collect());
        let (mut jobs, mut asked) = (vec![FetchJob::Missing(id(1), conn(1))], 0);
        while let Some((_, requests)) = step(&mut fetcher, 1, jobs).filter(|(_, requests)| !requests.is_empty()) {
            asked += requests.len();
            jobs = requests.into_iter().map(|(conn, ids)| FetchJob::NotFound(ids[0], conn)).collect();
        }
        assert_eq!(asked, FETCH_TRIES_MAX as usize);
        assert_eq!(step(&mut fetcher, 2, vec![FetchJob::Missing(id(1), conn(99))]), Some((true, vec![(conn(99), vec![id(1)])])));
    }

    #[test]
    fn a_peer_is_asked_for_sixteen_at_once_and_the_list_is_bounded() {
        let mut fetcher = BlockFetcher::new();
        step(&mut fetcher, 0, vec![FetchJob::PeerUp(conn(1))]);
        // All that one peer may name, and then what others name until the list is full.
        let of_one = FETCH_FROM_PEER_MAX as u64;
        let jobs = (0..of_one + 10).map(|n| FetchJob::Missing(id(n), conn(1))).collect();
        let (_, requests) = step(&mut fetcher, 1, jobs).unwrap();
        assert_eq!(requests[0].1, (0..FETCH_PEER_MAX as u64).map(id).collect::<Vec<_>>());
        assert_eq!(fetcher.missing.len(), FETCH_FROM_PEER_MAX);
        let jobs = (1_000..1_010 + FETCH_MISSING_MAX as u64).map(|n| FetchJob::Missing(id(n), conn(100 + (n / of_one) as u32))).collect();
        assert_eq!(step(&mut fetcher, 1, jobs), Some((true, vec![])));
        assert_eq!(fetcher.missing.len(), FETCH_MISSING_MAX);
        assert_eq!(step(&mut fetcher, 2, vec![FetchJob::Arrived(id(3))]), Some((true, vec![(conn(1), vec![id(FETCH_PEER_MAX as u64)])])));
    }

    #[test]
    fn retries_are_spoken_of_no_more_often_than_allowed() {
        let mut fetcher = BlockFetcher::new();
        step(&mut fetcher, 0, (1..=9).map(|n| FetchJob::PeerUp(conn(n))).collect());
        for n in 0..20 {
            step(&mut fetcher, n * 10, vec![FetchJob::Missing(id(n), conn(1))]);
        }
        let mut spoken = Vec::new();
        for ms in 0..60_000 {
            if fetcher.due().is_some_and(|due| due <= Duration::from_millis(ms)) && step(&mut fetcher, ms, vec![]).is_some() {
                spoken.push(ms);
            }
        }
        assert!(spoken.len() > 5);
        assert!(spoken.windows(2).all(|pair| pair[1] - pair[0] >= FETCH_RETRY_MIN.as_millis() as u64), "{spoken:?}");
    }

    /// Whatever happens: no peer twice for an id while it is missing, never more than sixteen at a peer, none asked that is gone.
    #[test]
    fn random_peers_and_losses_keep_the_rules() {
        for seed in 0..50 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut fetcher = BlockFetcher::new();
            let mut up = BTreeSet::new();
            let mut asked: BTreeMap<ShareId, BTreeSet<ConnId>> = BTreeMap::new();
            for ms in (0..200_000).step_by(97) {
                let mut jobs = Vec::new();
                let (peer, share) = (conn(rng.next_u32() % 6), id(u64::from(rng.next_u32() % 60)));
                match rng.next_u32() % 9 {
                    0 if up.insert(peer) => jobs.push(FetchJob::PeerUp(peer)),
                    1 if up.remove(&peer) => {
                        asked.values_mut().for_each(|peers| {
                            peers.remove(&peer);
                        });
                        jobs.push(FetchJob::PeerDown(peer));
                    }
                    2 => {
                        asked.remove(&share);
                        jobs.push(FetchJob::Arrived(share));
                    }
                    3 => jobs.push(FetchJob::NotFound(share, peer)),
                    4..=6 => jobs.push(FetchJob::Missing(share, peer)),
                    _ => {}
                }
                let credit = !jobs.is_empty();
                let said = step(&mut fetcher, ms, jobs);
                asked.retain(|id, _| fetcher.numbers.contains_key(id));
                if credit {
                    assert!(said.as_ref().is_some_and(|(credit, _)| *credit));
                }
                for (peer, ids) in said.map(|(_, requests)| requests).unwrap_or_default() {
                    assert!(up.contains(&peer), "seed {seed}: asked a peer that is gone");
                    for id in ids {
                        assert!(asked.entry(id).or_default().insert(peer), "seed {seed}: asked {peer} twice");
                    }
                }
                let named: usize = fetcher.named.values().sum();
                assert_eq!((named, fetcher.numbers.len()), (fetcher.missing.len(), fetcher.missing.len()), "seed {seed}");
                for (peer, named) in &fetcher.named {
                    assert_eq!(fetcher.missing.values().filter(|missing| missing.from == *peer).count(), *named, "seed {seed}");
                }
                for (peer, in_flight) in &fetcher.peers {
                    let counted = fetcher.missing.values().filter(|m| matches!(m.state, State::Asked(asked, _) if asked == *peer)).count();
                    assert_eq!(counted, *in_flight, "seed {seed}");
                    assert!(counted <= FETCH_PEER_MAX);
                }
            }
        }
    }
}
