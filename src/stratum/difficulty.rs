//! Difficulty as miners speak of it, and targets as hashes are compared.
//!
//! Difficulty 1 is the target 0xffff·2^208, as every Stratum V1 firmware has it, not 2^224.

use crate::limits::{DIFFICULTY_MAX, DIFFICULTY_MIN};

/// 0xffff, the mantissa of difficulty 1; it stands at bit 208.
const ONE: f64 = 65_535.0;
const ONE_SHIFT: i32 = 208;

/// The target of a difficulty, most significant byte last; all ones where the difficulty is so easy that 256 bits do not hold it.
pub fn target_of(difficulty: f64) -> [u8; 32] {
    let ratio = ONE / difficulty;
    if !ratio.is_finite() || ratio <= 0.0 {
        return [0xff; 32];
    }
    let bits = ratio.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let shift = ((bits >> 52) & 0x7ff) as i32 - 1075 + ONE_SHIFT;
    if shift > 256 - 53 {
        return [0xff; 32];
    }
    // 53 bits stand at bit `shift`: in bytes, a run of at most eight from byte shift / 8.
    let (start, value) = match u32::try_from(shift) {
        Ok(shift) => ((shift / 8) as usize, u128::from(mantissa) << (shift % 8)),
        Err(_) => (0, u128::from(mantissa.checked_shr(shift.unsigned_abs()).unwrap_or(0))),
    };
    let mut target = [0; 32];
    for (byte, from) in target.iter_mut().skip(start).zip(value.to_le_bytes()) {
        *byte = from;
    }
    target
}

/// The difficulty of a target, most significant byte last. Zero has none: the hardest that is spoken of.
pub fn difficulty_of(target: &[u8; 32]) -> f64 {
    let value = target.iter().rev().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
    if value > 0.0 { ONE * 2f64.powi(ONE_SHIFT) / value } else { DIFFICULTY_MAX }
}

/// A difficulty that reads well, never above what was given: whole from 1 on, three digits below.
pub fn rounded(difficulty: f64) -> f64 {
    if difficulty >= 1.0 {
        return difficulty.floor();
    }
    if difficulty <= 0.0 || !difficulty.is_finite() {
        return DIFFICULTY_MIN;
    }
    // By a power of ten that is exact, so that the result is the number that three digits spell.
    let scale = 10f64.powi(2 - difficulty.log10().floor() as i32);
    // A product that is whole but for the last bit must not lose a whole step, and none may end above.
    let steps = (difficulty * scale * (1.0 + 1e-12)).floor();
    (steps / scale).min(difficulty)
}

/// A difficulty that somebody asked for; `None` where it is none.
pub fn asked(difficulty: f64) -> Option<f64> {
    (difficulty.is_finite() && difficulty > 0.0).then(|| difficulty.clamp(DIFFICULTY_MIN, DIFFICULTY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difficulty_one_is_ffff_at_bit_208() {
        let mut one = [0; 32];
        one[26..28].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(target_of(1.0), one);
        assert_eq!(difficulty_of(&one), 1.0);
        let mut half = [0; 32];
        half[25..28].copy_from_slice(&[0x80, 0xff, 0x7f]);
        assert_eq!(target_of(2.0), half);
    }

    #[test]
    fn targets_and_difficulties_go_round() {
        for exponent in -30..50 {
            let difficulty = 1.37 * 2f64.powi(exponent);
            let back = difficulty_of(&target_of(difficulty));
            assert!((back / difficulty - 1.0).abs() < 1e-12, "{difficulty} came back as {back}");
        }
    }

    #[test]
    fn the_ends_saturate() {
        assert_eq!(target_of(2.3e-10), [0xff; 32]);
        assert_ne!(target_of(4.7e-10), [0xff; 32]);
        assert_eq!(target_of(0.0), [0xff; 32]);
        assert_eq!(target_of(f64::NAN), [0xff; 32]);
        assert_eq!(target_of(1e300), [0; 32]);
        assert_eq!(difficulty_of(&[0; 32]), DIFFICULTY_MAX);
    }

    #[test]
    fn rounding_never_makes_it_harder() {
        assert_eq!(rounded(1023.98), 1023.0);
        assert_eq!(rounded(1e-5), 1e-5);
        assert_eq!(rounded(0.000_151_9), 0.000_151);
        let mut difficulty = 3e-10;
        while difficulty < 10.0 {
            let round = rounded(difficulty);
            assert!(round <= difficulty && round > difficulty * 0.5, "{difficulty} became {round}");
            difficulty *= 1.013;
        }
    }

    #[test]
    fn what_is_asked_is_clamped_or_refused() {
        assert_eq!(asked(0.000_15), Some(0.000_15));
        assert_eq!(asked(1e-9), Some(DIFFICULTY_MIN));
        assert_eq!(asked(f64::MAX), Some(DIFFICULTY_MAX));
        assert_eq!(asked(-1.0), None);
        assert_eq!(asked(f64::NAN), None);
    }
}
