//! The address book: whom there is to dial. Bitcoin Core's addrman for a small network and a small machine.
//!
//! Two tables of buckets. In *new* stand addresses that we were told of, in *tried* those that we have been connected to. An address' place
//! follows from a secret: its bucket in *new* from its netgroup and that of who told of it, one of [`NEW_PER_SOURCE`] for each source; in
//! *tried* from its own netgroup, one of [`TRIED_PER_GROUP`]; its slot from itself. So whoever has all addresses of few netgroups fills few
//! buckets with them, however many he tells of, and the choice is among buckets, not addresses. Nobody who came later pushes out who still
//! answers: a place in *new* is taken over from who was not seen for long or never answered, one in *tried* after who stands there was
//! dialled in vain.
//!
//! Places are not stored, they follow from the secret and from the rows. Times are Unix seconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::limits::ADDRS_MAX;
use rockpool_net::sha256::tagged;
use rockpool_net::wire::message::AddrEntry;
use rockpool_store::kv::Op;
use rockpool_store::peers::{AddrRow, PeerRows, delete_addr, put_key};

use crate::limits::{
    ADDR_FAILURES_EVER, ADDR_FAILURES_MAX, ADDR_FAILURES_S, ADDR_HORIZON_S, BOOK_OWN_MAX, BOOK_RIVALS_MAX, BUCKET_SLOTS, GETADDR_FEW,
    GETADDR_PERCENT, NEW_BUCKETS, NEW_PER_SOURCE, NEW_WEIGHT, RIVAL_FRESH_S, RIVAL_TEST_S, SEEN_STEP_S, TRIED_BUCKETS, TRIED_PER_GROUP,
};
use crate::peer::find::place::{bytes, canonical, group, is_local, is_routable};

/// Draws for one choice: then every bucket of a full book was drawn from, or nearly.
const PICKS: usize = 256;
/// Seconds in which an address that was just dialled is dialled again only where there is hardly another.
const RETRY_S: u32 = 600;
/// Seconds after a dial in which its answer may still come.
const DIALLING_S: u32 = 60;

#[derive(Clone, Debug)]
struct Entry {
    row: AddrRow,
    /// It stands in a row on the disk.
    stored: bool,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    key: [u8; 32],
    /// Whether local addresses are of the network: on regtest.
    local: bool,
    entries: BTreeMap<SocketAddr, Entry>,
    new: Vec<Option<SocketAddr>>,
    tried: Vec<Option<SocketAddr>>,
    /// Addresses that answer and whose place in *tried* is another's, with when that was seen.
    rivals: VecDeque<(SocketAddr, u32)>,
    /// This node's own.
    own: VecDeque<SocketAddr>,
    /// When any address answered last: before that, failures say more about our own line.
    answered: u32,
    /// Rows to be written or deleted.
    changed: BTreeSet<SocketAddr>,
    /// Rows whose stamp alone has changed.
    stamped: BTreeSet<SocketAddr>,
    /// Other rows to be written: the key, what deletes bad ones.
    other: Vec<Op>,
}

impl Book {
    /// What is stored; without a key one is drawn. `local`: local addresses are of the network.
    pub fn open(rows: &PeerRows, local: bool, rng: &mut ChaCha12Rng) -> Book {
        let mut other = rows.bad.clone();
        let key = rows.key.unwrap_or_else(|| {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            other.push(put_key(&key));
            key
        });
        let mut book = Book {
            key,
            local,
            entries: BTreeMap::new(),
            new: vec![None; NEW_BUCKETS * BUCKET_SLOTS],
            tried: vec![None; TRIED_BUCKETS * BUCKET_SLOTS],
            rivals: VecDeque::new(),
            own: VecDeque::new(),
            answered: rows.addrs.iter().map(|row| row.success).max().unwrap_or(0),
            changed: BTreeSet::new(),
            stamped: BTreeSet::new(),
            other,
        };
        for row in &rows.addrs {
            if !book.restore(*row) {
                book.other.push(delete_addr(row.addr));
            }
        }
        book
    }

    fn restore(&mut self, row: AddrRow) -> bool {
        if !self.may_hold(row.addr) || self.entries.contains_key(&row.addr) {
            return false;
        }
        let (addr, source) = (row.addr, row.source);
        let place = if row.tried { self.tried_place(addr) } else { self.new_place(addr, source) };
        let table = if row.tried { &mut self.tried } else { &mut self.new };
        if table[place].is_some() {
            return false;
        }
        table[place] = Some(addr);
        self.entries.insert(addr, Entry { row, stored: true });
        true
    }

