//! Who has to go when more nodes come in than there are slots. As in Bitcoin Core, who has what costs an attacker dearly to fake stays, and
//! of the rest the crowd pays: pure, traits in and victims out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rockpool_net::id::ConnId;

use crate::limits::{EVICT_KEEP_GAVE, EVICT_KEEP_GROUPS, EVICT_KEEP_PING, EVICT_SETTLED};

/// A peer that has dialled us, by its traits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its connection.
    pub conn: ConnId,
    /// Its network, hashed with a key that nobody else knows.
    pub group: u64,
    /// When it came.
    pub opened: Duration,
    /// The fastest answer to a ping.
    pub ping: Option<Duration>,
    /// When it last gave us a good share that we had not got.
    pub gave: Option<Duration>,
    /// Its address misbehaved lately.
    pub discouraged: bool,
    /// One of this machine, or of a peer that the user has named.
    pub exempt: bool,
}

impl Candidate {
    /// The younger is the greater. Slots tell apart those who came at once.
    fn age(&self) -> (Duration, u32) {
        (self.opened, self.conn.slot)
    }
}

/// The `count` of them that go. Newcomers are among them as all others are: who is of the largest network goes himself, and where there is
/// no crowd the youngest is he.
///
/// 1. Discouraged addresses go first, the youngest first.
/// 2. Protected are [`EVICT_KEEP_GAVE`] that gave us shares last, [`EVICT_KEEP_PING`] with the fastest answers, the oldest of
///    [`EVICT_KEEP_GROUPS`] networks that nobody can foretell, if it has been here for [`EVICT_SETTLED`], and of the rest the half that has
///    been here longest.
/// 3. Of what is left the youngest of the network with the most connections goes; of equal networks, that with the youngest.
/// 4. If nobody is left the newcomers go, protected or not.
pub fn victims(candidates: &[Candidate], now: Duration, count: usize) -> Vec<ConnId> {
    let (mut bad, mut rest): (Vec<Candidate>, Vec<Candidate>) =
        candidates.iter().filter(|peer| !peer.exempt).partition(|peer| peer.discouraged);
    bad.sort_unstable_by_key(|peer| Reverse(peer.age()));
    let mut victims: Vec<ConnId> = bad.iter().take(count).map(|peer| peer.conn).collect();
    protect(&mut rest, now);
    let mut groups = BTreeMap::<u64, Vec<Candidate>>::new();
    rest.sort_unstable_by_key(Candidate::age);
    rest.iter().for_each(|peer| groups.entry(peer.group).or_default().push(*peer));
    while victims.len() < count
        && let Some(crowd) = groups.values_mut().max_by_key(|crowd| (crowd.len(), crowd.last().map(Candidate::age)))
        && let Some(youngest) = crowd.pop()
    {
        victims.push(youngest.conn);
    }
    if victims.len() < count {
        let gone: BTreeSet<ConnId> = victims.iter().copied().collect();
        let mut others: Vec<_> = candidates.iter().filter(|peer| !gone.contains(&peer.conn)).collect();
        others.sort_unstable_by_key(|peer| Reverse(peer.age()));
        victims.extend(others.iter().take(count - victims.len()).map(|peer| peer.conn));
    }
    victims
}

/// Leaves those that nothing protects.
fn protect(peers: &mut Vec<Candidate>, now: Duration) {
    keep(peers, EVICT_KEEP_GAVE, |peer| peer.gave.map(Reverse));
    keep(peers, EVICT_KEEP_PING, |peer| peer.ping);
    let mut oldest = BTreeMap::<u64, (Duration, u32)>::new();
    for peer in peers.iter().filter(|peer| peer.opened + EVICT_SETTLED <= now) {
        let first = oldest.entry(peer.group).or_insert(peer.age());
        *first = peer.age().min(*first);
    }
    let kept: BTreeSet<_> = oldest.into_iter().take(EVICT_KEEP_GROUPS).collect();
    peers.retain(|peer| !kept.contains(&(peer.group, peer.age())));
    let half = peers.len() / 2;
    keep(peers, half, |peer| Some(peer.age()));
}

