//! The embedded chain: Bitcoin's side on regtest when no bitcoind is given. In process, validated with the `bitcoin` crate, gone at exit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, CompactTarget, Transaction, consensus, script};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::message::TxIds;
use rockpool_net::wire::share::merkle_root;
use rockpool_store::bitcoin::Tree;
use rockpool_store::params::Params;

use crate::crew::Outsider;
use crate::jobs::{Answer, BitcoinNews, Fate, SubmitJob};
use crate::limits::{EMBEDDED_HEADERS_KEPT, EMBEDDED_KEPT, EMBEDDED_REFRESH, HEADERS_MAX, TEMPLATE_MIN};
use crate::template::{Template, Tx, branch};
use crate::trim::Trim;

/// Regtest's target, the easiest there is.
const BITS: u32 = 0x207f_ffff;
/// Blocks whose median time a new block must pass (Bitcoin's rule).
const MEDIAN_SPAN: usize = 11;

/// An empty template with these transactions in it, which pay no fees.
pub fn filled(empty: Template, txs: &[Transaction]) -> Template {
    let ids = |tx: &Transaction| TxIds { txid: tx.compute_txid().to_byte_array(), wtxid: tx.compute_wtxid().to_byte_array() };
    let txs: Vec<Arc<Tx>> = txs.iter().map(|tx| Arc::new(Tx { ids: ids(tx), data: consensus::serialize(tx).into() })).collect();
    let mut witnesses = [0; 64];
    witnesses[..32].copy_from_slice(&merkle_root([0; 32], &branch(txs.iter().map(|tx| tx.ids.wtxid).collect())));
    let trim = Trim {
        kept: txs.len(),
        value: empty.trims[0].value,
        witness_commitment: sha256d(&witnesses),
        branch: branch(txs.iter().map(|tx| tx.ids.txid).collect()),
    };
    Template { trims: std::array::from_fn(|_| trim.clone()), txs, ..empty }
}

/// A block of the embedded chain, as far as the next ones need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its hash, bytes as hashed.
    pub hash: [u8; 32],
    /// Its height.
    pub height: u32,
    /// Its header's time.
    pub time: u32,
}

/// A regtest chain in memory. Shared between the nodes of a process, each with a thread that serves it; the simulator uses it inline.
#[derive(Debug)]
pub struct EmbeddedChain {
    params: &'static Params,
    /// Transactions that blocks may hold, any number of times, as if their coins were there: for tests of what is made of them.
    traffic: BTreeSet<[u8; 32]>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tip: Tip,
    /// The newest blocks of all branches, with their parents.
    blocks: BTreeMap<[u8; 32], (Tip, [u8; 32])>,
    /// The newest headers of all branches in the order in which they came, at most [`EMBEDDED_HEADERS_KEPT`], and how many came before
    /// these.
    headers: VecDeque<[u8; 80]>,
    before: u64,
    /// Templates given out.
    sequence: u64,
    /// Who is told of another tip: one nudge waits for each until it looks.
    watchers: Vec<Sender<()>>,
}

impl EmbeddedChain {
    /// A chain that goes on from `start`: regtest's genesis block if none is given. A node that restarts gives the Bitcoin parent of its
    /// newest share, so that what it mined before is not mined again.
    pub fn new(params: &'static Params, start: Option<Tip>) -> EmbeddedChain {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let tip = start.unwrap_or(Tip { hash: genesis.block_hash().to_byte_array(), height: 0, time: genesis.header.time });
        EmbeddedChain::with(params, tip, BTreeMap::from([(tip.hash, (tip, [0; 32]))]), VecDeque::new())
    }

