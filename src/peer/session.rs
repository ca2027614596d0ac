//! A peer's connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use rockpool_net::close::CloseReason;
use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::payload::Payload;
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::message::{ChainTip, Command, Message, NetAddr, PROTOCOL_VERSION, Version};
use rockpool_net::wire::share::{Layout, Share};
use rockpool_workers::jobs::{FetchJob, OrganiseJob};
use rockpool_workers::limits::FETCH_FROM_PEER_MAX;

use crate::journal::ended;
use crate::limits::{
    ADDR_NEWS_COST, ADDR_NEWS_MAX, ASKED_MAX, BTC_HEADERS_ALONG_MAX, BTC_HEADERS_UNASKED_MAX, CHAINTIP_EVERY, HANDSHAKE_MAX,
    INV_IDS_PER_COST, KNOWN_MAX, PING_EVERY, PUSH_DEPTH, SILENCE_MAX,
};
use crate::peer::find::gossip::Talk;
use crate::peer::find::meet::Met;
use crate::peer::found::{self, Refusal};
use crate::peer::gate::Left;
use crate::peer::gate::budget::Budget;
use crate::peer::gate::evict::Candidate;
use crate::peer::gate::traits::Traits;
use crate::peer::handshake::{self, State, Step};
use crate::peer::relay::{Known, Push, chain_tip, push};
use crate::peer::serve::{Requests, Wanted};
use crate::peer::sync::Claim;
use crate::peer::{Peers, say};
use crate::turn::Turn;

/// What our `version` calls this program.
pub const USER_AGENT: &str = concat!("/rockpool:", env!("CARGO_PKG_VERSION"), "/");

/// A peer.
#[derive(Debug)]
pub struct Peer {
    /// The other side.
    pub addr: SocketAddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Where it listens, if it dialled us and says so.
    pub listens: Option<SocketAddr>,
    services: u64,
    talk: Talk,
    /// Where it says its chain stands.
    pub claim: Option<Claim>,
    state: State,
    nonce: u64,
    opened: Duration,
    heard: Duration,
    pinged: Duration,
    /// The tip we told it of last, and when.
    told: Option<(ShareId, Duration)>,
    /// There is a newer one to tell of.
    tell: bool,
    known: Known,
    /// Shares asked of it by id that have not come.
    asked: BTreeSet<ShareId>,
    requests: Requests,
    /// The organiser was given something of it.
    gave: bool,
    /// What the API and eviction go by.
    pub traits: Traits,
    budget: Budget,
    /// What Bitcoin headers cost that came since its last answer: they may belong to the next.
    along: u32,
    /// It is not heard at the moment.
    deaf: bool,
}

/// A payload and its checksum, if it came with one.
type Carried<'a> = (&'a [u8], Option<[u8; 4]>);
type Verdict = Result<(), CloseReason>;

impl Peer {
    /// A connection that stands. Who dialled speaks first.
    pub fn open(conn: ConnId, addr: SocketAddr, outbound: bool, peers: &mut Peers, turn: &mut Turn<'_>) -> Peer {
        let now = turn.now.mono;
        let peer = Peer {
            addr,
            outbound,
            listens: None,
            services: 0,
            talk: Talk::new(now),
            claim: None,
            state: State::VersionWanted,
            nonce: turn.rng.next_u64(),
            opened: now,
            heard: now,
            pinged: now,
            told: None,
            tell: false,
            known: Known::default(),
            asked: BTreeSet::new(),
            requests: Requests::default(),
            gave: false,
            traits: Traits::new(addr, peers, turn),
            budget: Budget::default(),
            along: 0,
            deaf: false,
        };
        if outbound {
            peers.spoke(conn, peer.nonce);
            peer.say_version(conn, turn);
        } else {
            peers.gate.came();
        }
        peer.set_timer(conn, turn);
        peer
    }

    /// Whether its handshake is done.
    pub fn ready(&self) -> bool {
        self.state == State::Ready
    }

    /// A message came. What breaks the protocol closes the connection with a reason.
    pub fn on_message(&mut self, conn: ConnId, command: Command, carried: Carried<'_>, peers: &mut Peers, turn: &mut Turn<'_>) {
        self.heard = turn.now.mono;
        self.budget.spend(turn.now.mono, command.cost());
        if let Err(why) = self.step(conn, command, carried, peers, turn) {
            if !self.ready() {
                turn.counters.peers_refused.add(1);
            }
            turn.out.close(conn, why);
        }
        self.rest(conn, peers, turn);
        self.set_timer(conn, turn);
    }

