//! A miner's connection: what it said, what it was given, and what its next line means.

mod handshake;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::events::Event;
use rockpool_net::id::ConnId;
use rockpool_net::wire::share::Script;
use rockpool_workers::jobs::{Claim, EmissionJob, SubmitRefusal};
use rockpool_workers::work::{Kind, VERSION_MASK};
use serde_json::value::RawValue;

use crate::config::Mode;
use crate::journal::ended;
use crate::limits::{
    AUTHORIZE_MAX, DIFFICULTY_START, FIRST_LINE_MAX, GARBAGE_LINES_MAX, JOBS_PAST_MAX, MINER_IDLE_MAX, NOTIFY_EVERY, STALE_EXCUSED,
    STUCK_SUBMITS, TRANSACTIONS_BYTES_MAX,
};
use crate::miners::{Accepted, WorkerId};
use crate::status::Serving;
use crate::stratum::Server;
use crate::stratum::answers::{GARBAGE, NOT_SUBSCRIBED, STALE, UNAUTHORISED, UNKNOWN_METHOD, push, refusal, refuse, reply, show, waiting};
use crate::stratum::difficulty::{rounded, target_of};
use crate::stratum::firmware::Form;
use crate::stratum::flood::Flood;
use crate::stratum::jobs::{Board, Job, hex};
use crate::stratum::request::{EXTRANONCE1_BYTES, EXTRANONCE2_BYTES, Line, Request, Submit, rolled, worker};
use crate::stratum::resume::Session;
use crate::stratum::seen::Seen;
use crate::stratum::vardiff::Vardiff;
use crate::turn::Turn;

/// Who is paid on a connection.
#[derive(Clone, Debug)]
struct Login {
    user: String,
    /// Hints.
    password: String,
    script: Arc<Script>,
}

impl Login {
    /// The worker's name.
    fn worker(&self) -> &str {
        worker(&self.user)
    }
}

/// Entries and bytes that are remembered of a miner.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Held {
    pub jobs: usize,
    pub seen: usize,
    pub refused: usize,
    pub agent: usize,
    pub user: usize,
    pub password: usize,
}

// An idle miner may take two kibibytes, its connection and its jobs among them.
const _: () = assert!(size_of::<Miner>() <= 512);

/// A miner.
#[derive(Debug)]
pub struct Miner {
    /// The other side.
    pub addr: SocketAddr,
    opened: Duration,
    /// When its last line came; `None` before the first.
    heard: Option<Duration>,
    extranonce1: [u8; EXTRANONCE1_BYTES],
    /// Its user agent, once it has subscribed.
    agent: Option<String>,
    login: Option<Login>,
    /// The worker that it logged in as last.
    worker: WorkerId,
    /// It logged in as several: each submit tells whose it is.
    many: bool,
    mask: u32,
    /// It is to be told of its mask.
    mask_due: bool,
    vardiff: Vardiff,
    /// The difficulty it was last told.
    told: Option<f64>,
    /// Its jobs that are still taken, newest last.
    jobs: VecDeque<Job>,
    /// When the newest was sent.
    notified: Duration,
    /// Jobs of the session that it takes up again, until it has work.
    resumed: VecDeque<Job>,
    seen: Seen,
    /// Addresses that it may not mine for on this connection.
    refused: Vec<String>,
    /// Lines in a row that were no JSON object.
    garbage: u32,
    /// It was told once what it waits for.
    told_to_wait: bool,
    /// It was told once, as was the log, that it makes no shares.
    told_lottery: bool,
    /// Whoever looks at it was told once why it was not authorised.
    told_refusal: bool,
    /// Its invalid submits.
    flood: Flood,
    /// Submits since its last good one that were stale or duplicates.
    stuck: u32,
    /// Until then stale ones are no sign of that: it may not have heard yet that its work is worth nothing.
    excused: Duration,
    /// It takes another extranonce1 while it works.
    extranonce: bool,
}

impl Miner {
    /// A connection that stands. Its extranonce1 is its own among all that are here.
    pub fn open(conn: ConnId, addr: SocketAddr, server: &mut Server, turn: &mut Turn<'_>) -> Miner {
        let miner = Miner::new(turn.now.mono, addr, server.extranonce1());
        miner.set_timer(conn, turn);
        if server.bans.contains(turn.now.mono, addr) {
            turn.out.close(conn, CloseReason::Done("its address is kept out after a flood of invalid shares"));
        }
        miner
    }

