//! Shares and messages for tests.

use std::net::SocketAddr;

use super::message::{
    AddrEntry, BlockBodyPart, ChainTip, GetBlockBody, GetHeaders, GetTemplate, Host, Message, NetAddr, Start, TemplatePart, TxIds, Version,
};
use super::share::{Class, Layout, Proof, Script, Share};
use crate::id::ShareId;
use crate::sha256::{Midstate, sha256d};

/// The chain of [`tied_share`].
pub(crate) const GENESIS: ShareId = ShareId([0x6e; 32]);

/// Ids, ascending, that differ in every byte.
pub(crate) fn ids(count: usize) -> Vec<ShareId> {
    let mut ids: Vec<ShareId> = (0..count as u32).map(|n| ShareId(sha256d(&n.to_le_bytes()))).collect();
    ids.sort();
    ids
}

/// A share as they mostly are: no uncle, a P2WPKH script, a block of some thousand transactions. Not tied.
pub(crate) fn share() -> Share {
    share_of(0, false, 12)
}

/// A share with this many uncles, a script of 32 bytes or of 20, and this many merkle siblings. Not tied.
pub(crate) fn share_of(uncles: usize, long_script: bool, branch: usize) -> Share {
    Share {
        header: std::array::from_fn(|at| 0xa0 ^ at as u8),
        version: 1,
        class: Class::N46,
        layout: Layout::Tail,
        parent: ShareId([0x11; 32]),
        uncles: ids(uncles),
        script: if long_script { Script::P2tr([0x22; 32]) } else { Script::P2wpkh([0x23; 20]) },
        bits: 0x1b3f_ffc0,
        time: 1_800_000_000,
        height: 4_321,
        lead: 17,
        score: 0x0123_4567_89ab_cdef_0123,
        salt: 0xfeed_beef,
        value: 312_500_000,
        witness_commitment: [0x33; 32],
        bitcoin_height: 957_000,
        proof: Proof {
            prefix_len: 320,
            midstate: [0x44; 32],
            extranonce: *b"enonce1enon2",
            branch: ids(branch).into_iter().map(|id| id.0).collect(),
        },
    }
}

/// A share whose coinbase is put together here by hand and hashed whole, as Bitcoin would.
pub(crate) fn tied_share(layout: Layout, uncles: usize, branch: usize) -> Share {
    let mut share = share_of(uncles, false, branch);
    share.layout = layout;
    let mut coinbase = Vec::new();
    coinbase.extend(2u32.to_le_bytes());
    coinbase.push(1);
    coinbase.extend([0; 32]);
    coinbase.extend([0xff; 4]);
    let mut script_sig = vec![3];
    script_sig.extend(&share.bitcoin_height.to_le_bytes()[..3]);
    script_sig.extend([9]);
    script_sig.extend(b"/rockpool");
    if layout == Layout::Front {
        script_sig.push(12);
        script_sig.extend(share.proof.extranonce);
    }
    // One payout, the witness commitment, and what all before X has beside them and the scriptSig.
    let outputs = [[0x55; 31].to_vec(), [0x66; 47].to_vec()].concat();
    let fixed = 4 + 1 + 36 + 1 + 4 + 1 + 11;
    let bytes: usize = fixed + script_sig.len() + outputs.len();
    script_sig.extend(vec![0x20; bytes.next_multiple_of(64) - bytes]);
    coinbase.push(script_sig.len() as u8);
    coinbase.extend(script_sig);
    coinbase.extend([0xfe, 0xff, 0xff, 0xff]);
    coinbase.push(3);
    coinbase.extend(outputs);
    coinbase.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x2e, 0x6a, 0x2c]);
    assert_eq!(coinbase.len() % 64, 0);
    let mut state = Midstate::new();
    state.update_blocks(&coinbase);
    share.proof.prefix_len = coinbase.len() as u32;
    share.proof.midstate = state.to_bytes();
    coinbase.extend(if layout == Layout::Tail { share.proof.extranonce } else { [0; 12] });
    coinbase.extend(share.commitment(&GENESIS));
    coinbase.extend((share.bitcoin_height - 1).to_le_bytes());
    let mut root = sha256d(&coinbase);
    for sibling in &share.proof.branch {
        root = sha256d(&[root, *sibling].concat());
    }
    share.header[36..68].copy_from_slice(&root);
    share
}

