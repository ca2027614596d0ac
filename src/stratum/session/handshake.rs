//! How a miner begins: what it negotiates, the session that it takes up, and whom it mines for.

use std::sync::Arc;

use rockpool_net::events::Event;
use rockpool_net::id::ConnId;

use super::{Login, Miner};
use crate::limits::REFUSED_MAX;
use crate::stratum::Server;
use crate::stratum::answers::{push, refuse, reply, show};
use crate::stratum::difficulty::asked;
use crate::stratum::firmware::least_difficulty;
use crate::stratum::jobs::{hex, share_difficulty};
use crate::stratum::request::{Configure, EXTRANONCE1_BYTES, EXTRANONCE2_BYTES, address, granted, login, password_difficulty};
use crate::stratum::resume::Session;
use crate::turn::Turn;

impl Miner {
    /// Grants of BIP310 what there is. What is not understood is left out.
    pub(super) fn configure(&mut self, conn: ConnId, id: &str, wanted: &Configure, server: &mut Server, turn: &mut Turn<'_>) {
        let (mut results, mut rolls) = (Vec::new(), false);
        for extension in &wanted.extensions {
            match extension.as_str() {
                "version-rolling" => {
                    self.mask = granted(wanted.mask);
                    rolls = self.mask != 0;
                    results.push(format!(r#""version-rolling":{rolls},"version-rolling.mask":"{:08x}""#, self.mask));
                    // It may mine all the same, says BIP310, if not as fast as it could.
                    if wanted.min_bits.is_some_and(|bits| bits > self.mask.count_ones()) {
                        log::info!("miner {conn}: it wants more version bits to roll than the {} there are", self.mask.count_ones());
                    }
                }
                "minimum-difficulty" => {
                    let granted = self.hold_least(wanted.least, turn);
                    results.push(format!(r#""minimum-difficulty":{granted}"#));
                }
                "subscribe-extranonce" => {
                    self.extranonce = true;
                    results.push(r#""subscribe-extranonce":true"#.to_owned());
                }
                // What it says of itself is nobody's business here.
                "info" => results.push(r#""info":true"#.to_owned()),
                _ => {}
            }
        }
        reply(conn, turn, id, &format!("{{{}}}", results.join(",")));
        // Some firmware takes the mask from there alone.
        self.mask_due = rolls;
        if !self.jobs.is_empty() {
            self.push_mask(conn, turn);
        }
        self.follow_vardiff(conn, server, turn);
    }

    /// Tells of the mask that was granted. Not before the first job: firmware of cgminer's kin takes the next line after its subscribe for
    /// the answer, whatever it is.
    pub(super) fn push_mask(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.mask_due) {
            push(conn, turn, "mining.set_version_mask", &format!("\"{:08x}\"", self.mask));
        }
    }

    /// A device that cannot work below a difficulty is not led below it. Whether that is a promise: no job is harder than a share, so one
    /// that asks for more than the easiest share there can ever be is told no, and gets as much of it as shares allow.
    fn hold_least(&mut self, least: Option<f64>, turn: &Turn<'_>) -> bool {
        // 0 switches it off, which it is.
        match least {
            Some(0.0) => true,
            least => least.and_then(asked).is_some_and(|least| {
                self.vardiff.at_least(turn.now.mono, least);
                least <= share_difficulty(turn.config.params.floor_bits)
            }),
        }
    }

    /// The first time, it may take up the session that it had before. Under jobs its extranonce1 stays what it is.
    pub(super) fn subscribe(
        &mut self,
        conn: ConnId,
        id: &str,
        agent: String,
        session: Option<[u8; EXTRANONCE1_BYTES]>,
        server: &mut Server,
        turn: &mut Turn<'_>,
    ) {
        let (now, first) = (turn.now.mono, self.agent.is_none());
        let ended = session.filter(|_| first).and_then(|name| server.resumable.take(now, self.addr.ip(), name));
        if let Some(Session { extranonce1, vardiff, jobs, seen }) = ended {
            (self.extranonce1, self.vardiff, self.resumed, self.seen) = (extranonce1, vardiff, jobs, seen);
        }
        if let Some(least) = least_difficulty(&agent) {
            self.vardiff.at_least(now, least);
        }
        let en1 = hex(&self.extranonce1);
        let result = format!(r#"[[["mining.set_difficulty","{en1}"],["mining.notify","{en1}"]],"{en1}",{EXTRANONCE2_BYTES}]"#);
        reply(conn, turn, id, &result);
        self.agent = Some(agent);
        self.begin(conn, first, server, turn);
    }

    pub(super) fn authorize(&mut self, conn: ConnId, id: &str, user: String, password: &str, server: &mut Server, turn: &mut Turn<'_>) {
        let (script, worker) = match login(&user, turn.config.params.network) {
            Ok((script, worker)) => (Arc::new(script), worker),
            Err(why) => return self.refuse_user(conn, id, &why, turn),
        };
        // A job's coinbase commits to one payee, and proxies give each job to all who are behind them. So a connection has one address,
        // with any number of workers: nobody's work is ever paid to another without being told.
        if self.login.as_ref().is_some_and(|login| login.script != script) {
            if self.refused.len() < REFUSED_MAX && !self.is_refused(&user) {
                self.refused.push(address(&user).to_owned());
            }
            let why = "this connection mines for another address already: connect once for each address (worker names are free)";
            return self.refuse_user(conn, id, why, turn);
        }
        let same = self.login.as_ref().is_some_and(|before| before.password == password);
        if !same && let Some(difficulty) = password_difficulty(password) {
            self.vardiff.hold(turn.now.mono, difficulty);
        }
        reply(conn, turn, id, "true");
        let named = server.miners.arrive(turn.now, &script, &worker);
        server.miners.leave(self.worker);
        self.many |= self.login.is_some() && named != self.worker;
        self.worker = named;
        let before = self.login.replace(Login { user: user.clone(), password: password.to_owned(), script });
        if before.is_none() {
            let agent = self.agent.as_deref().unwrap_or_default().to_owned();
            turn.out.publish(Event::MinerUp { conn, addr: self.addr, user, worker, agent });
        }
        // Another worker of the same address, as proxies have many, is no reason to take away what all of them work on.
        self.begin(conn, !same, server, turn);
    }

    fn refuse_user(&mut self, conn: ConnId, id: &str, why: &str, turn: &mut Turn<'_>) {
        log::info!("miner {conn}: not authorised: {why}");
        refuse(conn, turn, id, (24, why));
        // Not where the next line is waited for as the answer to subscribe.
        if self.agent.is_some() && !std::mem::replace(&mut self.told_refusal, true) {
            show(conn, turn, &format!("Not authorised: {why}"));
        }
    }

    /// Whether a user's address was refused here, beside that of this connection.
    pub(super) fn is_refused(&self, user: &str) -> bool {
        self.refused.iter().any(|refused| refused.eq_ignore_ascii_case(address(user)))
    }
}