    /// One that has said nothing yet.
    pub fn new(now: Duration, addr: SocketAddr, extranonce1: [u8; EXTRANONCE1_BYTES]) -> Miner {
        Miner {
            addr,
            opened: now,
            heard: None,
            extranonce1,
            agent: None,
            login: None,
            worker: WorkerId::default(),
            many: false,
            mask: VERSION_MASK,
            mask_due: false,
            vardiff: Vardiff::new(now, DIFFICULTY_START),
            told: None,
            jobs: VecDeque::new(),
            notified: now,
            resumed: VecDeque::new(),
            seen: Seen::default(),
            refused: Vec::new(),
            garbage: 0,
            told_to_wait: false,
            told_lottery: false,
            told_refusal: false,
            flood: Flood::default(),
            stuck: 0,
            excused: Duration::ZERO,
            extranonce: false,
        }
    }

    /// It has gone.
    pub fn on_closed(mut self, conn: ConnId, why: &CloseReason, server: &mut Server, turn: &mut Turn<'_>) {
        let (now, addr, login, agent) = (turn.now.mono, self.addr, self.login.take(), self.agent.take());
        server.miners.leave(self.worker);
        if self.flood.is_one() {
            server.bans.add(now, addr);
        } else if !self.jobs.is_empty() {
            let Miner { extranonce1, vardiff, jobs, seen, .. } = self;
            server.resumable.keep(now, addr.ip(), Session { extranonce1, vardiff, jobs, seen });
        }
        if let Some(login) = login {
            let (worker, agent) = (worker(&login.user).to_owned(), agent.unwrap_or_default());
            turn.out.publish(Event::MinerDown { conn, addr, worker, agent, why: why.clone() });
        } else {
            ended("miner", addr, why);
        }
    }

    /// Whether it can be given jobs.
    fn ready(&self) -> bool {
        self.login.is_some() && self.agent.is_some()
    }

