//! What the stages answer, and what follows from it: the other half of the node's dispatch.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::events::Event;
use rockpool_net::hub::Outlet;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::message::Message;
use rockpool_net::wire::share::{Class, Layout, Script, Share};
use rockpool_store::blocks::{Finder, FoundBlock};
use rockpool_store::handle::Found;
use rockpool_store::kv::Family;
use rockpool_store::organised::ChainChange;
use rockpool_store::record::Record;
use rockpool_store::rules::coinbase::coinbase_of;
use rockpool_store::rules::share::check_coinbase;
use rockpool_workers::jobs::{Answer, BitcoinNews, Claim, Fate, FetchJob, Missing, OrganiseJob, ShareFate, Stages, SubmitRefusal};
use rockpool_workers::template::Template;

use crate::blocks::finder;
use crate::http::reply::Reply;
use crate::limits::{BEHIND_NOTIFY, BTC_HEADERS_UNASKED_MAX, PUSH_DEPTH, REORG_ALARM};
use crate::miners::WorkerId;
use crate::node::{News, Node, Parts, Stopping};
use crate::peer::relay::Push;
use crate::peer::relay::chain_tip;
use crate::peer::{Peers, found, pulled};
use crate::session::Session;
use crate::status::Serving;

impl<S: Stages> Node<S> {
    pub(crate) fn answer(&mut self, now: Now, answer: Answer, out: &mut Outlet) {
        match answer {
            Answer::Verdict { claim, result } => self.verdict(now, &claim, result, out),
            Answer::BlockFound { hash, height, conn, share, script, value, block } => {
                if let Some(share) = &share {
                    let Parts { peers, turn, .. } = self.parts(now, out);
                    peers.block_found(share, &turn);
                }
                let miner = self.sessions.miner_mut(conn);
                self.server.miners.found_block(miner.as_ref().map_or(WorkerId::default(), |miner| miner.worker()));
                let finder = finder(miner.and_then(|miner| miner.user()));
                let found = FoundBlock { is_share: share.is_some(), value, ..FoundBlock::new(hash, height, now.unix(), finder, script) };
                self.blocks.found(found, Some(block));
                self.hand_blocks(now, out);
                self.tell_blocks(now, out);
                out.publish(Event::BlockFound { hash, height, miner: Some(conn) });
            }
            Answer::Organised { change, refused, fates, missing, bulk_done } => {
                if let Some(change) = change {
                    self.changed(now, &change, out);
                }
                refused.into_iter().for_each(|(claim, refusal)| self.verdict(now, &claim, Err(refusal), out));
                fates.into_iter().for_each(|(conn, id, fate)| self.share_fate(now, conn, id, &fate, out));
                // What a sync is about to bring need not be asked for one by one, but for what the sync itself waits for.
                let syncing = self.peers.syncing();
                for Missing { id, from, .. } in missing.into_iter().filter(|missing| missing.bulk || !syncing) {
                    let Parts { sessions, mut turn, .. } = self.parts(now, out);
                    match sessions.get_mut(from) {
                        Some(Session::Bitcoin(node)) => node.on_orphans(from, &mut turn),
                        _ => self.fetch_job(FetchJob::Missing(id, from)),
                    }
                }
                let Parts { peers, mut turn, .. } = self.parts(now, out);
                bulk_done.into_iter().for_each(|(conn, height)| peers.on_bulk_done(conn, height, &mut turn));
            }
            Answer::Stored { ids, claims } => {
                self.chain.view.stored(&ids);
                claims.iter().for_each(|claim| self.verdict(now, claim, Ok(()), out));
            }
            Answer::Credited(weights) => self.credited(weights),
            Answer::TemplateStored => self.templates.line.credit(),
            Answer::RowsStored(Family::Blocks) => self.blocks.line.credit(),
            Answer::RowsStored(Family::Peers) => self.peers.kept.line.credit(),
            Answer::RowsStored(Family::Figures) => self.server.miners.line.credit(),
            // The node gives no rows of other families.
            Answer::RowsStored(_) => {}
            Answer::DiskFull(full) => {
                self.server.disk_full = full;
                out.publish(Event::DiskFull(full));
            }
            Answer::Requests(requests) => {
                self.fetch.credit();
                self.ask(now, requests, out);
            }
            Answer::Retry(requests) => self.ask(now, requests, out),
            Answer::Read { conn, tag, rows } => self.read(now, conn, tag, rows, out),
            Answer::Told { conn, tag, status, body, lines } => self.told(now, conn, tag, Reply::told(status, body, &lines), out),
            Answer::MinedHeard => self.mined.credit(),
            Answer::Bitcoin(news) => self.parts(now, out).turn.jobs.organise.push(OrganiseJob::Bitcoin(news)),
            Answer::Template(template) => self.template(template, out),
            // Told by the template that ended the outage.
            Answer::BitcoinDown(None) if self.bitcoin_down.is_none() => {}
            Answer::BitcoinDown(why) => {
                if why.is_some() {
                    self.parts(now, out).turn.jobs.organise.push(OrganiseJob::Bitcoin(BitcoinNews::Lost));
                }
                self.bitcoin_down.clone_from(&why);
                out.publish(Event::BitcoinDown(why));
            }
            Answer::Mistake(why) => self.stop(now, Stopping::Mistake(why)),
            Answer::Fate { hash, node, fate, .. } => self.block_fate(hash, node, fate, out),
            Answer::Died { stage, why } => {
                log::error!("{stage} has died: {why}");
                self.stop(now, Stopping::Died { stage, why });
            }
            Answer::Stop => self.stop(now, Stopping::Asked),
        }
    }

