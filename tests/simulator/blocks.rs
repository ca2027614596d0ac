//! Found blocks whose finder's bitcoind is dead: the others pull them and hand them in, whatever hostile servers of bodies do.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::wire::message::{BlockBodyPart, Command, Message, NetAddr, PROTOCOL_VERSION, Version};
use rockpool_store::params::{Network, params};
use rockpool_workers::embedded::EmbeddedChain;

use crate::client::{Client, Line};
use crate::drawn::address;
use crate::host::{Machine, P2P, STRATUM};
use crate::miner::Miner;
use crate::stages::Pace;
use crate::{draw, fork};

/// Blocks that must land.
const BLOCKS: u32 = 12;
/// Simulated time for them: a share a second and what hostile servers cost, ten seconds of silence each.
const WITHIN: Duration = Duration::from_secs(240);

/// What a hostile server does when it is asked.
const LIES: usize = 4;

/// Two hosts of one mind: it hears of blocks at one node, tells another of them, and has none.
struct Liar {
    ears: Client,
    mouth: Client,
    greeted: [bool; 2],
    asked: usize,
}

impl Liar {
    fn new(host: usize, hears: SocketAddr, tells: SocketAddr) -> Liar {
        Liar { ears: Client::new(host, hears), mouth: Client::new(host + 1, tells), greeted: [false; 2], asked: 0 }
    }

    fn step(&mut self, net: &mut Net) {
        for side in 0..2 {
            let client = if side == 0 { &mut self.ears } else { &mut self.mouth };
            match client.line {
                Line::Closed => {
                    self.greeted[side] = false;
                    client.dial(net);
                }
                Line::Open if !std::mem::replace(&mut self.greeted[side], true) => say(client, &version(side as u64)),
                Line::Open | Line::Dialling => {}
            }
            client.receive(net);
            for message in messages(&mut client.input) {
                self.hear(side, message);
            }
        }
        self.ears.send(net);
        self.mouth.send(net);
    }

