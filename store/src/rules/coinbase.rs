//! The coinbase that a share dictates, byte for byte (SPEC, COIN-1 to COIN-8).
//!
//! All before X is a multiple of 64 bytes, so that it is hashed once and a submit costs one more block of SHA-256.

use rockpool_net::sha256::BLOCK_BYTES;
use rockpool_net::wire::share::{Layout, Script, Share};

use crate::params::Params;
use crate::payouts::Payouts;

/// COIN-3: what every coinbase of the pool says.
pub const TAG: &[u8; 9] = b"/rockpool";
/// Bytes of X: extranonce1 (4) and extranonce2 (8).
pub const X_BYTES: usize = 12;
/// Bytes of a coinbase from X on: X, commitment, locktime.
pub const TAIL_BYTES: usize = X_BYTES + 32 + 4;

const VERSION: u32 = 2;
const SEQUENCE: u32 = 0xffff_fffe;
/// OP_RETURN, a push of 36: the header of BIP141's commitment.
const WITNESS_COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// A value of zero, and a script that is OP_RETURN and a push of 44: X and commitment.
const LAST_OUTPUT: [u8; 11] = [0, 0, 0, 0, 0, 0, 0, 0, 0x2e, 0x6a, 0x2c];

/// COIN-1: the coinbase before X, without witness. `front` is the extranonce in layout *front*, where it is the scriptSig's third push.
pub fn prefix(front: Option<&[u8; X_BYTES]>, bitcoin_height: u32, outputs: &[(Script, u64)], witness_commitment: &[u8; 32]) -> Vec<u8> {
    let outputs = write_outputs(outputs, witness_commitment);
    let height = push_height(bitcoin_height);
    let third = front.map_or(0, |extranonce| 1 + extranonce.len());
    // version, one input, no previous output, length of the scriptSig, its three parts, sequence.
    let unpadded = 4 + 1 + 36 + 1 + (height.len() + 1 + TAG.len() + third) + 4 + outputs.len();
    let padding = unpadded.next_multiple_of(BLOCK_BYTES) - unpadded;
    let script_bytes = height.len() + 1 + TAG.len() + padding + third;
    let mut prefix = Vec::with_capacity(unpadded + padding);
    prefix.extend(VERSION.to_le_bytes());
    prefix.push(1);
    prefix.extend([0; 32]);
    prefix.extend([0xff; 4]);
    // At most 5 + 1 + 72 + 13 bytes, as each push below: one byte says how many.
    prefix.push(script_bytes as u8);
    prefix.extend(height);
    prefix.push((TAG.len() + padding) as u8);
    prefix.extend(TAG);
    prefix.extend(std::iter::repeat_n(0x20, padding));
    if let Some(extranonce) = front {
        prefix.push(extranonce.len() as u8);
        prefix.extend(extranonce);
    }
    prefix.extend(SEQUENCE.to_le_bytes());
    prefix.extend(outputs);
    prefix
}

/// Where the extranonce stands in a [`prefix`] of layout *front*: at the scriptSig's end.
pub fn extranonce_at(prefix: &[u8]) -> usize {
    // version, one input, no previous output; then the scriptSig with its length before it.
    const SCRIPT_AT: usize = 4 + 1 + 36;
    (SCRIPT_AT + 1 + usize::from(prefix[SCRIPT_AT])).saturating_sub(X_BYTES)
}

/// COIN-1: the prefix that a share's coinbase must have, given what it must pay.
pub fn prefix_of(share: &Share, outputs: &[(Script, u64)]) -> Vec<u8> {
    let front = match share.layout {
        Layout::Tail => None,
        Layout::Front => Some(&share.proof.extranonce),
    };
    prefix(front, share.bitcoin_height, outputs, &share.witness_commitment)
}

/// COIN-7: the coinbase from X on. In layout *front* X is zero.
pub fn tail(x: &[u8; X_BYTES], commitment: &[u8; 32], locktime: u32) -> [u8; TAIL_BYTES] {
    let mut tail = [0; TAIL_BYTES];
    tail[..X_BYTES].copy_from_slice(x);
    tail[X_BYTES..X_BYTES + 32].copy_from_slice(commitment);
    tail[X_BYTES + 32..].copy_from_slice(&locktime.to_le_bytes());
    tail
}