    /// What each of our miners has done lately, where they are a pool of their own. The next work pays by it.
    pub(crate) fn credited(&mut self, weights: Arc<[(Script, u128)]>) {
        self.server.boards.credited = weights;
    }

    /// The end of a turn: claims and dials, then new jobs for miners, one each whatever has changed.
    pub(crate) fn look_around(&mut self, now: Now, out: &mut Outlet) {
        let mined = self.tell_mined(now);
        let Parts { sessions, peers, bitcoin, mut turn, .. } = self.parts(now, out);
        peers.compare(sessions, &mut turn);
        peers.on_time(&mut turn);
        peers.gate.on_time(sessions, &mut turn);
        let Peers { dials, gate, .. } = &mut *peers;
        dials.dial(now.mono, |ip| gate.bans.is_banned(ip, now.unix()), turn.out);
        peers.dial_book(sessions, &mut turn);
        peers.relay_addrs(sessions, &mut turn);
        bitcoin.look(sessions, &mut turn);
        let wake = peers.due(turn.config.inbound_max).into_iter().chain(bitcoin.dials.due()).chain(mined).min();
        out.set_wake(wake);
        let serving = self.serving();
        let before = std::mem::replace(&mut self.server.serving, serving);
        let begins = before != Serving::Yes && self.server.serving == Serving::Yes;
        let clean = self.news.template == Some(true);
        // While we are behind, tips follow each other faster than miners care to hear; those at work are told now and then.
        let thinned = self.told_miners + BEHIND_NOTIFY;
        let tip = self.news.tip && (self.server.serving == Serving::Yes || now.mono >= thinned);
        if self.news.tip && !tip {
            out.set_wake(wake.into_iter().chain([thinned]).min());
        }
        if self.news.template.is_some() || begins || tip {
            self.news = News::default();
            self.told_miners = now.mono;
            if let Some(template) = self.server.boards.template() {
                out.publish(Event::WorkChanged { bitcoin_height: template.height, clean });
            }
            let Parts { sessions, server, mut turn, .. } = self.parts(now, out);
            for (conn, miner) in sessions.miners_mut() {
                miner.issue(conn, clean, server, &mut turn);
            }
        }
    }

