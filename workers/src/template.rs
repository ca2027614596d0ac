//! A block template: what Bitcoin's side offers to mine on.

/// What bitcoind (or the embedded chain) offers to mine on. One copy for all miners.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// Counts templates since start; a later one replaces an earlier one.
    pub sequence: u64,
    /// Height of the block to be.
    pub height: u32,
    /// Hash of its parent, bytes as hashed.
    pub prev: [u8; 32],
    /// Header version that the template asks for.
    pub version: u32,
    /// Target, compact.
    pub bits: u32,
    /// Least header time.
    pub mintime: u32,
    /// Header time that it proposes.
    pub curtime: u32,
    /// What the coinbase may pay: subsidy and fees, satoshis.
    pub value: u64,
    /// Witness commitment of the block.
    pub witness_commitment: [u8; 32],
    /// Merkle siblings of the coinbase, from the bottom up.
    pub branch: Vec<[u8; 32]>,
    /// The transactions but the coinbase, encoded with witnesses.
    pub txs: Vec<Box<[u8]>>,
}
