//! The world of one seed: nodes, miners, Bitcoin, a partition, and what must hold.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool::node::{Node, NodeConfig};
use rockpool::status::Listen;
use rockpool_net::hub::io::Mail;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow};
use rockpool_net::id::{Lane, ShareId};
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::sha256::sha256d;
use rockpool_store::chain::Chain;
use rockpool_store::handle::{ChainStoreHandle, StoreHandle};
use rockpool_store::kv::{Family, Kv, MemKv};
use rockpool_store::params::{Network, Params, params};
use rockpool_store::schema;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::Answer;

use crate::draw;
use crate::miner::Miner;
use crate::stages::{Given, Inline};

const NODES: usize = 3;
/// How long the miners mine, simulated.
const MINING: Duration = Duration::from_secs(120);
/// How long all may take to come to one chain once the line is whole and nobody mines: redialling backs off to a minute.
const SETTLE_MAX: Duration = Duration::from_secs(180);
/// Steps at one moment: more is a spin.
const STEPS_MAX: usize = 10_000;
const P2P: u16 = 9333;
const STRATUM: u16 = 3333;

/// One whole node.
struct Host {
    hub: Hub<Answer>,
    node: Node<Given>,
    stages: Inline,
    kv: Arc<dyn Kv>,
    rng: ChaCha12Rng,
    /// When its next turn is, at the latest.
    due: Duration,
    /// The newest template that it was told of.
    template: [u8; 32],
}

/// Everything.
pub struct World {
    net: Net,
    hosts: Vec<Host>,
    miners: Vec<Miner>,
    bitcoin: EmbeddedChain,
    params: &'static Params,
    /// When the line is cut between B and C, and when it heals.
    cut: (Duration, Duration),
    is_cut: bool,
    /// The last moment and the steps taken at it.
    moment: (Duration, usize),
}

impl World {
    /// The world of a seed, at its beginning.
    pub fn new(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let params = params(Network::Regtest);
        // A line carries about `chop` bytes per `delay`: at least 3 kB a second, or no answer of a sync would come within its deadline.
        let (longest_ms, chop) = match draw(&mut rng, 3) {
            0 => (20, 64),
            1 => (1 + draw(&mut rng, 200), 1_500),
            _ => (1 + draw(&mut rng, 200), usize::MAX),
        };
        let weather = Weather {
            delay: (Duration::from_micros(100), Duration::from_millis(longest_ms)),
            chop,
            capacity: 4_096 + draw(&mut rng, 60_000) as usize,
        };
        let mut net = Net::new(rng.next_u64(), NODES + 2, weather);
        let peers = [vec![1], vec![], vec![1]];
        let hosts = peers.iter().enumerate().map(|(at, peers)| Host::new(&mut net, at, peers, params, &mut rng)).collect();
        let users = ["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp.shelf"];
        let miner = |i: usize, rng: &mut ChaCha12Rng| Miner::new(NODES + i, Net::addr(2 * i, STRATUM), users[i], fork(rng));
        let miners = vec![miner(0, &mut rng), miner(1, &mut rng)];
        let begin = Duration::from_secs(5 + draw(&mut rng, 30));
        // Short ones only delay; after the dead time of 90 s the connections are gone and dialled anew.
        let cut = (begin, begin + Duration::from_secs(1 + draw(&mut rng, 110)));
        let bitcoin = EmbeddedChain::new(params, None);
        World { net, hosts, miners, bitcoin, params, cut, is_cut: false, moment: (Duration::ZERO, 0) }
    }

    /// Mines through the partition, then lets all come to rest, and demands what must hold at the end.
    pub fn run(&mut self) {
        let end = MINING.max(self.cut.1);
        while self.step([true; 2]) < end {}
        let last = end + SETTLE_MAX;
        while !self.settled() {
            // Of equal branches everyone keeps the first seen: it takes one more share to tell them apart.
            let tie = self.tie();
            assert!(self.step([tie, false]) < last, "no rest within {SETTLE_MAX:?}: {}", self.describe());
        }
        self.check_end();
    }

