//! Targets in Bitcoin's compact form, and the work they stand for (SPEC, DIFF-1 to DIFF-3).

use ruint::aliases::U256;

/// The target of a compact number as Bitcoin reads it; `None` where that is negative, zero or beyond 256 bits.
pub fn target(bits: u32) -> Option<U256> {
    let (size, mantissa) = (bits >> 24, bits & 0x007f_ffff);
    if bits & 0x0080_0000 != 0 {
        return None;
    }
    let target = match size {
        0..=3 => U256::from(mantissa >> (8 * (3 - size))),
        _ => {
            let wide = U256::from(mantissa);
            let shift = 8 * (size as usize - 3);
            if wide.bit_len() + shift > 256 && mantissa != 0 {
                return None;
            }
            wide << shift
        }
    };
    (!target.is_zero()).then_some(target)
}

/// The compact number of a target: the bytes that do not fit are cut off, so rounding makes it harder.
pub fn compact(target: U256) -> u32 {
    let mut size = target.byte_len();
    let mut mantissa = if size <= 3 {
        // At most three bytes.
        target.as_limbs()[0] as u32 & 0x00ff_ffff
    } else {
        (target >> (8 * (size - 3))).as_limbs()[0] as u32 & 0x00ff_ffff
    };
    if size < 3 {
        mantissa <<= 8 * (3 - size);
    }
    // The highest bit of the mantissa is a sign.
    if mantissa & 0x0080_0000 != 0 {
        mantissa >>= 8;
        size += 1;
    }
    (size as u32) << 24 | mantissa
}

/// Whether a compact number is a target's only allowed form: what [`compact`] gives of the target it stands for.
pub fn is_canonical(bits: u32) -> bool {
    target(bits).is_some_and(|target| compact(target) == bits)
}

/// Hashes that a target takes on average: ⌊2²⁵⁶ / (target + 1)⌋. Zero for no target; beyond 128 bits the largest number there is.
pub fn work(bits: u32) -> u128 {
    let Some(target) = target(bits) else { return 0 };
    let Some(divisor) = target.checked_add(U256::ONE) else { return 1 };
    // 2²⁵⁶ itself does not fit: ⌊(2²⁵⁶ − d) / d⌋ + 1.
    let work = (U256::ZERO.wrapping_sub(divisor) / divisor).wrapping_add(U256::ONE);
    u128::try_from(work).unwrap_or(u128::MAX)
}

/// The same of a target as hashes are compared: little-endian.
pub fn work_of(target: &[u8; 32]) -> u128 {
    work(compact_of(target))
}

/// The compact number of a target as hashes are compared: little-endian.
pub fn compact_of(target: &[u8; 32]) -> u32 {
    compact(U256::from_le_bytes(*target))
}

/// Whether a hash, bytes as hashed, is at most the target.
pub fn hash_meets(hash: &[u8; 32], bits: u32) -> bool {
    target(bits).is_some_and(|target| U256::from_le_bytes(*hash) <= target)
}

/// A target as hashes are compared, most significant byte last; all zero for no target.
pub fn target_bytes(bits: u32) -> [u8; 32] {
    target(bits).unwrap_or(U256::ZERO).to_le_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use bitcoin::CompactTarget;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn hex(text: &str) -> U256 {
        U256::from_str_radix(text, 16).unwrap()
    }

    #[test]
    fn known_targets_of_bitcoin() {
        for (bits, expected) in [
            (0x1d00_ffff, "00000000ffff0000000000000000000000000000000000000000000000000000"),
            (0x207f_ffff, "7fffff0000000000000000000000000000000000000000000000000000000000"),
            (0x1b04_04cb, "00000000000404cb000000000000000000000000000000000000000000000000"),
        ] {
            assert_eq!(target(bits), Some(hex(expected)));
            assert_eq!(compact(hex(expected)), bits);
            assert!(is_canonical(bits));
        }
        assert_eq!(work(0x1d00_ffff), 0x1_0001_0001);
        assert_eq!(work(0x207f_ffff), 2);
        // Difficulty 16,307.42: 16,307.42 × 2³² hashes.
        assert!((work(0x1b04_04cb) as f64 / 4_294_967_296.0 - 16_307.42).abs() < 0.3);
        assert_eq!(target_bytes(0x207f_ffff)[28..], [0, 0xff, 0xff, 0x7f][..]);
    }

    #[test]
    fn numbers_that_are_no_target() {
        // Zero, zero after cutting, the sign, 257 bits in three ways.
        for bits in [0, 0x0100_0000, 0x2000_0000, 0x0100_00ff, 0x0180_0000, 0x1d80_0001, 0x2300_0001, 0x2200_0100, 0x2101_0000, 0xff12_3456]
        {
            assert_eq!(target(bits), None, "{bits:08x}");
            assert_eq!(work(bits), 0);
            assert!(!hash_meets(&[0; 32], bits) && !is_canonical(bits));
            assert_eq!(target_bytes(bits), [0; 32]);
        }
        // The largest that fit.
        for bits in [0x2200_00ff, 0x2100_ffff] {
            assert!(target(bits).is_some(), "{bits:08x}");
        }
        assert!(!is_canonical(0x2200_00ff) && is_canonical(0x2100_ffff));
        // A leading zero byte, and bits that are cut away.
        assert!(!is_canonical(0x1e00_00ff) && !is_canonical(0x0201_2345));
    }

    #[test]
    fn reads_and_rounds_as_bitcoin_does() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        for _ in 0..20_000 {
            let bits = rng.next_u32() % 0x2400_0000;
            if let Some(own) = target(bits) {
                assert_eq!(
                    bitcoin::Target::from_compact(CompactTarget::from_consensus(bits)).to_le_bytes(),
                    own.to_le_bytes::<32>(),
                    "{bits:08x}"
                );
            }
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes[32 - (rng.next_u32() % 32) as usize..].fill(0);
            let wide = U256::from_le_bytes(bytes);
            let theirs = bitcoin::Target::from_le_bytes(bytes);
            let rounded = compact(wide);
            assert_eq!(rounded, theirs.to_compact_lossy().to_consensus());
            if let Some(harder) = target(rounded) {
                assert!(harder <= wide && is_canonical(rounded));
                let their_work = bitcoin::Target::from_le_bytes(harder.to_le_bytes()).to_work().to_le_bytes();
                assert_eq!(work(rounded), u128::try_from(U256::from_le_bytes(their_work)).unwrap_or(u128::MAX));
            }
        }
    }

    #[test]
    fn a_hash_meets_a_target_up_to_equality() {
        let exact = target_bytes(0x1b04_04cb);
        let mut above = exact;
        above[0] = 1;
        assert!(hash_meets(&exact, 0x1b04_04cb) && hash_meets(&[0; 32], 0x1b04_04cb));
        assert!(!hash_meets(&above, 0x1b04_04cb) && !hash_meets(&[0xff; 32], 0x2100_ffff));
    }
}
