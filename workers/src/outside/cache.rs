//! What a service told lately. What is too old to be fresh is kept all the same: it is told, with its age, while the service is down.

use std::collections::BTreeMap;
use std::time::Duration;

/// Values that are fresh for a while, of which no more than so many are kept: the oldest goes first.
pub struct TtlCache<K, V> {
    fresh_for: Duration,
    capacity: usize,
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by age: the number tells apart what came at the same time.
    by_age: BTreeMap<(Duration, u64), K>,
    next: u64,
}

struct Entry<V> {
    value: V,
    age: (Duration, u64),
}

/// What the cache knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<'a, V> {
    /// The value.
    pub value: &'a V,
    /// How long ago it was put there.
    pub age: Duration,
    /// Whether it is young enough not to be asked for again.
    pub fresh: bool,
}

impl<K: Ord + Clone, V> TtlCache<K, V> {
    /// An empty one. One without a place keeps nothing.
    pub fn new(fresh_for: Duration, capacity: usize) -> TtlCache<K, V> {
        TtlCache { fresh_for, capacity, entries: BTreeMap::new(), by_age: BTreeMap::new(), next: 0 }
    }

    /// What is known of a key, fresh or stale.
    pub fn get(&self, key: &K, now: Duration) -> Option<Cached<'_, V>> {
        let Entry { value, age: (at, _) } = self.entries.get(key)?;
        let age = now.saturating_sub(*at);
        Some(Cached { value, age, fresh: age < self.fresh_for })
    }

    /// Whether a key is known and need not be asked for.
    pub fn is_fresh(&self, key: &K, now: Duration) -> bool {
        self.get(key, now).is_some_and(|cached| cached.fresh)
    }

    /// Keeps a value, in place of an older one of its key; the oldest of all makes room.
    pub fn put(&mut self, key: K, value: V, now: Duration) {
        if self.capacity == 0 {
            return;
        }
        self.remove(&key);
        if self.entries.len() >= self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let age = (now, self.next);
        self.next += 1;
        self.by_age.insert(age, key.clone());
        self.entries.insert(key, Entry { value, age });
    }

    /// Forgets a key. What it had.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let Entry { value, age } = self.entries.remove(key)?;
        self.by_age.remove(&age);
        Some(value)
    }

    /// How many keys it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_stale_is_told_with_its_age_and_known_as_stale() {
        let mut cache = TtlCache::new(MINUTE, 10);
        assert_eq!(cache.get(&"bitcoin", s(0)), None);
        cache.put("bitcoin", 60_000, s(5));
        assert_eq!(cache.get(&"bitcoin", s(64)), Some(Cached { value: &60_000, age: s(59), fresh: true }));
        // A service that is down for ten minutes: its last word is still there.
        assert_eq!(cache.get(&"bitcoin", s(665)), Some(Cached { value: &60_000, age: s(660), fresh: false }));
        assert!(cache.is_fresh(&"bitcoin", s(64)) && !cache.is_fresh(&"bitcoin", s(65)) && !cache.is_fresh(&"ether", s(5)));
        cache.put("bitcoin", 61_000, s(700));
        assert_eq!(cache.get(&"bitcoin", s(700)), Some(Cached { value: &61_000, age: s(0), fresh: true }));
        assert_eq!((cache.len(), cache.remove(&"bitcoin"), cache.is_empty()), (1, Some(61_000), true));
    }

    #[test]
    fn the_oldest_makes_room_and_both_maps_agree() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let mut cache = TtlCache::new(MINUTE, 50);
        let mut order: Vec<u32> = Vec::new();
        for step in 0..5_000 {
            let key = rng.next_u32() % 80;
            order.retain(|other| *other != key);
            if rng.next_u32() % 10 == 0 {
                cache.remove(&key);
            } else {
                if order.len() == 50 {
                    order.remove(0);
                }
                order.push(key);
                // Several at the same time.
                cache.put(key, step, s(step / 7));
            }
            assert_eq!(cache.by_age.values().copied().collect::<Vec<_>>(), order);
            assert!(cache.len() == order.len() && order.iter().all(|key| cache.entries.contains_key(key)));
        }
        let mut none = TtlCache::new(MINUTE, 0);
        none.put(1, 1, s(0));
        assert!(none.is_empty());
    }
}