    /// A number that differs between two worlds in which anything differed.
    pub fn trace(&self) -> [u8; 32] {
        let tips = self.hosts.iter().flat_map(|host| host.node.chain().view.confirmed_tip().id.0);
        sha256d(&tips.chain(self.net.trace().to_le_bytes()).collect::<Vec<_>>())
    }

    /// The next moment at which anything happens, and what happens then.
    fn step(&mut self, mining: [bool; 2]) -> Duration {
        let stages = self.hosts.iter().filter_map(|host| host.stages.due());
        let turns = self.hosts.iter().map(|host| host.due);
        let miners = self.miners.iter().map(Miner::due);
        let cuts = [self.cut.0, self.cut.1].into_iter().filter(|at| *at > self.moment.0);
        let next = self.net.next().into_iter().chain(stages).chain(turns).chain(miners).chain(cuts).min().unwrap();
        let now = next.max(self.moment.0);
        self.moment = if now == self.moment.0 { (now, self.moment.1 + 1) } else { (now, 0) };
        assert!(self.moment.1 < STEPS_MAX, "something spins at {now:?}: {}", self.describe());
        let cut = self.cut.0 <= now && now < self.cut.1;
        if cut != self.is_cut {
            self.is_cut = cut;
            self.net.partition(1, 2, cut);
        }
        self.net.advance(now);
        for at in 0..self.hosts.len() {
            self.host(at);
        }
        self.miners.iter_mut().zip(mining).for_each(|(miner, mining)| miner.step(&mut self.net, mining));
        self.check();
        self.check_acknowledged(now);
        now
    }