/// Takes out the `count` first by a trait, of those that have it.
fn keep<T: Ord>(peers: &mut Vec<Candidate>, count: usize, by: impl Fn(&Candidate) -> Option<T>) {
    let order = |peer: &Candidate| (by(peer).is_none(), by(peer), peer.age());
    peers.sort_unstable_by_key(order);
    let having = peers.iter().take(count).take_while(|peer| by(peer).is_some()).count();
    peers.drain(..having);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn peer(slot: u32, group: u64) -> Candidate {
        let conn = ConnId { slot, generation: 1 };
        let opened = Duration::from_secs(slot.into());
        Candidate { conn, group, opened, ping: None, gave: None, discouraged: false, exempt: false }
    }

    /// So many peers that are protected for being old and for nothing else.
    fn old(count: u32) -> Vec<Candidate> {
        (0..count).map(|slot| peer(slot, 1_000 + u64::from(slot))).collect()
    }

    /// When all of them have settled.
    const LATER: Duration = Duration::from_secs(1_000);

    fn slots(victims: &[ConnId]) -> Vec<u32> {
        victims.iter().map(|conn| conn.slot).collect()
    }

    #[test]
    fn the_youngest_of_the_largest_network_goes() {
        let mut peers = old(50);
        peers.extend((60..66).map(|slot| peer(slot, 5_000)));
        peers.extend((70..73).map(|slot| peer(slot, 6_000)));
        peers.push(peer(99, 7_000));
        assert_eq!(slots(&victims(&peers, LATER, 1)), [65]);
        assert_eq!(slots(&victims(&peers, LATER, 4)), [65, 64, 63, 72], "the largest at each moment, of equal ones the younger");
        assert_eq!(victims(&peers, LATER, 0), []);
    }

    #[test]
    fn without_a_crowd_the_newcomer_goes_itself() {
        let mut peers = old(100);
        peers.push(peer(200, 2));
        // Its network's number is among the lowest, which protects it once it has settled: then the next youngest goes.
        let settles = Duration::from_secs(200) + EVICT_SETTLED;
        assert_eq!(slots(&victims(&peers, settles - Duration::from_secs(1), 1)), [200]);
        assert_eq!(slots(&victims(&peers, settles, 1)), [99]);
        peers.last_mut().unwrap().group = 9_999;
        assert_eq!(slots(&victims(&peers, LATER, 1)), [200]);
    }

    #[test]
    fn what_is_dear_to_fake_protects() {
        let crowd = |count: u32| -> Vec<Candidate> { (0..count).map(|slot| peer(slot, 7)).collect() };
        let last = 99;
        let gone = |change: &dyn Fn(&mut Candidate)| {
            let mut peers = crowd(100);
            change(&mut peers[last]);
            victims(&peers, LATER, 1)[0].slot as usize
        };
        assert_eq!(gone(&|_| {}), last);
        assert_eq!(gone(&|peer| peer.ping = Some(Duration::from_millis(900))), last - 1);
        assert_eq!(gone(&|peer| peer.gave = Some(Duration::ZERO)), last - 1);
        assert_eq!(gone(&|peer| peer.group = 6), last - 1);
        assert_eq!(gone(&|peer| peer.opened = Duration::ZERO), last - 1);
        assert_eq!(gone(&|peer| peer.exempt = true), last - 1);
        // So many and no more.
        let mut peers = crowd(100);
        peers[99 - EVICT_KEEP_PING..].iter_mut().for_each(|peer| peer.ping = Some(Duration::from_secs(1)));
        peers[99].ping = Some(Duration::from_secs(2));
        assert_eq!(slots(&victims(&peers, LATER, 1)), [99]);
        let mut peers = crowd(100);
        peers[99 - EVICT_KEEP_GAVE..].iter_mut().for_each(|peer| peer.gave = Some(Duration::from_secs(2)));
        peers[99].gave = Some(Duration::from_secs(1));
        assert_eq!(slots(&victims(&peers, LATER, 1)), [99], "the last to give stay");
        let mut peers = old(100);
        peers.iter_mut().for_each(|peer| peer.group = 99 - u64::from(peer.conn.slot));
        assert_eq!(slots(&victims(&peers, LATER, 1)), [99 - EVICT_KEEP_GROUPS as u32]);
    }

    #[test]
    fn discouraged_ones_go_before_all_others_and_the_exempt_only_if_nobody_else_is_there() {
        let mut peers = old(40);
        (peers[3].discouraged, peers[3].gave, peers[3].ping) = (true, Some(Duration::from_secs(9)), Some(Duration::ZERO));
        peers[20].discouraged = true;
        assert_eq!(slots(&victims(&peers, LATER, 3)), [20, 3, 39]);
        (peers[3].exempt, peers[39].exempt) = (true, true);
        assert_eq!(slots(&victims(&peers, LATER, 2)), [20, 38]);
        // A house full of our own: the newcomer is one too, and goes.
        peers.iter_mut().for_each(|peer| peer.exempt = true);
        assert_eq!(slots(&victims(&peers, LATER, 2)), [39, 38]);
        assert_eq!(victims(&peers, LATER, 99).len(), 40);
    }

    /// Any number of connections from a few networks, whatever pings and ages they make, never push out who gives shares, answers fast
    /// from nearby, has been here longest, or is the only one of its network.
    #[test]
    fn an_attacker_from_few_networks_pushes_out_nobody_who_earned_its_place() {
        for seed in 0..200 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut draw = |most: u32| rng.next_u32() % most;
            let (slots, networks) = (50 + draw(150), 1 + draw(8));
            let mut peers = Vec::new();
            // Honest ones: each of a network of its own, some near, some that give shares.
            for slot in 0..slots {
                let mut honest = peer(slot, 1 << 32 | u64::from(draw(u32::MAX)) << 8 | u64::from(slot % 256));
                honest.opened = Duration::from_secs(draw(100_000).into());
                honest.ping = Some(Duration::from_millis(20 + u64::from(draw(200))));
                honest.gave = (draw(3) == 0).then(|| Duration::from_secs(50_000 + u64::from(draw(50_000))));
                peers.push(honest);
            }
            let honest: BTreeSet<ConnId> = peers.iter().map(|peer| peer.conn).collect();
            for round in 0..300 {
                let now = 100_000 + round;
                for bad in 0..1 + draw(8) {
                    let mut attacker = peer(10_000 + round * 10 + bad, u64::from(draw(networks)) << 33);
                    attacker.opened = Duration::from_secs(now.into());
                    // As near as can be; shares cost work, and it gives none.
                    attacker.ping = (draw(2) == 0).then(|| Duration::from_millis(1));
                    peers.push(attacker);
                }
                let over = peers.len() - slots as usize;
                let gone: BTreeSet<ConnId> = victims(&peers, Duration::from_secs(now.into()), over).into_iter().collect();
                assert_eq!(gone.len(), over);
                peers.retain(|peer| !gone.contains(&peer.conn));
            }
            let left = peers.iter().filter(|peer| honest.contains(&peer.conn)).count();
            // What is protected by being near, or by its network's number, can go to the attacker; one of each network of its own stays.
            let most = EVICT_KEEP_PING + EVICT_KEEP_GROUPS + networks as usize;
            assert!(honest.len() - left <= most, "seed {seed}: {left} of {} are left", honest.len());
            let given = peers.iter().filter(|peer| peer.gave.is_some()).count();
            assert!(given >= EVICT_KEEP_GAVE.min(left), "seed {seed}");
        }
    }
}
