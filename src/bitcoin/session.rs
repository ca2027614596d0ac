//! A Bitcoin node's connection: the handshake, pings, and who does what with the rest.

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use rockpool_net::close::CloseReason;
use rockpool_net::events::Event;
use rockpool_net::id::ConnId;
use rockpool_net::wire::bitcoin::{Message, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_WITNESS};
use rockpool_net::wire::message::{Command, NetAddr, PROTOCOL_VERSION, Version};

use crate::bitcoin::hand::Handed;
use crate::bitcoin::headers::Headers;
use crate::bitcoin::{NodeStatus, Nodes, say};
use crate::journal::ended;
use crate::limits::{BITCOIN_ANSWER_MAX, HANDSHAKE_MAX, PING_EVERY, SILENCE_MAX};
use crate::peer::handshake::{self, State, Step};
use crate::peer::session::USER_AGENT;
use crate::turn::Turn;

/// The oldest protocol that knows `sendheaders` (BIP130).
const PROTOCOL_MIN: u32 = 70_012;

pub(super) type Verdict = Result<(), CloseReason>;

/// A Bitcoin node.
#[derive(Debug)]
pub struct BitcoinNode {
    /// The other side.
    pub addr: SocketAddr,
    agent: String,
    pub(super) headers: Headers,
    pub(super) handed: Handed,
    state: State,
    nonce: u64,
    opened: Duration,
    heard: Duration,
    pinged: Duration,
    /// When its handshake was done.
    up: Duration,
}

impl BitcoinNode {
    /// A connection that stands. We dialled, so we speak first.
    pub fn open(conn: ConnId, addr: SocketAddr, nodes: &mut Nodes, turn: &mut Turn<'_>) -> BitcoinNode {
        let (now, nonce) = (turn.now.mono, turn.rng.next_u64());
        let node = BitcoinNode {
            addr,
            agent: String::new(),
            headers: Headers::default(),
            handed: Handed::default(),
            state: State::VersionWanted,
            nonce,
            opened: now,
            heard: now,
            pinged: now,
            up: now,
        };
        nodes.dials.spoke(conn, nonce);
        node.say_version(conn, turn);
        node.set_timer(conn, turn);
        node
    }

    /// Whether its handshake is done.
    pub fn ready(&self) -> bool {
        self.state == State::Ready
    }

    /// As `status` shows it, once it is ready.
    pub fn status(&self, now: Duration) -> Option<NodeStatus> {
        let up = now.saturating_sub(self.up);
        self.ready().then(|| NodeStatus { addr: self.addr, agent: self.agent.clone(), height: self.height(), up })
    }

    /// A message came. What breaks the protocol closes the connection with a reason.
    pub fn on_message(&mut self, conn: ConnId, command: Command, payload: &[u8], nodes: &mut Nodes, turn: &mut Turn<'_>) {
        self.heard = turn.now.mono;
        if let Err(why) = self.step(conn, command, payload, nodes, turn) {
            turn.out.close(conn, why);
        }
        self.set_timer(conn, turn);
    }

    /// Its timer is due.
    pub fn on_timer(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if self.ready() && turn.out.arriving(conn).is_some() {
            // A long message over a slow line is no silence.
            self.heard = now;
        }
        if !self.ready() && now >= self.opened + HANDSHAKE_MAX {
            turn.out.close(conn, CloseReason::Timeout("handshake"));
        } else if self.ready() && now >= self.heard + SILENCE_MAX {
            turn.out.close(conn, CloseReason::Timeout("silent Bitcoin node"));
        } else if self.headers.asked().is_some_and(|asked| now >= asked + BITCOIN_ANSWER_MAX) {
            turn.out.close(conn, CloseReason::Timeout("a Bitcoin node's answer to getheaders"));
        } else if self.ready() && now >= self.pinged + PING_EVERY {
            self.pinged = now;
            let nonce = turn.rng.next_u64();
            say(conn, &Message::Ping(nonce), turn);
            self.look_for_early(conn, turn);
        }
        self.set_timer(conn, turn);
    }

    /// It has gone.
    pub fn on_closed(&mut self, conn: ConnId, why: &CloseReason, nodes: &mut Nodes, turn: &mut Turn<'_>) {
        if self.ready() {
            nodes.went(turn);
            turn.out.publish(Event::BitcoinPeerDown { conn, addr: self.addr, why: why.clone() });
        } else if self.state == State::VersionWanted && *why == CloseReason::Remote {
            log::warn!("Bitcoin node {} hangs up without a word: it is of another network than ours, or has no room", self.addr);
        } else {
            ended("Bitcoin node", self.addr, why);
        }
    }