    /// What one node has to do now.
    fn host(&mut self, at: usize) {
        let now = self.net.now(at);
        let host = &mut self.hosts[at];
        host.stages.step(now, &self.bitcoin);
        let tip = self.bitcoin.tip().hash;
        if host.template != tip {
            host.template = tip;
            let template = Answer::Template(Arc::new(self.bitcoin.template(now.unix())));
            host.stages.mailbox.push_back(Mail { answer: template, tickets: Vec::new() });
        }
        if !host.stages.mailbox.is_empty() || self.net.has_events(at) || host.due <= now.mono {
            let mut io = self.net.io(at, &mut host.stages.mailbox);
            host.due = host.hub.turn(now, &mut host.rng, &mut io, &mut host.node).unwrap().due;
            host.stages.take(now.mono, host.node.stages_mut());
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        for (at, host) in self.hosts.iter_mut().enumerate() {
            let view = &host.node.chain().view;
            assert_eq!(view.sanity_check(), Ok(()), "view of node {at}");
            assert!(view.confirmed_height() <= view.tip().height);
            assert!(host.node.stopping().is_none(), "node {at} stops: {:?}", host.node.stopping());
        }
    }

    /// A share is stored when its miner hears `true`. Only a branch that lost since, which takes a partition, may be deleted again.
    fn check_acknowledged(&mut self, now: Duration) {
        for (miner, host) in self.miners.iter_mut().zip([0, 2]) {
            for id in miner.newly_acknowledged.drain(..) {
                let lost = now >= self.cut.0 && self.hosts[host].node.chain().view.get(&id).is_none();
                assert!(
                    stored(&*self.hosts[host].kv, &id) || lost,
                    "share {id} was acknowledged and is not stored; {now:?}, cut {:?}, in view {:?}, index {:?}, tip {}",
                    self.cut,
                    self.hosts[host].node.chain().view.get(&id),
                    self.hosts[host].stages.chain().get(&id).map(|r| r.height),
                    self.hosts[host].stages.chain().tip().height,
                );
            }
        }
    }

    fn settled(&mut self) -> bool {
        let tip = self.hosts[0].node.chain().view.confirmed_tip().id;
        let one = self.hosts.iter().all(|host| host.node.chain().view.confirmed_tip().id == tip);
        let quiet = |host: &mut Host| host.stages.quiet() && host.hub.outlet().tickets_out() == 0;
        one && self.miners.iter().all(|miner| miner.waiting() == 0) && self.hosts.iter_mut().all(quiet)
    }

    /// Whether two nodes are on different branches of one score.
    fn tie(&self) -> bool {
        let tips: Vec<_> = self.hosts.iter().map(|host| host.node.chain().view.confirmed_tip()).collect();
        tips.windows(2).any(|pair| pair[0].score == pair[1].score && pair[0].id != pair[1].id)
    }

    fn check_end(&mut self) {
        for host in &self.hosts {
            assert_eq!(host.stages.chain().sanity_check(), Ok(()));
            let (view, index) = (&host.node.chain().view, host.stages.chain());
            assert_eq!(view.confirmed_tip().id, index.confirmed_tip().id, "view and index agree");
            assert_eq!(view.payouts(), self.hosts[0].node.chain().view.payouts(), "all dictate the same payouts");
        }
        let height = self.hosts[0].node.chain().view.confirmed_height();
        assert!(height >= 10, "only {height} shares in {MINING:?}");
        for (miner, host) in self.miners.iter().zip([0, 2]) {
            assert!(!miner.acknowledged.is_empty(), "each miner had work");
            let view = &self.hosts[host].node.chain().view;
            let on_chain = miner.acknowledged.iter().filter(|id| view.get(id).is_some());
            on_chain.for_each(|id| assert!(stored(&*self.hosts[host].kv, id), "share {id} is confirmed and not stored"));
            // A job outlived by its Bitcoin block is stale: the one refusal that honest miners meet.
            assert!(miner.refused.iter().all(|error| error[0] == 21), "{:?}", miner.refused);
        }
        // What each keeps on disk opens again to the same tip.
        for host in &self.hosts {
            let reopened = Chain::open(self.params, [1, 2], &*host.kv).unwrap();
            assert_eq!(reopened.confirmed_tip().id, host.node.chain().view.confirmed_tip().id, "restart from disk");
        }
    }

    fn describe(&mut self) -> String {
        let describe = |host: &mut Host| {
            let view = &host.node.chain().view;
            let (tip, confirmed) = (view.tip().height, view.confirmed_tip());
            let (height, id) = (confirmed.height, confirmed.id);
            format!("{tip}/{height} {id}, {} conns, {} tickets out", host.hub.conns(), host.hub.outlet().tickets_out())
        };
        let nodes: Vec<_> = self.hosts.iter_mut().map(describe).collect();
        let waiting: Vec<_> = self.miners.iter().map(Miner::waiting).collect();
        format!("{nodes:#?}, submits waiting {waiting:?}")
    }
}

impl Host {
    fn new(net: &mut Net, at: usize, peers: &[usize], params: &'static Params, rng: &mut ChaCha12Rng) -> Host {
        let row = |lane, framer| ListenerRow {
            lane,
            framer,
            conns_max: 16,
            per_addr_max: 4,
            spare_private: true,
            first_frame: Duration::from_secs(10),
        };
        let listeners = vec![row(Lane::Peer, FramerKind::V1), row(Lane::Stratum, FramerKind::LineOrHttp)];
        net.listen(at, 0, P2P);
        net.listen(at, 1, STRATUM);
        let kv: Arc<dyn Kv> = Arc::new(MemKv::new());
        schema::open(&*kv, params, "the simulator").unwrap();
        let chain = Chain::open(params, [rng.next_u64(), rng.next_u64()], &*kv).unwrap();
        let handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(kv.clone()));
        let peers = peers.iter().map(|peer| Net::addr(*peer, P2P)).collect();
        let config = NodeConfig { params, peers, alone: true, listen: Listen::default() };
        let stages = Inline::new(params, chain, &kv, fork(rng));
        let node = Node::new(config, handle, Given::default(), fork(rng));
        let hub = Hub::new(HubConfig { magic: params.magic, listeners, dials_max: 8 });
        Host { hub, node, stages, kv, rng: fork(rng), due: Duration::ZERO, template: [0; 32] }
    }
}

/// Whether a share's row is there, at whatever height.
fn stored(kv: &dyn Kv, id: &ShareId) -> bool {
    let mut found = false;
    let mut look = |key: &[u8], _: &[u8]| {
        found |= key.ends_with(&id.0);
        !found
    };
    kv.scan(Family::Shares, &[], &mut look).unwrap();
    found
}

fn fork(rng: &mut ChaCha12Rng) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(rng.next_u64())
}