    /// Who is over its budget is not heard until that is paid for.
    fn rest(&mut self, conn: ConnId, peers: &mut Peers, turn: &mut Turn<'_>) {
        if let Some(until) = self.budget.rests(turn.now.mono) {
            turn.counters.peers_rested.add(u64::from(!self.deaf));
            peers.gate.rest(until, conn);
        }
        self.listen(conn, turn);
    }

    /// It is heard, unless too much of it waits to be served or its budget is spent.
    pub fn listen(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        let deaf = self.requests.is_full() || self.budget.rests(turn.now.mono).is_some();
        if deaf != std::mem::replace(&mut self.deaf, deaf) {
            turn.out.pause(conn, deaf);
        }
    }

    /// What eviction goes by.
    pub fn candidate(&self, conn: ConnId) -> Candidate {
        self.traits.candidate(conn, self.addr, self.opened)
    }

    /// Its timer is due.
    pub fn on_timer(&mut self, conn: ConnId, peers: &mut Peers, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        // What comes to nothing is paid for as well.
        let unheard = turn.out.take_unheard(conn);
        if unheard > 0 {
            self.budget.spend(now, unheard.saturating_mul(Command::Unknown.cost()));
            self.rest(conn, peers, turn);
        }
        if self.ready() && turn.out.arriving(conn).is_some() {
            // A long message over a slow line is no silence.
            self.heard = now;
        }
        if !self.ready() && now >= self.opened + HANDSHAKE_MAX {
            turn.out.close(conn, CloseReason::Timeout("handshake"));
        } else if self.ready() && now >= self.heard + SILENCE_MAX {
            turn.out.close(conn, CloseReason::Timeout("silent peer"));
        } else if self.ready() {
            if now >= self.pinged + PING_EVERY {
                self.pinged = now;
                let nonce = turn.rng.next_u64();
                self.traits.pings.ask(now, nonce);
                say(conn, &Message::Ping(nonce), turn);
            }
            peers.announce(conn, &mut self.talk, turn);
            if self.tell {
                self.tell_tip(conn, &chain_tip(turn), turn);
            }
            self.requests.look(conn, turn);
        }
        self.set_timer(conn, turn);
    }

    /// There is room to send again.
    pub fn on_room(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if let Some(ids) = self.requests.on_room(conn, turn) {
            self.on_inv(conn, &ids, turn);
        }
        if self.requests.held().is_some() {
            self.set_timer(conn, turn);
        }
        self.listen(conn, turn);
    }

    /// Rows that it asked for were read.
    pub fn on_read(&mut self, conn: ConnId, tag: u64, rows: Vec<Option<Vec<u8>>>, turn: &mut Turn<'_>) {
        self.requests.on_read(conn, tag, rows, turn);
        self.listen(conn, turn);
    }

    /// It has gone: its tickets go home, and who counted on it is told.
    pub fn on_closed(&mut self, conn: ConnId, why: &CloseReason, peers: &mut Peers, turn: &mut Turn<'_>) {
        if self.gave {
            turn.jobs.organise.push(OrganiseJob::PeerGone(conn));
        }
        let stayed = turn.now.mono.saturating_sub(self.opened);
        let left = Left { addr: self.addr, outbound: self.outbound, stayed, at: turn.now.unix(), why: why.clone() };
        peers.gate.went(turn.now.mono, left, self.traits.named, self.ready());
        if self.ready() {
            turn.say_fetcher(FetchJob::PeerDown(conn));
            turn.out.publish(Event::PeerDown { conn, addr: self.addr, outbound: self.outbound, why: why.clone() });
            peers.up -= 1;
        } else {
            ended("peer", self.addr, why);
        }
    }

    /// Newly confirmed shares. How many of them it was sent.
    pub fn push(&mut self, conn: ConnId, shares: &[Push], turn: &mut Turn<'_>) -> u32 {
        if !self.ready() {
            return 0;
        }
        push(conn, &mut self.known, self.claim.map_or(0, |claim| claim.height), shares, turn)
    }

    /// Our confirmed tip is another: told at once, unless it was told of one a moment ago.
    pub fn tell_tip(&mut self, conn: ConnId, tip: &Arc<Payload>, turn: &mut Turn<'_>) {
        let (id, now) = (turn.chain.view.confirmed_tip().id, turn.now.mono);
        if !self.ready() || self.told.is_some_and(|(told, _)| told == id) {
            self.tell = false;
            return;
        }
        self.tell = self.told.is_some_and(|(_, at)| now < at + CHAINTIP_EVERY);
        if !self.tell {
            self.told = Some((id, now));
            self.requests.promise(turn.chain.view.confirmed_tip().score);
            turn.out.send(conn, Arc::clone(tip));
        }
        self.set_timer(conn, turn);
    }

