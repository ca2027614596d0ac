#![expect(clippy::unwrap_used, reason = "tests")]

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use rockpool_net::wire::share::{Class, Layout, Script};
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::rules::coinbase::coinbase_of;
use rockpool_store::rules::target::target_bytes;
use rockpool_workers::embedded::{EmbeddedChain, filled};
use rockpool_workers::template::Tx;
use rockpool_workers::work::{Work, meets};

use super::*;
use crate::testing::{at, mined, regtest};

const ALICE: Script = Script::P2wpkh([1; 20]);

/// A transaction with a witness of so many bytes.
pub(crate) fn tx(number: u32, bytes: usize) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint { txid: bitcoin::Txid::from_byte_array(sha256d(&number.to_le_bytes())), vout: number },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[vec![number as u8; bytes]]),
    };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51; 30]) };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// A template of these transactions.
pub(crate) fn template(txs: &[Transaction]) -> Template {
    filled(EmbeddedChain::new(regtest(), None).template(at(Duration::ZERO).unix()), txs)
}

/// A block of these transactions: its share, its coinbase and all of it.
pub(crate) fn block(txs: &[Transaction]) -> (Share, Vec<u8>, Vec<u8>) {
    let view = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap().view();
    let next = view.next(regtest(), at(Duration::ZERO));
    let template = Arc::new(template(txs));
    let work = Work::new(regtest(), template, &next, view.payouts(), (Class::N12, Layout::Tail), Some(ALICE), 9).unwrap();
    let share = mined(&work, &ALICE, [5; 12], |hash| meets(hash, &target_bytes(work.draft.bits)));
    let (coinbase, block) = (coinbase_of(regtest(), &share, view.payouts()), work.block(regtest(), &share));
    (share, coinbase, block)
}

fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

const NOW: Duration = Duration::from_secs(100);

/// Answers what is asked as the finder would. The block, and how many questions it took.
fn pull(pulls: &mut Pulls, mut step: Option<Step>, whole: &[u8]) -> (Vec<u8>, usize) {
    let mut questions = 0;
    loop {
        match step {
            Some(Step::Ask(from, wanted)) => {
                questions += 1;
                let part = Contents::of(&wanted.id, whole).unwrap().part(whole, &wanted).unwrap();
                step = pulls.on_part(NOW, from, part).unwrap();
            }
            Some(Step::Done { block, .. }) => return (block, questions),
            None => panic!("it ended without a block"),
        }
    }
}

#[test]
fn a_body_is_made_of_what_is_ours_and_what_is_missing() {
    let small: Vec<Transaction> = (0..9).map(|n| tx(n, 70)).collect();
    // Parts end within transactions.
    let large: Vec<Transaction> = (0..7).map(|n| tx(n, 230_000)).collect();
    for (txs, parts) in [(small, 1), (large, 4)] {
        let (share, coinbase, whole) = block(&txs);
        let decoded: Block = bitcoin::consensus::deserialize(&whole).unwrap();
        assert!(decoded.check_merkle_root() && decoded.check_witness_commitment() && decoded.txdata.len() == txs.len() + 1);
        // Ours are in another order, and among others.
        let mine: Vec<Transaction> = txs.iter().rev().cloned().chain([tx(77, 5)]).collect();
        for (ours, questions) in
            [(Some(template(&mine)), 1), (Some(template(&mine[3..])), if parts == 1 { 2 } else { 3 }), (None, 1 + parts)]
        {
            let mut pulls = Pulls::default();
            let step = pulls.begin(NOW, &share, coinbase.clone(), ours.map(Arc::new), conn(1));
            assert!(pulls.holds(&share.id()));
            let pulled = pull(&mut pulls, step, &whole);
            assert!(pulled.0 == whole && pulled.1 == questions, "{} questions for {questions}", pulled.1);
            assert!(!pulls.holds(&share.id()) && pulls.due().is_none());
        }
    }
}

#[test]
fn a_block_of_the_coinbase_alone_is_there_at_once() {
    let (share, coinbase, whole) = block(&[]);
    let mut pulls = Pulls::default();
    let step = pulls.begin(NOW, &share, coinbase, None, conn(1));
    assert!(pull(&mut pulls, step, &whole) == (whole, 0));
}