    /// Tells the stage `upstream`, where there is one, how miners stand; or when it may be told.
    fn tell_mined(&mut self, now: Now) -> Option<Duration> {
        if !self.config.portfolios {
            return None;
        }
        let (view, params) = (&self.chain.view, self.config.params);
        let said = self.mined.look(now.mono, view, &self.server.boards, &self.blocks, params);
        said.map_or_else(
            |due| due,
            |job| {
                self.jobs.upstream.push(job);
                None
            },
        )
    }

    /// The end of a turn while the node stops: nothing new is read, and what waits to be served is not.
    pub(crate) fn wind_down(&mut self, now: Now, deadline: Duration, out: &mut Outlet) {
        let Parts { sessions, streams, mut turn, .. } = self.parts(now, out);
        turn.out.stop_reading();
        streams.end(turn.out);
        turn.out.set_wake(Some(deadline).filter(|deadline| now.mono < *deadline));
        for (_, session) in sessions.all_mut() {
            match session {
                Session::Web(web) => web.release(&mut turn),
                // A submit's ticket is with the stages, and a peer's requests wait without one.
                Session::Miner(_) | Session::Peer(_) | Session::Bitcoin(_) => {}
            }
        }
    }

    /// Whether miners are served (SHARECHAIN §11). The tip's age plays no part.
    fn serving(&self) -> Serving {
        match self.peers.ahead {
            _ if self.server.boards.template().is_none() => Serving::NoTemplate,
            Some(height) => Serving::Behind { height },
            None if self.peers.up == 0 && !self.config.alone => Serving::NoPeer,
            None => Serving::Yes,
        }
    }

    fn verdict(&mut self, now: Now, claim: &Claim, result: Result<(), SubmitRefusal>, out: &mut Outlet) {
        let Parts { sessions, server, mut turn, .. } = self.parts(now, out);
        if claim.credited {
            server.judged.comes_home(now.mono, result.is_ok());
        }
        if let Some(miner) = sessions.miner_mut(claim.conn) {
            miner.on_verdict(claim, result, server, &mut turn);
        }
    }

    /// The view follows before anything is sent that mentions the change.
    fn changed(&mut self, now: Now, change: &ChainChange, out: &mut Outlet) {
        let (before, upon) = (self.chain.view.confirmed_tip().id, self.chain.view.upon().parent);
        let bitcoin = self.chain.view.bitcoin().best().map(|best| best.hash);
        let depth = self.chain.view.apply(change);
        if depth > 0 {
            log::info!("reorganised: {depth} shares of the best chain replaced");
        }
        if depth >= REORG_ALARM {
            self.counters.reorgs_deep.add(1);
            log::warn!(
                "{depth} shares of the best chain were replaced at once: this node was cut off, or somebody has most of the share work"
            );
        }
        if !change.blocks.is_empty() {
            self.blocks.follow(self.chain.view.bitcoin());
            let best = self.chain.view.bitcoin().best();
            if let Some(best) = best.filter(|best| Some(best.hash) != bitcoin) {
                out.publish(Event::BitcoinBlock { hash: ShareId(best.hash), height: best.height });
            }
        }
        self.peers.look();
        for beside in &change.beside {
            // A share of ours that lost a race is one all the same.
            let share = self.chain.view.bytes(&beside.record.id).and_then(|bytes| Share::decode(&bytes).ok());
            if share.is_some_and(|share| self.server.boards.ours(share.salt)) {
                self.pages.own.remember(beside.record.id);
            }
        }
        let mut shares = self.beside(change);
        shares.extend(self.confirmed(now, change, out));
        self.tell_blocks(now, out);
        let tip = Arc::clone(self.chain.view.confirmed_tip());
        self.pages.remember(self.chain.view.payouts());
        self.pull_blocks(now, out);
        let same = tip.id == before && shares.is_empty();
        if !same || self.chain.view.upon().parent != upon {
            self.server.boards.forget();
            self.news.tip = true;
        }
        if same {
            return;
        }
        out.publish(Event::TipChanged { id: tip.id, height: tip.height, score: tip.score });
        let Parts { sessions, mut turn, .. } = self.parts(now, out);
        let tip = chain_tip(&turn);
        for (conn, peer) in sessions.peers_mut() {
            peer.push(conn, &shares, &mut turn);
            peer.tell_tip(conn, &tip, &mut turn);
        }
    }