/// The `version` of some node.
pub(crate) fn version() -> Version {
    let addr = |services, addr: ([u16; 8], u16)| NetAddr { services, addr: addr.into() };
    Version {
        protocol: super::message::PROTOCOL_VERSION,
        services: 9,
        time: 1_800_000_000,
        receiver: NetAddr { services: 1, addr: ([10, 0, 0, 1], 9_333).into() },
        sender: addr(9, ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 1_234)),
        nonce: 0x0123_4567_89ab_cdef,
        user_agent: "/rockpool:0.1.0/".into(),
        start_height: 4_321,
        relay: true,
    }
}

/// The last `count` transactions of a list, and how many come before them.
pub(crate) fn template_part(before: usize, count: usize) -> TemplatePart {
    let txs = ids(count).into_iter().map(|id| TxIds { txid: id.0, wtxid: sha256d(&id.0) }).collect();
    TemplatePart { id: ShareId([4; 32]), first: before as u32, total: (before + count) as u32, txs }
}

/// Addresses of every kind.
pub(crate) fn addrs() -> Vec<AddrEntry> {
    let ips = [SocketAddr::from(([203, 0, 113, 7], 9_333)), SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 1))];
    let others = [Host::Other(4, [5; 32].into()), Host::Other(99, Box::default())];
    let plain = ips.map(|addr| AddrEntry::new(addr, 1 << 40, 1_800_000_000)).into_iter();
    plain.chain(others.map(|host| AddrEntry { time: 0, services: 9, host, port: 0 })).collect()
}

/// One or more of every message.
pub(crate) fn messages() -> Vec<Message> {
    let tip = ChainTip { genesis: GENESIS, tip: ShareId([2; 32]), height: 7, score: u128::MAX - 5, features: 1 << 63 };
    vec![
        Message::Version(version()),
        Message::Version(Version { user_agent: String::new(), relay: false, ..version() }),
        Message::Verack,
        Message::Ping(0x0123_4567_89ab_cdef),
        Message::Pong(u64::MAX),
        Message::ChainTip(tip),
        Message::GetHeaders(GetHeaders { from: Start::Locator(ids(1)), stop: ShareId([0; 32]) }),
        Message::GetHeaders(GetHeaders { from: Start::Locator(ids(64)), stop: ShareId([3; 32]) }),
        Message::GetHeaders(GetHeaders { from: Start::Height(0), stop: ShareId([3; 32]) }),
        Message::GetHeaders(GetHeaders { from: Start::Height(u32::MAX), stop: ShareId([0; 32]) }),
        Message::ShareHeaders(Vec::new()),
        Message::ShareHeaders(vec![share(), share_of(3, true, 16), share_of(1, false, 0)]),
        Message::Inv(ids(3)),
        Message::Inv(Vec::new()),
        Message::GetData(ids(2)),
        Message::NotFound(ids(128)),
        Message::Share(Box::new(share())),
        Message::Share(Box::new(tied_share(Layout::Front, 2, 5))),
        Message::BtcHeaders(Vec::new()),
        Message::BtcHeaders(vec![share().header, [0xff; 80], [1; 80]]),
        Message::GetTemplate(GetTemplate { id: ShareId([4; 32]), first: 8_000 }),
        Message::Template(template_part(0, 0)),
        Message::Template(template_part(7, 5)),
        Message::BlockFound(Box::new(share_of(1, true, 3))),
        Message::GetBlockBody(GetBlockBody { id: ShareId([4; 32]), offset: 500_000, places: vec![1, 2, 65_534] }),
        Message::GetBlockBody(GetBlockBody { id: ShareId([4; 32]), offset: 0, places: Vec::new() }),
        Message::BlockBody(BlockBodyPart { id: ShareId([4; 32]), offset: 5, total: 12, bytes: vec![9; 7] }),
        Message::GetAddr,
        Message::AddrV2(addrs()),
        Message::AddrV2(Vec::new()),
    ]
}
