//! What is said of addresses: what we take from whom, what we tell whom, and what we pass on.
//!
//! Everybody may tell of a few addresses and some more with time; what is beyond is ignored, no fault. Who asks is answered once, and all
//! in a day with the same part of the book, so that nobody reads all of it, or who knows whom, by asking often. News of one or a few
//! addresses is passed on to two peers, the same two for a day, so that an address travels through the network and no flood grows of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rockpool_net::id::ConnId;
use rockpool_net::limits::ADDRS_MAX;
use rockpool_net::payload::Payload;
use rockpool_net::time::Now;
use rockpool_net::wire::message::{AddrEntry, Message};

use crate::limits::{
    ADDR_BURST, ADDR_EVERY, ADDR_FRESH_S, ADDR_NEWS_MAX, ADDR_PENALTY_S, ADDR_PUSHED_BACK_S, ANNOUNCE_EVERY, ANSWER_LIFE, RELAY_AGAIN,
    RELAY_PEERS, RELAYED_MAX, RELAYS_MAX,
};
use crate::peer::find::book::{Book, keyed};
use crate::peer::find::place::{bytes, canonical, group};

/// Addresses and one peer.
#[derive(Debug)]
pub struct Talk {
    /// Addresses that are taken from it now.
    tokens: f64,
    /// When they were counted.
    counted: Duration,
    /// We have asked, and the answer is not there.
    asked: bool,
    /// It has asked, and was answered.
    answered: bool,
    /// Where it sees us, if it says so and we dialled it.
    pub us: Option<IpAddr>,
    /// When it is told of our own address.
    pub announce: Option<Duration>,
}

/// What came of an `addrv2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Addresses that were looked at.
    pub taken: usize,
    /// Addresses beyond what we take from one peer.
    pub ignored: usize,
    /// Those that were news.
    pub news: usize,
}

impl Talk {
    /// With a peer that has come now.
    pub fn new(now: Duration) -> Talk {
        Talk { tokens: ADDR_BURST as f64, counted: now, asked: false, answered: false, us: None, announce: None }
    }

    /// We ask it for addresses: it may answer with as many as a message holds.
    pub fn ask(&mut self) {
        self.asked = true;
        self.tokens += ADDRS_MAX as f64;
    }

    /// It asks for addresses. Whether it is answered: once.
    pub fn may_answer(&mut self) -> bool {
        !std::mem::replace(&mut self.answered, true)
    }

    /// It tells of so many addresses. How many are taken, and whether it is the answer that we have asked for.
    fn take(&mut self, now: Duration, count: usize) -> (usize, bool) {
        let grown = now.saturating_sub(self.counted).as_secs_f64() / ADDR_EVERY.as_secs_f64();
        // What was given for an answer stays until it is used.
        self.tokens = self.tokens.max((self.tokens + grown).min(ADDR_BURST as f64));
        self.counted = now;
        let taken = count.min(self.tokens as usize);
        self.tokens -= taken as f64;
        (taken, std::mem::take(&mut self.asked))
    }
}

/// Addresses and all peers.
#[derive(Debug, Default)]
pub struct Gossip {
    /// What everybody is told who asks, since when, and how many addresses the book had then.
    answer: Option<(Arc<Payload>, Duration, usize)>,
    /// To be passed on, with whose word it is.
    relays: VecDeque<(AddrEntry, ConnId)>,
    /// What was passed on lately, when, and of which netgroup who told of it is.
    relayed: BTreeMap<SocketAddr, (Duration, Vec<u8>)>,
}

impl Gossip {
    /// A peer tells of addresses.
    pub fn heard(&mut self, now: Now, talk: &mut Talk, from: (ConnId, IpAddr), addrs: Vec<AddrEntry>, book: &mut Book) -> Heard {
        let (count, unix) = (addrs.len(), now.unix());
        let (taken, asked) = talk.take(now.mono, count);
        let few = !asked && count <= ADDR_NEWS_MAX;
        let mut heard = Heard { taken, ignored: count - taken, news: 0 };
        for entry in addrs.into_iter().take(taken) {
            let Some(addr) = entry.socket().filter(|addr| book.may_hold(*addr)) else { continue };
            // A time ahead of ours is no word on when it was seen.
            let ahead = entry.time > unix.saturating_add(ADDR_FRESH_S);
            let seen = if ahead { unix.saturating_sub(ADDR_PUSHED_BACK_S) } else { entry.time };
            // Who tells of himself has seen himself.
            let penalty = if addr.ip() == from.1 { 0 } else { ADDR_PENALTY_S };
            heard.news += usize::from(book.add(unix, addr, entry.services, seen.saturating_sub(penalty), from.1));
            if few && seen.saturating_add(ADDR_FRESH_S) > unix {
                self.relay(now.mono, AddrEntry { time: seen.min(unix), ..entry }, addr, from);
            }
        }
        heard
    }

