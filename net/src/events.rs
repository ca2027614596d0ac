//! Notifications: the one place that publishes what happened, and the bounded queues of who wants to know.
//!
//! Subscribers are queues, never callbacks: a slow one loses its oldest notifications and is told how many, takes a snapshot and goes on.
//! The publisher never waits. Control state does not travel this way.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::close::CloseReason;
use crate::id::{ConnId, ShareId};
use crate::limits::{EVENTS_MAX, SUBSCRIBERS_MAX};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer's handshake is done.
    PeerUp {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// Whether we dialled.
        outbound: bool,
    },
    /// A peer that was up has left.
    PeerDown {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// Whether we dialled.
        outbound: bool,
        /// Why.
        why: CloseReason,
    },
    /// A miner has authorised.
    MinerUp {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// Its user name.
        user: String,
        /// The part of it that names the worker, or nothing.
        worker: String,
        /// What it calls itself.
        agent: String,
    },
    /// A miner that was up has left.
    MinerDown {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// The worker that it was last authorised as, or nothing.
        worker: String,
        /// What it calls itself.
        agent: String,
        /// Why.
        why: CloseReason,
    },
    /// The confirmed tip of the share chain is another.
    TipChanged {
        /// Its id.
        id: ShareId,
        /// Its height.
        height: u32,
        /// Its score.
        score: u128,
    },
    /// A share was taken into the chain.
    ShareAccepted {
        /// Its id.
        id: ShareId,
        /// Its height.
        height: u32,
        /// Whether one of our miners made it.
        own: bool,
    },
    /// A block was found.
    BlockFound {
        /// Its hash.
        hash: ShareId,
        /// Its height in Bitcoin's chain.
        height: u32,
        /// Which of our miners found it; none: a peer's.
        miner: Option<ConnId>,
    },
    /// What became of a found block at one bitcoind.
    BlockFate {
        /// Its hash.
        hash: ShareId,
        /// What was said.
        fate: String,
    },
    /// Miners get new work.
    WorkChanged {
        /// Height in Bitcoin's chain that the work tries for.
        bitcoin_height: u32,
        /// Whether what they had is worthless now.
        clean: bool,
    },
    /// A Bitcoin node's handshake is done.
    BitcoinPeerUp {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// What it calls itself.
        agent: String,
        /// Height of its chain.
        height: u32,
    },
    /// A Bitcoin node that was up has left.
    BitcoinPeerDown {
        /// Its connection.
        conn: ConnId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        why: CloseReason,
    },
    /// Bitcoin's best header is another, whoever told of it.
    BitcoinBlock {
        /// Hash of the block.
        hash: ShareId,
        /// Its height.
        height: u32,
    },
    /// Bitcoin's side cannot be reached (why), or can again (`None`).
    BitcoinDown(Option<String>),
    /// The disk is full, or has room again.
    DiskFull(bool),
}

/// A notification as a subscriber takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number: the registry's, from 1, without holes.
    pub sequence: u64,
    /// How many before it this subscriber has lost since the last it took.
    pub lost: u64,
    /// What happened.
    pub event: Event,
}

/// The registry. Clones are the same registry; any thread may subscribe.
#[derive(Clone, Debug, Default)]
pub struct Events {
    registry: Arc<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    sequence: AtomicU64,
    queues: Mutex<Vec<Weak<Mutex<Queue>>>>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(u64, Event)>,
    cap: usize,
    lost: u64,
}

impl Events {
    /// Numbers a notification and gives it to every subscriber. Never waits longer than a subscriber takes to pop one notice.
    pub fn publish(&self, event: Event) {
        // The number is drawn under the lock, so that all subscribers see one order.
        let mut queues = lock(&self.registry.queues);
        let sequence = self.registry.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            lock(&queue).push(sequence, &event);
            true
        });
    }

    /// Subscribes with a queue of at most `cap` notifications (1 to [`EVENTS_MAX`]); dropping the guard unsubscribes. `None` when there are
    /// [`SUBSCRIBERS_MAX`] already.
    pub fn subscribe(&self, cap: usize) -> Option<Subscription> {
        let queue = Queue { waiting: VecDeque::new(), cap: cap.clamp(1, EVENTS_MAX), lost: 0 };
        let queue = Arc::new(Mutex::new(queue));
        let mut queues = lock(&self.registry.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        if queues.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        queues.push(Arc::downgrade(&queue));
        Some(Subscription { queue })
    }

    /// The number of the last notification; a snapshot taken now holds all up to it.
    pub fn sequence(&self) -> u64 {
        self.registry.sequence.load(Ordering::Relaxed)
    }

    /// Subscribers now.
    pub fn subscribers(&self) -> usize {
        lock(&self.registry.queues).iter().filter(|queue| queue.strong_count() > 0).count()
    }
}

/// A subscription: a guard whose drop unsubscribes.
#[must_use = "dropping it unsubscribes"]
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Mutex<Queue>>,
}

impl Subscription {
    /// The oldest notification that waits, if there is one.
    pub fn take(&self) -> Option<Notice> {
        let mut queue = lock(&self.queue);
        let (sequence, event) = queue.waiting.pop_front()?;
        Some(Notice { sequence, lost: std::mem::take(&mut queue.lost), event })
    }
}