    /// The name that it has logged in with.
    pub fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|login| &login.user[..])
    }

    /// The worker that it logged in as last.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Whom it mines for.
    pub fn script(&self) -> Option<&Script> {
        self.login.as_ref().map(|login| &*login.script)
    }

    /// Its worker's name.
    pub fn name(&self) -> &str {
        self.login.as_ref().map_or("", Login::worker)
    }

    /// What it said that it is, once it has subscribed.
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The difficulty that it works at.
    pub fn difficulty(&self) -> Option<f64> {
        self.jobs.back().map(|job| job.difficulty)
    }

    /// When its connection came to be.
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// Whether it has authorised.
    pub fn authorised(&self) -> bool {
        self.login.is_some()
    }

    /// A line came. Its ticket is taken only if it makes a job for a stage.
    pub fn on_line(&mut self, conn: ConnId, line: &[u8], server: &mut Server, turn: &mut Turn<'_>) {
        self.heard = Some(turn.now.mono);
        // Worker names come in whatever the miner's owner typed them in; no reason to drop it.
        let line = String::from_utf8_lossy(line);
        let Some(line) = Line::of(&line) else { return self.garbage(conn, turn) };
        self.garbage = 0;
        let id = line.id.map_or("null", RawValue::get);
        match line.request() {
            Request::Configure(asked) => self.configure(conn, id, &asked, server, turn),
            Request::Subscribe { agent, session } => self.subscribe(conn, id, agent, session, server, turn),
            Request::Authorize { user, password } => self.authorize(conn, id, user, &password, server, turn),
            // It only puts deadlines off, which the timer finds when it is due.
            Request::Submit(submit) => return self.submit(conn, &line, submit, server, turn),
            Request::SuggestDifficulty(difficulty) => {
                reply(conn, turn, id, "true");
                if let Some(difficulty) = difficulty {
                    self.vardiff.suggest(turn.now.mono, difficulty);
                    self.follow_vardiff(conn, server, turn);
                }
            }
            Request::ExtranonceSubscribe => {
                self.extranonce = true;
                reply(conn, turn, id, "true");
            }
            Request::Ping => reply(conn, turn, id, "\"pong\""),
            Request::GetTransactions(job) => self.get_transactions(conn, id, job, turn),
            Request::Response => {}
            Request::GetVersion => reply(conn, turn, id, concat!("\"Rockpool/", env!("CARGO_PKG_VERSION"), "\"")),
            Request::Unknown => refuse(conn, turn, id, UNKNOWN_METHOD),
        }
        self.set_timer(conn, turn);
    }

    /// Its timer is due.
    pub fn on_timer(&mut self, conn: ConnId, server: &mut Server, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let late = match self.heard {
            None if now >= self.opened + FIRST_LINE_MAX => Some("no line"),
            _ if !self.ready() && now >= self.opened + AUTHORIZE_MAX => Some("not subscribed and authorised"),
            Some(heard) if now >= heard + MINER_IDLE_MAX => Some("idle miner"),
            _ => None,
        };
        if let Some(what) = late {
            turn.out.close(conn, CloseReason::Timeout(what));
            return;
        }
        if let Some(job) = self.jobs.back() {
            let changed = now >= self.vardiff.due() && self.vardiff.tick(now, job.difficulty);
            if changed || now >= self.notified + NOTIFY_EVERY {
                self.issue(conn, false, server, turn);
            }
        }
        self.set_timer(conn, turn);
    }

    /// What became of a submit of its.
    pub fn on_verdict(&mut self, claim: &Claim, result: Result<(), SubmitRefusal>, server: &mut Server, turn: &mut Turn<'_>) {
        match result {
            Ok(()) => {
                turn.counters.shares_accepted.add(1);
                self.flood.good();
                self.stuck = 0;
                self.count(claim, server, turn);
                reply(claim.conn, turn, &claim.request, "true");
                if self.vardiff.accepted(turn.now.mono, claim.difficulty) {
                    self.follow_vardiff(claim.conn, server, turn);
                }
            }
            Err(refusal) => self.reject(claim.conn, &claim.request, WorkerId(claim.worker), refusal, server, turn),
        }
        self.set_timer(claim.conn, turn);
    }

    /// Gives it a new job, if it can be given one. `clean`: what it had is worthless.
    pub fn issue(&mut self, conn: ConnId, clean: bool, server: &mut Server, turn: &mut Turn<'_>) {
        let (Some(login), Some(agent)) = (&self.login, &self.agent) else { return };
        // A miner that was served is kept at work while a claim is being looked into: at worst its work is no worse than the old one.
        if server.serving != Serving::Yes && self.jobs.is_empty() {
            if !self.told_to_wait {
                show(conn, turn, &waiting(server.serving));
                self.told_to_wait = true;
            }
            return;
        }
        let (script, params, view) = (Arc::clone(&login.script), turn.config.params, &turn.chain.view);
        let board = match server.firmware.form(agent, &login.password) {
            Form::Lottery => server.boards.lottery(params, view, &script, turn.now),
            Form::Shares(class, layout) => server.boards.board(params, view, (class, layout), &script, turn.now),
        };
        let board = match board {
            Some(Ok(board)) => board,
            Some(Err(error)) => {
                log::error!("miner {conn} gets no new work: {error}; it is tried again");
                // Tried again when a notify is due, not at once.
                self.notified = turn.now.mono;
                return self.set_timer(conn, turn);
            }
            None => return,
        };
        if board.work.kind == Kind::Lottery && server.boards.mode != Mode::Solo && !self.told_lottery {
            log::info!(
                "miner {conn}: {agent:?} holds no coinbase of the pool: it plays a solo lottery for {:?}, and makes no shares",
                login.user
            );
            show(conn, turn, "This device holds no coinbase of the pool: it plays a solo lottery for your address, and makes no shares");
            self.told_lottery = true;
        }
        // Whoever asks for it: nobody is left with jobs on two blocks.
        let moved = self.jobs.back().is_some_and(|job| job.board.work.template.prev != board.work.template.prev);
        let clean = self.unstick(conn, server, turn) || clean || moved || self.jobs.is_empty();
        if clean {
            self.excused = turn.now.mono + if self.jobs.is_empty() { Duration::ZERO } else { STALE_EXCUSED };
            // What it takes up again counts as long as it could have, and for the same payee.
            self.jobs = std::mem::take(&mut self.resumed);
            self.jobs.retain(|job| job.script == script && job.board.work.template.prev == board.work.template.prev);
        }
        self.push_job(conn, board, script, clean, server, turn);
        self.set_timer(conn, turn);
    }

    fn push_job(&mut self, conn: ConnId, board: Arc<Board>, script: Arc<Script>, clean: bool, server: &mut Server, turn: &mut Turn<'_>) {
        let bits = server.harder.bits(turn.now.mono, &turn.chain.view, &script, board.work.draft.bits);
        let difficulty = rounded(self.vardiff.current().min(board.difficulty_max(bits)));
        let bits = board.committed(bits, difficulty);
        self.push_mask(conn, turn);
        if self.told != Some(difficulty) {
            // Display writes no exponent, and whole numbers without a point: firmware stumbles over both.
            let line = format!("{{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[{difficulty}]}}\n");
            turn.out.send_bytes(conn, line.into_bytes());
            self.told = Some(difficulty);
        }
        let last = self.jobs.back().filter(|job| job.board.serial == board.serial).map(|job| job.ntime);
        let told = server.boards.tell(turn.config.params, &board, (&script, bits), (turn.now, last), clean);
        turn.out.send(conn, told.line);
        turn.counters.jobs_sent.add(1);
        self.notified = turn.now.mono;
        self.jobs.retain(|job| server.boards.keeps(job, turn.now));
        // The newest and JOBS_PAST_MAX past ones. Room for just these, at once: grown step by step it were twice as much, and leave holes.
        self.jobs.reserve_exact((JOBS_PAST_MAX + 1).saturating_sub(self.jobs.len()));
        if self.jobs.len() > JOBS_PAST_MAX {
            self.jobs.pop_front();
        }
        self.jobs.push_back(Job { id: told.id, board, script, bits, ntime: told.ntime, difficulty });
        // A newer job may be of an older board, if meanwhile another class or layout was asked for.
        let oldest = self.jobs.iter().map(|job| job.board.serial).min().unwrap_or(0);
        self.seen.forget_before(oldest);
    }

    /// A line that is no JSON object, or no whole one: nobody knows which request it was. One may be an accident of the wire; who sends
    /// nothing else speaks another protocol.
    fn garbage(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        self.garbage += 1;
        if self.garbage > GARBAGE_LINES_MAX {
            turn.out.close_after_flush(conn, CloseReason::Misbehaviour("many lines in a row that are no JSON objects".to_owned()));
        } else {
            refuse(conn, turn, "null", GARBAGE);
            self.set_timer(conn, turn);
        }
    }

    /// Its first job, or the first for another payee or of another form.
    fn begin(&mut self, conn: ConnId, news: bool, server: &mut Server, turn: &mut Turn<'_>) {
        if news {
            self.issue(conn, true, server, turn);
        }
    }

    /// Whether it goes on with an old job, or with headers that it has hashed before: told to drop all it has, most devices come round. One
    /// that takes another extranonce1 gets one, and with it headers that nobody has hashed.
    fn unstick(&mut self, conn: ConnId, server: &mut Server, turn: &mut Turn<'_>) -> bool {
        if self.stuck < STUCK_SUBMITS {
            return false;
        }
        self.stuck = 0;
        if self.extranonce {
            self.extranonce1 = server.extranonce1();
            self.seen = Seen::default();
            push(conn, turn, "mining.set_extranonce", &format!("\"{}\",{EXTRANONCE2_BYTES}", hex(&self.extranonce1)));
        }
        true
    }

    /// A new difficulty takes effect with a job of its own; past jobs keep theirs.
    fn follow_vardiff(&mut self, conn: ConnId, server: &mut Server, turn: &mut Turn<'_>) {
        let Some(job) = self.jobs.back() else { return };
        if self.told != Some(rounded(self.vardiff.current().min(job.difficulty_max()))) {
            self.issue(conn, false, server, turn);
        }
    }

    fn submit(&mut self, conn: ConnId, line: &Line<'_>, submit: Result<Submit, &'static str>, server: &mut Server, turn: &mut Turn<'_>) {
        let raw = line.id.map_or("null", RawValue::get);
        if self.agent.is_none() || self.login.is_none() {
            refuse(conn, turn, raw, if self.agent.is_none() { NOT_SUBSCRIBED } else { UNAUTHORISED });
            return self.count_invalid(conn, turn);
        }
        // Whose it is does not matter while all are one address's; what was refused must not be paid to who was not.
        if !self.refused.is_empty() && line.user().is_some_and(|user| self.is_refused(&user)) {
            turn.counters.shares_rejected.add(1);
            server.miners.rejected(self.worker, SubmitRefusal::Refused("another address"));
            refuse(conn, turn, raw, (24, "Unauthorized worker: this connection mines for another address"));
            return self.count_invalid(conn, turn);
        }
        let worker = self.worker_of(line, server);
        let (job, roll) = match submit {
            Err(why) => return self.reject(conn, raw, worker, SubmitRefusal::BadField(why), server, turn),
            Ok(submit) => match self.job(submit.job, server, turn) {
                None => return self.reject(conn, raw, worker, SubmitRefusal::Stale, server, turn),
                Some(job) => (job.clone(), submit),
            },
        };
        let version = match rolled(job.board.version(), self.mask, roll.version_bits) {
            Err(why) => return self.reject(conn, raw, worker, SubmitRefusal::BadField(why), server, turn),
            Ok(version) => version,
        };
        if !self.remember(&job, &roll, version) {
            return self.reject(conn, raw, worker, SubmitRefusal::Duplicate, server, turn);
        }
        let Some(ticket) = turn.out.take_ticket() else {
            // A frame is dispatched with its ticket; without one it is not this line's doing.
            return refuse(conn, turn, raw, (20, "the node is busy; try again"));
        };
        // A block may be in it all the same: it is judged whatever the pool says.
        let unpaid = if server.disk_full {
            Some("the pool's disk is full: it cannot remember what you did")
        } else if server.judged.hangs(turn.now.mono) {
            Some("the pool's disk does not keep up: it cannot remember what you did")
        } else {
            (!self.seen.is_whole(job.board.serial)).then_some("too many submits of one job: later ones are not counted")
        };
        let credited = unpaid.is_none() && job.board.pooled();
        if credited {
            server.judged.leaves(turn.now.mono);
        }
        let request = Arc::from(raw);
        let mut extranonce = [0; EXTRANONCE1_BYTES + EXTRANONCE2_BYTES];
        extranonce[..EXTRANONCE1_BYTES].copy_from_slice(&self.extranonce1);
        extranonce[EXTRANONCE1_BYTES..].copy_from_slice(&roll.extranonce2);
        turn.jobs.emission.push(EmissionJob {
            claim: Claim { conn, request, difficulty: job.difficulty, credited, worker: worker.0, achieved: 0.0, share: false },
            work: Arc::clone(&job.board.work),
            script: *job.script,
            bits: job.bits,
            extranonce,
            version,
            ntime: roll.ntime,
            nonce: roll.nonce,
            target: target_of(job.difficulty),
            unpaid,
            ticket,
        });
    }

    /// Its job of this id, if submits of it are still taken. The newest is as long as its parent holds: nobody may have told of another.
    fn job(&self, id: u64, server: &Server, turn: &Turn<'_>) -> Option<&Job> {
        let job = self.jobs.iter().rev().find(|job| job.id == id)?;
        let newest = self.jobs.back().is_some_and(|newest| newest.id == id);
        (newest || server.boards.keeps(job, turn.now)).then_some(job)
    }

    /// Whether this submit is new, as far as is remembered. The oldest boards' are forgotten first.
    fn remember(&mut self, job: &Job, submit: &Submit, version: u32) -> bool {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let rolled = [u64::from_be_bytes(submit.extranonce2), pair(submit.ntime, submit.nonce), pair(version, job.bits)];
        self.seen.insert([job.board.serial, rolled[0], rolled[1], rolled[2]])
    }

    /// Whose a submit is. Where all are one worker's, it does not matter what name they bear.
    fn worker_of(&self, line: &Line<'_>, server: &Server) -> WorkerId {
        let user = if self.many { line.user() } else { None };
        let named = user.zip(self.login.as_ref()).and_then(|(user, login)| server.miners.find(&login.script, worker(&user)));
        named.unwrap_or(self.worker)
    }

    /// A submit was accepted.
    fn count(&mut self, claim: &Claim, server: &mut Server, turn: &Turn<'_>) {
        let mut worker = WorkerId(claim.worker);
        // There was no place for it, or it was taken by somebody else before this one had done anything.
        if !server.miners.knows(worker)
            && let Some(login) = &self.login
        {
            server.miners.leave(self.worker);
            worker = server.miners.arrive(turn.now, &login.script, login.worker());
            self.worker = worker;
        }
        let submit = Accepted { difficulty: claim.difficulty, achieved: claim.achieved, share: claim.share };
        server.miners.accepted(turn.now, worker, submit);
    }

    fn reject(&mut self, conn: ConnId, id: &str, worker: WorkerId, refused: SubmitRefusal, server: &mut Server, turn: &mut Turn<'_>) {
        turn.counters.shares_rejected.add(1);
        server.miners.rejected(worker, refused);
        let late = refused == SubmitRefusal::Stale && turn.now.mono >= self.excused;
        self.stuck += u32::from(late || refused == SubmitRefusal::Duplicate);
        match refused {
            SubmitRefusal::Stale => turn.counters.submits_stale.add(1),
            SubmitRefusal::Duplicate => turn.counters.submits_duplicate.add(1),
            SubmitRefusal::LowDifficulty => turn.counters.submits_low.add(1),
            SubmitRefusal::BadField(_) | SubmitRefusal::Refused(_) => {}
        }
        refuse(conn, turn, id, refusal(refused));
        // What is too easy says that easier work would count; a device may have kept to a difficulty of its own (public-pool 152).
        if refused != SubmitRefusal::LowDifficulty {
            self.vardiff.not_silent(turn.now.mono);
        }
        if matches!(refused, SubmitRefusal::LowDifficulty | SubmitRefusal::BadField(_)) {
            self.count_invalid(conn, turn);
        }
    }

    fn count_invalid(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if self.flood.invalid(turn.now.mono) {
            turn.out.close(conn, CloseReason::Misbehaviour("a flood of invalid shares".to_owned()));
        }
    }

    fn get_transactions(&self, conn: ConnId, id: &str, wanted: Option<u64>, turn: &mut Turn<'_>) {
        let job = match wanted {
            Some(wanted) => self.jobs.iter().find(|job| job.id == wanted),
            None => self.jobs.back(),
        };
        match job.map(|job| &job.board.work).map(|work| &work.template.txs[..work.trim().kept]) {
            None => refuse(conn, turn, id, STALE),
            Some(txs) if txs.iter().map(|tx| tx.data.len()).sum::<usize>() > TRANSACTIONS_BYTES_MAX => {
                refuse(conn, turn, id, (20, "the block's transactions are too many to send; ask bitcoind"));
            }
            Some(_) if !turn.out.room(conn) => refuse(conn, turn, id, (20, "read first what was sent already")),
            Some(txs) => {
                let txs: Vec<String> = txs.iter().map(|tx| format!("\"{}\"", hex(&tx.data))).collect();
                reply(conn, turn, id, &format!("[{}]", txs.join(",")));
            }
        }
    }

    /// How much is remembered of it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Held {
        let login = |of: fn(&Login) -> usize| self.login.as_ref().map_or(0, of);
        Held {
            jobs: self.jobs.len() + self.resumed.len(),
            seen: self.seen.len(),
            refused: self.refused.len(),
            agent: self.agent.as_ref().map_or(0, String::len),
            user: login(|login| login.user.len()),
            password: login(|login| login.password.len()),
        }
    }

    /// What it would work at if shares were hard enough.
    #[cfg(test)]
    pub(crate) fn wanted_difficulty(&self) -> f64 {
        self.vardiff.current()
    }

    fn set_timer(&self, conn: ConnId, turn: &mut Turn<'_>) {
        turn.out.set_timer(conn, Some(self.due()));
    }

    fn due(&self) -> Duration {
        let silence = self.heard.map_or(self.opened + FIRST_LINE_MAX, |heard| heard + MINER_IDLE_MAX);
        let first = if self.ready() { silence } else { silence.min(self.opened + AUTHORIZE_MAX) };
        if self.jobs.is_empty() { first } else { first.min(self.notified + NOTIFY_EVERY).min(self.vardiff.due()) }
    }
}