    /// A chain that goes on from the best of these headers, those of a node that restarts: so what it mined before is not mined again, and
    /// times go on from those that it knows.
    pub fn resume(params: &'static Params, tree: &Tree) -> EmbeddedChain {
        let Some(best) = tree.best() else { return EmbeddedChain::new(params, None) };
        let newest = |count: usize| std::iter::successors(Some(best), |block| tree.prev(block)).take(count);
        let tip = |block: &rockpool_store::bitcoin::Block| Tip { hash: block.hash, height: block.height, time: block.time() };
        let blocks = newest(EMBEDDED_KEPT).map(|block| (block.hash, (tip(block), block.prev()))).collect();
        let mut headers: VecDeque<_> = newest(EMBEDDED_HEADERS_KEPT).map(|block| block.header).collect();
        headers.make_contiguous().reverse();
        EmbeddedChain::with(params, tip(best), blocks, headers)
    }

    fn with(params: &'static Params, tip: Tip, blocks: BTreeMap<[u8; 32], (Tip, [u8; 32])>, headers: VecDeque<[u8; 80]>) -> EmbeddedChain {
        let state = State { tip, blocks, headers, before: 0, sequence: 0, watchers: Vec::new() };
        EmbeddedChain { params, traffic: BTreeSet::new(), state: Mutex::new(state) }
    }

    /// A chain whose blocks may hold these transactions. Its templates hold none; see [`filled`].
    pub fn with_traffic(params: &'static Params, txs: &[Transaction]) -> EmbeddedChain {
        let traffic = txs.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
        EmbeddedChain { traffic, ..EmbeddedChain::new(params, None) }
    }

    /// The newest block of the longest branch.
    pub fn tip(&self) -> Tip {
        self.lock().tip
    }

    /// A template on the tip. It holds no transactions, since nobody can send any.
    pub fn template(&self, now_unix: u32) -> Template {
        let mut state = self.lock();
        state.sequence += 1;
        let mintime = state.median_time(state.tip.hash) + 1;
        let height = state.tip.height + 1;
        Template {
            sequence: state.sequence,
            height,
            prev: state.tip.hash,
            version: 0x2000_0000,
            bits: BITS,
            mintime,
            maxtime: u32::MAX,
            curtime: now_unix.max(mintime),
            trims: std::array::from_fn(|_| Trim::empty(self.params.subsidy(height))),
            txs: Vec::new(),
        }
    }

    /// The headers that came after the first `seen` of them, of the newest [`EMBEDDED_HEADERS_KEPT`], each after its parent, in messages of
    /// at most [`HEADERS_MAX`]; and how many there are by now, for the next question. Whoever asks after it was given a template has the
    /// one that this builds on.
    pub fn headers(&self, seen: u64) -> (Vec<Vec<[u8; 80]>>, u64) {
        let state = self.lock();
        let skip = usize::try_from(seen.saturating_sub(state.before)).unwrap_or(usize::MAX);
        let headers: Vec<_> = state.headers.iter().skip(skip).copied().collect();
        (headers.chunks(HEADERS_MAX).map(<[_]>::to_vec).collect(), state.before + state.headers.len() as u64)
    }

    /// Takes a block as `submitblock` does: checked by itself, then by its place.
    pub fn submit(&self, block: &[u8], now_unix: u32) -> Fate {
        let Ok(block) = consensus::deserialize::<Block>(block) else { return Fate::Refused("block does not decode".into()) };
        let mut state = self.lock();
        match self.check(&state, &block, now_unix) {
            Ok(tip) => {
                state.blocks.insert(tip.hash, (tip, block.header.prev_blockhash.to_byte_array()));
                let oldest = tip.height.saturating_sub(EMBEDDED_KEPT as u32);
                state.blocks.retain(|_, (kept, _)| kept.height >= oldest);
                state.log(&block.header);
                if tip.height <= state.tip.height {
                    return Fate::Refused("inconclusive: another block of this height came first".into());
                }
                state.tip = tip;
                // A watcher that has not looked since the last nudge needs no second one; one that is gone is forgotten.
                state.watchers.retain(|watcher| !matches!(watcher.try_send(()), Err(TrySendError::Disconnected(()))));
                Fate::Accepted
            }
            Err("duplicate") => Fate::Accepted,
            Err(why) => Fate::Refused(why.into()),
        }
    }

