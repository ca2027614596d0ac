//! Keccak-256, as Ethereum has it: for the capital letters of its addresses (EIP-55), and nothing else.

const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];
/// By how much each lane turns, and where it goes, in the order of the walk.
const TURNS: [u32; 24] = [1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44];
const PLACES: [usize; 24] = [10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1];
/// Bytes of input to a permutation, for 256 bits of output.
const RATE: usize = 136;

/// The hash of a text of less than [`RATE`] bytes.
pub(super) fn keccak256(short: &[u8]) -> [u8; 32] {
    debug_assert!(short.len() < RATE);
    let mut block = [0; 200];
    let length = short.len().min(RATE - 1);
    block[..length].copy_from_slice(&short[..length]);
    block[length] ^= 0x01;
    block[RATE - 1] ^= 0x80;
    let mut state: [u64; 25] = std::array::from_fn(|lane| u64::from_le_bytes(std::array::from_fn(|byte| block[8 * lane + byte])));
    permute(&mut state);
    std::array::from_fn(|at| state[at / 8].to_le_bytes()[at % 8])
}

fn permute(state: &mut [u64; 25]) {
    for round in ROUNDS {
        let column: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ state[x + 5 * y]));
        for (at, lane) in state.iter_mut().enumerate() {
            *lane ^= column[(at + 4) % 5] ^ column[(at + 1) % 5].rotate_left(1);
        }
        let mut moved = state[1];
        for (turn, place) in TURNS.into_iter().zip(PLACES) {
            moved = std::mem::replace(&mut state[place], moved.rotate_left(turn));
        }
        for row in state.chunks_exact_mut(5) {
            let old: [u64; 5] = std::array::from_fn(|x| row[x]);
            for x in 0..5 {
                row[x] = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
            }
        }
        state[0] ^= round;
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hex::DisplayHex;

    use super::*;

    #[test]
    fn known_texts_have_known_hashes() {
        for (text, hash) in [
            ("", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
            ("abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
            ("transfer(address,uint256)", "a9059cbb2ab09eb219583f4a59a5d0623ade346d962bcd4e46b11da047c9049b"),
        ] {
            assert_eq!(keccak256(text.as_bytes()).to_lower_hex_string(), hash, "{text}");
        }
    }
}
