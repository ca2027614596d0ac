//! Sessions by connection.

use rockpool_net::id::ConnId;

use crate::bitcoin::session::BitcoinNode;
use crate::peer::session::Peer;
use crate::stratum::session::Miner;
use crate::web::Web;

/// What a connection is to us.
#[derive(Debug)]
pub enum Session {
    /// Another node; boxed, or each of thousands of miners would take as much room.
    Peer(Box<Peer>),
    /// A miner.
    Miner(Miner),
    /// A browser or a script.
    Web(Web),
    /// A node of Bitcoin's own network.
    Bitcoin(BitcoinNode),
}

/// All sessions, by the hub's slots. A connection's name holds its generation, so that a late answer does not reach the slot's next tenant.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<(u32, Box<Session>)>>,
}

impl Sessions {
    /// Adds one.
    pub fn insert(&mut self, conn: ConnId, session: Session) {
        let slot = conn.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some((conn.generation, Box::new(session)));
    }

    /// One, if it is still there.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        let (generation, session) = self.slots.get_mut(conn.slot as usize)?.as_mut()?;
        (*generation == conn.generation).then_some(session)
    }

    /// Takes one out.
    pub fn remove(&mut self, conn: ConnId) -> Option<Box<Session>> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        slot.take_if(|(generation, _)| *generation == conn.generation).map(|(_, session)| session)
    }

    /// Puts one back that was taken out for a moment.
    pub fn put_back(&mut self, conn: ConnId, session: Box<Session>) {
        if let Some(slot) = self.slots.get_mut(conn.slot as usize) {
            *slot = Some((conn.generation, session));
        }
    }

    /// One, if it is a peer.
    pub fn peer_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        match self.get_mut(conn)? {
            Session::Peer(peer) => Some(peer),
            Session::Miner(_) | Session::Web(_) | Session::Bitcoin(_) => None,
        }
    }

    /// One, if it is a miner.
    pub fn miner_mut(&mut self, conn: ConnId) -> Option<&mut Miner> {
        match self.get_mut(conn)? {
            Session::Miner(miner) => Some(miner),
            Session::Peer(_) | Session::Web(_) | Session::Bitcoin(_) => None,
        }
    }

    /// All, in the order of their slots.
    pub fn all_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Session)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, entry)| {
            let (generation, session) = entry.as_mut()?;
            Some((ConnId { slot: slot as u32, generation: *generation }, &mut **session))
        })
    }

    /// All peers.
    pub fn peers_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Peer)> {
        self.all_mut().filter_map(|(conn, session)| match session {
            Session::Peer(peer) => Some((conn, &mut **peer)),
            Session::Miner(_) | Session::Web(_) | Session::Bitcoin(_) => None,
        })
    }

    /// All miners.
    pub fn miners_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Miner)> {
        self.all_mut().filter_map(|(conn, session)| match session {
            Session::Miner(miner) => Some((conn, miner)),
            Session::Peer(_) | Session::Web(_) | Session::Bitcoin(_) => None,
        })
    }

    /// All Bitcoin nodes.
    pub fn bitcoin_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut BitcoinNode)> {
        self.all_mut().filter_map(|(conn, session)| match session {
            Session::Bitcoin(node) => Some((conn, node)),
            Session::Peer(_) | Session::Miner(_) | Session::Web(_) => None,
        })
    }

    /// All Bitcoin nodes, to be looked at.
    pub fn bitcoin(&self) -> impl Iterator<Item = &BitcoinNode> {
        self.slots.iter().flatten().filter_map(|(_, session)| if let Session::Bitcoin(node) = &**session { Some(node) } else { None })
    }

    /// How many miners have authorised.
    pub fn miners(&self) -> usize {
        let authorised = |session: &Session| matches!(session, Session::Miner(miner) if miner.authorised());
        self.slots.iter().flatten().filter(|(_, session)| authorised(session)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn miner() -> Miner {
        Miner::new(Duration::ZERO, SocketAddr::from(([127, 0, 0, 1], 1)), [0, 0, 0, 1])
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_tenant() {
        let mut sessions = Sessions::default();
        let conn = |generation| ConnId { slot: 5, generation };
        sessions.insert(conn(1), Session::Miner(miner()));
        assert!(sessions.miner_mut(conn(1)).is_some() && sessions.peer_mut(conn(1)).is_none());
        assert!(sessions.remove(conn(2)).is_none());
        assert!(sessions.remove(conn(1)).is_some());
        sessions.insert(conn(2), Session::Miner(miner()));
        assert!(sessions.get_mut(conn(1)).is_none());
        assert!(sessions.get_mut(ConnId { slot: 6, generation: 1 }).is_none());
        assert_eq!(sessions.miners_mut().map(|(conn, _)| conn).collect::<Vec<_>>(), [conn(2)]);
        assert_eq!(sessions.miners(), 0, "none has authorised");
    }
}
