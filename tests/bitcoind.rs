//! bitcoind fails in each way that a real one has: killed, restarted, warming up, slow, of another chain, pruned, silent; and another takes
//! over. What the stage that watches it says then, and how often it asks. Without RocksDB.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests of a real process, which owns a clock")]

#[path = "e2e/daemon.rs"]
#[expect(dead_code, reason = "the whole-process tests ask for more")]
mod daemon;
#[path = "e2e/proxy.rs"]
mod proxy;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness, transaction};
use daemon::{ADDRESS, ADDRESS_2, Bitcoind, PATIENCE, until};
use proxy::{Manner, Proxy};
use rockpool_net::hub::io::Mail;
use rockpool_net::reactor::Clock;
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::share::{Class, Layout, Script};
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::params::{Network, params};
use rockpool_store::pplns::Pplns;
use rockpool_workers::crew::{Bitcoin, Crew, CrewConfig, Post};
use rockpool_workers::jobs::Answer;
use rockpool_workers::limits::{BLOCK_LOOK, FULL_TEMPLATE_WAIT, LONGPOLL_LOOK, RETRY_MAX, RETRY_MIN, RPC_CONNECT};
use rockpool_workers::outside::call::{Call, Service, What};
use rockpool_workers::outside::gate::Limits;
use rockpool_workers::outside::{BitcoindConfig, Outside, OutsideConfig};
use rockpool_workers::template::Template;
use rockpool_workers::work::{Roll, Work, meets};
use serde_json::{Value, json};

/// There is work again so soon after bitcoind's return.
const AGAIN: Duration = Duration::from_secs(5);
/// Time per call of a bitcoind that is slow, and of a test of it.
const SLOW: Duration = Duration::from_secs(30);
const SLOW_PATIENCE: Duration = Duration::from_secs(300);

/// What a node's side of Bitcoin says.
struct Node {
    crew: Option<Crew>,
    mailbox: Arc<(Mutex<VecDeque<Answer>>, Condvar)>,
}

impl Node {
    fn start(proxies: &[&Proxy], cookie: Option<PathBuf>) -> Node {
        let user = if cookie.is_some() { "" } else { "user:pass@" };
        let config = |proxy: &&Proxy| {
            BitcoindConfig::new(&format!("http://{user}127.0.0.1:{}", proxy.port()), cookie.clone(), Network::Regtest).unwrap()
        };
        Node::start_on(proxies.iter().map(config).collect())
    }

    fn start_on(bitcoinds: Vec<BitcoindConfig>) -> Node {
        let regtest = params(Network::Regtest);
        let kv = Arc::new(MemKv::new());
        let mailbox: Arc<(Mutex<VecDeque<Answer>>, Condvar)> = Arc::default();
        let slot = mailbox.clone();
        let post: Post = Arc::new(move |mail: Vec<Mail<Answer>>| {
            slot.0.lock().unwrap().extend(mail.into_iter().map(|mail| mail.answer));
            slot.1.notify_all();
            true
        });
        let crew = Crew::start(CrewConfig {
            params: regtest,
            clock: Clock::start(),
            cores: 1,
            kv: kv.clone(),
            chain: Chain::open(regtest, [1, 2], &*kv).unwrap(),
            pplns: Pplns::default(),
            post,
            bitcoin: Bitcoin::Nodes(bitcoinds),
            upstream: None,
        });
        Node { crew: Some(crew.unwrap()), mailbox }
    }

    /// The next answer that is no header.
    fn hear(&self, patience: Duration) -> Answer {
        let (queue, told) = &*self.mailbox;
        loop {
            let (mut queue, _) = told.wait_timeout_while(queue.lock().unwrap(), patience, |queue| queue.is_empty()).unwrap();
            match queue.pop_front().expect("an answer in time") {
                Answer::Bitcoin(_) => {}
                answer @ (Answer::Template(_) | Answer::BitcoinDown(_)) => return answer,
                answer => panic!("{answer:?}"),
            }
        }
    }

    /// Until it has work on this block; whether it was down meanwhile.
    fn until_on(&self, best: &str, patience: Duration) -> bool {
        let mut down = false;
        loop {
            match self.hear(patience) {
                Answer::Template(template) if shown(template.prev) == best => return down,
                Answer::BitcoinDown(why) => down |= why.is_some(),
                _ => {}
            }
        }
    }