    /// Asks for shares by id. The fetcher hears of those that cannot be asked for.
    pub fn ask(&mut self, conn: ConnId, ids: Vec<ShareId>, turn: &mut Turn<'_>) {
        let room = ASKED_MAX.saturating_sub(self.asked.len());
        let (now, over) = ids.split_at(ids.len().min(room));
        for id in over {
            turn.say_fetcher(FetchJob::NotFound(*id, conn));
        }
        for some in now.chunks(rockpool_net::limits::GETDATA_MAX) {
            self.asked.extend(some);
            turn.counters.shares_asked.add(some.len() as u64);
            say(conn, &Message::GetData(some.to_vec()), turn);
        }
    }

    fn step(
        &mut self,
        conn: ConnId,
        command: Command,
        (payload, checksum): Carried<'_>,
        peers: &mut Peers,
        turn: &mut Turn<'_>,
    ) -> Verdict {
        let (state, step) = handshake::step(self.state, command).map_err(misbehaviour)?;
        let message = Message::decode(command, payload).map_err(|error| CloseReason::Misbehaviour(format!("{command}: {error}")))?;
        match step {
            Step::Answer => self.answer(conn, &message, peers, turn)?,
            Step::Up if peers.met(self.met(conn), &mut self.talk, turn) => {
                turn.out.close(conn, CloseReason::Done("it answers, which is all that was asked"));
                return Ok(());
            }
            Step::Up => {}
            Step::Dispatch => return self.dispatch(conn, message, checksum, peers, turn),
        }
        self.state = state;
        if step == Step::Up {
            self.up(conn, peers, turn);
        }
        Ok(())
    }

    fn answer(&mut self, conn: ConnId, message: &Message, peers: &mut Peers, turn: &mut Turn<'_>) -> Verdict {
        let Message::Version(version) = message else { return Err(misbehaviour("no version")) };
        if peers.is_self(version.nonce) {
            return Err(CloseReason::Done("connected to itself"));
        }
        if version.protocol < PROTOCOL_VERSION {
            return Err(CloseReason::Misbehaviour(format!("protocol {} is too old", version.protocol)));
        }
        log::debug!("peer {}: {} at height {}", self.addr, version.user_agent, version.start_height);
        self.traits.agent.clone_from(&version.user_agent);
        self.services = version.services;
        if self.outbound {
            self.talk.us = Some(version.receiver.addr.ip());
        } else {
            // Its address is what we see; only its port is its own to say.
            let port = version.sender.addr.port();
            self.listens = (port > 0).then(|| SocketAddr::new(self.addr.ip().to_canonical(), port));
            self.say_version(conn, turn);
        }
        say(conn, &Message::Verack, turn);
        Ok(())
    }

    fn up(&mut self, conn: ConnId, peers: &mut Peers, turn: &mut Turn<'_>) {
        turn.out.set_handshaken(conn);
        peers.up += 1;
        if let Some(wrapping) = turn.out.wrapping(conn) {
            peers.dials.up(turn.now.mono, conn, wrapping);
        }
        peers.look();
        self.pinged = turn.now.mono;
        turn.say_fetcher(FetchJob::PeerUp(conn));
        turn.out.publish(Event::PeerUp { conn, addr: self.addr, outbound: self.outbound });
        self.tell_tip(conn, &chain_tip(turn), turn);
    }