    fn relay(&mut self, now: Duration, entry: AddrEntry, addr: SocketAddr, (from, ip): (ConnId, IpAddr)) {
        let lately = |at: &Duration| now < *at + RELAY_AGAIN;
        if self.relays.len() >= RELAYS_MAX || self.relayed.get(&addr).is_some_and(|(at, _)| lately(at)) {
            return;
        }
        let source = group(SocketAddr::new(ip, 0));
        if self.relayed.len() >= RELAYED_MAX {
            self.relayed.retain(|_, (at, _)| lately(at));
        }
        // While so many are passed on, one more is a flood, unless others have told of more.
        if self.relayed.len() < RELAYED_MAX || self.make_room(&source) {
            self.relayed.insert(addr, (now, source));
            self.relays.push_back((entry, from));
        }
    }

    /// Forgets one of those that the netgroup told of which told of most, if that is more than what `source` would have then: so nobody
    /// uses up the others' part, and where all have the same it ends.
    fn make_room(&mut self, source: &[u8]) -> bool {
        let mut counts = BTreeMap::<&[u8], usize>::new();
        self.relayed.values().for_each(|(_, of)| *counts.entry(of).or_default() += 1);
        let mine = counts.get(source).copied().unwrap_or(0);
        let Some((&most, _)) = counts.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| mine + 1 < **count) else { return false };
        let oldest = self.relayed.iter().filter(|(_, (_, of))| of == most).min_by_key(|(_, (at, _))| *at).map(|(addr, _)| *addr);
        oldest.and_then(|addr| self.relayed.remove(&addr)).is_some()
    }

    /// Whether something is to be passed on.
    pub fn has_relays(&self) -> bool {
        !self.relays.is_empty()
    }

    /// What is to be passed on, and to which of these peers: by a keyed hash of both that is the same for a day, so that saying it again
    /// does not bring it to more of them.
    pub fn take_relays(&mut self, now: Now, key: &[u8; 32], peers: &[(ConnId, SocketAddr)]) -> Vec<(ConnId, AddrEntry)> {
        let day = (now.wall.as_secs() / 86_400).to_le_bytes();
        let mut relays = Vec::new();
        // One hash for each peer and each address, not for each pair: there may be a thousand peers.
        let of_peer = |peer: &SocketAddr| keyed(key, &[b"relay to", &bytes(canonical(*peer))]);
        let peers: Vec<_> = peers.iter().map(|(conn, peer)| (of_peer(peer), *conn)).collect();
        for (entry, from) in self.relays.drain(..) {
            let Some(addr) = entry.socket() else { continue };
            let of_addr = keyed(key, &[b"relay", &bytes(addr), &day]);
            let rank = |of_peer: u64| (of_peer ^ of_addr).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut ranked: Vec<_> = peers.iter().filter(|(_, conn)| *conn != from).map(|(peer, conn)| (rank(*peer), *conn)).collect();
            ranked.sort_unstable_by_key(|(rank, conn)| (*rank, conn.slot));
            relays.extend(ranked.into_iter().take(RELAY_PEERS).map(|(_, conn)| (conn, entry.clone())));
        }
        relays
    }

    /// What everybody is told who asks: drawn anew after a day, or where the book has grown to twice its size, which it seldom does but in
    /// its first minutes.
    pub fn answer<E>(
        &mut self,
        now: Now,
        book: &Book,
        rng: &mut ChaCha12Rng,
        encode: impl FnOnce(&Message) -> Result<Arc<Payload>, E>,
    ) -> Result<Arc<Payload>, E> {
        let (new, tried) = book.sizes();
        let size = new + tried;
        match &self.answer {
            Some((answer, at, of)) if now.mono < *at + ANSWER_LIFE && size < 2 * of.max(&1) => Ok(Arc::clone(answer)),
            _ => {
                let answer = encode(&Message::AddrV2(book.sample(now.unix(), rng)))?;
                self.answer = Some((Arc::clone(&answer), now.mono, size));
                Ok(answer)
            }
        }
    }
}