    /// Nudged whenever the tip has become another one.
    pub fn watch(&self) -> Receiver<()> {
        let (nudge, nudged) = bounded(1);
        self.lock().watchers.push(nudge);
        nudged
    }

    fn check(&self, state: &State, block: &Block, now_unix: u32) -> Result<Tip, &'static str> {
        let header = &block.header;
        let hash = header.block_hash();
        if state.blocks.contains_key(&hash.to_byte_array()) {
            return Err("duplicate");
        }
        let Some(&(prev, _)) = state.blocks.get(&header.prev_blockhash.to_byte_array()) else { return Err("prev-blk-not-found") };
        if header.bits != CompactTarget::from_consensus(BITS) {
            return Err("bad-diffbits");
        }
        header.validate_pow(header.target()).or(Err("high-hash"))?;
        if header.time <= state.median_time(prev.hash) {
            return Err("time-too-old");
        }
        if header.time > now_unix.saturating_add(crate::work::NTIME_AHEAD_MAX_S) {
            return Err("time-too-new");
        }
        let height = prev.height.checked_add(1).ok_or("bad-cb-height")?;
        let Some(coinbase) = block.txdata.first().filter(|tx| tx.is_coinbase()) else { return Err("bad-cb-missing") };
        if block.txdata[1..].iter().any(|tx| !self.traffic.contains(&tx.compute_txid().to_byte_array())) {
            // There are no coins here that a transaction could spend.
            return Err("bad-txns-inputs-missingorspent");
        }
        if !block.check_merkle_root() {
            return Err("bad-txnmrklroot");
        }
        if block.weight() > bitcoin::Weight::MAX_BLOCK {
            return Err("bad-blk-weight");
        }
        if !block.check_witness_commitment() {
            return Err("bad-witness-merkle-match");
        }
        // `check_witness_commitment` lets a block without witnesses pass; ours have one always (BIP141, SHARECHAIN §1).
        if coinbase.input[0].witness.is_empty() {
            return Err("bad-witness-nonce-size");
        }
        if !(2..=100).contains(&coinbase.input[0].script_sig.len()) {
            return Err("bad-cb-length");
        }
        // BIP34 as Bitcoin Core has it: heights up to 16 are single opcodes, which `bip34_block_height` does not know.
        if !coinbase.input[0].script_sig.as_bytes().starts_with(script::Builder::new().push_int(i64::from(height)).as_bytes()) {
            return Err("bad-cb-height");
        }
        let paid = coinbase.output.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
        if paid.is_none_or(|paid| paid.to_sat() > self.params.subsidy(height)) {
            return Err("bad-cb-amount");
        }
        Ok(Tip { hash: hash.to_byte_array(), height, time: header.time })
    }

    /// A thread that panicked while it held the lock has left whole values behind: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread of a node with an embedded chain: takes found blocks until nobody can give it any, and offers a template for every new tip,
/// and one with a fresh time now and then.
pub(crate) fn serve(chain: &EmbeddedChain, found: &Receiver<SubmitJob>, node: &Outsider) {
    let nudged = chain.watch();
    let (mut offered, mut due, mut seen) = (Duration::ZERO, Duration::ZERO, 0);
    loop {
        let now = node.now();
        if now.mono >= due {
            let template = Arc::new(chain.template(now.unix()));
            let (messages, next) = chain.headers(seen);
            seen = next;
            let told = messages.into_iter().all(|headers| node.say(|| Answer::Bitcoin(BitcoinNews::Headers(headers.clone()))));
            if !told || !node.say(|| Answer::Template(template.clone())) {
                return;
            }
            (offered, due) = (now.mono, now.mono + EMBEDDED_REFRESH);
        }
        select! {
            recv(found) -> job => {
                let Ok(job) = job else { return };
                let fate = chain.submit(&job.block, node.now().unix());
                if !node.say(|| Answer::Fate { hash: job.hash, height: job.height, node: "embedded chain".into(), fate: fate.clone() }) {
                    return;
                }
            }
            recv(nudged) -> _ => due = due.min(offered + TEMPLATE_MIN),
            default(due.saturating_sub(now.mono)) => {}
        }
    }
}

