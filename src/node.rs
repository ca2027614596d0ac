//! The node: one exhaustive match over what the hub and the stages tell it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::Outlet;
use rockpool_net::hub::io::{Dispatch, Input};
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::time::Now;
use rockpool_store::figures::FigureRows;
use rockpool_store::handle::ChainStoreHandle;
use rockpool_store::limits::HEADER_AHEAD_MAX_S;
use rockpool_store::params::Params;
use rockpool_store::peers::PeerRows;
use rockpool_store::templates::TemplateLog;
use rockpool_workers::jobs::{Answer, Jobs, Stages, SubmitJob, WriteJob};

use crate::bitcoin::Nodes;
use crate::bitcoin::session::BitcoinNode;
use crate::blocks::Blocks;
use crate::config::Mode;
use crate::fetch::FetchLine;
use crate::http::reply::Reply;
use crate::http::stream::Streams;
use crate::http::token::Secret;
use crate::http::{Desk, Pages, facts, json};
use crate::journal::{Journal, ended};
use crate::limits::STOP_MAX;
use crate::miners::Miners;
use crate::miners::pool::PoolLine;
use crate::peer::Peers;
use crate::peer::gate::bans::Bans;
use crate::peer::gate::{BANNED, Gate};
use crate::peer::session::Peer;
use crate::portfolio::mined::MinedLine;
use crate::session::{Session, Sessions};
use crate::status::{Counters, Listen, Status, Tip};
use crate::stratum::session::Miner;
use crate::stratum::{FRIENDLY, Server};
use crate::templates::Templates;
use crate::turn::Turn;
use crate::web::Web;

/// What the node is told at start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The share chain's parameters; the magic of messages is among them.
    pub params: &'static Params,
    /// Whom its miners' blocks pay.
    pub mode: Mode,
    /// Peers to dial, and to dial again for ever.
    pub peers: Vec<SocketAddr>,
    /// Peers that may have dialled us at once (`--max-peers`); the listener lets a few more in, who push others out or leave again.
    pub inbound_max: usize,
    /// Nodes of Bitcoin's own network to dial, and to dial again for ever.
    pub bitcoin_peers: Vec<SocketAddr>,
    /// Serve miners without a peer (default in demo, regtest and standalone).
    pub alone: bool,
    /// Where the listeners are bound, for `status`.
    pub listen: Listen,
    /// What it signs tokens with.
    pub secret: Secret,
    /// Whether there is a stage `upstream`, which keeps portfolios.
    pub portfolios: bool,
}

/// Why the node stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// A signal, or the end of a demo: exit code 0.
    Asked,
    /// Bitcoin's side is configured wrongly, which showed only after the start: exit code 2.
    Mistake(String),
    /// A stage died: exit code 3.
    Died {
        /// Its thread's name.
        stage: &'static str,
        /// Why.
        why: String,
    },
}

/// A node. The hub drives it, in the binary as in the simulator; `S` is where its jobs go.
pub struct Node<S> {
    pub(crate) config: NodeConfig,
    pub(crate) chain: ChainStoreHandle,
    stages: S,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) sessions: Sessions,
    pub(crate) peers: Peers,
    pub(crate) bitcoin: Nodes,
    pub(crate) server: Server,
    pub(crate) pages: Pages,
    pub(crate) streams: Streams,
    pub(crate) fetch: FetchLine,
    pub(crate) templates: Templates,
    /// The pool by its share chain.
    line: PoolLine,
    /// What was kept of miners, until the first input tells the time.
    figures: Option<FigureRows>,
    /// What the stage `upstream` is told of miners.
    pub(crate) mined: MinedLine,
    pub(crate) jobs: Jobs,
    pub(crate) counters: Arc<Counters>,
    /// The monotonic time of the first input.
    started: Option<Duration>,
    /// From the first input on.
    journal: Option<Journal>,
    /// What miners are to be told when the turn ends.
    pub(crate) news: News,
    /// When miners were last told of something, all at once.
    pub(crate) told_miners: Duration,
    pub(crate) blocks: Blocks,
    pub(crate) bitcoin_down: Option<String>,
    stopping: Option<(Stopping, Duration)>,
    finished: bool,
}

/// Why miners get new jobs at the end of a turn.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// A template: whether what they had is worthless.
    pub template: Option<bool>,
    /// Another confirmed tip.
    pub tip: bool,
}