    /// Newly confirmed shares: counted, told of, and those near the tip made ready to be pushed.
    fn confirmed(&mut self, now: Now, change: &ChainChange, out: &mut Outlet) -> Vec<Push> {
        let near = self.chain.view.confirmed_height().saturating_sub(PUSH_DEPTH);
        let mut pushes = Vec::new();
        for id in &change.confirmed {
            self.counters.chain_shares.add(1);
            let Some(record) = self.chain.view.get(id) else { continue };
            let height = record.height;
            if height <= near {
                continue;
            }
            // Older ones come by sync.
            let Ok(Found::Bytes(bytes)) = self.chain.share_bytes(id) else { continue };
            let own = Share::decode(&bytes).ok().filter(|share| self.server.boards.ours(share.salt));
            if let Some(template) = own.as_ref().and_then(|share| self.server.boards.template_of(share.salt)) {
                let kept = template.trim(own.as_ref().map_or(Class::N12, |share| share.class)).kept;
                let ids: Vec<_> = template.txs.iter().take(kept).map(|tx| tx.ids).collect();
                self.templates.remember(*id, template.sequence, &ids);
            }
            if own.is_some() {
                self.pages.own.remember(*id);
            }
            out.publish(Event::ShareAccepted { id: *id, height, own: own.is_some() });
            pushes.extend(self.push(Arc::clone(record), &bytes));
            self.proved(now, &bytes, out);
        }
        pushes
    }

    /// A share is proved. If it is news of a Bitcoin block, and in layout front, only now it is certain that nobody has changed it.
    fn proved(&mut self, now: Now, bytes: &[u8], out: &mut Outlet) {
        let Some(share) = Share::decode(bytes).ok().filter(|share| share.layout == Layout::Front) else { return };
        let Parts { peers, turn, .. } = self.parts(now, out);
        if found::judge_by(turn.config.params, &share, turn.chain.view.bitcoin()) == Ok(()) && peers.block_found(&share, &turn) {
            turn.out.publish(Event::BlockFound { hash: share.id(), height: share.bitcoin_height, miner: None });
        }
    }

    /// Pulls the blocks that peers have told of, where the payouts that their coinbases are made of are known; the others wait for these.
    pub(crate) fn pull_blocks(&mut self, now: Now, out: &mut Outlet) {
        for (share, conn, addr) in std::mem::take(&mut self.peers.heard) {
            let id = share.id();
            if self.blocks.body(&id).is_some() || self.blocks.get(&id).is_some_and(FoundBlock::accepted) {
                continue;
            }
            // Before anything dear: a peer may say so as often as it likes.
            if self.peers.pulls.join(now.mono, &id, conn) {
                continue;
            }
            let finder = Finder::Peer(addr.to_string());
            let found = FoundBlock::new(id, share.bitcoin_height, now.unix(), finder, share.script);
            self.blocks.found(FoundBlock { is_share: true, value: share.value, ..found }, None);
            // What is no more than its coinbase nobody has to be asked for.
            let asks = !share.proof.branch.is_empty();
            if asks && self.sessions.peer_mut(conn).is_none() {
                continue;
            }
            let Some(payouts) = self.pages.payouts_at(&share.parent).filter(|_| !asks || !self.peers.pulls.is_full()) else {
                self.peers.heard.push_back((share, conn, addr));
                continue;
            };
            let params = self.config.params;
            let Some(coinbase) = check_coinbase(params, &share, payouts).ok().map(|()| coinbase_of(params, &share, payouts)) else {
                continue;
            };
            let template = self.server.boards.template().cloned();
            let step = self.peers.pulls.begin(now.mono, &share, coinbase, template, conn);
            pulled(step, &mut self.parts(now, out).turn);
        }
    }

