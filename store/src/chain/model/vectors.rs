//! Vectors for other implementations, in `store/vectors`. `VECTORS=write` writes them anew; a normal run compares them byte for byte.

use std::fmt::{Display, Write};
use std::path::Path;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::sha256::{sha256, sha256d};
use rockpool_net::wire::share::{Class, Layout, Script, Share};

use super::slow::Verdict;
use super::world::World;
use crate::bitcoin::{Block, period_bits_of_child, required_bits};
use crate::limits::TENTHS;
use crate::params::{Network, params};
use crate::record::Record;
use crate::rules::window::{Credit, Level, Window};
use crate::rules::{coinbase, difficulty, draw, score, target, uncles};

/// All files together, bytes.
const BYTES_MAX: usize = 400_000;

fn text(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    bytes.iter().for_each(|byte| write!(digits, "{byte:02x}").unwrap());
    text(digits)
}

fn bits(bits: u32) -> String {
    text(format!("{bits:08x}"))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// A script as a share encodes it: type byte, program.
fn script(script: &Script) -> String {
    hex(&[&[script.type_byte()], script.program()].concat())
}

fn pays(pays: &[(Script, u64)]) -> String {
    list(pays.iter().map(|(who, value)| list([script(who), value.to_string()])))
}

fn weights(weights: impl IntoIterator<Item = (Script, u128)>) -> String {
    list(weights.into_iter().map(|(who, weight)| list([script(&who), text(weight)])))
}

/// One file: what to do with it, then a vector a line.
fn file(about: &str, vectors: &[String]) -> String {
    let all = "Hashes, ids and scripts are bytes as hashed or encoded, in hex; numbers that may exceed 53 bits are decimal texts; compact \
               targets are hex of the number. Names in capitals are sentences of store/SPEC.md.";
    format!("{{\"about\":{},\n\"vectors\":[\n{}\n]}}\n", text(format!("{about} {all}")), vectors.join(",\n"))
}

fn any_script(rng: &mut ChaCha12Rng) -> Script {
    let program = sha256(&rng.next_u32().to_le_bytes());
    match rng.next_u32() % 3 {
        0 => Script::P2wpkh(*program.first_chunk().unwrap()),
        1 => Script::P2wsh(program),
        _ => Script::P2tr(program),
    }
}

fn share_fields(share: &Share, genesis: &ShareId) -> String {
    let proof = &share.proof;
    object(&[
        ("hex", hex(&share.encode())),
        ("id", hex(&share.id().0)),
        ("commitment", hex(&share.commitment(genesis))),
        ("version", share.version.to_string()),
        ("outputs_max", share.class.outputs().to_string()),
        ("layout", text(if share.layout == Layout::Tail { "tail" } else { "front" })),
        ("parent", hex(&share.parent.0)),
        ("uncles", list(share.uncles.iter().map(|uncle| hex(&uncle.0)))),
        ("script", script(&share.script)),
        ("bits", bits(share.bits)),
        ("time", share.time.to_string()),
        ("height", share.height.to_string()),
        ("lead", share.lead.to_string()),
        ("score", text(share.score)),
        ("salt", share.salt.to_string()),
        ("value", text(share.value)),
        ("bitcoin_height", share.bitcoin_height.to_string()),
        ("prefix_len", proof.prefix_len.to_string()),
        ("midstate", hex(&proof.midstate)),
        ("extranonce", hex(&proof.extranonce)),
        ("tied", share.tied(genesis).to_string()),
    ])
}

fn history(seed: u64, shares: usize) -> World {
    let mut world = World::with(params(Network::Regtest), ChaCha12Rng::seed_from_u64(seed));
    while world.made.len() < shares {
        if world.once_in(6) {
            world.mine_block();
        }
        world.make_share();
    }
    world
}

fn shares() -> String {
    let mut vectors: Vec<String> = Vec::new();
    for network in Network::ALL {
        let params = params(network);
        let genesis = object(&[("network", text(network)), ("genesis", share_fields(params.genesis(), &params.genesis_id()))]);
        vectors.push(genesis);
    }
    let world = history(2, 30);
    vectors.extend(world.made[1..].iter().map(|id| share_fields(world.slow.share(id), &world.slow.genesis())));
    file(
        "First the genesis of each network (NET-2), then shares of regtest. Decode hex (ENC-1), encode it to the same bytes, compute id \
         (ENC-3) and commitment, and see whether the proof ties the fields to the header (TIE-3; no genesis is tied).",
        &vectors,
    )
}

fn chain() -> String {
    let world = history(16, 60);
    let slow = &world.slow;
    let mut vectors: Vec<String> =
        world.blocks[1..].iter().map(|hash| object(&[("bitcoin_header", hex(&slow.blocks[hash].header))])).collect();
    for id in &world.made[1..] {
        let known = &slow.known[id];
        let verdict = match known.verdict {
            Verdict::Good if known.good => "good",
            Verdict::Good => "on or with an invalid one",
            Verdict::Untied(_) => "untied",
            Verdict::Broken(_) => "invalid",
            Verdict::BadCoinbase if known.share.layout == Layout::Front => "untied by its coinbase",
            Verdict::BadCoinbase => "invalid by its coinbase",
        };
        let mut fields = vec![("share", hex(&known.share.encode())), ("verdict", text(verdict))];
        if known.good {
            fields.push(("weights", weights(slow.weights(id))));
        }
        vectors.push(object(&fields));
    }
    vectors.push(object(&[("best", hex(&world.best().0))]));
    file(
        "A history of regtest: Bitcoin headers, then shares in the order in which they are told, each with what must be made of it (VAL-2) \
         and, of good ones, the weights of the window that ends with it (WIN-5); last the tip in the end (SCORE-3).",
        &vectors,
    )
}

fn coinbases() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let mut vectors = Vec::new();
    let sizes = [(Class::N12, 1), (Class::N12, 12), (Class::N46, 30), (Class::N46, 46), (Class::N144, 144), (Class::N360, 251)];
    for (class, count) in sizes {
        for layout in [Layout::Tail, Layout::Front] {
            if layout == Layout::Front && count > 100 {
                continue;
            }
            let height = [1, 16, 17, 128, 32_768, 900_000, 8_388_608][rng.next_u32() as usize % 7];
            let mut outputs: Vec<(Script, u64)> = (0..count).map(|_| (any_script(&mut rng), 1_000 + u64::from(rng.next_u32()))).collect();
            outputs.sort_unstable();
            let (commitment, witness_commitment) = (sha256(&rng.next_u32().to_le_bytes()), sha256(&rng.next_u32().to_be_bytes()));
            let extranonce: [u8; 12] = *sha256(&[rng.next_u32() as u8]).first_chunk().unwrap();
            let front = (layout == Layout::Front).then_some(&extranonce);
            let prefix = coinbase::prefix(front, height, &outputs, &witness_commitment);
            let x = if front.is_some() { [0; 12] } else { extranonce };
            let tx = coinbase::coinbase_tx(&prefix, x, commitment, coinbase::locktime(height), false);
            vectors.push(object(&[
                ("outputs_max", class.outputs().to_string()),
                ("layout", text(if front.is_some() { "front" } else { "tail" })),
                ("bitcoin_height", height.to_string()),
                ("outputs", pays(&outputs)),
                ("witness_commitment", hex(&witness_commitment)),
                ("commitment", hex(&commitment)),
                ("extranonce", hex(&extranonce)),
                ("prefix_len", prefix.len().to_string()),
                ("tail", hex(&tx[prefix.len()..])),
                ("tx", hex(&tx)),
                ("txid", hex(&sha256d(&tx))),
            ]));
        }
    }
    file(
        "Build the coinbase from outputs (script, satoshis), commitments and extranonce (COIN-1 to COIN-7). tx is without witness: its first \
         prefix_len bytes are the prefix, the rest is the tail.",
        &vectors,
    )
}