    /// Until it says why it has no bitcoind; the last work stays.
    fn until_down(&self) -> String {
        loop {
            if let Answer::BitcoinDown(Some(why)) = self.hear(PATIENCE) {
                return why;
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crew.take().map(Crew::stop);
    }
}

fn shown(hash: [u8; 32]) -> String {
    use bitcoin::hashes::Hash;
    bitcoin::BlockHash::from_byte_array(hash).to_string()
}

fn best(bitcoind: &Bitcoind) -> String {
    bitcoind.call(&["getbestblockhash"]).as_str().unwrap().to_owned()
}

fn mine(bitcoind: &Bitcoind) -> String {
    bitcoind.call(&["generatetoaddress", "1", ADDRESS]);
    best(bitcoind)
}

/// The same with a check of each template.
fn proposing(mut config: BitcoindConfig) -> BitcoindConfig {
    config.proposals = true;
    config
}

/// Gives one bitcoind all blocks of another.
fn hand_over(from: &Bitcoind, to: &Bitcoind) {
    for height in 1..=from.height() {
        let hash = from.call(&["getblockhash", &height.to_string()]);
        to.call_long("submitblock", from.call(&["getblock", hash.as_str().unwrap(), "0"]).as_str().unwrap());
    }
    assert_eq!(best(from), best(to));
}

#[test]
fn one_that_is_killed_is_asked_for_seldom_and_worked_with_as_soon_as_it_is_back() {
    let Some(mut bitcoind) = Bitcoind::start("one_that_is_killed") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);

    bitcoind.kill();
    let (since, before) = (Instant::now(), proxy.calls().len());
    node.until_down();
    // Long enough for the longest pauses.
    until("six calls of a bitcoind that is away", || (proxy.calls().len() >= before + 6).then_some(()));
    let most = since.elapsed().as_millis() / RETRY_MIN.as_millis() + 3;
    assert!(((proxy.calls().len() - before) as u128) < most, "{} calls", proxy.calls().len() - before);

    bitcoind.again(&[]);
    bitcoind.until_up();
    let (back, refused) = (Instant::now(), proxy.refused());
    assert!(matches!(node.hear(PATIENCE), Answer::BitcoinDown(None)), "one word for an outage");
    assert!(matches!(node.hear(PATIENCE), Answer::Template(_)));
    eprintln!("work {:?} after bitcoind's return", back.elapsed());
    // One pause at the most lies between its return and the work: the call that was on its way at its return is the last that fails.
    assert!(proxy.refused() <= refused + 1);
    assert!(RPC_CONNECT + RETRY_MAX < AGAIN && LONGPOLL_LOOK < AGAIN);
    // All goes on as before.
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

#[test]
fn a_new_cookie_is_read_after_each_restart() {
    let Some(mut bitcoind) = Bitcoind::start_with("a_new_cookie_is_read", &["-rpcpassword="]) else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], Some(bitcoind.cookie()));
    node.until_on(&best(&bitcoind), PATIENCE);
    let mut cookies = vec![std::fs::read_to_string(bitcoind.cookie()).unwrap()];
    for kill in [true, false] {
        // Killed it leaves its cookie behind, stopped it deletes it.
        if !kill {
            bitcoind.call(&["stop"]);
            until("bitcoind to end", || (!bitcoind.cookie().exists()).then_some(()));
        }
        bitcoind.kill();
        node.until_down();
        bitcoind.again(&[]);
        bitcoind.until_up();
        cookies.push(std::fs::read_to_string(bitcoind.cookie()).unwrap());
        assert!(matches!(node.hear(PATIENCE), Answer::BitcoinDown(None)));
        assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
    }
    cookies.dedup();
    assert_eq!(cookies.len(), 3, "bitcoind writes a new cookie each time");
}

#[test]
fn one_that_warms_up_is_waited_for() {
    let Some(mut bitcoind) = Bitcoind::start("one_that_warms_up") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);
    bitcoind.kill();
    node.until_down();
    // bitcoind hears calls before it has loaded anything; meanwhile its word is "not yet".
    proxy.set(Manner::Knock);
    let before = proxy.calls().len();
    until("a call that waits at the door", || (proxy.calls().len() > before).then_some(()));
    bitcoind.again(&[]);
    until("\"not yet\" from a bitcoind that warms up", || proxy.has_said("\"code\":-28").then_some(()));
    assert!(matches!(node.hear(PATIENCE), Answer::BitcoinDown(None)));
    bitcoind.until_up();
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