impl<S: Stages> Node<S> {
    /// A node over this chain. Its generator draws nonces, salts and extranonces.
    pub fn new(config: NodeConfig, chain: ChainStoreHandle, stages: S, mut rng: ChaCha12Rng) -> Node<S> {
        let mut pages = Pages::new(config.params);
        pages.remember(chain.view.payouts());
        // Nothing depends on these rows: without them the node goes on with new ones.
        let log = chain.store.template_log().unwrap_or_else(|error| {
            log::warn!("our last works' transactions cannot be read, so peers are not shown them: {error}");
            TemplateLog::default()
        });
        let mut server = Server::new(rng.next_u32());
        server.boards.mode = config.mode;
        // Without these rows nothing is known of blocks that were found before; mining goes on all the same.
        let opened = Blocks::open(&chain.store, chain.view.bitcoin());
        let (blocks, submit) = opened.unwrap_or_else(|error| {
            log::error!("blocks found before cannot be read and are not handed in again: {error}; rockpool check tells more");
            <(Blocks, Vec<SubmitJob>)>::default()
        });
        // Without these rows peers are looked for anew, from those of the configuration on.
        let rows = chain.store.peer_rows().unwrap_or_else(|error| {
            log::error!("the address book and bans cannot be read and begin anew: {error}; rockpool check tells more");
            PeerRows::default()
        });
        if !rows.bad.is_empty() {
            log::error!("{} rows of peers do not decode or are too many; they are deleted", rows.bad.len());
        }
        // Without these rows miners' figures begin anew.
        let figures = chain.store.figure_rows().unwrap_or_else(|error| {
            log::error!("figures of miners: {error}");
            FigureRows::default()
        });
        if !figures.bad.is_empty() {
            log::error!("{} rows of miners' figures do not decode or are too many; they are deleted", figures.bad.len());
        }
        // All of the chain is walked once, before anything waits for it.
        let mut line = PoolLine::default();
        line.follow(&chain.view);
        // A stream of its own: what else is drawn stays what it was.
        let mut keys = rng.clone();
        keys.set_stream(1);
        let gate = Gate::new(Bans::new(&rows.bans), keys.next_u64());
        Node {
            peers: Peers::new(&config, &rows, gate, &mut rng),
            bitcoin: Nodes::new(&config.bitcoin_peers),
            server,
            config,
            chain,
            stages,
            rng,
            sessions: Sessions::default(),
            pages,
            streams: Streams::default(),
            fetch: FetchLine::default(),
            templates: Templates::new(log),
            line,
            figures: Some(figures),
            mined: MinedLine::default(),
            jobs: Jobs { submit, ..Jobs::default() },
            counters: Arc::default(),
            started: None,
            journal: None,
            news: News::default(),
            told_miners: Duration::ZERO,
            blocks,
            bitcoin_down: None,
            stopping: None,
            finished: false,
        }
    }

    /// The stages, for who drives them inline.
    pub fn stages_mut(&mut self) -> &mut S {
        &mut self.stages
    }

    /// Ends the node's use of the stages, so that they can be stopped in order.
    pub fn into_stages(self) -> S {
        self.stages
    }

    /// The chain as this node sees it.
    pub fn chain(&self) -> &ChainStoreHandle {
        &self.chain
    }

    /// Counters of judgement.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Why the node stops, once it does.
    pub fn stopping(&self) -> Option<&Stopping> {
        self.stopping.as_ref().map(|(why, _)| why)
    }

    /// Stopping, and all tickets are home or have had their time: no further turn is needed.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Asks the node to stop in order.
    pub fn stop(&mut self, now: Now, why: Stopping) {
        if self.stopping.is_none() {
            self.stopping = Some((why, now.mono));
            self.peers.kept.hurry();
            self.server.miners.hurry();
        }
    }

    /// The node at this moment.
    pub fn status(&self, now: Now) -> Status {
        let tip = self.chain.view.confirmed_tip();
        let template = self.server.boards.template();
        Status {
            network: self.config.params.name,
            mode: self.config.mode,
            credited: (self.config.mode != Mode::Chain).then(|| Arc::clone(&self.server.boards.credited)),
            magic: self.config.params.magic,
            version: env!("CARGO_PKG_VERSION"),
            tip: Tip { id: tip.id, height: tip.height, score: tip.score },
            candidate_height: self.chain.view.tip().height,
            claimed_height: self.peers.ahead,
            sync: self.peers.progress(&self.chain.view, now.mono),
            peers: self.peers.up,
            book: self.peers.book.sizes(),
            miners: self.sessions.miners(),
            accepted: self.counters.shares_accepted.get(),
            rejected: self.counters.shares_rejected.get(),
            bitcoin: template.map(|template| (ShareId(template.prev), template.height.saturating_sub(1))),
            bitcoin_down: self.bitcoin_down.clone(),
            bitcoin_peers: self.sessions.bitcoin().filter_map(|node| node.status(now.mono)).collect(),
            disk_full: self.server.disk_full,
            serving: self.server.serving,
            blocks: self.blocks.shown(),
            listen: self.config.listen,
            uptime: now.mono.saturating_sub(self.started.unwrap_or(now.mono)),
            queues: self.stages.queues(),
            services: self.stages.services(),
        }
    }