fn difficulties() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(4);
    let mut vectors = Vec::new();
    for network in [Network::Main, Network::Testnet4, Network::Regtest] {
        let params = params(network);
        for round in 0..50u32 {
            let most = [3 * params.half_life_s, params.lead_max_s][round as usize % 2];
            let lead = if round < 2 { [0, params.lead_max_s][round as usize] } else { rng.next_u32() % most };
            let dt = [0, 1, -7, 10, i64::from(params.easing_s), 400, 5_000][rng.next_u32() as usize % 7];
            let parent = Record { lead, ..params.genesis_record() };
            let allowed = difficulty::allowed_bits(params, &parent, (i64::from(parent.time) + dt) as u32);
            vectors.push(object(&[
                ("network", text(network)),
                ("parent_lead", lead.to_string()),
                ("seconds_after_parent", dt.to_string()),
                ("lead", difficulty::lead(params, lead, dt).to_string()),
                ("allowed", bits(allowed)),
                ("hardest", bits(difficulty::hardest_bits(allowed))),
                ("demand", text(target::work(allowed))),
            ]));
        }
    }
    file("From the parent's lead and the seconds since: lead (DIFF-4), allowed (DIFF-5), hardest (DIFF-7), demand (DIFF-3).", &vectors)
}

fn scores() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let mut chain = vec![0u128];
    let mut vectors = Vec::new();
    for height in 1..48u32 {
        let allowed = target::compact(target::target(0x1b3f_ffc0).unwrap() >> (rng.next_u32() % 4) as usize);
        let own = target::compact(target::target(allowed).unwrap() >> (rng.next_u32() % 5) as usize);
        let (demand, work) = (target::work(allowed), target::work(own));
        let next = score::next(chain[height as usize - 1], work, demand);
        chain.push(next);
        vectors.push(object(&[("height", height.to_string()), ("allowed", bits(allowed)), ("bits", bits(own)), ("score", text(next))]));
    }
    file("One chain from height 1 on: allowed and own target of each share, and the score there (SCORE-1, SCORE-2).", &vectors)
}

