//! Exact amounts.

use std::fmt;

use crate::limits::AMOUNT_DECIMALS_MAX;

/// An exact amount of anything: so many of its smallest units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Smallest units.
    pub units: u128,
    /// Places after the point, at most [`AMOUNT_DECIMALS_MAX`].
    pub decimals: u8,
}

impl Amount {
    /// An amount of bitcoins.
    pub fn sats(sats: u64) -> Amount {
        Amount { units: u128::from(sats), decimals: 8 }
    }

    /// A decimal text, as exchanges write amounts: digits with at most one point, nothing else. Zeros at the end mean nothing.
    pub fn parse(text: &str) -> Option<Amount> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > AMOUNT_DECIMALS_MAX as usize {
            return None;
        }
        let mut units = 0u128;
        for digit in whole.bytes().chain(part.bytes()) {
            units = units.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
        }
        Some(Amount { units, decimals: part.len() as u8 })
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.units == 0
    }

    /// Both together; `None` if that does not fit.
    pub fn plus(&self, other: &Amount) -> Option<Amount> {
        let decimals = self.decimals.max(other.decimals);
        let units = |amount: &Amount| amount.units.checked_mul(10u128.checked_pow(u32::from(decimals - amount.decimals))?);
        Some(Amount { units: units(self)?.checked_add(units(other)?)?, decimals })
    }

    /// About as much, for values.
    pub fn to_f64(&self) -> f64 {
        self.units as f64 / 10f64.powi(i32::from(self.decimals))
    }
}

impl fmt::Display for Amount {
    /// The shortest decimal text that is exactly this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = usize::from(self.decimals);
        let digits = format!("{:0>width$}", self.units, width = places + 1);
        let (whole, part) = digits.split_at(digits.len() - places);
        let part = part.trim_end_matches('0');
        if part.is_empty() { f.write_str(whole) } else { write!(f, "{whole}.{part}") }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn texts_are_amounts_and_the_reverse() {
        for (text, units, decimals, shown) in [
            ("0", 0, 0, "0"),
            ("0.0", 0, 0, "0"),
            ("007", 7, 0, "7"),
            ("1.50", 15, 1, "1.5"),
            ("0.00000001", 1, 8, "0.00000001"),
            ("21000000", 21_000_000, 0, "21000000"),
            ("340282366920938463463374607431768211455", u128::MAX, 0, "340282366920938463463374607431768211455"),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount, amount.to_string().as_str()), (Amount { units, decimals }, shown));
            assert_eq!(Amount::parse(shown), Some(amount));
        }
        for text in ["", ".", ".5", "-1", "+1", "1e3", " 1", "1 ", "1,5", "1.2.3", "0x1", "٣", "340282366920938463463374607431768211456"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
        let small = |places: u8| format!("0.{}1", "0".repeat(usize::from(places) - 1));
        assert_eq!(Amount::parse(&small(AMOUNT_DECIMALS_MAX)), Some(Amount { units: 1, decimals: AMOUNT_DECIMALS_MAX }));
        assert_eq!(Amount::parse(&small(AMOUNT_DECIMALS_MAX + 1)), None);
        assert_eq!(Amount { units: 1_000, decimals: 3 }.to_string(), "1");
        assert_eq!(Amount::sats(123_456_789).to_string(), "1.23456789");
    }

    #[test]
    fn sums_are_exact_or_none() {
        let amount = |text| Amount::parse(text).unwrap();
        assert_eq!(amount("1.5").plus(&amount("0.05")).unwrap().to_string(), "1.55");
        assert_eq!(amount("0").plus(&amount("0.000000000000000001")).unwrap().to_string(), "0.000000000000000001");
        let most = Amount { units: u128::MAX, decimals: 0 };
        assert_eq!((most.plus(&amount("1")), most.plus(&amount("0.1")), most.plus(&Amount::default())), (None, None, Some(most)));
        let odd = Amount { units: 1, decimals: AMOUNT_DECIMALS_MAX };
        assert_eq!(odd.plus(&odd), Some(Amount { units: 2, decimals: AMOUNT_DECIMALS_MAX }));
        assert!((amount("1.25").to_f64() - 1.25).abs() < 1e-12 && odd.to_f64() > 0.0);
    }
}