/// A peer's answers, one after the other, to a node that has two of six transactions.
fn answers(share: &Share, coinbase: &[u8], whole: &[u8], txs: &[Transaction]) -> Vec<BlockBodyPart> {
    let (mut pulls, mut parts) = (Pulls::default(), Vec::new());
    let mut step = pulls.begin(NOW, share, coinbase.to_vec(), Some(Arc::new(template(&txs[2..4]))), conn(1));
    while let Some(Step::Ask(_, wanted)) = step {
        let part = Contents::of(&wanted.id, whole).unwrap().part(whole, &wanted).unwrap();
        parts.push(part.clone());
        step = pulls.on_part(NOW, conn(1), part).unwrap();
    }
    parts
}

#[test]
fn whatever_byte_is_wrong_nothing_but_the_block_is_handed_in() {
    let txs: Vec<Transaction> = (0..6).map(|n| tx(n, 40)).collect();
    let (share, coinbase, whole) = block(&txs);
    let parts = answers(&share, &coinbase, &whole, &txs);
    assert_eq!(parts.len(), 2);
    let (mut blamed, mut asked, mut taken) = (0, 0, 0);
    for (at, part) in parts.iter().enumerate() {
        for byte in 0..part.bytes.len() {
            let mut pulls = Pulls::default();
            pulls.begin(NOW, &share, coinbase.clone(), Some(Arc::new(template(&txs[2..4]))), conn(1));
            let mut spoiled = parts.clone();
            spoiled[at].bytes[byte] ^= 1;
            let last = spoiled.into_iter().map_while(|part| pulls.on_part(NOW, conn(1), part).map_err(|_| blamed += 1).ok()).last();
            match last {
                // The short id of a transaction that we lack is only counted.
                Some(Some(Step::Done { block, .. })) if block == whole => taken += 1,
                Some(Some(Step::Done { .. })) => panic!("byte {byte} of part {at} is wrong and a block was made of it"),
                // Of one that is ours: it is missing then. Else two short ids might have been alike.
                Some(Some(Step::Ask(..))) => asked += 1,
                Some(None) | None => {}
            }
        }
    }
    assert_eq!(taken, 4 * SHORT_BYTES, "of the other byte nothing came");
    assert!(asked > 0 && blamed > 0, "{asked} asked for more, {blamed} blamed");
}

