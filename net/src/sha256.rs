//! SHA-256 as Bitcoin and the share chain use it, midstates included.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// Bytes of a block of SHA-256.
pub const BLOCK_BYTES: usize = 64;

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    Midstate::new().finish(data)
}

/// SHA-256 of the SHA-256 of `data`: Bitcoin's hash of headers, transactions and messages.
pub fn sha256d(data: &[u8]) -> [u8; 32] {
    sha256(&sha256(data))
}

/// Tagged SHA-256 (SHARECHAIN's TH): SHA256(SHA256(tag) ‖ SHA256(tag) ‖ parts one after the other).
pub fn tagged(tag: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256(tag);
    let mut hash = Sha256::new();
    hash.update(tag);
    hash.update(tag);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The state of SHA-256 after whole blocks: what lets everything before a coinbase's last bytes be hashed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midstate {
    state: [u32; 8],
    len: u64,
}

impl Midstate {
    /// Before the first block.
    pub fn new() -> Midstate {
        let state = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
        Midstate { state, len: 0 }
    }

    /// A state that was told: big-endian words as in a digest, reached after `len` bytes.
    pub fn from_bytes(bytes: [u8; 32], len: u64) -> Midstate {
        let (words, _) = bytes.as_chunks::<4>();
        let mut state = [0; 8];
        for (word, bytes) in state.iter_mut().zip(words) {
            *word = u32::from_be_bytes(*bytes);
        }
        Midstate { state, len }
    }

    /// The state as big-endian words.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (bytes, word) in words.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        bytes
    }

    /// Bytes hashed so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is hashed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hashes whole blocks. What is over a multiple of 64 bytes is left out and belongs to the next call or to [`Midstate::finish`].
    pub fn update_blocks(&mut self, data: &[u8]) {
        let (blocks, _) = data.as_chunks::<BLOCK_BYTES>();
        compress256(&mut self.state, blocks);
        self.len += (blocks.len() * BLOCK_BYTES) as u64;
    }

    /// The (single) SHA-256 of what was hashed so far and `tail`, which may have any length.
    pub fn finish(mut self, tail: &[u8]) -> [u8; 32] {
        let (blocks, rest) = tail.as_chunks::<BLOCK_BYTES>();
        if !blocks.is_empty() {
            self.update_blocks(tail);
        }
        let bits = (self.len + rest.len() as u64).wrapping_mul(8);
        let mut last = [[0; BLOCK_BYTES]; 2];
        let padded = last.as_flattened_mut();
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()] = 0x80;
        // The padding is one bit, zeros, and 8 bytes of length: a second block where the first has no room for them.
        let blocks = if rest.len() < BLOCK_BYTES - 8 { 1 } else { 2 };
        padded[blocks * BLOCK_BYTES - 8..blocks * BLOCK_BYTES].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut self.state, &last[..blocks]);
        self.to_bytes()
    }
}

impl Default for Midstate {
    fn default() -> Midstate {
        Midstate::new()
    }
}

/// A v1 message's checksum, fed as the payload arrives: the first four bytes of its SHA256d.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(Midstate);

impl Checksum {
    /// Takes in the whole blocks of `payload` that are not taken in yet. Each call is given the payload from its first byte.
    pub fn feed(&mut self, payload: &[u8]) {
        self.0.update_blocks(payload.get(self.fed()..).unwrap_or_default());
    }

    /// The checksum of `payload`, of which [`Checksum::feed`] has seen none, a part or all.
    pub fn finish(self, payload: &[u8]) -> [u8; 4] {
        let hash = sha256(&self.0.finish(payload.get(self.fed()..).unwrap_or_default()));
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn fed(&self) -> usize {
        self.0.len() as usize
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn shown(hash: [u8; 32]) -> String {
        crate::id::ShareId(hash).to_string()
    }

    #[test]
    fn bitcoin_headers_hash_to_their_known_ids() {
        let genesis = hex(concat!(
            "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3",
            "888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
        ));
        assert_eq!(shown(sha256d(&genesis)), "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f");
        let block_125552 = hex(concat!(
            "0100000081cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000e320b6c2fffc8d750423db8b1eb942ae710e951e",
            "d797f7affc8892b0f1fc122bc7f5d74df2b9441a42a14695"
        ));
        assert_eq!(shown(sha256d(&block_125552)), "00000000000000001e8d6829a8a21adc5d38d0a473b144b6765798e61f98bd1d");
    }

    #[test]
    fn sha256_and_tagged_have_known_answers() {
        assert_eq!(sha256(b"abc").to_vec(), hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        // The definition spelled out, for data in parts.
        let tag = sha256(b"BIP0340/challenge");
        assert_eq!(tagged(b"BIP0340/challenge", &[b"a", b"", b"bc"]), sha256(&[&tag[..], &tag[..], b"abc"].concat()));
    }

    #[test]
    fn a_midstate_finishes_as_the_whole_would() {
        let data: Vec<u8> = (0..400u32).map(|n| (n * 7) as u8).collect();
        for len in 0..data.len() {
            for blocks in 0..=len / BLOCK_BYTES {
                let (front, tail) = data[..len].split_at(blocks * BLOCK_BYTES);
                let mut state = Midstate::new();
                state.update_blocks(front);
                assert_eq!(state.len(), front.len() as u64);
                let told = Midstate::from_bytes(state.to_bytes(), state.len());
                assert_eq!(told, state);
                assert_eq!(told.finish(tail), sha256(&data[..len]), "{len} bytes, {blocks} blocks");
            }
        }
    }

    #[test]
    fn a_checksum_fed_in_any_pieces_is_the_same() {
        let data: Vec<u8> = (0..300u32).map(|n| (n * 11) as u8).collect();
        let want = sha256d(&data)[..4].to_vec();
        for step in 1..=data.len() {
            let mut sum = Checksum::default();
            for end in (0..data.len()).step_by(step) {
                sum.feed(&data[..end]);
            }
            assert_eq!(sum.finish(&data).to_vec(), want, "step {step}");
        }
    }
}