#[test]
fn one_that_takes_half_a_minute_for_each_call_is_no_outage() {
    let Some(bitcoind) = Bitcoind::start("one_that_takes_half_a_minute") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);
    proxy.set(Manner::Slow(SLOW));
    let before = proxy.calls().len();
    assert!(!node.until_on(&mine(&bitcoind), SLOW_PATIENCE), "no outage");
    // A look, the headers and the next long poll, and what asks again meanwhile: none of it in a hurry.
    assert!(proxy.calls().len() < before + 8, "{:?}", &proxy.calls()[before..]);
    // What it owes comes at once when it is well again.
    proxy.set(Manner::Pass);
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

#[test]
fn one_of_another_chain_is_refused_in_a_sentence_until_the_right_one_is_back() {
    let Some(bitcoind) = Bitcoind::start("one_of_another_chain") else { return };
    let Some(main) = Bitcoind::start_on_main("one_of_another_chain") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);

    proxy.switch(main.port());
    // At first that the long poll's connection broke, then what is wrong. No template: miners keep what they have.
    let why = until("the sentence", || match node.hear(PATIENCE) {
        Answer::BitcoinDown(Some(why)) => why.contains("main").then_some(why),
        answer => panic!("{answer:?}"),
    });
    assert!(why.contains("is on network main, this node on regtest"), "{why}");
    let before = proxy.calls().len();
    until("three more looks at the wrong one", || (proxy.calls().len() >= before + 3).then_some(()));
    assert!(proxy.calls()[before..].iter().all(|call| call == "getblockchaininfo"), "{:?}", proxy.calls());

    proxy.switch(bitcoind.port());
    assert!(matches!(node.hear(PATIENCE), Answer::BitcoinDown(None)), "each word but once");
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

#[test]
fn the_second_takes_over_and_the_first_takes_back_once_it_has_caught_up() {
    let Some(mut first) = Bitcoind::start("the_second_takes_over") else { return };
    let Some(second) = Bitcoind::start("the_second_takes_over") else { return };
    mine(&first);
    hand_over(&first, &second);
    let proxies = [Proxy::start(first.port()), Proxy::start(second.port())];
    let node = Node::start(&[&proxies[0], &proxies[1]], None);
    node.until_on(&best(&first), PATIENCE);
    assert_eq!(proxies[1].calls().len(), 0);

    first.kill();
    node.until_down();
    node.until_on(&mine(&second), PATIENCE);
    // While it is away, it is asked for all the time, but seldom, and that holds nobody up.
    let before = proxies[0].refused();
    until("looks for the first", || (proxies[0].refused() >= before + 2).then_some(()));
    assert!(!node.until_on(&mine(&second), PATIENCE));

    // It lacks blocks: not yet.
    first.again(&[]);
    first.until_up();
    let asked = proxies[0].count("getblocktemplate");
    until("two templates of the first", || (proxies[0].count("getblocktemplate") >= asked + 2).then_some(()));
    let polls = proxies[0].count("long poll");
    assert!(!node.until_on(&mine(&second), PATIENCE));
    assert_eq!(proxies[0].count("long poll"), polls, "nobody mines on what is behind");

    hand_over(&second, &first);
    until("the first to be watched", || (proxies[0].count("long poll") > polls).then_some(()));
    // Only the first hears of this block.
    assert!(!node.until_on(&mine(&first), PATIENCE));
}

#[test]
fn a_pruned_one_is_as_good() {
    let Some(bitcoind) = Bitcoind::start_with("a_pruned_one", &["-prune=1", "-fastprune"]) else { return };
    (0..3).for_each(|_| drop(bitcoind.call(&["generatetoaddress", "1000", ADDRESS_2])));
    assert!(bitcoind.call(&["pruneblockchain", "2500"]).as_u64().unwrap() > 1_000, "blocks are gone");
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    assert!(!node.until_on(&best(&bitcoind), PATIENCE));
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

/// bitcoind works on a long poll until there is something new, whoever has hung up: two of them, and this one would answer nobody.
#[test]
fn no_long_poll_is_abandoned_where_nothing_happens() {
    let Some(bitcoind) = Bitcoind::start_with("no_long_poll_is_abandoned", &["-rpcthreads=2"]) else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);
    until("three looks", || (proxy.count("getblockchaininfo") >= 3).then_some(()));
    assert_eq!(proxy.count("long poll"), 1);
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

#[test]
fn a_block_is_heard_of_though_the_long_polls_connection_died_unseen() {
    let Some(bitcoind) = Bitcoind::start("a_block_is_heard_of") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);
    until("a long poll", || (proxy.count("long poll") == 1).then_some(()));
    proxy.set(Manner::LosePolls);
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE), "no outage");
    // The next long poll does not wait for the dead one.
    proxy.set(Manner::Pass);
    let tip = mine(&bitcoind);
    assert!(!node.until_on(&tip, PATIENCE));
}