fn bitcoin_bits() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    let mut vectors = Vec::new();
    for network in Network::ALL {
        let params = params(network);
        let limit = params.bitcoin.limit_bits;
        for round in 0..24u32 {
            let halvings = (rng.next_u32() % 40) as usize;
            let real = target::compact(target::target(limit).unwrap() >> halvings);
            let own = if network == Network::Testnet4 && round % 3 == 0 { limit } else { real };
            // Half of them are a period's last.
            let height = (rng.next_u32() % 400) * 2_016 + if round % 2 == 0 { 2_015 } else { rng.next_u32() % 2_015 };
            let (time, took) = (1_800_000_000, [0, 200_000, 1_209_600, 1_209_599, 1_300_000, 9_000_000][round as usize % 6]);
            let mut prev = Block::named([0; 32], height, time, real);
            prev.header[72..76].copy_from_slice(&own.to_le_bytes());
            prev.period_time = time - took;
            let after = [1, 600, 1_200, 1_201][rng.next_u32() as usize % 4];
            vectors.push(object(&[
                ("network", text(network)),
                ("height", height.to_string()),
                ("bits", bits(own)),
                ("time", time.to_string()),
                ("period_first_bits", bits(prev.period_bits)),
                ("period_first_time", prev.period_time.to_string()),
                ("newest_real_bits", bits(real)),
                ("child_time", (time + after).to_string()),
                ("child_bits", bits(required_bits(params, &prev, time + after))),
                ("child_period_bits", bits(period_bits_of_child(params, &prev))),
            ]));
        }
    }
    file(
        "A Bitcoin block, the first of its period and the newest of the period that is not of minimum difficulty: the bits that its child of \
         child_time must have (BTC-7), and those of the first block of the child's period, by which the window is measured (WIN-4).",
        &vectors,
    )
}

fn uncle_credits() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let harder = |bits: u32, by: u32| target::compact(target::target(bits).unwrap() >> by as usize);
    let vectors: Vec<String> = (0..24)
        .map(|_| {
            let allowed = harder(0x1b3f_ffc0, rng.next_u32() % 12);
            let own = harder(allowed, rng.next_u32() % 5);
            let uncle = harder(0x1b3f_ffc0, rng.next_u32() % 16);
            let (work, demand) = (target::work(uncle), target::work(allowed));
            let bounty = uncles::bounty(work, demand);
            object(&[
                ("allowed", bits(allowed)),
                ("bits", bits(own)),
                ("uncle_bits", bits(uncle)),
                ("share_tenths", text(TENTHS * target::work(own) + bounty)),
                ("uncle_tenths", text(uncles::left(work, demand))),
            ])
        })
        .collect();
    file("A share that credits one uncle: what each of them is worth in tenths of work (UNC-6). chain.json has whole ones.", &vectors)
}