    /// Proved shares beside the best chain, ready to be pushed: whoever finds the next share may credit them.
    fn beside(&self, change: &ChainChange) -> Vec<Push> {
        let near = self.chain.view.confirmed_height().saturating_sub(PUSH_DEPTH);
        let near = change.beside.iter().filter(|beside| beside.record.height > near);
        near.filter_map(|beside| Some(self.push(Arc::clone(&beside.record), beside.bytes.as_ref()?))).flatten().collect()
    }

    /// A share ready to be pushed, behind the Bitcoin headers that who knows its parent may not know.
    fn push(&self, record: Arc<Record>, bytes: &[u8]) -> impl Iterator<Item = Push> + use<S> {
        let (view, magic) = (&self.chain.view, self.config.params.magic);
        let headers = view.headers_between(record.height.saturating_sub(1), &record.bitcoin.hash, BTC_HEADERS_UNASKED_MAX);
        let headers = (!headers.is_empty()).then(|| Message::BtcHeaders(headers).encode(magic).ok()).flatten();
        let height = record.height;
        let along = headers.map(|payload| Push { id: ShareId(record.bitcoin.hash), height, payload });
        along.into_iter().chain([Push { id: record.id, height, payload: Message::share_from_bytes(magic, bytes) }])
    }

    fn share_fate(&mut self, now: Now, conn: ConnId, id: ShareId, fate: &ShareFate, out: &mut Outlet) {
        match fate {
            ShareFate::Taken if self.peers.gate.was_first(&id, conn) => {
                if let Some(peer) = self.sessions.peer_mut(conn) {
                    peer.traits.gave = Some(now.mono);
                }
            }
            ShareFate::Taken | ShareFate::Pending => {}
            ShareFate::Invalid(why) => {
                self.counters.shares_invalid.add(1);
                log::info!("share {id} is invalid: {why}");
            }
            ShareFate::Bad(why) => {
                self.counters.shares_bad.add(1);
                out.close(conn, CloseReason::Misbehaviour(format!("bad share {id}: {why}")));
            }
            ShareFate::BadHeader(why) => out.close(conn, CloseReason::Misbehaviour(format!("bad Bitcoin header {id}: {why}"))),
        }
    }

    fn ask(&mut self, now: Now, requests: Vec<(ConnId, Vec<ShareId>)>, out: &mut Outlet) {
        let Parts { sessions, mut turn, .. } = self.parts(now, out);
        for (conn, ids) in requests {
            // Of one that has left the fetcher hears, or has heard.
            if let Some(peer) = sessions.peer_mut(conn) {
                peer.ask(conn, ids, &mut turn);
            }
        }
    }

    fn fetch_job(&mut self, job: FetchJob) {
        if self.fetch.say(job) {
            self.counters.fetch_dropped.add(1);
        }
    }

    fn template(&mut self, template: Arc<Template>, out: &mut Outlet) {
        if self.server.boards.template().is_some_and(|before| before.sequence >= template.sequence) {
            return;
        }
        if self.bitcoin_down.take().is_some() {
            out.publish(Event::BitcoinDown(None));
        }
        // Only a newer time, which the next job has anyway: not worth a word to thousands of miners.
        if self.server.boards.template().is_some_and(|before| before.same_work(&template)) {
            return;
        }
        let clean = self.server.boards.set_template(template, &mut self.rng);
        self.news.template = Some(clean || self.news.template == Some(true));
    }

    fn block_fate(&mut self, hash: ShareId, node: String, fate: Fate, out: &mut Outlet) {
        let text = match &fate {
            Fate::Accepted => format!("{node}: accepted"),
            Fate::Refused(why) => format!("{node}: refused, {why}"),
            Fate::Unreachable(why) => format!("{node}: unreachable, {why}"),
            Fate::Handed => format!("{node}: handed over"),
        };
        self.blocks.fate(hash, node, fate);
        out.publish(Event::BlockFate { hash, fate: text });
    }
}
