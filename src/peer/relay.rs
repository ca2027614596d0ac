//! What is sent to peers unasked: newly confirmed shares, each once to who is not known to have it.

use std::collections::VecDeque;
use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::payload::Payload;
use rockpool_net::wire::message::{ChainTip, Message};

use crate::limits::{KNOWN_MAX, PUSH_DEPTH};
use crate::turn::Turn;

/// Ids that a peer is known to have, the newest few.
#[derive(Debug, Default)]
pub struct Known {
    ids: VecDeque<ShareId>,
}

impl Known {
    /// It has this one. Whether that is news.
    pub fn insert(&mut self, id: ShareId) -> bool {
        if self.ids.contains(&id) {
            return false;
        }
        if self.ids.len() == KNOWN_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
        true
    }
}

/// A share ready to be pushed.
#[derive(Debug)]
pub struct Push {
    /// Its id.
    pub id: ShareId,
    /// Its height; that of news which concerns everybody, wherever his chain stands, is `u32::MAX`.
    pub height: u32,
    /// The message, encoded once for all.
    pub payload: Arc<Payload>,
}

/// Pushes shares to one peer whose own chain has this height: what lies far below that it has had long since, or is no use to it. How many
/// it was sent.
pub fn push(conn: ConnId, known: &mut Known, height: u32, shares: &[Push], turn: &mut Turn<'_>) -> u32 {
    let mut sent = 0;
    for share in shares.iter().filter(|share| share.height > height.saturating_sub(PUSH_DEPTH)) {
        if known.insert(share.id) {
            turn.out.send(conn, Arc::clone(&share.payload));
            turn.counters.shares_pushed.add(1);
            sent += 1;
        }
    }
    sent
}

/// Our `chaintip`, encoded once for all who are told.
pub fn chain_tip(turn: &Turn<'_>) -> Arc<Payload> {
    let tip = turn.chain.view.confirmed_tip();
    let genesis = turn.config.params.genesis_id();
    let message = Message::ChainTip(ChainTip { genesis, tip: tip.id, height: tip.height, score: tip.score, features: 0 });
    super::encoded(&message, turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_forgets_the_oldest() {
        let mut known = Known::default();
        let id = |number: usize| ShareId([number as u8; 32]);
        assert!((0..KNOWN_MAX).all(|number| known.insert(id(number))));
        assert!(!known.insert(id(0)));
        assert!(known.insert(id(KNOWN_MAX)));
        assert_eq!(known.ids.len(), KNOWN_MAX);
        assert!(known.insert(id(0)), "the oldest is forgotten");
        assert!(!known.insert(id(2)));
    }
}