#[test]
fn lies_of_every_kind_cost_the_connection() {
    let txs: Vec<Transaction> = (0..6).map(|n| tx(n, 40)).collect();
    let (share, coinbase, whole) = block(&txs);
    let good = answers(&share, &coinbase, &whole, &txs);
    let tell = |before: usize, part: BlockBodyPart| {
        let mut pulls = Pulls::default();
        pulls.begin(NOW, &share, coinbase.clone(), Some(Arc::new(template(&txs[2..4]))), conn(1));
        good[..before].iter().for_each(|part| drop(pulls.on_part(NOW, conn(1), part.clone()).unwrap()));
        pulls.on_part(NOW, conn(1), part).unwrap_err()
    };
    let of = |bytes: Vec<u8>| BlockBodyPart { id: share.id(), offset: 0, total: bytes.len() as u32, bytes };
    assert_eq!(tell(0, of(vec![1; 6 * 100])), "short ids of another block");
    assert_eq!(tell(0, of(vec![1; 35])), "short ids of another block");
    assert_eq!(tell(0, of(Vec::new())), "short ids of another block");
    assert_eq!(tell(0, BlockBodyPart { offset: 6, ..good[0].clone() }), "part of a body that was not asked for");
    assert_eq!(tell(0, BlockBodyPart { total: 8 * SHORT_BYTES as u32, ..good[0].clone() }), "short ids of another block");
    assert_eq!(tell(1, BlockBodyPart { total: BODY_BYTES_MAX as u32 + 1, ..good[1].clone() }), "a body of more than a block's bytes");
    assert_eq!(tell(1, of([&good[1].bytes[..], &[0]].concat())), "more transactions than were asked for");
    assert_eq!(tell(1, of(good[1].bytes[..50].to_vec())), "a transaction that does not decode");
    assert_eq!(tell(1, of(Vec::new())), "a transaction that does not decode");
    assert_eq!(tell(0, BlockBodyPart { id: ShareId([9; 32]), ..good[0].clone() }), "a body that was not asked for");
    // Transactions of another block, and one that may stand for a node of the tree.
    let others = (0..6).map(|n| serialize(&tx(n + 50, 40))).collect::<Vec<_>>().concat();
    let mut pulls = Pulls::default();
    pulls.begin(NOW, &share, coinbase.clone(), None, conn(1));
    pulls.on_part(NOW, conn(1), good[0].clone()).unwrap();
    assert_eq!(pulls.on_part(NOW, conn(1), of(others)).unwrap_err(), "a body that is not the block's");
    let mut node = tx(1, 40);
    node.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(node.base_size(), NODE_BYTES);
    assert_eq!(tell(1, of(serialize(&node))), "a transaction that could be a node of the merkle tree");
    // The tree of three and of the last one doubled has one root: the block is none.
    let (share, coinbase, _) = block(&txs[..2]);
    let mut pulls = Pulls::default();
    pulls.begin(NOW, &share, coinbase, Some(Arc::new(template(&txs[..2]))), conn(1));
    let shorts = [0, 1, 1].map(|n: usize| short(key(&share.id()), &sha256d(&serialize(&txs[n])))).concat();
    let doubled = BlockBodyPart { id: share.id(), offset: 0, total: shorts.len() as u32, bytes: shorts };
    let Ok(Some(Step::Ask(_, wanted))) = pulls.on_part(NOW, conn(1), doubled) else { panic!("not asked again") };
    assert_eq!(wanted.places, [0, 1, 2], "all, in case that two short ids were alike");
    let bytes = [0, 1, 1].map(|n: usize| serialize(&txs[n])).concat();
    let doubled = BlockBodyPart { id: share.id(), offset: 0, total: bytes.len() as u32, bytes };
    assert_eq!(pulls.on_part(NOW, conn(1), doubled).unwrap_err(), "a body that is not the block's");
}

#[test]
fn two_short_ids_alike_cost_one_more_question() {
    let txs: Vec<Transaction> = (0..6).map(|n| tx(n, 40)).collect();
    let (share, coinbase, whole) = block(&txs);
    // A transaction of ours that claims another's id, as one with an equal short id would.
    let mut ours = template(&txs);
    let ids = TxIds { txid: [7; 32], ..ours.txs[3].ids };
    ours.txs[3] = Arc::new(Tx { ids, data: serialize(&tx(60, 40)).into() });
    let mut pulls = Pulls::default();
    let step = pulls.begin(NOW, &share, coinbase, Some(Arc::new(ours)), conn(1));
    assert!(pull(&mut pulls, step, &whole) == (whole, 2));
}

#[test]
fn who_is_silent_or_slow_makes_room_for_the_next() {
    let txs: Vec<Transaction> = (0..6).map(|n| tx(n, 200_000)).collect();
    let (share, coinbase, whole) = block(&txs);
    let (id, mut pulls) = (share.id(), Pulls::default());
    let begin = |pulls: &mut Pulls, from| pulls.begin(NOW, &share, coinbase.clone(), None, from);
    let Some(Step::Ask(_, wanted)) = begin(&mut pulls, conn(1)) else { panic!("nobody is asked") };
    for other in 2..=BODY_PEERS_MAX as u32 + 2 {
        assert!(begin(&mut pulls, conn(other)).is_none());
        assert!(begin(&mut pulls, conn(other)).is_none());
    }
    let asked = |steps: Vec<Step>| match &steps[..] {
        [Step::Ask(conn, wanted)] => Some((conn.slot, wanted.places.len())),
        _ => None,
    };
    assert_eq!(pulls.due(), Some(NOW + BODY_ANSWER_MAX));
    assert_eq!(asked(pulls.on_time(NOW + BODY_ANSWER_MAX - Duration::from_millis(1), |_| false)), None);
    assert_eq!(asked(pulls.on_time(NOW + BODY_ANSWER_MAX, |_| false)), Some((2, 0)));
    // What it says late is let pass once, and then it is a body that nobody asked for.
    let part = Contents::of(&id, &whole).unwrap().part(&whole, &wanted).unwrap();
    assert!(matches!(pulls.on_part(NOW, conn(1), part.clone()), Ok(None)));
    assert_eq!(pulls.on_part(NOW, conn(1), part.clone()).unwrap_err(), "a body that was not asked for");
    // Who sends, and never ends, has his time and no more.
    let mut now = NOW + BODY_ANSWER_MAX;
    let begun = now;
    pulls.on_part(now, conn(2), part.clone()).unwrap();
    while now < begun + BODY_TIME_MAX {
        assert_eq!(asked(pulls.on_time(now, |_| true)), None);
        now += Duration::from_secs(1);
    }
    assert_eq!(asked(pulls.on_time(now, |_| true)), Some((3, 0)));
    // Who leaves is not asked again, nor who is known to have left.
    assert!(pulls.on_closed(now, conn(4)).is_empty());
    assert_eq!(asked(pulls.on_closed(now, conn(3))), Some((5, 0)));
    // One that has told of the block and not got it is asked again in a moment, if nobody else is left.
    let mut others = 0;
    while let Some(Step::Ask(conn, _)) = pulls.on_not_found(now, ConnId { slot: 5 + others, generation: 1 }, &id) {
        others += 1;
        assert_eq!(conn.slot, 5 + others);
    }
    assert_eq!(others + 5, BODY_PEERS_MAX as u32 + 1, "more peers than these are not remembered");
    // Their first minute is over.
    assert!(!pulls.holds(&id));
}