    fn dispatch(&mut self, conn: ConnId, message: Message, checksum: Option<[u8; 4]>, peers: &mut Peers, turn: &mut Turn<'_>) -> Verdict {
        match message {
            // The table of the handshake leaves none of these.
            Message::Version(_) | Message::Verack => return Err(misbehaviour("a second handshake")),
            Message::Ping(nonce) => turn.out.send_copy(conn, &Message::pong(turn.config.params.magic, nonce, checksum)),
            // Any word shows that it lives.
            Message::Pong(nonce) if self.traits.pings.on_pong(turn.now.mono, nonce) => self.asked_for(Command::Pong, turn),
            Message::Pong(_) => {}
            Message::GetAddr => peers.on_get_addr(self.met(conn), &mut self.talk, turn),
            Message::AddrV2(addrs) => {
                // News is passed on, others' as well: a flood of it must not use up the budget of who did so in good faith.
                if addrs.len() <= ADDR_NEWS_MAX {
                    self.budget.refund(turn.now.mono, Command::AddrV2.cost() - ADDR_NEWS_COST);
                }
                peers.on_addrs(self.met(conn), addrs, &mut self.talk, turn);
            }
            Message::ChainTip(tip) => self.on_chain_tip(conn, tip, peers, turn)?,
            Message::GetHeaders(wanted) => self.on_request(conn, Wanted::Headers(wanted), turn),
            Message::GetData(ids) => self.on_request(conn, Wanted::Data(ids), turn),
            Message::ShareHeaders(shares) => {
                self.gave = true;
                for share in &shares[shares.len().saturating_sub(KNOWN_MAX)..] {
                    self.known.insert(share.id());
                }
                peers.on_shares(conn, shares, turn)?;
                // Nobody else gets so far; and what came along with it is part of the answer.
                self.asked_for(Command::ShareHeaders, turn);
                let most = (BTC_HEADERS_ALONG_MAX / BTC_HEADERS_UNASKED_MAX) as u32 * Command::BtcHeaders.cost();
                self.budget.refund(turn.now.mono, std::mem::take(&mut self.along).min(most));
            }
            Message::Share(share) => self.on_share(conn, *share, peers, turn),
            // A long one is looked through when it is the peer's turn, and costs by its ids.
            Message::Inv(ids) if ids.len() > FETCH_FROM_PEER_MAX => {
                self.budget.spend(turn.now.mono, ids.len() as u32 / INV_IDS_PER_COST);
                self.requests.push(conn, Wanted::Look(ids), turn);
            }
            Message::Inv(ids) => self.on_inv(conn, &ids, turn),
            Message::BtcHeaders(headers) => self.on_headers(headers, turn),
            Message::GetTemplate(wanted) => self.on_request(conn, Wanted::Template(wanted), turn),
            Message::GetBlockBody(wanted) => self.on_request(conn, Wanted::Body(wanted), turn),
            Message::BlockBody(part) => {
                peers.on_body(conn, part, turn)?;
                self.asked_for(Command::BlockBody, turn);
            }
            Message::Template(_) => return Err(misbehaviour("a template that was not asked for")),
            Message::BlockFound(share) => return self.on_block_found(conn, *share, peers, turn),
            Message::NotFound(ids) => {
                if ids.iter().any(|id| self.asked.contains(id)) {
                    self.asked_for(Command::NotFound, turn);
                }
                for id in ids {
                    if self.asked.remove(&id) {
                        turn.say_fetcher(FetchJob::NotFound(id, conn));
                    }
                    peers.on_no_body(conn, &id, turn);
                }
            }
        }
        Ok(())
    }

    fn on_chain_tip(&mut self, conn: ConnId, tip: ChainTip, peers: &mut Peers, turn: &mut Turn<'_>) -> Verdict {
        if tip.genesis != turn.config.params.genesis_id() {
            return Err(CloseReason::Misbehaviour(format!("its share chain begins with {}, ours does not", tip.genesis)));
        }
        self.known.insert(tip.tip);
        let ours = turn.chain.view.tip().score;
        // A claim that stays ahead of us keeps its clock, or a chain that grows fast would never be looked into.
        let since = match self.claim {
            Some(before) if before.score > ours => before.since,
            _ => turn.now.mono,
        };
        let claim = Claim { height: tip.height, score: tip.score, since };
        self.claim = Some(claim);
        peers.claimed(conn, claim, turn.now.mono);
        Ok(())
    }

    /// What it has. Of more than are remembered the last would stay, and the fetcher takes no more than so many of one peer.
    fn on_inv(&mut self, conn: ConnId, ids: &[ShareId], turn: &mut Turn<'_>) {
        for id in &ids[ids.len().saturating_sub(KNOWN_MAX)..] {
            self.known.insert(*id);
        }
        let unknown = ids.iter().filter(|id| turn.chain.view.get(id).is_none()).take(FETCH_FROM_PEER_MAX);
        for id in unknown.copied().collect::<Vec<_>>() {
            turn.say_fetcher(FetchJob::Missing(id, conn));
        }
    }

    /// That was an answer, and is free.
    fn asked_for(&mut self, command: Command, turn: &Turn<'_>) {
        self.budget.refund(turn.now.mono, command.cost());
    }

    fn on_request(&mut self, conn: ConnId, wanted: Wanted, turn: &mut Turn<'_>) {
        self.requests.push(conn, wanted, turn);
    }