    /// The parts that a session's dispatch works on.
    pub(crate) fn parts<'a>(&'a mut self, now: Now, out: &'a mut Outlet) -> Parts<'a> {
        let turn = Turn {
            now,
            out,
            jobs: &mut self.jobs,
            fetch: &mut self.fetch,
            templates: &self.templates,
            blocks: &mut self.blocks,
            chain: &mut self.chain,
            rng: &mut self.rng,
            config: &self.config,
            counters: &self.counters,
        };
        let (sessions, peers, bitcoin) = (&mut self.sessions, &mut self.peers, &mut self.bitcoin);
        let (pages, streams) = (&mut self.pages, &mut self.streams);
        Parts { sessions, peers, bitcoin, server: &mut self.server, pages, streams, line: &self.line, turn }
    }

    fn opened(&mut self, now: Now, conn: ConnId, lane: Lane, addr: SocketAddr, outbound: bool, out: &mut Outlet) {
        if lane == Lane::Peer && self.peers.gate.bans.is_banned(addr.ip(), now.unix()) {
            return out.close(conn, BANNED);
        }
        let Parts { sessions, peers, bitcoin, server, mut turn, .. } = self.parts(now, out);
        let session = match lane {
            Lane::Peer => Session::Peer(Box::new(Peer::open(conn, addr, outbound, peers, &mut turn))),
            Lane::Stratum => Session::Miner(Miner::open(conn, addr, server, &mut turn)),
            Lane::Http => Session::Web(Web::open(conn, addr, &mut turn)),
            Lane::Bitcoin => Session::Bitcoin(BitcoinNode::open(conn, addr, bitcoin, &mut turn)),
        };
        sessions.insert(conn, session);
    }

    fn frame(&mut self, now: Now, conn: ConnId, frame: Frame, out: &mut Outlet) {
        let Parts { sessions, peers, bitcoin, server, mut turn, .. } = self.parts(now, out);
        match (sessions.get_mut(conn), frame) {
            (Some(Session::Peer(peer)), Frame::Message { command, payload, checksum }) => {
                peer.on_message(conn, command, (&payload, checksum), peers, &mut turn);
                self.tell_blocks(now, out);
                self.pull_blocks(now, out);
            }
            (Some(Session::Bitcoin(node)), Frame::Message { command, payload, .. }) => {
                node.on_message(conn, command, &payload, bitcoin, &mut turn);
            }
            (Some(Session::Miner(miner)), Frame::Line(line)) => miner.on_line(conn, &line, server, &mut turn),
            (Some(Session::Miner(_)), Frame::Http(_) | Frame::BadHttp(_)) => {
                turn.out.send_bytes(conn, FRIENDLY.as_bytes().to_vec());
                turn.out.close_after_flush(conn, CloseReason::Done("HTTP on the Stratum port"));
            }
            (Some(Session::Web(_)), Frame::Http(request)) => {
                self.web(now, conn, out, |web, desk, turn| web.on_request(conn, Ok(request), desk, turn))
            }
            (Some(Session::Web(_)), Frame::BadHttp(bad)) => {
                self.web(now, conn, out, |web, desk, turn| web.on_request(conn, Err(bad), desk, turn))
            }
            // A listener's framer cuts nothing else.
            (Some(_), _) => turn.out.close(conn, CloseReason::Misbehaviour("a frame of another protocol".to_owned())),
            (None, _) => {}
        }
    }

    /// Found blocks go to Bitcoin's own network first, and then to peers.
    pub(crate) fn hand_blocks(&mut self, now: Now, out: &mut Outlet) {
        for hash in self.blocks.take_fresh() {
            let Parts { sessions, mut turn, .. } = self.parts(now, out);
            let handed = sessions.bitcoin_mut().filter_map(|(conn, node)| node.hand(conn, &hash, &mut turn).then_some(())).count();
            if handed > 0 {
                log::info!("block {hash}: {handed} Bitcoin {} told of it", if handed == 1 { "node is" } else { "nodes are" });
            }
        }
    }

    /// Found blocks go out before anything else. To how many peers each was told is noted where it is known.
    pub(crate) fn tell_blocks(&mut self, now: Now, out: &mut Outlet) {
        for block in std::mem::take(&mut self.peers.blocks) {
            let Parts { sessions, mut turn, .. } = self.parts(now, out);
            let told = sessions.peers_mut().map(|(conn, peer)| peer.push(conn, std::slice::from_ref(&block), &mut turn)).sum();
            self.blocks.told(&block.id, told);
        }
    }