#[test]
fn a_template_whose_block_bitcoind_would_refuse_reaches_nobody_where_that_is_asked_for() {
    let Some(bitcoind) = Bitcoind::start("a_template_whose_block") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let config = BitcoindConfig::new(&format!("http://user:pass@127.0.0.1:{}", proxy.port()), None, Network::Regtest).unwrap();
    let asking = Node::start_on(vec![proposing(config.clone())]);
    assert!(!asking.until_on(&best(&bitcoind), PATIENCE), "a good template passes");
    assert_eq!(proxy.count("proposal"), 1);
    let trusting = Node::start_on(vec![config]);
    assert!(!trusting.until_on(&best(&bitcoind), PATIENCE));

    proxy.set(Manner::Overpay);
    let tip = mine(&bitcoind);
    assert!(!trusting.until_on(&tip, PATIENCE));
    // The first work on the new block, which claims the subsidy alone, is none of bitcoind's templates.
    let why = asking.until_down();
    assert!(why.contains("refuses a block of it: bad-cb-amount"), "{why}");
    let refused = proxy.count("proposal");
    until("two more tries", || (proxy.count("proposal") >= refused + 2).then_some(()));
    proxy.set(Manner::Pass);
    assert!(matches!(asking.hear(PATIENCE), Answer::BitcoinDown(None)), "no template came between");
    assert!(!asking.until_on(&tip, PATIENCE));
}

/// Puts so many transactions into its mempool, each the child of the one before.
fn fill(bitcoind: &Bitcoind, count: u64) {
    // Coins that anybody can spend; this bitcoind need not have a wallet.
    let anybody = ScriptBuf::from_bytes(vec![0x51]);
    let script = anybody.to_p2wsh();
    let address = Address::from_script(&script, bitcoin::Network::Regtest).unwrap().to_string();
    let mined = bitcoind.call(&["generatetoaddress", "101", &address]);
    let block = bitcoind.call(&["getblock", mined[0].as_str().unwrap(), "1"]);
    let mut coin = OutPoint { txid: block["tx"][0].as_str().unwrap().parse().unwrap(), vout: 0 };
    for n in 1..=count {
        let value = Amount::from_sat(5_000_000_000 - n * 10_000);
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output: coin, witness: Witness::from_slice(&[anybody.as_bytes()]), ..TxIn::default() }],
            output: vec![TxOut { value, script_pubkey: script.clone() }],
        };
        // Whatever the fee rate.
        bitcoind.call(&["sendrawtransaction", &serialize_hex(&tx), "0"]);
        coin = OutPoint { txid: tx.compute_txid(), vout: 0 };
    }
}