impl State {
    fn log(&mut self, header: &bitcoin::block::Header) {
        let mut bytes = [0; 80];
        bytes.copy_from_slice(&consensus::serialize(header));
        self.headers.push_back(bytes);
        if self.headers.len() > EMBEDDED_HEADERS_KEPT {
            self.headers.pop_front();
            self.before += 1;
        }
    }

    /// The median of the newest eleven times ending with this block, or of as many as are known.
    fn median_time(&self, hash: [u8; 32]) -> u32 {
        let ancestors = std::iter::successors(self.blocks.get(&hash), |(_, prev)| self.blocks.get(prev));
        let mut times: Vec<u32> = ancestors.take(MEDIAN_SPAN).map(|(tip, _)| tip.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use bitcoin::block::Header;
    use bitcoin::hashes::sha256d;
    use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};

    use super::*;
    use crate::testing::regtest;

    const NOW: u32 = 1_700_000_000;

    /// A block on a template, `change`d before its commitments and proof of work are made.
    fn block(template: &Template, change: impl FnOnce(&mut Block)) -> Vec<u8> {
        let trim = &template.trims[0];
        let commitment = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &trim.witness_commitment].concat();
        let outputs = [(trim.value, ScriptBuf::new_op_return([7])), (0, ScriptBuf::from_bytes(commitment))];
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: script::Builder::new().push_int(i64::from(template.height)).push_slice([1, 2, 3]).into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0; 32]]),
            }],
            output: outputs.into_iter().map(|(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey }).collect(),
        };
        let header = Header {
            version: bitcoin::block::Version::from_consensus(template.version as i32),
            prev_blockhash: bitcoin::BlockHash::from_byte_array(template.prev),
            merkle_root: bitcoin::TxMerkleNode::all_zeros(),
            time: template.curtime,
            bits: CompactTarget::from_consensus(template.bits),
            nonce: 0,
        };
        let mut block = Block { header, txdata: vec![coinbase] };
        change(&mut block);
        if block.header.merkle_root == bitcoin::TxMerkleNode::all_zeros() {
            block.header.merkle_root = block.compute_merkle_root().unwrap();
        }
        while block.header.bits.to_consensus() == BITS && block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }
        consensus::serialize(&block)
    }

    fn chain() -> EmbeddedChain {
        EmbeddedChain::new(regtest(), None)
    }

    #[test]
    fn it_begins_at_regtests_genesis_and_grows() {
        let chain = chain();
        assert_eq!(ShareIdText(chain.tip().hash).to_string(), "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206");
        for height in 1..=320 {
            let template = chain.template(NOW + height);
            assert_eq!((template.height, template.sequence), (height, u64::from(height)));
            assert_eq!(chain.submit(&block(&template, |_| {}), NOW + height), Fate::Accepted, "{height}");
        }
        assert_eq!(chain.template(0).trims[0].value, 1_250_000_000);
        // What is remembered is bounded, and the median time goes on from it.
        assert_eq!(chain.lock().blocks.len(), EMBEDDED_KEPT + 1);
        assert_eq!(chain.template(0).curtime, NOW + 320 - 5 + 1);
    }

    struct ShareIdText([u8; 32]);

    impl std::fmt::Display for ShareIdText {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            rockpool_net::id::ShareId(self.0).fmt(f)
        }
    }

    #[test]
    fn a_block_that_breaks_a_rule_is_refused_with_bitcoins_word() {
        let chain = chain();
        let template = chain.template(NOW);
        let zeros = bitcoin::TxMerkleNode::from_raw_hash(sha256d::Hash::hash(b"other"));
        let spend = |block: &mut Block| {
            let mut tx = block.txdata[0].clone();
            tx.input[0].previous_output = OutPoint { txid: bitcoin::Txid::from_byte_array([1; 32]), vout: 0 };
            block.txdata.push(tx);
        };
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("block does not decode", b"no block".to_vec()),
            ("prev-blk-not-found", block(&template, |block| block.header.prev_blockhash = bitcoin::BlockHash::all_zeros())),
            ("bad-diffbits", block(&template, |block| block.header.bits = CompactTarget::from_consensus(0x207f_fffe))),
            ("time-too-old", block(&template, |block| block.header.time = template.mintime - 1)),
            ("time-too-new", block(&template, |block| block.header.time = NOW + 7_201)),
            ("bad-cb-missing", block(&template, |block| block.txdata[0].input[0].previous_output.vout = 0)),
            ("bad-txns-inputs-missingorspent", block(&template, spend)),
            ("bad-txnmrklroot", block(&template, |block| block.header.merkle_root = zeros)),
            ("bad-witness-merkle-match", block(&template, |block| block.txdata[0].input[0].witness = Witness::from_slice(&[[1; 32]]))),
            ("bad-witness-nonce-size", block(&template, |block| block.txdata[0].input[0].witness = Witness::new())),
            ("bad-cb-length", block(&template, |block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; 101]))),
            ("bad-cb-height", block(&template, |block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x52, 0x53]))),
            ("bad-cb-amount", block(&template, |block| block.txdata[0].output[0].value += Amount::from_sat(1))),
        ];
        for (why, block) in cases {
            assert_eq!(chain.submit(&block, NOW), Fate::Refused(why.into()));
        }
        assert_eq!(chain.tip().height, 0);
        let mut weak: Block = consensus::deserialize(&block(&template, |_| {})).unwrap();
        while weak.header.validate_pow(weak.header.target()).is_ok() {
            weak.header.nonce += 1;
        }
        assert_eq!(chain.submit(&consensus::serialize(&weak), NOW), Fate::Refused("high-hash".into()));
    }

    #[test]
    fn a_filled_template_makes_blocks_that_a_chain_with_this_traffic_takes() {
        let txs: Vec<Transaction> = (0..5).map(crate::template::tests::payment).collect();
        let chain = EmbeddedChain::with_traffic(regtest(), &txs[1..]);
        for (held, taken) in [(&txs[1..], true), (&txs[..], false)] {
            let template = filled(chain.template(NOW), held);
            let trim = &template.trims[0];
            let block = block(&template, |block| {
                block.txdata.extend_from_slice(held);
                block.header.merkle_root = block.compute_merkle_root().unwrap();
            });
            let made: Block = consensus::deserialize(&block).unwrap();
            let root = merkle_root(made.txdata[0].compute_txid().to_byte_array(), &trim.branch);
            assert_eq!((root, trim.kept), (made.header.merkle_root.to_byte_array(), held.len()));
            assert!(made.check_witness_commitment());
            assert_eq!(chain.submit(&block, NOW) == Fate::Accepted, taken);
        }
    }

    #[test]
    fn a_second_block_of_a_height_waits_for_its_child() {
        let chain = chain();
        let template = chain.template(NOW);
        let (first, second) = (block(&template, |_| {}), block(&template, |block| block.header.time += 1));
        assert_eq!(chain.submit(&first, NOW), Fate::Accepted);
        assert!(matches!(chain.submit(&second, NOW), Fate::Refused(why) if why.starts_with("inconclusive")));
        assert_eq!(chain.submit(&first, NOW), Fate::Accepted);
        let second: Block = consensus::deserialize(&second).unwrap();
        let prev = second.block_hash().to_byte_array();
        let child = block(&Template { prev, height: 2, curtime: NOW + 2, ..template }, |_| {});
        assert_eq!(chain.submit(&child, NOW), Fate::Accepted);
        let tip = chain.tip();
        assert_eq!(chain.lock().blocks[&tip.hash].1, prev);
    }

    #[test]
    fn it_goes_on_from_where_another_stood() {
        let start = Tip { hash: [7; 32], height: 500, time: NOW };
        let chain = EmbeddedChain::new(regtest(), Some(start));
        let template = chain.template(NOW - 50);
        assert_eq!((template.height, template.prev, template.curtime, template.trims[0].value), (501, [7; 32], NOW + 1, 625_000_000));
        assert_eq!(chain.submit(&block(&template, |_| {}), NOW), Fate::Accepted);
    }

    #[test]
    fn its_headers_make_a_tree_and_it_goes_on_from_one() {
        let chain = chain();
        let mut tree = Tree::new(regtest());
        let mut seen = 0;
        let mut follow = |tree: &mut Tree, chain: &EmbeddedChain| {
            let (headers, next) = chain.headers(seen);
            seen = next;
            let headers = headers.concat();
            headers.iter().for_each(|header| assert!(tree.add(header).is_ok()));
            headers.len()
        };
        for height in 1..=40 {
            let template = chain.template(NOW + height);
            let twin = block(&template, |block| block.header.time += 1);
            assert_eq!(chain.submit(&block(&template, |_| {}), NOW + height), Fate::Accepted);
            // A block that comes second is none to mine on, but somebody may.
            assert!(matches!(chain.submit(&twin, NOW + height), Fate::Refused(_)));
            assert_eq!(follow(&mut tree, &chain), 2);
        }
        assert_eq!((tree.len(), tree.best().unwrap().hash, follow(&mut tree, &chain)), (81, chain.tip().hash, 0));
        assert_eq!(chain.headers(1_000).0.len(), 0);
        // Times go on from the eleven newest, not from the newest alone.
        let resumed = EmbeddedChain::resume(regtest(), &tree);
        assert_eq!((resumed.tip(), resumed.template(0).mintime), (chain.tip(), tree.best().unwrap().median_time + 1));
        assert_eq!(resumed.headers(0).0.concat().len(), 41);
        assert_eq!(resumed.submit(&block(&resumed.template(0), |_| {}), NOW), Fate::Accepted);
        let (headers, seen) = resumed.headers(41);
        let headers = headers.concat();
        assert_eq!((headers.len(), seen, tree.add(&headers[0]).is_ok()), (1, 42, true));
        assert_eq!((tree.best().unwrap().hash, tree.best().unwrap().height), (resumed.tip().hash, 41));
    }

    #[test]
    fn headers_are_kept_to_a_limit_and_told_of_in_messages() {
        let chain = chain();
        for height in 1..=EMBEDDED_HEADERS_KEPT as u32 + 5 {
            assert_eq!(chain.submit(&block(&chain.template(NOW + height), |_| {}), NOW + height), Fate::Accepted);
        }
        let (messages, seen) = chain.headers(0);
        assert!(messages.len() > 1 && messages.iter().all(|headers| !headers.is_empty() && headers.len() <= HEADERS_MAX));
        let headers = messages.concat();
        assert_eq!((headers.len(), seen), (EMBEDDED_HEADERS_KEPT, EMBEDDED_HEADERS_KEPT as u64 + 5));
        assert_eq!(chain.headers(seen - 3).0.concat(), headers[EMBEDDED_HEADERS_KEPT - 3..]);
        assert_eq!(rockpool_net::sha256::sha256d(&headers[EMBEDDED_HEADERS_KEPT - 1]), chain.tip().hash);
    }

    #[test]
    fn watchers_are_nudged_once_until_they_look_and_forgotten_when_gone() {
        let chain = chain();
        let (slow, gone) = (chain.watch(), chain.watch());
        drop(gone);
        for height in 1..=3 {
            assert_eq!(chain.submit(&block(&chain.template(NOW), |_| {}), NOW), Fate::Accepted);
            assert_eq!((chain.tip().height, chain.lock().watchers.len()), (height, 1));
        }
        assert_eq!(slow.try_iter().count(), 1);
        assert_eq!(chain.submit(b"no block", NOW), Fate::Refused("block does not decode".into()));
        assert_eq!(slow.try_iter().count(), 0, "nothing has changed");
    }
}