    /// Sums up what miners do, once a second.
    fn look_at_miners(&mut self, now: Now) {
        if self.server.miners.is_due(now.mono) {
            let view = &self.chain.view;
            self.line.follow(view);
            let pool = (self.config.mode == Mode::Chain).then(|| self.line.shown_rate(view, now.unix(), self.peers.ahead.is_some()));
            self.server.miners.earliest = view.bitcoin().best().map_or(0, |best| best.time().saturating_sub(HEADER_AHEAD_MAX_S));
            self.server.miners.look(now, pool, self.sessions.miners());
        }
    }

    fn timer(&mut self, now: Now, conn: ConnId, out: &mut Outlet) {
        let Parts { sessions, peers, server, mut turn, .. } = self.parts(now, out);
        match sessions.get_mut(conn) {
            Some(Session::Peer(peer)) => peer.on_timer(conn, peers, &mut turn),
            Some(Session::Miner(miner)) => miner.on_timer(conn, server, &mut turn),
            Some(Session::Web(web)) => web.on_timer(conn, &mut turn),
            Some(Session::Bitcoin(node)) => node.on_timer(conn, &mut turn),
            None => {}
        }
    }

    fn room(&mut self, now: Now, conn: ConnId, out: &mut Outlet) {
        let Parts { sessions, mut turn, .. } = self.parts(now, out);
        match sessions.get_mut(conn) {
            Some(Session::Peer(peer)) => peer.on_room(conn, &mut turn),
            Some(Session::Bitcoin(node)) => node.on_room(conn, &mut turn),
            Some(Session::Web(_)) => self.web(now, conn, out, |web, desk, turn| web.serve(conn, desk, turn)),
            // Nothing waits for a miner.
            Some(Session::Miner(_)) | None => {}
        }
    }

    pub(crate) fn read(&mut self, now: Now, conn: ConnId, tag: u64, rows: Vec<Option<Vec<u8>>>, out: &mut Outlet) {
        let Parts { sessions, mut turn, .. } = self.parts(now, out);
        match sessions.get_mut(conn) {
            Some(Session::Peer(peer)) => peer.on_read(conn, tag, rows, &mut turn),
            Some(Session::Web(_)) => self.web(now, conn, out, |web, desk, turn| web.on_read(conn, tag, &rows, desk, turn)),
            Some(Session::Miner(_) | Session::Bitcoin(_)) | None => {}
        }
    }

    /// What the stage `upstream` answers to a request.
    pub(crate) fn told(&mut self, now: Now, conn: ConnId, tag: u64, reply: Reply, out: &mut Outlet) {
        if matches!(self.sessions.get_mut(conn), Some(Session::Web(_))) {
            self.web(now, conn, out, |web, desk, turn| web.on_told(conn, tag, reply, desk, turn));
        }
    }

    /// A browser's or a script's turn: its session is taken out meanwhile, since what it asks may be about all others.
    fn web(&mut self, now: Now, conn: ConnId, out: &mut Outlet, act: impl FnOnce(&mut Web, &mut Desk<'_>, &mut Turn<'_>)) {
        let Some(mut session) = self.sessions.remove(conn) else { return };
        // Gathered once a turn, however many ask.
        let status = self.pages.told.take().unwrap_or_else(|| self.status(now));
        let Parts { sessions, peers, server, pages, streams, line, mut turn, .. } = self.parts(now, out);
        if let Session::Web(web) = &mut *session {
            act(web, &mut Desk { pages, streams, sessions, peers, miners: &server.miners, line, status: &status }, &mut turn);
        }
        sessions.put_back(conn, session);
        self.pages.told = Some(status);
    }

    /// Event streams are told what has come about in this turn.
    fn stream(&mut self, now: Now, out: &mut Outlet) {
        if self.streams.is_empty() {
            return;
        }
        let mut news = self.streams.news(now.mono, &self.counters);
        if self.streams.looks(now.mono) {
            let mut status = self.status(now);
            let uptime = std::mem::take(&mut status.uptime);
            let Parts { streams, server, turn, .. } = self.parts(now, out);
            if streams.is_other(now.mono, json::Status::of(facts(&status, &server.miners, &turn)).render()) {
                status.uptime = uptime;
                news += &streams.status_event(&json::Status::of(facts(&status, &server.miners, &turn)).render());
            }
        }
        self.streams.send(news, out, &self.counters);
    }