#[test]
fn who_has_not_got_it_yet_is_asked_again_in_a_moment() {
    let (share, coinbase, whole) = block(&[tx(1, 40)]);
    let (id, mut pulls, mut now) = (share.id(), Pulls::default(), NOW);
    assert!(matches!(pulls.begin(now, &share, coinbase, None, conn(1)), Some(Step::Ask(..))));
    let mut asked = 1;
    loop {
        assert!(pulls.on_not_found(now, conn(1), &id).is_none());
        if !pulls.holds(&id) {
            break;
        }
        assert_eq!(pulls.due(), Some(now + BODY_RETRY));
        assert!(pulls.on_time(now, |_| false).is_empty());
        now += BODY_RETRY;
        assert!(matches!(&pulls.on_time(now, |_| false)[..], [Step::Ask(conn, _)] if conn.slot == 1));
        asked += 1;
    }
    assert_eq!(asked, 1 + (BODY_TIME_MAX.as_secs() / BODY_RETRY.as_secs()));
    // It tells of it again, and now it has it.
    let (share, coinbase, _) = block(&[tx(1, 40)]);
    let step = pulls.begin(now, &share, coinbase, None, conn(1));
    assert!(pull(&mut pulls, step, &whole).0 == whole);
}

#[test]
fn no_more_are_pulled_at_once_than_may_be() {
    let mut pulls = Pulls::default();
    for number in 0..=BODY_PULLS_MAX as u32 {
        let (share, coinbase, _) = block(&[tx(number, 40)]);
        let step = pulls.begin(NOW, &share, coinbase, None, conn(number));
        assert_eq!((step.is_some(), pulls.holds(&share.id())), (number < BODY_PULLS_MAX as u32, number < BODY_PULLS_MAX as u32));
    }
}

#[test]
fn parts_are_asked_for_by_the_thousand_and_none_is_given_that_is_not_there() {
    let (share, _, whole) = block(&[tx(1, 40), tx(2, 40)]);
    let contents = Contents::of(&share.id(), &whole).unwrap();
    let part = |offset, places: &[u16]| contents.part(&whole, &GetBlockBody { id: share.id(), offset, places: places.to_vec() });
    assert_eq!(part(0, &[]).unwrap().bytes.len(), 2 * SHORT_BYTES);
    assert_eq!(part(0, &[0, 1]).unwrap().bytes, [1, 2].map(|n| serialize(&tx(n, 40))).concat());
    assert_eq!(part(5, &[1]).unwrap().bytes, serialize(&tx(2, 40))[5..]);
    assert!(part(0, &[2]).is_none() && part(1_000, &[1]).is_none() && part(13, &[]).is_none());
    assert!(Contents::of(&share.id(), &whole[..whole.len() - 1]).is_none());
    const { assert!(BODY_PLACES_MAX < TEMPLATE_TXS_MAX) };
}