/// When a peer is told of our address next: a day later, more or less.
pub fn next_announcement(now: Duration, draw: u32) -> Duration {
    now + ANNOUNCE_EVERY.mul_f64(0.75 + 0.5 * f64::from(draw) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;
    use rockpool_store::peers::PeerRows;

    use super::*;
    use crate::limits::{GETADDR_FEW, SEEN_STEP_S};

    const WALL: u64 = 1_700_000_000;

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), wall: Duration::from_secs(WALL + seconds) }
    }

    fn addr(number: u16) -> SocketAddr {
        let [a, b] = number.to_be_bytes();
        SocketAddr::from(([20 + a, b, 1, 1], 9_333))
    }

    fn entry(number: u16, time: u64) -> AddrEntry {
        AddrEntry::new(addr(number), 1, time as u32)
    }

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 1 }
    }

    fn book() -> Book {
        Book::open(&PeerRows::default(), false, &mut ChaCha12Rng::seed_from_u64(1))
    }

    fn from() -> (ConnId, IpAddr) {
        (conn(0), addr(50_000).ip())
    }

    fn many(count: usize) -> Vec<AddrEntry> {
        (0..count as u16).map(|number| entry(number, WALL)).collect()
    }

    #[test]
    fn what_is_taken_of_one_peer_is_bounded_and_grows_with_time() {
        let (mut gossip, mut book, mut talk) = (Gossip::default(), book(), Talk::new(Duration::ZERO));
        let mut hear = |talk: &mut Talk, now, count| {
            let Heard { taken, ignored, .. } = gossip.heard(at(now), talk, from(), many(count), &mut book);
            assert_eq!(taken + ignored, count);
            taken
        };
        assert_eq!((hear(&mut talk, 0, 1_000), hear(&mut talk, 0, 1_000)), (ADDR_BURST, 0));
        let every = ADDR_EVERY.as_secs();
        assert_eq!((hear(&mut talk, every - 1, 9), hear(&mut talk, every, 9), hear(&mut talk, 4 * every, 9)), (0, 1, 3));
        assert_eq!(hear(&mut talk, 100_000 * every, 1_000), ADDR_BURST, "it does not grow beyond");
        // An answer may be as long as a message.
        talk.ask();
        assert_eq!((hear(&mut talk, 100_000 * every, ADDRS_MAX), hear(&mut talk, 100_000 * every, 9)), (ADDRS_MAX, 0));
    }

    #[test]
    fn times_are_taken_with_care() {
        let (mut gossip, mut book, mut talk) = (Gossip::default(), book(), Talk::new(Duration::ZERO));
        let themselves = AddrEntry::new(SocketAddr::new(from().1, 9_333), 1, WALL as u32);
        let ahead = WALL + u64::from(ADDR_FRESH_S) + 1;
        gossip.heard(at(0), &mut talk, from(), vec![entry(1, WALL), entry(2, ahead), entry(3, 5), themselves.clone()], &mut book);
        let seen = |addr: SocketAddr| book.row(addr).map(|row| u64::from(row.seen));
        assert_eq!(seen(addr(1)), Some(WALL - u64::from(ADDR_PENALTY_S)));
        assert_eq!(seen(addr(2)), Some(WALL - u64::from(ADDR_PUSHED_BACK_S) - u64::from(ADDR_PENALTY_S)));
        assert_eq!((seen(addr(3)), themselves.socket().and_then(seen)), (Some(0), Some(WALL)));
        const { assert!(ADDR_PENALTY_S > SEEN_STEP_S, "a word of another does not outdo our own of the same hour") };
    }

    #[test]
    fn fresh_news_of_a_few_is_passed_on_to_two_the_same_for_a_day() {
        let (mut gossip, mut book) = (Gossip::default(), book());
        let peers: Vec<_> = (0..20).map(|slot| (conn(slot), addr(1_000 + slot as u16))).collect();
        let mut hear = |gossip: &mut Gossip, now: u64, addrs: Vec<AddrEntry>, asked: bool| {
            let mut talk = Talk::new(at(now).mono);
            if asked {
                talk.ask();
            }
            gossip.heard(at(now), &mut talk, from(), addrs, &mut book);
            let relays = gossip.take_relays(at(now), &[7; 32], &peers);
            relays.into_iter().map(|(conn, entry)| (conn.slot, entry.socket())).collect::<Vec<_>>()
        };
        let first = hear(&mut gossip, 0, vec![entry(1, WALL)], false);
        assert_eq!(first.len(), RELAY_PEERS);
        assert!(first.iter().all(|(slot, of)| *slot != 0 && *of == Some(addr(1))), "not back to who said it");
        assert!(hear(&mut gossip, 1, vec![entry(1, WALL)], false).is_empty(), "once");
        let again = RELAY_AGAIN.as_secs();
        assert_eq!(hear(&mut gossip, again, vec![entry(1, WALL + again)], false), first);
        let days: Vec<_> = (1..9).map(|day| hear(&mut gossip, day * 86_400, vec![entry(1, WALL + day * 86_400)], false)).collect();
        assert!(days.iter().any(|day| *day != first));
        let quiet = 9 * 86_400;
        assert!(hear(&mut gossip, quiet, vec![entry(2, WALL + quiet - u64::from(ADDR_FRESH_S))], false).is_empty(), "old");
        assert!(hear(&mut gossip, quiet, vec![entry(3, WALL + quiet)], true).is_empty(), "an answer is no news");
        let over = (10..11 + ADDR_NEWS_MAX as u16).map(|number| entry(number, WALL + quiet)).collect();
        assert!(hear(&mut gossip, quiet, over, false).is_empty(), "nor are many");
        let local = AddrEntry::new(SocketAddr::from(([10, 0, 0, 1], 9_333)), 0, (WALL + quiet) as u32);
        assert!(hear(&mut gossip, quiet, vec![local], false).is_empty(), "nor what nobody can reach");
    }

    #[test]
    fn what_waits_to_be_passed_on_and_what_was_is_bounded() {
        let (mut gossip, mut book, peers) = (Gossip::default(), book(), [(conn(1), addr(1))]);
        let mut hear = |gossip: &mut Gossip, number: u16| {
            gossip.heard(at(0), &mut Talk::new(Duration::ZERO), from(), vec![entry(number, WALL)], &mut book);
        };
        (0..2 * RELAYS_MAX as u16).for_each(|number| hear(&mut gossip, number));
        assert_eq!(gossip.relays.len(), RELAYS_MAX);
        for number in 0..2 * RELAYED_MAX as u16 {
            hear(&mut gossip, number);
            gossip.take_relays(at(0), &[7; 32], &peers);
        }
        assert_eq!(gossip.relayed.len(), RELAYED_MAX);
    }

    /// Ten connections of one network tell of all that is passed on in an hour; those of others are heard all the same, and in the end
    /// nobody is.
    #[test]
    fn who_tells_of_most_uses_up_nobody_elses_part_of_what_is_passed_on() {
        let (mut gossip, mut book, peers) = (Gossip::default(), book(), [(conn(1), addr(1))]);
        let mut passed = |from: (ConnId, IpAddr), numbers: std::ops::Range<u16>| {
            let mut count = 0;
            for number in numbers {
                gossip.heard(at(0), &mut Talk::new(Duration::ZERO), from, vec![entry(number, WALL)], &mut book);
                count += gossip.take_relays(at(0), &[7; 32], &peers).len();
                assert!(gossip.relayed.len() <= RELAYED_MAX);
            }
            count
        };
        let of = |network: u8| (conn(9), IpAddr::from([40, network, 1, 1]));
        assert_eq!(passed(of(0), 0..2_000), RELAYED_MAX);
        assert_eq!(passed(of(1), 2_000..2_100), 100);
        assert_eq!(passed(of(2), 2_100..2_110), 10);
        let each = RELAYED_MAX / 10;
        for network in 1..11 {
            passed(of(network), 3_000 + 1_000 * u16::from(network)..4_000 + 1_000 * u16::from(network));
        }
        assert!(passed(of(11), 20_000..21_000) >= each * 8 / 10);
        let again: usize =
            (0..12).map(|network| passed(of(network), 30_000 + 500 * u16::from(network)..30_500 + 500 * u16::from(network))).sum();
        assert!(again <= 12, "{again}");
    }

    #[test]
    fn all_who_ask_in_a_day_hear_the_same_and_each_once() {
        let (mut gossip, mut book, mut rng) = (Gossip::default(), book(), ChaCha12Rng::seed_from_u64(2));
        let mut talk = Talk::new(Duration::ZERO);
        assert_eq!((talk.may_answer(), talk.may_answer()), (true, false));
        let mut answer = |book: &Book, now| {
            let mut drawn = None;
            let told = gossip.answer(at(now), book, &mut rng, |message| {
                drawn = Some(message.clone());
                Ok::<_, ()>(Arc::new(Payload::new(Vec::new())))
            });
            assert!(told.is_ok());
            drawn.map(|message| if let Message::AddrV2(addrs) = message { addrs.len() } else { 0 })
        };
        assert_eq!((answer(&book, 0), answer(&book, 1)), (Some(0), None), "a book that is empty");
        let add = |book: &mut Book, numbers: std::ops::Range<u16>| {
            numbers.for_each(|number| _ = book.add(WALL as u32, addr(number), 0, WALL as u32, addr(number).ip()));
        };
        add(&mut book, 0..GETADDR_FEW as u16 + 40);
        let told = answer(&book, 2);
        assert!(told.is_some_and(|told| told >= GETADDR_FEW), "{told:?}");
        add(&mut book, 100..130);
        assert_eq!(answer(&book, 3), None);
        let life = ANSWER_LIFE.as_secs();
        assert_eq!((answer(&book, 2 + life - 1), answer(&book, 2 + life).is_some()), (None, true));
        let next = |draw| next_announcement(Duration::ZERO, draw);
        assert!(next(0) == ANNOUNCE_EVERY.mul_f64(0.75) && next(u32::MAX) == ANNOUNCE_EVERY.mul_f64(1.25));
    }
}