    fn closed(&mut self, now: Now, conn: ConnId, why: &CloseReason, out: &mut Outlet) {
        self.streams.closed(conn, &self.counters);
        let Parts { sessions, peers, bitcoin, server, mut turn, .. } = self.parts(now, out);
        match sessions.remove(conn).map(|session| *session) {
            Some(Session::Peer(mut peer)) => {
                peer.on_closed(conn, why, peers, &mut turn);
                peers.on_closed(conn, why, &mut turn);
            }
            Some(Session::Miner(miner)) => {
                miner.on_closed(conn, why, server, &mut turn);
            }
            Some(Session::Web(mut web)) => {
                // An answered request is not worth a line.
                match why {
                    CloseReason::Remote | CloseReason::Done(_) => log::debug!("HTTP client {} left: {why}", web.addr),
                    why => ended("HTTP client", web.addr, why),
                }
                web.release(&mut turn);
            }
            Some(Session::Bitcoin(mut node)) => {
                node.on_closed(conn, why, bitcoin, &mut turn);
                bitcoin.on_closed(conn, why, &turn);
            }
            // A dial that failed never became a session.
            None => {
                log::debug!("connection {conn}: {why}");
                peers.on_closed(conn, why, &mut turn);
                bitcoin.on_closed(conn, why, &turn);
            }
        }
    }

    /// Whether a Bitcoin node was sent a block that nobody is known to have taken: one that is hung up on while it reads forgets the block.
    fn is_handing(&self) -> bool {
        let wanted = self.blocks.wanted(self.chain.view.bitcoin());
        !wanted.is_empty() && self.sessions.bitcoin().any(|node| node.was_sent(&wanted))
    }

    /// With the first input the node is there.
    fn begin(&mut self, now: Now, out: &Outlet) {
        self.started.get_or_insert(now.mono);
        if let Some(rows) = self.figures.take() {
            self.server.miners = Miners::open(rows, now);
        }
        self.journal.get_or_insert_with(|| Journal::open(out.events()));
    }
}

/// The parts of a node, borrowed apart.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub peers: &'a mut Peers,
    pub bitcoin: &'a mut Nodes,
    pub server: &'a mut Server,
    pub pages: &'a mut Pages,
    pub line: &'a PoolLine,
    pub streams: &'a mut Streams,
    pub turn: Turn<'a>,
}

impl<S: Stages> Dispatch for Node<S> {
    type Answer = Answer;

    fn on(&mut self, now: Now, input: Input<Answer>, out: &mut Outlet) {
        self.begin(now, out);
        match input {
            Input::Opened { conn, lane, addr, listener } => self.opened(now, conn, lane, addr, listener.is_none(), out),
            Input::Frame { conn, frame } => self.frame(now, conn, frame, out),
            Input::Timer { conn } => self.timer(now, conn, out),
            Input::Room { conn } => self.room(now, conn, out),
            // What is due is looked at when every turn ends.
            Input::Wake => {}
            Input::Closed { conn, why } => self.closed(now, conn, &why, out),
            Input::Answer(answer) => self.answer(now, answer, out),
        }
    }

