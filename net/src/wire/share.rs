//! A share: a Bitcoin header with the proof that ties a place in the share chain to it. Its stored form is its wire form.
//!
//! In order, all integers little-endian (`store/SPEC.md`, ENC-1):
//!
//! committed: Bitcoin header 80 · version 1 · flags 1 · parent 32 · uncles 32n · script 1 + 20/32 · bits 4 · time 4 ·
//! height 4 · lead 4 · score 16 · salt 4 · value 8 · witness commitment 32 · Bitcoin height 4 ‖
//! proof: prefix length 4 · midstate 32 · extranonce 12 · count 1 · branch 32m.
//!
//! flags: bits 0–1 class (0 = 12, 1 = 46, 2 = 144, 3 = 360 outputs), bit 2 layout (0 tail, 1 front), bits 3–4 uncle count,
//! bits 5–7 zero.

use crate::id::ShareId;

/// Size of the coinbase that a share's miner can hold, as the most outputs it may pay (SHARECHAIN §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// At most 12 outputs: a coinbase of at most 752 bytes, which any device holds.
    N12,
    /// At most 46 outputs, 2,160 bytes.
    N46,
    /// At most 144 outputs, 6,384 bytes.
    N144,
    /// At most 360 outputs, 15,664 bytes.
    N360,
}

/// Where the extranonce stands in the coinbase (SHARECHAIN §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// In the last output, so that all before it is hashed once per template.
    Tail,
    /// As the third push of the scriptSig, for firmware that reads outputs out of `coinb2`.
    Front,
}

/// Who is paid for a share: a witness program of one of the three kinds that a share may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Script {
    /// Pay to witness public key hash (type byte 0).
    P2wpkh([u8; 20]),
    /// Pay to witness script hash (type byte 1).
    P2wsh([u8; 32]),
    /// Pay to taproot (type byte 2).
    P2tr([u8; 32]),
}

/// What ties the committed fields to the 80 bytes of the Bitcoin header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Bytes of the coinbase before X (layout tail: before the extranonce), a multiple of 64.
    pub prefix_len: u32,
    /// SHA-256 state after these bytes, big-endian words as in a digest.
    pub midstate: [u8; 32],
    /// extranonce1 (4) ‖ extranonce2 (8).
    pub extranonce: [u8; 12],
    /// Merkle siblings from the coinbase up, at most 16.
    pub branch: Vec<[u8; 32]>,
}

/// A share. Field names and order are those of its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The Bitcoin header, 80 bytes as hashed.
    pub header: [u8; 80],
    /// The ruleset in force at its height.
    pub version: u8,
    /// Coinbase size class.
    pub class: Class,
    /// Coinbase layout.
    pub layout: Layout,
    /// The share it builds on.
    pub parent: ShareId,
    /// Uncles it credits, ascending, at most 3.
    pub uncles: Vec<ShareId>,
    /// Who is paid.
    pub script: Script,
    /// Its target, compact.
    pub bits: u32,
    /// When its job was made, Unix seconds.
    pub time: u32,
    /// Height in the share chain; genesis is 0.
    pub height: u32,
    /// Seconds that the chain runs ahead of its schedule (SHARECHAIN §4).
    pub lead: u32,
    /// Sum that decides between branches (SHARECHAIN §5).
    pub score: u128,
    /// Drawn by the node, so that two nodes with one address never hash the same job.
    pub salt: u32,
    /// What the coinbase pays out, satoshis.
    pub value: u64,
    /// The block's witness commitment.
    pub witness_commitment: [u8; 32],
    /// Height of the Bitcoin block that it tries to be.
    pub bitcoin_height: u32,
    /// The proof.
    pub proof: Proof,
}