    /// Somebody tells of an address, perhaps its own. Whether it is news and was taken.
    pub fn add(&mut self, now: u32, addr: SocketAddr, services: u64, seen: u32, source: IpAddr) -> bool {
        let (addr, seen) = (canonical(addr), seen.min(now));
        if !self.may_hold(addr) {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&addr) {
            if seen >= entry.row.seen.saturating_add(SEEN_STEP_S) {
                entry.row.seen = seen;
                self.stamped.insert(addr);
            }
            return false;
        }
        let place = self.new_place(addr, source);
        if let Some(there) = self.new[place] {
            if !self.is_bad(now, there) {
                return false;
            }
            self.forget(there);
        }
        self.new[place] = Some(addr);
        let row = AddrRow { addr, source, services, seen, success: 0, tried_at: 0, attempts: 0, tried: false };
        self.insert(row);
        true
    }

    /// An address is being dialled. It is no failure more while our own line may be down: then none answers.
    pub fn dialled(&mut self, now: u32, addr: SocketAddr) {
        // What lies ahead is of a clock that was set back, and would keep who is gone for good in his place until then.
        self.answered = self.answered.min(now);
        let answered = self.answered;
        self.change(addr, |row| {
            row.success = row.success.min(now);
            if row.tried_at.min(now) <= answered {
                row.attempts = row.attempts.saturating_add(1);
            }
            row.tried_at = now;
        });
    }

    /// An address that we have dialled has shaken hands: it belongs in *tried*.
    pub fn good(&mut self, now: u32, addr: SocketAddr, services: u64) {
        let addr = canonical(addr);
        // A node of our own house says nothing of the line to the others.
        if self.is_of_network(addr) {
            self.online(now);
        }
        self.change(addr, |row| (row.success, row.attempts, row.services) = (now, 0, services));
        if self.entries.get(&addr).is_none_or(|entry| entry.row.tried) {
            return;
        }
        if self.tried[self.tried_place(addr)].is_none() {
            self.move_to_tried(addr);
        } else if self.rivals.len() < BOOK_RIVALS_MAX && !self.rivals.iter().any(|(rival, _)| *rival == addr) {
            self.rivals.push_back((addr, now));
        }
    }

    /// A connection to this address has ended after its handshake. While it stands nothing is noted, or everybody could ask us whom we are
    /// connected to.
    pub fn left(&mut self, now: u32, addr: SocketAddr) {
        let addr = canonical(addr);
        if let Some(entry) = self.entries.get_mut(&addr)
            && now >= entry.row.seen.saturating_add(SEEN_STEP_S)
        {
            entry.row.seen = now;
            self.stamped.insert(addr);
        }
    }

    /// This address is our own.
    pub fn is_own(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.forget(addr);
        if !self.own.contains(&addr) {
            if self.own.len() == BOOK_OWN_MAX {
                self.own.pop_front();
            }
            self.own.push_back(addr);
        }
    }

    /// Addresses of *tried* whose places others could have: they should be dialled to see whether they still answer.
    pub fn doubted(&mut self, now: u32) -> Vec<SocketAddr> {
        self.settle(now);
        let rests = |row: &AddrRow| row.tried_at <= now && now - row.tried_at < RETRY_S;
        let of = |rival: &(SocketAddr, u32)| self.tried[self.tried_place(rival.0)];
        self.rivals.iter().filter_map(of).filter(|addr| self.row(*addr).is_some_and(|row| !rests(row))).collect()
    }

    /// Gives places in *tried* to those whose rivals did not answer.
    fn settle(&mut self, now: u32) {
        for _ in 0..self.rivals.len() {
            let Some((rival, since)) = self.rivals.pop_front() else { return };
            let since = since.min(now);
            if self.row(rival).is_none_or(|row| row.tried) {
                continue;
            }
            let place = self.tried_place(rival);
            let Some(there) = self.tried[place] else {
                self.move_to_tried(rival);
                continue;
            };
            let Some(row) = self.row(there) else { continue };
            let recent = |at: u32| at > 0 && now.saturating_sub(at) < RIVAL_FRESH_S;
            let in_vain = row.tried_at > row.success && row.tried_at > since && now >= row.tried_at.saturating_add(DIALLING_S);
            if recent(row.success) && !in_vain {
                continue;
            }
            if in_vain || now.saturating_sub(since) >= RIVAL_TEST_S {
                self.demote(there);
                self.move_to_tried(rival);
            } else {
                self.rivals.push_back((rival, since));
            }
        }
    }