fn windows() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(8);
    let mut vectors = Vec::new();
    for _ in 0..10 {
        let mut params = params(Network::Regtest).clone();
        params.window_min = 1 + rng.next_u32() % 12;
        params.window_max = params.window_min + rng.next_u32() % 20;
        let people: Vec<Script> = (0..1 + rng.next_u32() % 6).map(|_| any_script(&mut rng)).collect();
        let levels: Vec<Level> = (0..30)
            .map(|_| {
                let credits = (0..1 + rng.next_u32() % 2).map(|_| {
                    let script = people[rng.next_u32() as usize % people.len()];
                    Credit { script, tenths: TENTHS * u128::from(1 + rng.next_u32() % 1_000) }
                });
                let credits: Vec<Credit> = credits.collect();
                Level { work: credits.iter().map(|credit| credit.tenths / TENTHS).sum(), credits }
            })
            .collect();
        let mut window = Window::new(0);
        let steps = levels.iter().zip(1u32..).map(|(level, height)| {
            let wanted = u128::from(rng.next_u32() % 9_000);
            window.push(&params, wanted, |height| if height == 0 { Level::NONE } else { levels[height as usize - 1].clone() });
            let credits = weights(level.credits.iter().map(|credit| (credit.script, credit.tenths)));
            let mut fields = vec![("work", level.work.to_string()), ("credits", credits), ("wanted", wanted.to_string())];
            fields.push(("lowest", window.heights().unwrap().0.to_string()));
            if height % 10 == 0 {
                fields.push(("weights", weights(window.weights())));
            }
            object(&fields)
        });
        let steps: Vec<String> = steps.collect();
        let (least, most) = (params.window_min.to_string(), params.window_max.to_string());
        vectors.push(object(&[("heights_min", least), ("heights_max", most), ("heights", list(steps))]));
    }
    file(
        "Chains from height 1 on: work and credits (script, tenths) of each height and the work that a window ending there must hold; lowest \
         is the lowest height of that window (WIN-3), weights are its sums (WIN-5). The least and the most heights are not any network's.",
        &vectors,
    )
}

fn draws() -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut vectors = Vec::new();
    for (count, widest) in [(1, 40), (3, 90), (12, 20), (13, 20), (20, 60), (46, 30), (60, 12), (150, 40), (400, 24)] {
        let mut people: Vec<(Script, u128)> =
            (0..count).map(|_| (any_script(&mut rng), 1 + u128::from(rng.next_u64()) % (1 << (1 + rng.next_u32() % widest)))).collect();
        people.sort_unstable();
        let parent = ShareId(sha256(&rng.next_u32().to_le_bytes()));
        let subsidy = [5_000_000_000, 312_500_000, 5_000_000, 0][rng.next_u32() as usize % 4];
        let (dust, value) = (10_000, subsidy + u64::from(rng.next_u32()));
        let results = Class::ALL.map(|class| {
            let drawn = draw::draw(&people, &parent, dust, subsidy, class);
            let place = |who: &Script| people.iter().position(|(script, _)| script == who).unwrap().to_string();
            let paid = draw::pay(&drawn, value);
            let parts = drawn.parts.iter().zip(paid).map(|((who, n), (_, paid))| list([place(who), text(n), paid.to_string()]));
            object(&[("outputs_max", class.outputs().to_string()), ("whole", text(drawn.whole)), ("parts", list(parts))])
        });
        vectors.push(object(&[
            ("parent", hex(&parent.0)),
            ("dust", dust.to_string()),
            ("subsidy", text(subsidy)),
            ("value", text(value)),
            ("weights", weights(people.iter().copied())),
            ("classes", list(results)),
        ]));
    }
    file(
        "From weights (script, tenths), parent, dust, subsidy: who is paid in each class (PAY-3 to PAY-6), as place in weights (from 0), n, \
         and the satoshis of value (PAY-7, PAY-8); whole is W·q.",
        &vectors,
    )
}

#[test]
fn vectors_are_what_the_rules_make_of_them() {
    let files = [
        ("shares.json", shares()),
        ("chain.json", chain()),
        ("coinbases.json", coinbases()),
        ("difficulty.json", difficulties()),
        ("scores.json", scores()),
        ("bitcoin.json", bitcoin_bits()),
        ("uncles.json", uncle_credits()),
        ("windows.json", windows()),
        ("draws.json", draws()),
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    if std::env::var("VECTORS").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(&directory).unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(directory.join(name), content).unwrap());
    }
    for (name, content) in &files {
        let found = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        assert!(found == *content, "{name} is another: the rules have changed, or VECTORS=write was forgotten");
    }
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}
