//! The address book and connections: who is dialled from it, what it learns when a handshake is done, and what is said of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use rand_chacha::rand_core::Rng;
use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::{AddrEntry, Message};

use crate::peer::find::gossip::{Talk, next_announcement};
use crate::peer::find::outbound::{Aim, Around};
use crate::peer::{Peers, say};
use crate::session::Sessions;
use crate::turn::Turn;

/// Who somebody is whose handshake is done.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    /// The connection.
    pub conn: ConnId,
    /// The other side.
    pub addr: SocketAddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Where it listens, if it dialled us and says so.
    pub listens: Option<SocketAddr>,
    /// What it offers.
    pub services: u64,
}

impl Peers {
    /// Dials from the book what is due, and has those make room who bring nothing.
    pub fn dial_book(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        let now = turn.now;
        if now.mono < self.outbound.due() {
            return;
        }
        if self.outbound.is_look_due(now.mono) {
            let heights: BTreeMap<ConnId, u32> = sessions.peers_mut().filter_map(|(conn, peer)| Some((conn, peer.claim?.height))).collect();
            let ours = turn.chain.view.confirmed_height();
            if let Some((conn, addr)) = self.outbound.look(now.mono, ours, &|conn| heights.get(&conn).copied()) {
                // It rests as if it had not answered, and another has its place.
                self.book.dialled(now.unix(), addr);
                turn.out.close(conn, CloseReason::Done("far behind our chain for long"));
            }
            self.kept.soon(self.outbound.anchors(now.mono));
        }
        let (mut outbound, mut inbound) = (Vec::new(), BTreeSet::new());
        for (conn, peer) in sessions.peers_mut().filter(|(_, peer)| peer.ready()) {
            if peer.outbound && !self.outbound.holds(conn) {
                outbound.push(peer.addr);
            }
            inbound.extend(peer.listens);
        }
        let gate = &self.gate;
        let is_banned = |ip| gate.bans.is_banned(ip, now.unix()) || gate.is_discouraged(now.mono, SocketAddr::new(ip, 0));
        let configured: Vec<_> = self.dials.addrs().collect();
        let around = Around { configured: &configured, outbound: &outbound, inbound: &inbound, is_banned: &is_banned };
        let Some((addr, aim)) = self.outbound.next(now, &mut self.book, turn.rng, &around) else { return };
        match turn.out.dial(Lane::Peer, addr, self.wraps.dial(now.mono, addr)) {
            Ok(conn) => {
                if aim == Aim::Feeler { &turn.counters.feelers } else { &turn.counters.book_dials }.add(1);
                self.outbound.began(addr, aim, conn);
            }
            Err(why) => log::debug!("peer {addr} of the book: {why}"),
        }
    }

    /// A dial of the book has failed or its connection ended. What was not v2 is dialled once more at once, for v1, in the same place.
    pub fn book_closed(&mut self, conn: ConnId, why: &CloseReason, turn: &mut Turn<'_>) {
        if let Some(addr) = self.outbound.addr(conn)
            && self.wraps.closed(addr, why)
            && let Ok(again) = turn.out.dial(Lane::Peer, addr, Wrapping::V1)
        {
            self.outbound.again(conn, again);
        } else if let Some((addr, true)) = self.outbound.closed(turn.now.mono, conn) {
            self.book.left(turn.now.unix(), addr);
        }
    }

    /// We have said `version` on a connection that we dialled.
    pub fn spoke(&mut self, conn: ConnId, nonce: u64) {
        self.dials.spoke(conn, nonce);
        self.outbound.spoke(conn, nonce);
    }

    /// Whether a nonce that we hear is our own; then we have dialled ourselves, and do so no more.
    pub fn is_self(&mut self, nonce: u64) -> bool {
        if let Some(addr) = self.outbound.own_addr(nonce) {
            self.book.is_own(addr);
            self.kept.soon(self.outbound.forget(addr));
            return true;
        }
        self.dials.is_self(nonce)
    }

    /// A handshake is done. Whether the connection has served its purpose by that: it was a feeler.
    pub fn met(&mut self, met: Met, talk: &mut Talk, turn: &mut Turn<'_>) -> bool {
        let Met { conn, addr, outbound, listens, services } = met;
        let now = turn.now.unix();
        if outbound {
            self.book.add(now, addr, services, now, addr.ip());
            self.book.good(now, addr, services);
            if let (Some(addr), Some(wrapping)) = (self.outbound.addr(conn), turn.out.wrapping(conn)) {
                self.wraps.up(turn.now.mono, addr, wrapping);
            }
            if self.outbound.up(turn.now.mono, conn) == Some(Aim::Feeler) {
                return true;
            }
            talk.ask();
            talk.announce = Some(turn.now.mono);
            say(conn, &Message::GetAddr, turn);
        } else if let Some(listens) = listens
            && self.book.add(now, listens, services, now, addr.ip())
        {
            self.outbound.hurry(turn.now.mono);
        }
        false
    }

    /// A peer asks for addresses. Only who has dialled us is answered: whom we dial could else learn who we are on several ways at once.
    pub fn on_get_addr(&mut self, met: Met, talk: &mut Talk, turn: &mut Turn<'_>) {
        if met.outbound || !talk.may_answer() {
            return;
        }
        let (now, magic) = (turn.now, turn.config.params.magic);
        let Ok(answer) = self.gossip.answer(now, &self.book, turn.rng, |message| message.encode(magic)) else { return };
        turn.out.send(met.conn, answer);
    }

    /// A peer tells of addresses.
    pub fn on_addrs(&mut self, met: Met, addrs: Vec<AddrEntry>, talk: &mut Talk, turn: &mut Turn<'_>) {
        let heard = self.gossip.heard(turn.now, talk, (met.conn, met.addr.ip()), addrs, &mut self.book);
        turn.counters.addrs_heard.add(heard.taken as u64);
        turn.counters.addrs_ignored.add(heard.ignored as u64);
        if heard.news > 0 {
            self.outbound.hurry(turn.now.mono);
        }
    }

    /// Tells a peer that we dialled of our own address, as it sees it: others hear of it by him.
    pub fn announce(&mut self, conn: ConnId, talk: &mut Talk, turn: &mut Turn<'_>) {
        let now = turn.now;
        if talk.announce.is_none_or(|at| now.mono < at) {
            return;
        }
        talk.announce = Some(next_announcement(now.mono, turn.rng.next_u32()));
        let own = turn.config.listen.p2p.zip(talk.us).map(|(listen, us): (SocketAddr, IpAddr)| SocketAddr::new(us, listen.port()));
        if let Some(own) = own.filter(|own| self.book.is_of_network(*own)) {
            say(conn, &Message::AddrV2(vec![AddrEntry::new(own, 0, now.unix())]), turn);
        }
    }

    /// Passes on what was heard in this turn.
    pub fn relay_addrs(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        if !self.gossip.has_relays() {
            return;
        }
        let peers: Vec<_> = sessions.peers_mut().filter(|(_, peer)| peer.ready()).map(|(conn, peer)| (conn, peer.addr)).collect();
        for (conn, entry) in self.gossip.take_relays(turn.now, self.book.key(), &peers) {
            turn.counters.addrs_relayed.add(1);
            say(conn, &Message::AddrV2(vec![entry]), turn);
        }
    }
}