impl Queue {
    fn push(&mut self, sequence: u64, event: &Event) {
        if self.waiting.len() == self.cap {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back((sequence, event.clone()));
    }
}

/// A queue is whole between any two statements, so a subscriber's panic does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tip(height: u32) -> Event {
        Event::TipChanged { id: ShareId::default(), height, score: 0 }
    }

    #[test]
    fn subscribers_see_one_order_with_numbers() {
        let events = Events::default();
        let (a, b) = (events.subscribe(8).unwrap(), events.subscribe(8).unwrap());
        events.publish(tip(1));
        events.publish(Event::DiskFull(true));
        for subscription in [&a, &b] {
            assert_eq!(subscription.take(), Some(Notice { sequence: 1, lost: 0, event: tip(1) }));
            assert_eq!(subscription.take(), Some(Notice { sequence: 2, lost: 0, event: Event::DiskFull(true) }));
            assert_eq!(subscription.take(), None);
        }
        assert_eq!(events.sequence(), 2);
    }

    #[test]
    fn a_slow_subscriber_loses_the_oldest_and_is_told_how_many() {
        let events = Events::default();
        let subscription = events.subscribe(2).unwrap();
        (1..=5).for_each(|height| events.publish(tip(height)));
        assert_eq!(subscription.take(), Some(Notice { sequence: 4, lost: 3, event: tip(4) }));
        assert_eq!(subscription.take(), Some(Notice { sequence: 5, lost: 0, event: tip(5) }));
        assert_eq!(subscription.take(), None);
    }

    #[test]
    fn queues_and_subscribers_are_bounded() {
        let events = Events::default();
        let greedy = events.subscribe(usize::MAX).unwrap();
        (0..EVENTS_MAX as u32 + 1).for_each(|height| events.publish(tip(height)));
        assert_eq!(greedy.take().unwrap().lost, 1);
        let all: Vec<_> = (1..SUBSCRIBERS_MAX).map(|_| events.subscribe(1).unwrap()).collect();
        assert!(events.subscribe(1).is_none());
        drop(all);
        assert!(events.subscribe(1).is_some());
    }

    #[test]
    fn dropping_the_guard_unsubscribes() {
        let events = Events::default();
        let subscription = events.subscribe(1).unwrap();
        assert_eq!(events.subscribers(), 1);
        drop(subscription);
        events.publish(tip(1));
        assert_eq!(events.subscribers(), 0);
        assert_eq!(lock(&events.registry.queues).len(), 0);
    }

    #[test]
    fn threads_may_take_while_one_publishes() {
        let events = Events::default();
        let subscription = events.subscribe(EVENTS_MAX).unwrap();
        let last = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut last, mut lost) = (0, 0);
                while last < 10_000 {
                    let Some(notice) = subscription.take() else { continue };
                    lost += notice.lost;
                    assert_eq!(notice.sequence, last + notice.lost + 1);
                    last = notice.sequence;
                }
                (last, lost)
            });
            (0..10_000).for_each(|height| events.publish(tip(height)));
            reader.join().unwrap()
        });
        assert_eq!(last.0, 10_000);
    }

    /// Publishers from several threads; a subscriber that never takes, one that dies in the middle, many that come and go, two that listen.
    #[test]
    fn who_stalls_dies_or_leaves_harms_nobody() {
        const EACH: u64 = 5_000;
        const PUBLISHERS: u64 = 4;
        let events = Events::default();
        let stalled = events.subscribe(3).unwrap();
        let doomed = events.subscribe(8).unwrap();
        let listeners: Vec<_> = [16, EVENTS_MAX].map(|cap| events.subscribe(cap).unwrap()).into();
        let died = std::thread::scope(|scope| {
            for _ in 0..PUBLISHERS {
                scope.spawn(|| (0..EACH as u32).for_each(|height| events.publish(tip(height))));
            }
            scope.spawn(|| (0..2_000).for_each(|_| drop(events.subscribe(1))));
            let doomed = scope.spawn(move || {
                let first = std::iter::repeat_with(|| doomed.take()).find_map(|notice| notice);
                // While it holds its guard, and its queue's lock too: the worst moment to die.
                let _queue = doomed.queue.lock().unwrap();
                panic!("dies at {first:?}");
            });
            for subscription in listeners {
                scope.spawn(move || {
                    let (mut last, mut got, mut lost) = (0, 0, 0);
                    while last < PUBLISHERS * EACH {
                        let Some(notice) = subscription.take() else { continue };
                        assert_eq!(notice.sequence, last + notice.lost + 1, "in order, and each gap told");
                        (last, got, lost) = (notice.sequence, got + 1, lost + notice.lost);
                    }
                    assert_eq!(got + lost, PUBLISHERS * EACH);
                });
            }
            doomed.join().is_err()
        });
        assert!(died);
        assert_eq!(events.sequence(), PUBLISHERS * EACH);
        let oldest = stalled.take().unwrap();
        assert_eq!((oldest.sequence, oldest.lost), (PUBLISHERS * EACH - 2, PUBLISHERS * EACH - 3));
        events.publish(tip(0));
        assert_eq!(events.subscribers(), 1, "the dead and the gone are forgotten");
    }
}