    /// One to dial among those that `may` be, drawn, and seldom one that has just failed. Of *tried* each netgroup has equal chances:
    /// nobody is there with netgroups that he has not got, so few of them weigh little, however many addresses they are. In *new*
    /// netgroups are words; there each bucket has equal chances, and all of them together those of [`NEW_WEIGHT`] netgroups that answer:
    /// feelers bring to *tried* what is good among them.
    pub fn pick(&self, now: u32, rng: &mut ChaCha12Rng, new_only: bool, may: &dyn Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let buckets = self.new.chunks(BUCKET_SLOTS).map(|bucket| bucket.iter().flatten().copied().collect());
        let mut groups: BTreeMap<Vec<u8>, Vec<SocketAddr>> = BTreeMap::new();
        for addr in self.tried.iter().flatten().filter(|_| !new_only) {
            groups.entry(group(*addr)).or_default().push(*addr);
        }
        let tables: [Vec<Vec<SocketAddr>>; 2] =
            [buckets.filter(|bucket: &Vec<_>| !bucket.is_empty()).collect(), groups.into_values().collect()];
        let first = usize::from(below(rng, NEW_WEIGHT + tables[1].len()) >= NEW_WEIGHT);
        for table in [&tables[first], &tables[1 - first]].into_iter().filter(|table| !table.is_empty()) {
            let mut patience = 1.0;
            for _ in 0..PICKS {
                let bucket = &table[below(rng, table.len())];
                let addr = bucket[below(rng, bucket.len())];
                let Some(row) = self.row(addr).filter(|_| may(addr)) else { continue };
                if f64::from(rng.next_u32()) < chance(now, row) * patience * f64::from(u32::MAX) {
                    return Some(addr);
                }
                patience *= 1.2;
            }
        }
        None
    }

    /// What a stranger is told: a drawn part of what is worth telling, all of it where that is little.
    pub fn sample(&self, now: u32, rng: &mut ChaCha12Rng) -> Vec<AddrEntry> {
        let mut rows: Vec<&AddrRow> = self.entries.values().map(|entry| &entry.row).filter(|row| !is_bad(now, row)).collect();
        let count = (self.entries.len() * GETADDR_PERCENT / 100).clamp(GETADDR_FEW, ADDRS_MAX).min(rows.len());
        for place in 0..count {
            let other = place + below(rng, rows.len() - place);
            rows.swap(place, other);
        }
        rows[..count].iter().map(|row| AddrEntry::new(row.addr, row.services, row.seen)).collect()
    }

    /// The rows that are to be written, with or without those of which only the stamp has changed.
    pub fn take(&mut self, stamps: bool) -> Vec<Op> {
        let mut ops = std::mem::take(&mut self.other);
        let mut changed = std::mem::take(&mut self.changed);
        self.stamped.retain(|addr| !changed.contains(addr));
        if stamps {
            changed.append(&mut self.stamped);
        }
        for addr in changed {
            match self.entries.get_mut(&addr) {
                Some(entry) => {
                    entry.stored = true;
                    ops.push(entry.row.put());
                }
                None => ops.push(delete_addr(addr)),
            }
        }
        ops
    }