/// Blocks with transactions, parents and children among them, are proposed whole.
#[test]
fn a_good_template_with_transactions_passes_the_proposal() {
    let Some(bitcoind) = Bitcoind::start("a_good_template_with_transactions") else { return };
    fill(&bitcoind, 3);
    let proxy = Proxy::start(bitcoind.port());
    let config = BitcoindConfig::new(&format!("http://user:pass@127.0.0.1:{}", proxy.port()), None, Network::Regtest).unwrap();
    let node = Node::start_on(vec![proposing(config)]);
    match node.hear(PATIENCE) {
        Answer::Template(template) => assert_eq!(template.txs.len(), 3),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(proxy.count("proposal"), 1);
}

#[test]
fn one_whose_templates_are_refused_is_left_for_the_next_and_not_taken_back_at_once() {
    let Some(bitcoind) = Bitcoind::start("one_whose_templates_are_refused") else { return };
    let proxies = [Proxy::start(bitcoind.port()), Proxy::start(bitcoind.port())];
    proxies[0].set(Manner::Overpay);
    let config = |proxy: &Proxy| {
        let url = format!("http://user:pass@127.0.0.1:{}", proxy.port());
        proposing(BitcoindConfig::new(&url, None, Network::Regtest).unwrap())
    };
    let node = Node::start_on(proxies.iter().map(config).collect());
    assert!(node.until_on(&best(&bitcoind), PATIENCE));
    until("three looks at the second", || (proxies[1].count("getblockchaininfo") >= 3).then_some(()));
    assert_eq!(proxies[0].count("proposal"), 1);
    assert!(!node.until_on(&mine(&bitcoind), PATIENCE));
}

/// What miners find of the first work on a new block is a block, and the transactions follow.
#[test]
fn work_on_a_new_block_comes_before_its_transactions_and_makes_a_block() {
    let Some(bitcoind) = Bitcoind::start("work_on_a_new_block") else { return };
    fill(&bitcoind, 2);
    let proxy = Proxy::start(bitcoind.port());
    let node = Node::start(&[&proxy], None);
    node.until_on(&best(&bitcoind), PATIENCE);
    until("a long poll", || (proxy.count("long poll") == 1).then_some(()));
    // It takes as long as that of a small machine with a full mempool.
    proxy.set(Manner::LosePolls);
    // Mined without what waits: `generateblock` takes none of the mempool.
    let since = Instant::now();
    bitcoind.call(&["generateblock", ADDRESS, "[]"]);
    let tip = best(&bitcoind);
    let first = match node.hear(PATIENCE) {
        Answer::Template(template) => template,
        answer => panic!("{answer:?}"),
    };
    assert_eq!((shown(first.prev), first.txs.len()), (tip.clone(), 0));
    let full = match node.hear(PATIENCE) {
        Answer::Template(template) => template,
        answer => panic!("{answer:?}"),
    };
    assert_eq!((shown(full.prev), full.txs.len()), (tip, 2));
    assert!(since.elapsed() >= FULL_TEMPLATE_WAIT && BLOCK_LOOK < LONGPOLL_LOOK, "the long poll was waited for");
    let fields = |template: &Template| (template.height, template.version, template.bits, template.mintime, template.maxtime);
    assert_eq!(fields(&first), fields(&full), "what it worked out is what bitcoind says");
    assert!(!first.same_work(&full));

    let regtest = params(Network::Regtest);
    let view = Chain::open(regtest, [1, 2], &MemKv::new()).unwrap().view();
    let (script, next) = (Script::P2wpkh([7; 20]), view.next(regtest, Clock::start().now()));
    let ntime = first.curtime;
    let work = Work::new(regtest, first, &next, view.payouts(), (Class::N12, Layout::Tail), Some(script), 0).unwrap();
    let rolls = (0..).map(|nonce| Roll { extranonce: [1; 12], version: work.template.version, ntime, nonce });
    let found = |roll: &Roll| meets(&sha256d(&work.header(regtest, &script, work.draft.bits, roll)), &work.network_target());
    let roll = rolls.into_iter().find(found).unwrap();
    let share = work.share(regtest, &script, work.draft.bits, &roll);
    assert_eq!(bitcoind.call_long("submitblock", &work.block(regtest, &share).to_lower_hex_string()), "");
    assert_eq!(best(&bitcoind), share.id().to_string());
}

#[test]
fn what_portfolios_ask_of_it_keeps_no_work_back() {
    const BLOCKS: usize = 20;
    let Some(bitcoind) = Bitcoind::start("what_portfolios_ask") else { return };
    // As few places as there can be: one for portfolios, one for the node.
    let limits = Limits { in_flight: 1, ..Limits::of(Service::Bitcoind) };
    let config = BitcoindConfig::new(&bitcoind.url(), None, Network::Regtest).unwrap().limited(limits);
    let outside = Outside::new(OutsideConfig { clock: Clock::start(), seed: 1, limits: Vec::new(), bitcoind: Some(config.clone()) });
    let node = Node::start_on(vec![config]);
    let scan = Call {
        service: Service::Bitcoind,
        endpoint: "bitcoind".into(),
        what: What::Rpc { method: "scantxoutset", params: json!(["start", [format!("addr({ADDRESS})")]]) },
        idempotent: true,
        deadline: PATIENCE,
        bytes_max: 1 << 20,
    };
    let over = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let scans = scope.spawn(|| {
            loop {
                let ends = over.load(SeqCst);
                let answer: Value = serde_json::from_slice(&outside.call(&scan).unwrap()).unwrap();
                if ends {
                    return answer["unspents"].as_array().unwrap().len();
                }
            }
        });
        for _ in 0..BLOCKS {
            let best = mine(&bitcoind);
            assert!(!node.until_on(&best, PATIENCE), "no word of an outage");
        }
        over.store(true, SeqCst);
        scans.join().unwrap()
    });
    assert_eq!(last, BLOCKS, "each block pays the address once");
    let gauges = &outside.gauges()[Service::Bitcoind as usize];
    assert!(gauges.calls[0].1 > 1 && gauges.calls[1..].iter().all(|(_, calls)| *calls == 0), "{gauges:?}");
}