    fn turn_ends(&mut self, now: Now, out: &mut Outlet) {
        self.begin(now, out);
        if let Some((_, since)) = &self.stopping {
            let deadline = *since + STOP_MAX;
            self.wind_down(now, deadline, out);
        } else {
            self.look_around(now, out);
        }
        self.hand_blocks(now, out);
        self.jobs.fetch = self.fetch.take();
        self.jobs.write.extend(self.templates.line.take().map(|ops| WriteJob { ops, ..WriteJob::default() }));
        self.jobs.write.extend(self.blocks.take());
        self.look_at_miners(now);
        self.jobs.write.extend(self.server.miners.take(now));
        self.peers.kept.soon(self.peers.gate.bans.take());
        self.jobs.write.extend(self.peers.kept.take(now.mono, &mut self.peers.book));
        if let Some((_, since)) = &self.stopping {
            // What is known of found blocks is given to the writer before the end.
            let clean = self.blocks.is_clean() && self.peers.kept.is_clean() && self.server.miners.is_clean();
            self.finished = now.mono >= *since + STOP_MAX || (out.tickets_out() == 0 && clean && !self.is_handing());
        }
        self.pages.turn_ends();
        self.stages.give(&mut self.jobs);
        if let Some(journal) = &self.journal {
            journal.write(&self.counters);
        }
        self.stream(now, out);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::limits::{BLOCKS_SHOWN, EARLY_FATES_MAX, HTTP_MAX};
    use crate::status::Serving;
    use crate::stratum::request::login;
    use crate::testing::{ADDRESS, Grower, HTTP, PEER, Recorder, STRATUM, World, block_found, exchange, mined, regtest};
    use rockpool_net::events::Event;
    use rockpool_net::wire::share::{Class, Layout, Script};
    use rockpool_store::kv::MemKv;
    use rockpool_store::rules::target::target_bytes;
    use rockpool_workers::embedded::EmbeddedChain;
    use rockpool_workers::jobs::{Fate, Reads};
    use rockpool_workers::work::meets;
    use serde_json::Value;

    fn get(world: &mut World<Recorder>, conn: ConnId, path: &str) -> (String, Value) {
        world.feed(conn, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        world.turns();
        answer(world, conn)
    }

    fn answer(world: &mut World<Recorder>, conn: ConnId) -> (String, Value) {
        let text = String::from_utf8(world.taken(conn)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        (head.to_owned(), serde_json::from_str(body).unwrap_or_default())
    }

    #[test]
    fn http_is_answered_and_left_open_for_more() {
        let mut world = World::recorded(&[], true);
        let conn = world.connect(HTTP);
        let (head, status) = get(&mut world, conn, "/api/v1/status");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!((&status["network"], &status["tip"]["height"], &status["peers"]), (&"regtest".into(), &0.into(), &0.into()));
        let (head, _) = get(&mut world, conn, "/nothing");
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        assert_eq!(world.hub.outlet().tickets_out(), 0);
        world.pass(HTTP_MAX);
        assert!(!world.is_open(conn));
    }

    #[test]
    fn a_cold_share_is_read_before_the_next_request_is_answered() {
        let mut world = World::recorded(&[], true);
        let shares = Grower::new().grow_many(2, Script::P2wpkh([1; 20]));
        world.confirm_without_bytes(&shares);
        let conn = world.connect(HTTP);
        let path = format!("/api/v1/share/{}", shares[1].id());
        world.feed(conn, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        world.turns();
        assert!(world.taken(conn).is_empty(), "answers keep the order of their requests");
        let read = world.node.stages_mut().jobs.read.remove(0);
        assert_eq!(read.rows, Reads::Shares(vec![(2, shares[1].id())]));
        world.mail(Answer::Read { conn, tag: read.tag, rows: vec![Some(shares[1].encode())] }, vec![read.ticket]);
        let text = String::from_utf8(world.taken(conn)).unwrap();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
        assert!(text.contains(&shares[1].id().to_string()));
        assert_eq!(world.hub.outlet().tickets_out(), 0);
    }

    #[test]
    fn a_client_that_left_takes_no_ticket_along() {
        let mut world = World::recorded(&[], true);
        let shares = Grower::new().grow_many(1, Script::P2wpkh([1; 20]));
        world.confirm_without_bytes(&shares);
        let conn = world.connect(HTTP);
        let request = format!("GET /api/v1/share/{} HTTP/1.1\r\nHost: x\r\n\r\n", shares[0].id());
        world.feed(conn, request.repeat(3).as_bytes());
        world.turns();
        let read = world.node.stages_mut().jobs.read.remove(0);
        world.hang_up(conn);
        assert_eq!(world.hub.outlet().tickets_out(), 1, "the reader has one");
        world.mail(Answer::Read { conn, tag: read.tag, rows: vec![None] }, vec![read.ticket]);
        assert_eq!(world.hub.outlet().tickets_out(), 0);
    }

    #[test]
    fn a_stop_waits_for_tickets_and_no_longer_than_it_may() {
        let mut world = World::recorded(&[], true);
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        let conn = world.connect(STRATUM);
        for line in [
            r#"{"id":1,"method":"mining.subscribe"}"#.to_owned(),
            format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#),
            r#"{"id":3,"method":"mining.submit","params":["w","1","0000000000000000","6553f100","00000000"]}"#.to_owned(),
        ] {
            world.line(conn, &line);
        }
        let job = world.node.stages_mut().jobs.emission.remove(0);
        world.mail(Answer::Stop, Vec::new());
        assert_eq!((world.node.stopping(), world.node.finished()), (Some(&Stopping::Asked), false));
        world.taken(conn);
        world.feed(conn, b"{\"id\":4,\"method\":\"mining.ping\"}\n");
        world.turns();
        assert!(world.taken(conn).is_empty(), "nothing new is read");
        world.mail(Answer::Verdict { claim: job.claim, result: Ok(()) }, vec![job.ticket]);
        assert!(world.node.finished() && !world.taken(conn).is_empty(), "what was under way is answered");

        let mut world = World::recorded(&[], true);
        world.mail(Answer::Died { stage: "organiser", why: "x".into() }, Vec::new());
        assert!(matches!(world.node.stopping(), Some(Stopping::Died { stage: "organiser", .. })));
        assert!(world.node.finished());
    }

    #[test]
    fn a_stop_ends_even_if_a_ticket_never_comes_home() {
        let mut world = World::recorded(&[], true);
        let shares = Grower::new().grow_many(1, Script::P2wpkh([1; 20]));
        world.confirm_without_bytes(&shares);
        let conn = world.connect(HTTP);
        world.feed(conn, format!("GET /api/v1/share/{} HTTP/1.1\r\nHost: x\r\n\r\n", shares[0].id()).as_bytes());
        world.turns();
        world.mail(Answer::Mistake("wrong network".into()), Vec::new());
        assert!(!world.node.finished());
        world.pass(STOP_MAX);
        assert!(world.node.finished());
        assert_eq!(world.node.stopping(), Some(&Stopping::Mistake("wrong network".into())));
    }

    #[test]
    fn miners_are_served_when_a_peer_is_there_and_nothing_better_is_claimed() {
        let mut world = World::recorded(&[], false);
        let serving = |world: &World<Recorder>| world.node.status(world.now()).serving;
        assert_eq!(serving(&world), Serving::NoTemplate);
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        assert_eq!(serving(&world), Serving::NoPeer);
        let miner = world.connect(STRATUM);
        world.line(miner, r#"{"id":1,"method":"mining.subscribe"}"#);
        world.line(miner, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
        world.taken(miner);
        let peer = world.connect(PEER);
        crate::peer::tests::shake_hands(&mut world, peer);
        assert_eq!(serving(&world), Serving::Yes);
        assert!(world.lines(miner).iter().any(|line| line["method"] == "mining.notify"), "it begins by itself");
        crate::peer::tests::claim(&mut world, peer, 70);
        assert_eq!(serving(&world), Serving::Behind { height: 70 });
        let late = world.connect(STRATUM);
        world.line(late, r#"{"id":1,"method":"mining.subscribe"}"#);
        world.line(late, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
        assert!(!world.lines(late).iter().any(|line| line["method"] == "mining.notify"));
        world.template(&EmbeddedChain::new(regtest(), None), 2);
        assert!(world.lines(miner).iter().any(|line| line["method"] == "mining.notify"), "who is at work is kept at it");
        world.hang_up(peer);
        assert_eq!(serving(&world), Serving::NoPeer);
    }

    #[test]
    fn an_outage_of_bitcoind_begins_once_and_ends_once() {
        let mut world = World::recorded(&[], true);
        let told = |world: &mut World<Recorder>| -> Vec<bool> {
            let outage = |event| if let Event::BitcoinDown(why) = event { Some(why.is_some()) } else { None };
            world.published().into_iter().filter_map(outage).collect()
        };
        world.mail(Answer::BitcoinDown(Some("gone".into())), Vec::new());
        // The empty block's template overtakes the word that bitcoind is back.
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        world.mail(Answer::BitcoinDown(None), Vec::new());
        assert_eq!(told(&mut world), [true, false]);
        world.mail(Answer::BitcoinDown(Some("gone".into())), Vec::new());
        world.mail(Answer::BitcoinDown(None), Vec::new());
        assert_eq!(told(&mut world), [true, false]);
    }

    #[test]
    fn found_blocks_and_their_fates_are_kept_and_the_newest_shown() {
        let mut world = World::recorded(&[], true);
        let (conn, hash) = (world.connect(STRATUM), |n: u8| ShareId([n; 32]));
        for n in 0..=BLOCKS_SHOWN as u8 {
            world.mail(block_found(conn, hash(n), u32::from(n), None), Vec::new());
        }
        let fate = |n: u8| Answer::Fate { hash: hash(n), height: u32::from(n), node: "here".into(), fate: Fate::Accepted };
        world.mail(fate(3), Vec::new());
        let blocks = world.node.status(world.now()).blocks;
        assert_eq!((blocks.len(), blocks[0].hash), (BLOCKS_SHOWN, hash(1)));
        assert_eq!(blocks[2].fates, [("here".to_owned(), Fate::Accepted)]);
        // A fate may overtake the word of its block: one entry all the same.
        world.mail(fate(99), Vec::new());
        (100..100 + EARLY_FATES_MAX as u8 - 1).for_each(|n| world.mail(fate(n), Vec::new()));
        world.mail(block_found(conn, hash(99), 99, None), Vec::new());
        let blocks = world.node.status(world.now()).blocks;
        assert_eq!((blocks.len(), blocks.last().unwrap().hash), (BLOCKS_SHOWN, hash(99)));
        assert_eq!((blocks[0].hash, blocks.last().unwrap().fates.len()), (hash(2), 1));
        assert_eq!(world.published().iter().filter(|event| matches!(event, Event::BlockFound { miner: Some(_), .. })).count(), 18);
        // Words on blocks that nobody ever hears of push each other out.
        (200..200 + EARLY_FATES_MAX as u8 + 1).for_each(|n| world.mail(fate(n), Vec::new()));
        world.mail(block_found(conn, hash(200), 200, None), Vec::new());
        assert_eq!(world.node.status(world.now()).blocks.last().unwrap().fates.len(), 0);
    }

    /// What was found and taken by nobody before the node was killed is handed in again at the next start; what was taken is not.
    #[test]
    fn a_restart_hands_in_what_no_bitcoind_has_taken() {
        let kv = Arc::new(MemKv::new());
        let mut world = World::whole_on(&kv, regtest(), &[], 1);
        let (conn, hash) = (world.connect(STRATUM), |n: u8| ShareId([n; 32]));
        for n in 1..=4 {
            world.mail(block_found(conn, hash(n), u32::from(n), None), Vec::new());
        }
        let say = |n: u8, fate| Answer::Fate { hash: hash(n), height: u32::from(n), node: "here".into(), fate };
        world.mail(say(2, Fate::Accepted), Vec::new());
        world.mail(say(3, Fate::Unreachable("away".into())), Vec::new());
        world.settle();
        assert!(kv.unsynced() == 0 && world.node.stages_mut().submitted.is_empty());
        let shown = world.node.status(world.now()).blocks;
        drop(world);
        kv.crash(0);
        let mut world = World::whole_on(&kv, regtest(), &[], 2);
        world.settle();
        let again: Vec<_> = world.node.stages_mut().submitted.drain(..).map(|job| (job.hash, job.height, job.block.to_vec())).collect();
        assert_eq!(again, [1, 3, 4].map(|n: u8| (hash(n), u32::from(n), vec![n; 100])));
        assert_eq!(world.node.status(world.now()).blocks, shown);
        world.mail(say(1, Fate::Accepted), Vec::new());
        world.mail(say(3, Fate::Accepted), Vec::new());
        world.mail(say(4, Fate::Refused("high-hash".into())), Vec::new());
        world.settle();
        let mut world = World::whole_on(&kv, regtest(), &[], 3);
        world.settle();
        let again: Vec<_> = world.node.stages_mut().submitted.drain(..).map(|job| job.hash).collect();
        assert_eq!(again, [hash(4)], "a refusal is no end: a bitcoind that is behind refuses what another takes");
    }

    /// The whole way: a line at one node becomes a confirmed share, a block and a `true`, and a share of the other node.
    #[test]
    fn a_miners_share_travels_the_whole_house() {
        let mut a = World::whole(&[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
        let mut b = World::whole(&[], 2);
        a.settle();
        let (on_a, on_b) = (a.pick_up(), b.connect(PEER));
        exchange(&mut a, on_a, &mut b, on_b);
        a.template(&EmbeddedChain::new(regtest(), None), 1);
        let conn = a.connect(STRATUM);
        a.line(conn, r#"{"id":1,"method":"mining.subscribe"}"#);
        a.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
        let lines = a.lines(conn);
        let job = &lines.last().unwrap()["params"];
        let extranonce1 = u32::from_str_radix(lines[0]["result"][1].as_str().unwrap(), 16).unwrap();
        let mut extranonce = [0; 12];
        extranonce[..4].copy_from_slice(&extranonce1.to_be_bytes());
        let script = login(ADDRESS, regtest().network).unwrap().0;
        let now = a.now();
        let board = a.node.server.boards.board(regtest(), &a.node.chain.view, (Class::N12, Layout::Tail), &script, now).unwrap().unwrap();
        let board = Arc::clone(&board.work);
        let share = mined(&board, &script, extranonce, |hash| meets(hash, &target_bytes(board.draft.bits)));
        let (nonce, ntime) = (share.header_nonce(), share.header_time());
        let line =
            format!(r#"{{"id":3,"method":"mining.submit","params":["w",{},"0000000000000000","{ntime:08x}","{nonce:08x}"]}}"#, job[0]);
        a.line(conn, &line);
        exchange(&mut a, on_a, &mut b, on_b);
        assert!(a.lines(conn).iter().any(|line| line["id"] == 3 && line["result"] == true));
        for world in [&a, &b] {
            assert_eq!(world.node.chain().view.confirmed_tip().id, share.id());
        }
        assert_eq!(a.node.stages_mut().found, 1, "on regtest every share is a block");
        let own = |events: Vec<Event>| {
            events.into_iter().find_map(|event| if let Event::ShareAccepted { own, .. } = event { Some(own) } else { None })
        };
        assert_eq!((own(a.published()), own(b.published())), (Some(true), Some(false)));
        assert_eq!((a.node.pages.own.contains(&share.id()), b.node.pages.own.contains(&share.id())), (true, false));
        assert_eq!((a.hub.outlet().tickets_out(), b.hub.outlet().tickets_out()), (0, 0));
    }
}