    /// Whether rows are to be written that are worth it by themselves.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty() || !self.other.is_empty()
    }

    /// Whether stamps are to be written.
    pub fn has_stamps(&self) -> bool {
        !self.stamped.is_empty()
    }

    /// Addresses in *new* and in *tried*.
    pub fn sizes(&self) -> (usize, usize) {
        let tried = self.tried.iter().flatten().count();
        (self.entries.len() - tried, tried)
    }

    /// What is known of an address.
    pub fn row(&self, addr: SocketAddr) -> Option<&AddrRow> {
        self.entries.get(&addr).map(|entry| &entry.row)
    }

    /// The book's secret, for what else must be drawn alike for a day.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Whether an address is one that can be in the book.
    pub fn may_hold(&self, addr: SocketAddr) -> bool {
        self.is_of_network(addr) && !self.own.contains(&addr)
    }

    /// Whether the network's nodes can reach an address.
    pub fn is_of_network(&self, addr: SocketAddr) -> bool {
        addr.port() > 0 && (is_routable(addr.ip()) || self.local && is_local(addr.ip()))
    }

    /// Somebody answers at the moment: who fails now does so by himself.
    pub fn online(&mut self, now: u32) {
        self.answered = self.answered.max(now);
    }

    /// Whether an address is worth no place: not seen for long, or never there when it was dialled.
    pub fn is_bad(&self, now: u32, addr: SocketAddr) -> bool {
        self.row(addr).is_none_or(|row| is_bad(now, row))
    }

    fn insert(&mut self, row: AddrRow) {
        // One that was deleted and not yet written so is on the disk still.
        let stored = self.changed.contains(&row.addr);
        self.changed.insert(row.addr);
        self.entries.insert(row.addr, Entry { row, stored });
    }

    fn change(&mut self, addr: SocketAddr, how: impl FnOnce(&mut AddrRow)) {
        if let Some(entry) = self.entries.get_mut(&canonical(addr)) {
            how(&mut entry.row);
            self.changed.insert(entry.row.addr);
        }
    }

    /// Takes an address out of the book.
    fn forget(&mut self, addr: SocketAddr) {
        let Some(entry) = self.entries.remove(&addr) else { return };
        let place = if entry.row.tried { self.tried_place(addr) } else { self.new_place(addr, entry.row.source) };
        let table = if entry.row.tried { &mut self.tried } else { &mut self.new };
        table[place] = None;
        self.stamped.remove(&addr);
        // So what waits to be deleted is on the disk, and no more than that may hold.
        if entry.stored {
            self.changed.insert(addr)
        } else {
            self.changed.remove(&addr)
        };
    }

    fn move_to_tried(&mut self, addr: SocketAddr) {
        let Some(source) = self.row(addr).map(|row| row.source) else { return };
        let (from, to) = (self.new_place(addr, source), self.tried_place(addr));
        self.new[from] = None;
        self.tried[to] = Some(addr);
        self.change(addr, |row| row.tried = true);
    }

    /// Back to *new*, in place of who stands there: who was connected to once is worth more.
    fn demote(&mut self, addr: SocketAddr) {
        let Some(source) = self.row(addr).map(|row| row.source) else { return };
        let (from, to) = (self.tried_place(addr), self.new_place(addr, source));
        self.tried[from] = None;
        if let Some(there) = self.new[to] {
            self.forget(there);
        }
        self.new[to] = Some(addr);
        self.change(addr, |row| row.tried = false);
    }

    fn new_place(&self, addr: SocketAddr, source: IpAddr) -> usize {
        let (of, from) = (group(addr), group(SocketAddr::new(source, 0)));
        let which = self.hash(&[b"which of new", &from, &of]) % NEW_PER_SOURCE as u64;
        let bucket = self.hash(&[b"new", &from, &which.to_le_bytes()]) % NEW_BUCKETS as u64;
        self.slot(b"slot of new", bucket, addr)
    }

    fn tried_place(&self, addr: SocketAddr) -> usize {
        let which = self.hash(&[b"which of tried", &bytes(addr)]) % TRIED_PER_GROUP as u64;
        let bucket = self.hash(&[b"tried", &group(addr), &which.to_le_bytes()]) % TRIED_BUCKETS as u64;
        self.slot(b"slot of tried", bucket, addr)
    }

    fn slot(&self, table: &[u8], bucket: u64, addr: SocketAddr) -> usize {
        let slot = self.hash(&[table, &bucket.to_le_bytes(), &bytes(addr)]) % BUCKET_SLOTS as u64;
        bucket as usize * BUCKET_SLOTS + slot as usize
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        keyed(&self.key, parts)
    }

    /// What must always hold.
    pub fn sanity_check(&self) -> Result<(), String> {
        let placed = |table: &[Option<SocketAddr>], tried: bool| {
            table.iter().enumerate().filter_map(|(place, addr)| Some((place, (*addr)?))).try_fold(0, |count, (place, addr)| {
                let row = self.row(addr).ok_or(format!("{addr} stands in a table and is not known"))?;
                let wanted = if tried { self.tried_place(addr) } else { self.new_place(addr, row.source) };
                if row.tried == tried && wanted == place { Ok(count + 1) } else { Err(format!("{addr} stands in the wrong place")) }
            })
        };
        let (new, tried): (usize, usize) = (placed(&self.new, false)?, placed(&self.tried, true)?);
        if (new, tried) != self.sizes() || tried != self.entries.values().filter(|entry| entry.row.tried).count() {
            return Err(format!("{new} and {tried} are placed, {:?} are known", self.sizes()));
        }
        let unheld = self.entries.keys().find(|addr| !self.may_hold(**addr) || canonical(**addr) != **addr);
        unheld.map_or(Ok(()), |addr| Err(format!("{addr} should not be in the book")))
    }
}

/// A keyed hash that is the same on every machine and in every version.
pub fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> u64 {
    let parts: Vec<&[u8]> = std::iter::once(&key[..]).chain(parts.iter().copied()).collect();
    let [a, b, c, d, e, f, g, h, ..] = tagged(b"rockpool/book", &parts);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha12Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// Whether an address is worth no place: not seen for long, or never there when it was dialled.
fn is_bad(now: u32, row: &AddrRow) -> bool {
    let since = |at: u32| now.saturating_sub(at);
    if row.tried_at > 0 && since(row.tried_at) < DIALLING_S {
        return false;
    }
    let never = row.success == 0 && row.attempts >= ADDR_FAILURES_EVER;
    let no_more = since(row.success) > ADDR_FAILURES_S && row.attempts >= ADDR_FAILURES_MAX;
    since(row.seen.max(row.success)) > ADDR_HORIZON_S || never || no_more
}

/// How likely an address is taken when it was drawn: less with every failure, hardly just after one.
fn chance(now: u32, row: &AddrRow) -> f64 {
    let just_now = row.tried_at > 0 && now.saturating_sub(row.tried_at) < RETRY_S;
    (if just_now { 0.01 } else { 1.0 }) * 0.66_f64.powi(i32::from(row.attempts.min(8)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