/// COIN-8: the whole coinbase; with its witness, 32 zero bytes, as a block holds it, without as its txid is made of.
pub fn coinbase_tx(prefix: &[u8], x: [u8; X_BYTES], commitment: [u8; 32], locktime: u32, with_witness: bool) -> Vec<u8> {
    let tail = tail(&x, &commitment, locktime);
    let (version, body) = prefix.split_at(prefix.len().min(4));
    let (output_end, locktime) = tail.split_at(X_BYTES + 32);
    let (marker, witness): (&[u8], &[u8]) = if with_witness { (&[0, 1], &WITNESS) } else { (&[], &[]) };
    [version, marker, body, output_end, witness, locktime].concat()
}

/// The whole coinbase of a share whose parent's payouts are these, as a block holds it.
pub fn coinbase_of(params: &Params, share: &Share, payouts: &Payouts) -> Vec<u8> {
    let outputs = payouts.outputs(params, share.class, share.value, share.bitcoin_height, &share.script);
    let x = match share.layout {
        Layout::Tail => share.proof.extranonce,
        Layout::Front => [0; X_BYTES],
    };
    coinbase_tx(&prefix_of(share, &outputs), x, share.commitment(&params.genesis_id()), locktime(share.bitcoin_height), true)
}

/// One item of 32 zero bytes: the value that BIP141 reserves.
const WITNESS: [u8; 34] = {
    let mut witness = [0; 34];
    witness[0] = 1;
    witness[1] = 32;
    witness
};

/// COIN-6: locktime of the coinbase of this height, so that no two are ever the same.
pub fn locktime(bitcoin_height: u32) -> u32 {
    bitcoin_height.saturating_sub(1)
}

/// COIN-2: the height as BIP34 wants it and Bitcoin Core compares it: the script's shortest push of that number.
fn push_height(height: u32) -> Vec<u8> {
    const OP_1: u8 = 0x51;
    match height {
        0 => vec![0],
        1..=16 => vec![OP_1 + (height - 1) as u8],
        _ => {
            let mut number = height.to_le_bytes().to_vec();
            // The highest bit is the sign, so a number that has it set takes a byte more.
            number.push(0);
            while let [.., high, 0] = number[..]
                && high & 0x80 == 0
            {
                number.pop();
            }
            number.insert(0, number.len() as u8);
            number
        }
    }
}