    fn step(&mut self, conn: ConnId, command: Command, payload: &[u8], nodes: &mut Nodes, turn: &mut Turn<'_>) -> Verdict {
        let (state, step) = handshake::step(self.state, command).map_err(misbehaviour)?;
        let message = Message::decode(command, payload).map_err(|error| CloseReason::Misbehaviour(format!("{command}: {error}")))?;
        match step {
            Step::Answer => self.answer(conn, &message, nodes, turn)?,
            Step::Up => {}
            Step::Dispatch => return self.dispatch(conn, message, nodes, turn),
        }
        self.state = state;
        if step == Step::Up {
            self.up(conn, nodes, turn);
        }
        Ok(())
    }

    fn answer(&mut self, conn: ConnId, message: &Message, nodes: &mut Nodes, turn: &mut Turn<'_>) -> Verdict {
        let Message::Version(version) = message else { return Err(misbehaviour("no version")) };
        if nodes.dials.is_self(version.nonce) {
            return Err(CloseReason::Done("connected to itself"));
        }
        if version.protocol < PROTOCOL_MIN {
            return Err(CloseReason::Misbehaviour(format!("protocol {} is too old", version.protocol)));
        }
        if version.services & (NODE_NETWORK | NODE_NETWORK_LIMITED) == 0 {
            return Err(misbehaviour("it offers no blocks: no full node"));
        }
        self.agent.clone_from(&version.user_agent);
        self.headers.claims(version.start_height);
        say(conn, &Message::Verack, turn);
        Ok(())
    }

    fn up(&mut self, conn: ConnId, nodes: &mut Nodes, turn: &mut Turn<'_>) {
        turn.out.set_handshaken(conn);
        if let Some(wrapping) = turn.out.wrapping(conn) {
            nodes.dials.up(turn.now.mono, conn, wrapping);
        }
        nodes.came();
        (self.up, self.pinged) = (turn.now.mono, turn.now.mono);
        say(conn, &Message::SendHeaders, turn);
        let (addr, agent, height) = (self.addr, self.agent.clone(), self.height());
        turn.out.publish(Event::BitcoinPeerUp { conn, addr, agent, height });
        self.hand_all(conn, turn);
    }

    fn dispatch(&mut self, conn: ConnId, message: Message, nodes: &mut Nodes, turn: &mut Turn<'_>) -> Verdict {
        match message {
            // The table of the handshake leaves none of these; the others are only sent.
            Message::Version(_) | Message::Verack => return Err(misbehaviour("a second handshake")),
            Message::Ping(nonce) => say(conn, &Message::Pong(nonce), turn),
            // Any word shows that it lives.
            Message::Pong(_) | Message::SendHeaders | Message::NotFound(_) => {}
            // We have none that it has not: it is asked in the same way.
            Message::GetHeaders(_) => say(conn, &Message::Headers(Vec::new()), turn),
            Message::Headers(headers) => return self.on_headers(conn, headers, nodes, turn),
            Message::Inv(items) => self.on_inv(conn, &items, turn),
            Message::GetData(items) => return self.on_getdata(conn, items, turn),
        }
        Ok(())
    }

    fn say_version(&self, conn: ConnId, turn: &mut Turn<'_>) {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        // Blocks that we find are given with their witnesses; others we have none of.
        let services = NODE_WITNESS;
        let version = Version {
            protocol: PROTOCOL_VERSION,
            services,
            time: turn.now.wall.as_secs(),
            receiver: NetAddr { services: 0, addr: self.addr },
            sender: NetAddr { services, addr: nowhere },
            nonce: self.nonce,
            user_agent: USER_AGENT.to_owned(),
            start_height: turn.chain.view.bitcoin().best().map_or(0, |best| best.height),
            relay: false,
        };
        say(conn, &Message::Version(Box::new(version)), turn);
    }

    fn set_timer(&self, conn: ConnId, turn: &mut Turn<'_>) {
        let due = if self.ready() {
            let answer = self.headers.asked().map_or(Duration::MAX, |asked| asked + BITCOIN_ANSWER_MAX);
            (self.pinged + PING_EVERY).min(self.heard + SILENCE_MAX).min(answer)
        } else {
            self.opened + HANDSHAKE_MAX
        };
        turn.out.set_timer(conn, Some(due));
    }
}

pub(super) fn misbehaviour(what: &str) -> CloseReason {
    CloseReason::Misbehaviour(what.to_owned())
}
