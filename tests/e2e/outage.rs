//! Miners do not suffer from bitcoind: with a real one killed, restarted, slow, of another chain, or replaced by the next, connections stay,
//! submits are answered, the node does not spin, and there is work again as soon as bitcoind is back.

use std::time::{Duration, Instant};

use rockpool_workers::limits::{BLOCKNOTIFY_MIN, LONGPOLL_LOOK, RPC_SPARE_DEADLINE};

use crate::kit::{ADDRESS, ADDRESS_2, Bitcoind, Job, Miner, Rockpool, temp, until, until_in};
use crate::proxy::{Manner, Proxy};

/// There is work again so soon after bitcoind's return.
const AGAIN: Duration = Duration::from_secs(5);
/// Time per call of a bitcoind that is slow.
const SLOW: Duration = Duration::from_secs(30);
/// Time per call of a bitcoind that hangs.
const HANGS: Duration = Duration::from_secs(3_600);
/// Calls that find no bitcoind, as many as take the longest pauses.
const TRIES: usize = 6;

/// A node between its bitcoinds and its miners, each over a connection that is never made anew.
struct House {
    node: Rockpool,
    miners: Vec<Miner>,
    _dir: tempfile::TempDir,
}

impl House {
    /// A node with bitcoinds behind these lines, and two miners at work on this block.
    fn new(proxies: &[&Proxy], cookie: Option<&str>, best: &str) -> House {
        House::on_port(0, proxies, cookie, best)
    }

    /// The same with a port for HTTP.
    fn on_port(http: u16, proxies: &[&Proxy], cookie: Option<&str>, best: &str) -> House {
        let dir = temp();
        let user = if cookie.is_some() { "" } else { "user:pass@" };
        let mut options = vec!["--alone".to_owned(), format!("--http=127.0.0.1:{http}")];
        options.extend(proxies.iter().map(|proxy| format!("--bitcoind=http://{user}127.0.0.1:{}", proxy.port())));
        options.extend(cookie.map(|file| format!("--bitcoind-cookie={file}")));
        let node = Rockpool::start(dir.path(), &options.iter().map(String::as_str).collect::<Vec<_>>());
        until("a template", || (node.status()["bitcoin"]["tip"] == best).then_some(()));
        let miners = [ADDRESS, ADDRESS_2].map(|address| Miner::connect(node.stratum, address)).into();
        // All that follows from the first template has been asked.
        until("the last question about the first template", || (proxies[0].count("getchaintips") > 0).then_some(()));
        let mut house = House { node, miners, _dir: dir };
        house.jobs().iter().for_each(|job| assert_eq!(job.parent(), best));
        house
    }

    /// What the miners have to do now.
    fn jobs(&mut self) -> Vec<Job> {
        self.miners.iter_mut().map(Miner::job).collect()
    }

    /// Waits until it says that it has no bitcoind.
    fn until_down(&self) {
        until("the node to say that bitcoind is away", || self.down().then_some(()));
    }

    fn down(&self) -> bool {
        self.node.status()["trouble"].as_str().is_some_and(|why| why.starts_with("bitcoind cannot be reached"))
    }

    /// Submits for the job that each miner has are answered as if nothing were. Each share is a block too: these are their hashes.
    fn goes_on(&mut self) -> Vec<String> {
        let jobs = self.jobs();
        let mined: Vec<_> = self.miners.iter_mut().zip(&jobs).map(|(miner, job)| miner.mine_for(job)).collect();
        mined.iter().for_each(|share| assert_eq!(share.verdict, Ok(()), "{}", self.node.log()));
        mined.iter().map(|share| share.id.to_string()).collect()
    }

    /// bitcoind, back since then, has the first of these blocks that reached it, and there is work on that.
    fn hands_in(&mut self, blocks: &[String], bitcoind: &Bitcoind, since: Instant) {
        let tip = until("a block that was found meanwhile", || Some(best(bitcoind)).filter(|best| blocks.contains(best)));
        self.works_again(&tip, since);
    }

    /// There is work on this block for each miner, which comes so soon.
    fn works_again(&mut self, best: &str, since: Instant) {
        for miner in &mut self.miners {
            let job = miner.next_job_on(best, AGAIN.saturating_sub(since.elapsed()));
            assert_eq!(job.parent(), best);
        }
        eprintln!("work {:?} after bitcoind's return", since.elapsed());
    }

    /// Whatever bitcoind offers next is worked on, and a block of it is taken.
    fn mines(&mut self, bitcoind: &Bitcoind) {
        let before = mine(bitcoind);
        let block = {
            let job = self.miners[0].next_job_on(&before, AGAIN);
            let share = self.miners[0].mine_for(&job);
            assert_eq!(share.verdict, Ok(()));
            share.id.to_string()
        };
        until("bitcoind to take a block", || (best(bitcoind) == block).then_some(()));
        assert!(self.node.runs() && !self.node.log().contains("panicked"), "{}", self.node.log());
    }