/// COIN-4, COIN-5: count and outputs up to X: who is paid, in script order, BIP141's commitment, and the head of the last one.
fn write_outputs(outputs: &[(Script, u64)], witness_commitment: &[u8; 32]) -> Vec<u8> {
    let count = outputs.len() + 2;
    let mut bytes = Vec::with_capacity(3 + 43 * outputs.len() + 47 + LAST_OUTPUT.len());
    match count {
        0..0xfd => bytes.push(count as u8),
        // No class pays more than 360.
        _ => {
            bytes.push(0xfd);
            bytes.extend((count as u16).to_le_bytes());
        }
    }
    for (script, value) in outputs {
        let script = script.script_pubkey();
        bytes.extend(value.to_le_bytes());
        bytes.push(script.len() as u8);
        bytes.extend(script);
    }
    bytes.extend([0; 8]);
    bytes.push((WITNESS_COMMITMENT.len() + witness_commitment.len()) as u8);
    bytes.extend(WITNESS_COMMITMENT);
    bytes.extend(witness_commitment);
    bytes.extend(LAST_OUTPUT);
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::limits::PREFIX_BYTES;
    use bitcoin::consensus::deserialize;
    use bitcoin::hashes::Hash;
    use bitcoin::script::Builder;
    use rockpool_net::sha256::{Midstate, sha256};
    use rockpool_net::wire::share::Class;

    const X: [u8; 12] = *b"\x01\x02\x03\x04miner-xx";

    fn pays(wpkh: usize, tr: usize) -> Vec<(Script, u64)> {
        let small = (0..wpkh).map(|index| (Script::P2wpkh([index as u8; 20]), 10_000 + index as u64));
        let large = (0..tr).map(|index| (Script::P2tr([index as u8; 32]), 20_000 + index as u64));
        small.chain(large).collect()
    }

    /// What every coinbase must be, whatever it pays.
    fn check(front: Option<&[u8; 12]>, height: u32, outputs: &[(Script, u64)]) -> usize {
        let prefix = prefix(front, height, outputs, &[0xab; 32]);
        assert_eq!(prefix.len() % 64, 0);
        let (x, commitment, locktime) = (if front.is_some() { [0; 12] } else { X }, [0xcd; 32], locktime(height));
        let bytes = coinbase_tx(&prefix, x, commitment, locktime, true);
        let tx: bitcoin::Transaction = deserialize(&bytes).unwrap();
        assert!(tx.is_coinbase());
        assert_eq!((tx.version.0, tx.lock_time.to_consensus_u32(), tx.input[0].sequence.0), (2, height.saturating_sub(1), 0xffff_fffe));
        assert_eq!(tx.input[0].witness.to_vec(), vec![vec![0; 32]]);
        // The transaction without its witness, and its id from midstate and tail.
        assert_eq!(
            deserialize::<bitcoin::Transaction>(&coinbase_tx(&prefix, x, commitment, locktime, false)).unwrap().compute_txid(),
            tx.compute_txid()
        );
        let mut midstate = Midstate::new();
        midstate.update_blocks(&prefix);
        assert_eq!(sha256(&midstate.finish(&tail(&x, &commitment, locktime))), tx.compute_txid().to_byte_array());
        // scriptSig: the height as Bitcoin Core pushes it, tag and padding, in layout front the extranonce.
        let script = tx.input[0].script_sig.as_bytes();
        assert!((2..=100).contains(&script.len()));
        let rest = script.strip_prefix(Builder::new().push_int(i64::from(height)).as_bytes()).unwrap();
        let (tag, third) = rest[1..].split_at(usize::from(rest[0]));
        let padding = tag.strip_prefix(TAG).unwrap();
        assert!(padding.len() < 64 && padding.iter().all(|byte| *byte == 0x20));
        assert_eq!(third, front.map_or(vec![], |extranonce| [&[12], &extranonce[..]].concat()));
        if let Some(extranonce) = front {
            let at = extranonce_at(&prefix);
            assert_eq!(
                (&prefix[at..at + X_BYTES], &prefix[at + X_BYTES..at + X_BYTES + 4]),
                (&extranonce[..], &SEQUENCE.to_le_bytes()[..])
            );
        }
        // Outputs: who is paid, BIP141's commitment, and the place for X and the commitment.
        let paid: Vec<_> = tx.output.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect();
        let mut expected: Vec<_> = outputs.iter().map(|(script, value)| (script.script_pubkey(), *value)).collect();
        expected.push(([&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &[0xab; 32][..]].concat(), 0));
        expected.push(([&[0x6a, 0x2c], &x[..], &commitment].concat(), 0));
        assert_eq!(paid, expected);
        padding.len()
    }

    #[test]
    fn every_residue_of_the_prefix_is_padded() {
        for front in [None, Some(&X)] {
            // An output of 31 bytes: all 64 residues come up.
            let mut paddings: Vec<usize> = (1..=64).map(|count| check(front, 840_000, &pays(count, 0))).collect();
            paddings.sort_unstable();
            assert_eq!(paddings, (0..64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn heights_are_pushed_as_bitcoin_core_does() {
        for (height, push) in [
            (0, &[0x00][..]),
            (1, &[0x51]),
            (16, &[0x60]),
            (17, &[0x01, 0x11]),
            (127, &[0x01, 0x7f]),
            (128, &[0x02, 0x80, 0x00]),
            (255, &[0x02, 0xff, 0x00]),
            (256, &[0x02, 0x00, 0x01]),
            (32_767, &[0x02, 0xff, 0x7f]),
            (32_768, &[0x03, 0x00, 0x80, 0x00]),
            (8_388_608, &[0x04, 0x00, 0x00, 0x80, 0x00]),
        ] {
            assert_eq!(push_height(height), push, "{height}");
            assert_eq!(push_height(height), Builder::new().push_int(i64::from(height)).into_bytes(), "{height}");
            check(None, height, &pays(1, 1));
        }
        assert_eq!(push_height(u32::MAX), [0x05, 0xff, 0xff, 0xff, 0xff, 0x00]);
        assert_eq!((locktime(0), locktime(1), locktime(840_000)), (0, 0, 839_999));
    }

    #[test]
    fn the_count_of_outputs_grows_to_three_bytes() {
        for count in [1, 12, 250, 251, 252, 360] {
            check(None, 900_000, &pays(0, count));
            check(Some(&X), 900_000, &pays(0, count));
        }
    }

    /// The largest coinbase of each class: all outputs P2TR, layout front, a height of four bytes.
    #[test]
    fn classes_are_as_large_as_devices_hold() {
        for (class, limit) in Class::ALL.into_iter().zip(PREFIX_BYTES) {
            let largest = prefix(Some(&X), 8_388_608, &pays(0, class.outputs()), &[0; 32]).len();
            assert_eq!(largest, limit, "{class:?}");
            assert!(largest <= rockpool_net::limits::PREFIX_BYTES_MAX as usize);
        }
        assert_eq!(PREFIX_BYTES.map(|bytes| bytes + TAIL_BYTES), [752, 2_160, 6_384, 15_664]);
    }
}