    fn hear(&mut self, side: usize, message: Message) {
        let client = if side == 0 { &mut self.ears } else { &mut self.mouth };
        match message {
            Message::Version(_) => say(client, &Message::Verack),
            Message::BlockFound(share) if side == 0 && self.greeted[1] => say(&mut self.mouth, &Message::BlockFound(share)),
            Message::GetBlockBody(wanted) => {
                self.asked += 1;
                let part =
                    |total: usize, bytes: usize| BlockBodyPart { id: wanted.id, offset: 0, total: total as u32, bytes: vec![7; bytes] };
                match self.asked % LIES {
                    // As many short ids as there are, of transactions that do not exist; then it falls silent, or sends junk.
                    0 if wanted.places.is_empty() => say(client, &Message::BlockBody(part(6 * TXS, 6 * TXS))),
                    1 => say(client, &Message::BlockBody(part(100_000, 100_000))),
                    2 => say(client, &Message::NotFound(vec![wanted.id])),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

fn say(client: &mut Client, message: &Message) {
    client.output.extend(message.to_bytes(params(Network::Regtest).magic).unwrap());
}

fn version(nonce: u64) -> Message {
    let addr = NetAddr { services: 0, addr: SocketAddr::from(([10, 9, 9, 9], 1)) };
    let (protocol, user_agent) = (PROTOCOL_VERSION, "/liar/".to_owned());
    let time = 1_700_000_000;
    Message::Version(Version { protocol, services: 0, time, receiver: addr, sender: addr, nonce, user_agent, start_height: 0, relay: true })
}

/// The whole messages among these bytes.
fn messages(bytes: &mut Vec<u8>) -> Vec<Message> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let length = HEADER_BYTES + u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        if bytes.len() < length {
            break;
        }
        let command = Command::from_field(bytes[4..16].try_into().unwrap()).unwrap();
        found.push(Message::decode(command, &bytes[HEADER_BYTES..length]).unwrap());
        bytes.drain(..length);
    }
    found
}

const TXS: usize = 40;

fn tx(number: usize, bytes: usize) -> Transaction {
    let previous_output = OutPoint { txid: bitcoin::Txid::from_byte_array([number as u8; 32]), vout: number as u32 };
    let witness = Witness::from_slice(&[vec![number as u8; bytes]]);
    let input = TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51; 22]) };
    Transaction { version: transaction::Version::TWO, lock_time: absolute::LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// A line of three nodes whose first mines and cannot reach its bitcoind; liars hear at the first and tell the last. What each node knows
/// of blocks when enough of them have landed.
fn story(seed: u64, liars: usize) -> (Vec<Vec<rockpool_store::blocks::FoundBlock>>, usize) {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let params = params(Network::Regtest);
    let delay = (Duration::from_micros(100), Duration::from_micros(1_000 + draw(&mut rng, 40_000)));
    let mut net = Net::new(seed, 4 + 2 * liars, Weather { delay, ..Weather::fair() });
    // It stays a line, whatever they hear of each other.
    net.partition(0, 2, true);
    let txs: Vec<Transaction> = (0..TXS).map(|number| tx(number, 100 + draw(&mut rng, 20_000) as usize)).collect();
    let bitcoin = EmbeddedChain::with_traffic(params, &txs);
    let mut machines: Vec<Machine> = (0..3usize)
        .map(|at| {
            let peers: Vec<usize> = at.checked_sub(1).into_iter().collect();
            let mut machine = Machine::new(at, &peers, Pace { odds: 0, wait_max_us: 0 }, &mut rng);
            // The finder has all; the others lack some.
            machine.traffic = if at == 0 { txs.clone() } else { txs.iter().skip(at).step_by(2).cloned().collect() };
            machine.start(&mut net, params);
            machine
        })
        .collect();
    let mut miner = Miner::new(3, Net::addr(0, STRATUM), &address(1), fork(&mut rng));
    let mut liars: Vec<Liar> = (0..liars).map(|i| Liar::new(4 + 2 * i, Net::addr(0, P2P), Net::addr(2, P2P))).collect();
    let mut now = Duration::ZERO;
    while bitcoin.tip().height < BLOCKS {
        assert!(now < WITHIN, "{} blocks have landed", bitcoin.tip().height);
        // Liars look around now and then.
        let tick = now + Duration::from_millis(50);
        let dues = machines.iter().filter_map(Machine::due).chain([miner.due(), tick]);
        now = net.next().into_iter().chain(dues).min().unwrap().max(now);
        net.advance(now);
        for machine in &mut machines {
            if machine.at == 0 {
                machine.process.as_mut().unwrap().stages.dead = true;
            }
            machine.step(&mut net, &bitcoin);
        }
        miner.step(&mut net, true);
        liars.iter_mut().for_each(|liar| liar.step(&mut net));
    }
    let blocks = machines.iter().map(|machine| {
        let process = machine.process.as_ref().unwrap();
        process.node.status(net.now(machine.at)).blocks
    });
    (blocks.collect(), liars.iter().map(|liar| liar.asked).sum())
}

#[test]
fn blocks_land_although_the_finders_bitcoind_is_dead() {
    for seed in 1..=5 {
        let (blocks, _) = story(seed, 0);
        assert!(blocks[0].iter().all(|block| !block.accepted()) && blocks[0].iter().any(|block| block.told == 1 && block.served == 1));
        assert!(blocks[1].iter().any(|block| block.accepted()), "seed {seed}: {:?}", blocks[1]);
    }
}

#[test]
fn blocks_land_among_hostile_servers_of_bodies() {
    let mut asked = 0;
    for seed in 1..=5 {
        let (blocks, times) = story(seed, 2);
        assert!(blocks[1].iter().any(|block| block.accepted()));
        asked += times;
    }
    assert!(asked > 0, "no liar was ever asked");
}