    /// Does something; the node uses little of a processor meanwhile.
    fn idles<T>(&self, meanwhile: impl FnOnce(&House) -> T) -> T {
        let (begin, before) = (Instant::now(), self.node.cpu());
        let done = meanwhile(self);
        if let (Some(before), Some(after)) = (before, self.node.cpu()) {
            let (wall, used) = (begin.elapsed(), after - before);
            eprintln!("{used:?} of processor time in {wall:?} of the outage");
            assert!(used < wall / 10 + Duration::from_millis(300), "{used:?} of processor time in {wall:?}");
        }
        done
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn best(bitcoind: &Bitcoind) -> String {
    bitcoind.call(&["getbestblockhash"]).as_str().unwrap().to_owned()
}

fn mine(bitcoind: &Bitcoind) -> String {
    bitcoind.call(&["generatetoaddress", "1", ADDRESS]);
    best(bitcoind)
}

/// Gives one bitcoind the blocks of another up to a height.
fn hand_over(from: &Bitcoind, to: &Bitcoind, height: u64) {
    for height in 1..=height {
        let hash = from.call(&["getblockhash", &height.to_string()]);
        to.call_long("submitblock", from.call(&["getblock", hash.as_str().unwrap(), "0"]).as_str().unwrap());
    }
}

#[test]
fn killed_and_started_again() {
    let Some(mut bitcoind) = Bitcoind::start("killed_and_started_again") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let kept = bitcoind.call(&["getblock", &mine(&bitcoind), "0"]);
    let below = bitcoind.call(&["getblock", bitcoind.call(&["getblockhash", "1"]).as_str().unwrap(), "0"]);
    let mut house = House::new(&[&proxy], None, &best(&bitcoind));
    bitcoind.kill();
    house.until_down();
    let refused = proxy.refused();
    // A block found while bitcoind is away waits for it.
    let blocks = house.goes_on();
    house.idles(|_| until("tries of a bitcoind that is away", || (proxy.refused() >= refused + TRIES).then_some(())));
    assert!(house.down());
    bitcoind.again(&[]);
    bitcoind.until_up();
    // Killed it has lost blocks that it had; it gets them again from its peers, and what was found upon them from us.
    assert!(bitcoind.height() < 2, "bitcoind has learnt to keep its blocks");
    [below, kept].iter().for_each(|block| drop(bitcoind.call_long("submitblock", block.as_str().unwrap())));
    house.hands_in(&blocks, &bitcoind, Instant::now());
    house.mines(&bitcoind);
}

#[test]
fn killed_and_catching_up_with_its_peers() {
    let name = "killed_and_catching_up_with_its_peers";
    let listen = format!("127.0.0.1:{}", free_port());
    let Some(peer) = Bitcoind::start_with(name, &["-listen=1", &format!("-bind={listen}")]) else { return };
    let Some(mut bitcoind) = Bitcoind::start_with(name, &[&format!("-connect={listen}")]) else { return };
    let catches_up = |bitcoind: &Bitcoind| {
        until("bitcoind to catch up with its peer", || (best(bitcoind) == best(&peer)).then_some(()));
    };
    // Stopped in order it keeps these blocks; of the next ones it knows nothing when it has been killed.
    (0..2).for_each(|_| drop(mine(&peer)));
    catches_up(&bitcoind);
    bitcoind.stop();
    let kept = peer.height();
    bitcoind.again(&[]);
    bitcoind.until_up();
    (0..2).for_each(|_| drop(mine(&peer)));
    catches_up(&bitcoind);
    let tip = best(&bitcoind);
    let proxy = Proxy::start(bitcoind.port());
    let mut house = House::new(&[&proxy], None, &tip);
    bitcoind.kill();
    house.until_down();
    let blocks = house.goes_on();
    // Its peer is behind too for a while.
    let newer = peer.call(&["getblockhash", &(kept + 1).to_string()]);
    peer.call(&["invalidateblock", newer.as_str().unwrap()]);
    // Nobody hears of bitcoind before it has its peer: without one there is nothing to wait for.
    proxy.switch(free_port());
    bitcoind.again(&[]);
    bitcoind.until_up();
    until("bitcoind's peer", || (bitcoind.call(&["getconnectioncount"]) == 1).then_some(()));
    proxy.switch(bitcoind.port());
    assert_eq!((bitcoind.height(), peer.height()), (kept, kept), "it has lost blocks");
    house.idles(|_| until("looks whether it has caught up", || (proxy.count("getconnectioncount") >= 3).then_some(())));
    assert_eq!(house.node.status()["bitcoin"]["tip"], *tip);
    peer.call(&["reconsiderblock", newer.as_str().unwrap()]);
    // No miner was sent back to a block below the one that it works on.
    for miner in &mut house.miners {
        let parents = miner.parents_until(|parent| blocks.contains(&parent.to_owned()));
        assert!(parents.iter().all(|parent| *parent == tip), "{parents:?} before one of {blocks:?}");
    }
    until("the found block at the peer", || blocks.contains(&best(&peer)).then_some(()));
    house.mines(&bitcoind);
}

#[test]
fn restarted_in_order_with_another_cookie() {
    let Some(mut bitcoind) = Bitcoind::start_with("restarted_in_order", &["-rpcpassword="]) else { return };
    let proxy = Proxy::start(bitcoind.port());
    let cookie = bitcoind.cookie();
    let before = std::fs::read_to_string(&cookie).unwrap();
    let mut house = House::new(&[&proxy], cookie.to_str(), &best(&bitcoind));
    bitcoind.stop();
    house.until_down();
    let blocks = house.goes_on();
    house.idles(|_| {
        bitcoind.again(&[]);
        bitcoind.until_up();
    });
    house.hands_in(&blocks, &bitcoind, Instant::now());
    assert_ne!(std::fs::read_to_string(&cookie).unwrap(), before);
    house.mines(&bitcoind);
}

#[test]
fn restarted_and_warming_up() {
    let Some(mut bitcoind) = Bitcoind::start("restarted_and_warming_up") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let mut house = House::new(&[&proxy], None, &best(&bitcoind));
    bitcoind.stop();
    house.until_down();
    let blocks = house.goes_on();
    // bitcoind hears calls before it has loaded anything; its word is "not yet" then.
    let calls = proxy.calls().len();
    proxy.set(Manner::Knock);
    until("a call that waits at the door", || (proxy.calls().len() > calls).then_some(()));
    house.idles(|house| {
        bitcoind.again(&[]);
        until("\"not yet\" from a bitcoind that warms up", || proxy.has_said("\"code\":-28").then_some(()));
        assert!(house.down());
        bitcoind.until_up();
    });
    house.hands_in(&blocks, &bitcoind, Instant::now());
    house.mines(&bitcoind);
}

#[test]
fn slowed_to_half_a_minute_for_each_call() {
    let Some(bitcoind) = Bitcoind::start("slowed_to_half_a_minute") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let mut house = House::new(&[&proxy], None, &best(&bitcoind));
    proxy.set(Manner::Slow(SLOW));
    // The block itself is heard of by the long poll; all else takes its time, and the job that is there holds meanwhile.
    let tip = mine(&bitcoind);
    house.goes_on();
    house.idles(|house| until_in(SLOW * 4, "a slow template", || (house.node.status()["bitcoin"]["tip"] == *tip).then_some(())));
    assert!(!house.down(), "slow is not away");
    house.jobs().iter().for_each(|job| assert_eq!(job.parent(), tip));
    proxy.set(Manner::Pass);
    let well = Instant::now();
    let tip = mine(&bitcoind);
    house.works_again(&tip, well);
    house.mines(&bitcoind);
}

#[test]
fn switched_to_another_network_and_to_another_chain() {
    let Some(bitcoind) = Bitcoind::start("switched_to_another_network") else { return };
    let Some(main) = Bitcoind::start_on_main("switched_to_another_network") else { return };
    let Some(other) = Bitcoind::start("switched_to_another_network") else { return };
    mine(&bitcoind);
    let proxy = Proxy::start(bitcoind.port());
    let mut house = House::new(&[&proxy], None, &best(&bitcoind));

    proxy.switch(main.port());
    let wrong = |house: &House| house.node.status()["trouble"].as_str().is_some_and(|why| why.contains("is on network main"));
    until("the node to say what is wrong", || wrong(&house).then_some(()));
    // A block of the right chain means nothing to the wrong one, and is kept for the right one.
    let blocks = house.goes_on();
    let looks = proxy.count("getblockchaininfo");
    house.idles(|_| until("looks at the wrong one", || (proxy.count("getblockchaininfo") >= looks + TRIES).then_some(())));
    proxy.switch(bitcoind.port());
    house.hands_in(&blocks, &bitcoind, Instant::now());

    // A chain of the right network that has nothing in common with the one before, and is shorter: what bitcoind offers is mined upon.
    assert!(other.height() < bitcoind.height());
    proxy.switch(other.port());
    house.works_again(&best(&other), Instant::now());
    house.mines(&other);
    proxy.switch(bitcoind.port());
    house.works_again(&best(&bitcoind), Instant::now());
    house.mines(&bitcoind);
}

#[test]
fn one_of_two_killed_and_started_again() {
    let Some(mut first) = Bitcoind::start("one_of_two_killed") else { return };
    let Some(second) = Bitcoind::start("one_of_two_killed") else { return };
    mine(&first);
    hand_over(&first, &second, first.height());
    let proxies = [Proxy::start(first.port()), Proxy::start(second.port())];
    let mut house = House::new(&[&proxies[0], &proxies[1]], None, &best(&first));
    first.kill();
    let gone = Instant::now();
    let tip = mine(&second);
    house.works_again(&tip, gone);
    let refused = proxies[0].refused();
    house.idles(|_| until("looks for the first", || (proxies[0].refused() >= refused + 2).then_some(())));
    house.mines(&second);
    first.again(&[]);
    first.until_up();
    let polls = proxies[0].count("long poll");
    hand_over(&second, &first, second.height());
    until("the first to be watched", || (proxies[0].count("long poll") > polls).then_some(()));
    // Only the first hears of this block.
    let tip = mine(&first);
    house.works_again(&tip, Instant::now());
    house.mines(&first);
}

#[test]
fn one_of_two_hangs() {
    let Some(first) = Bitcoind::start("one_of_two_hangs") else { return };
    let Some(second) = Bitcoind::start("one_of_two_hangs") else { return };
    mine(&first);
    hand_over(&first, &second, first.height());
    let proxies = [Proxy::start(first.port()), Proxy::start(second.port())];
    let mut house = House::new(&[&proxies[0], &proxies[1]], None, &best(&first));
    proxies[0].set(Manner::Slow(HANGS));
    let height = second.height();
    let begin = Instant::now();
    // The block goes to both at once: that one of them hangs is nothing to the other.
    let blocks = house.goes_on();
    until("the second to have the block", || (second.height() > height).then_some(()));
    let block = best(&second);
    assert!(blocks.contains(&block));
    eprintln!("the second bitcoind had the block after {:?}", begin.elapsed());
    // And it is mined upon, though nobody says that the first is away.
    house.idles(|house| until("the second to be asked", || (house.node.status()["bitcoin"]["tip"] == *block).then_some(())));
    eprintln!("the second took over after {:?}", begin.elapsed());
    assert!(begin.elapsed() < LONGPOLL_LOOK + RPC_SPARE_DEADLINE + AGAIN);
    house.mines(&second);
    // What it is owed it gets when it is well.
    proxies[0].set(Manner::Pass);
    until("the first to have a block that was found meanwhile", || blocks.contains(&best(&first)).then_some(()));
}

/// bitcoind tells of its blocks by the option that README gives, while its long polls never come back.
#[test]
fn a_block_is_heard_of_by_blocknotify_while_the_long_poll_is_held_up() {
    const BLOCKS: u32 = 8;
    // bitcoind's option is needed before the node's port is known.
    let port = free_port();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let line =
        readme.lines().find_map(|line| line.trim_start().strip_prefix("blocknotify=")).expect("README gives the line for bitcoin.conf");
    let option = format!("-blocknotify={}", line.replace("/9332", &format!("/{port}")));
    let Some(bitcoind) = Bitcoind::start_with("a_block_is_heard_of_by_blocknotify", &[&option]) else { return };
    let proxy = Proxy::start(bitcoind.port());
    proxy.set(Manner::LosePolls);
    let mut house = House::on_port(port, &[&proxy], None, &best(&bitcoind));
    let begin = Instant::now();
    for _ in 0..BLOCKS {
        let tip = mine(&bitcoind);
        for miner in &mut house.miners {
            miner.next_job_on(&tip, AGAIN);
        }
    }
    let took = begin.elapsed();
    eprintln!("{BLOCKS} blocks heard of in {took:?}");
    assert!(took < LONGPOLL_LOOK * BLOCKS / 2, "{took:?}: by the looks that there are anyway");

    // Where blocks are told of, bitcoind is seldom asked for one.
    let (begin, before) = (Instant::now(), proxy.count("getblockchaininfo"));
    until("two looks", || (proxy.count("getblockchaininfo") >= before + 2).then_some(()));
    assert!(begin.elapsed() > LONGPOLL_LOOK / 2, "two looks in {:?}", begin.elapsed());

    // Whoever says so all the time has bitcoind asked for little.
    let (begin, before) = (Instant::now(), proxy.count("getblockchaininfo"));
    while begin.elapsed() < BLOCKNOTIFY_MIN * 4 {
        let (code, body) = crate::kit::ask(house.node.http, "POST", "/api/v1/blocknotify").unwrap();
        assert_eq!((code, body.as_str()), (200, r#"{"heard":true}"#));
    }
    let looks = proxy.count("getblockchaininfo") - before;
    let most = begin.elapsed().as_millis() / BLOCKNOTIFY_MIN.as_millis() + 2;
    assert!(looks > 0 && looks as u128 <= most, "{looks} looks in {:?}", begin.elapsed());
    assert_eq!(house.node.get("/api/v1/blocknotify").0, 405);
    proxy.set(Manner::Pass);
    house.mines(&bitcoind);
}