    /// Bitcoin headers that shares build on, those that we know already left out.
    fn on_headers(&mut self, mut headers: Vec<[u8; 80]>, turn: &mut Turn<'_>) {
        self.along = self.along.saturating_add(Command::BtcHeaders.cost());
        let hashes: Vec<_> = headers.iter().map(|header| ShareId(sha256d(header))).collect();
        for hash in &hashes {
            if self.asked.remove(hash) {
                turn.say_fetcher(FetchJob::Arrived(*hash));
            }
        }
        let known = hashes.iter().take_while(|hash| turn.chain.view.bitcoin().get(&hash.0).is_some()).count();
        headers.drain(..known);
        if !headers.is_empty()
            && let Some(ticket) = turn.out.take_ticket()
        {
            self.gave = true;
            turn.jobs.organise.push(OrganiseJob::Blocks { headers, own: false, ticket });
        }
    }

    fn on_share(&mut self, conn: ConnId, share: Share, peers: &mut Peers, turn: &mut Turn<'_>) {
        let id = share.id();
        if self.asked.remove(&id) {
            self.asked_for(Command::Share, turn);
        }
        self.known.insert(id);
        turn.say_fetcher(FetchJob::Arrived(id));
        if turn.chain.view.get(&id).is_some() {
            return;
        }
        if let Some(ticket) = turn.out.take_ticket() {
            self.gave = true;
            peers.gate.sent(id, conn);
            turn.jobs.organise.push(OrganiseJob::Tip { share: Arc::new(share), ticket });
        }
    }

    /// A share that is said to be a Bitcoin block: told on at once if it is, and then judged as any share. One that is no news is judged
    /// as a share only near our tip, where we might be the ones who are late; old blocks end here.
    fn on_block_found(&mut self, conn: ConnId, share: Share, peers: &mut Peers, turn: &mut Turn<'_>) -> Verdict {
        let id = share.id();
        match found::judge_by(turn.config.params, &share, turn.chain.view.bitcoin()) {
            Ok(()) => {
                self.known.insert(id);
                peers.heard(&share, conn, self.addr);
                // In layout front a relay may have changed the extranonce: such a block is told on when it is proved (SPEC, VAL-4).
                if share.layout == Layout::Tail && peers.block_found(&share, turn) {
                    // News that cost its maker what a block costs.
                    self.asked_for(Command::BlockFound, turn);
                    turn.out.publish(Event::BlockFound { hash: id, height: share.bitcoin_height, miner: None });
                }
            }
            Err(Refusal::Untied(why)) => return Err(CloseReason::Misbehaviour(format!("blockfound {id}: {why}"))),
            Err(Refusal::NoNews(why)) => {
                log::debug!("blockfound {id} of peer {}: {why}", self.addr);
                let near = turn.chain.view.confirmed_height().saturating_sub(PUSH_DEPTH);
                if turn.chain.view.get(&share.parent).is_none_or(|parent| parent.height < near) {
                    return Ok(());
                }
            }
        }
        self.on_share(conn, share, peers, turn);
        Ok(())
    }

    fn met(&self, conn: ConnId) -> Met {
        Met { conn, addr: self.addr, outbound: self.outbound, listens: self.listens, services: self.services }
    }

    fn say_version(&self, conn: ConnId, turn: &mut Turn<'_>) {
        // Where we can be reached the other side sees better than we do, but for the port.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], turn.config.listen.p2p.map_or(0, |addr| addr.port())));
        let version = Version {
            protocol: PROTOCOL_VERSION,
            services: 0,
            time: turn.now.wall.as_secs(),
            receiver: NetAddr { services: 0, addr: self.addr },
            sender: NetAddr { services: 0, addr: nowhere },
            nonce: self.nonce,
            user_agent: USER_AGENT.to_owned(),
            start_height: turn.chain.view.confirmed_height(),
            relay: true,
        };
        say(conn, &Message::Version(version), turn);
    }

    fn set_timer(&self, conn: ConnId, turn: &mut Turn<'_>) {
        let due = if self.ready() {
            let tell = self.told.filter(|_| self.tell).map(|(_, at)| at + CHAINTIP_EVERY);
            (self.pinged + PING_EVERY)
                .min(self.heard + SILENCE_MAX)
                .min(tell.unwrap_or(Duration::MAX))
                .min(self.requests.held().unwrap_or(Duration::MAX))
                .min(self.talk.announce.unwrap_or(Duration::MAX))
        } else {
            self.opened + HANDSHAKE_MAX
        };
        turn.out.set_timer(conn, Some(due));
    }
}

fn misbehaviour(what: &str) -> CloseReason {
    CloseReason::Misbehaviour(what.to_owned())
}
