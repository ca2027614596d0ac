//! Addresses that users give.

use std::fmt::Write;

use bitcoin::Address;
use bitcoin::address::NetworkUnchecked;
use rockpool_net::wire::share::Script;
use rockpool_store::params::Network;

use super::keccak::keccak256;

/// A Bitcoin address of this network in its usual spelling, and what is paid there.
pub fn bitcoin(text: &str, network: Network) -> Result<(String, bitcoin::ScriptBuf), String> {
    let chain = match network {
        Network::Main => bitcoin::Network::Bitcoin,
        Network::Signet => bitcoin::Network::Signet,
        Network::Testnet4 => bitcoin::Network::Testnet4,
        Network::Regtest => bitcoin::Network::Regtest,
    };
    let parsed: Address<NetworkUnchecked> = text.parse().map_err(|_| "address is no Bitcoin address".to_owned())?;
    let address = parsed.require_network(chain).map_err(|_| format!("address is one of another network, not {}", network.name()))?;
    Ok((address.to_string(), address.script_pubkey()))
}

/// A Bitcoin address that this node's pool can pay, and its script.
pub fn miner(text: &str, network: Network) -> Result<(String, Script), String> {
    let (address, script) = bitcoin(text, network)?;
    let script = Script::from_script_pubkey(script.as_bytes());
    Ok((address, script.ok_or("address is none that the pool can pay: those begin with bc1, tb1 or bcrt1")?))
}

/// An address of Ethereum and its like: `0x` and 40 hexadecimal digits. Capital letters among small ones are a checksum (EIP-55).
pub fn evm(text: &str) -> Result<[u8; 20], String> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let digits = digits.ok_or("address is none of an EVM chain: 0x and 40 hexadecimal digits")?;
    let mut address = [0; 20];
    for (byte, pair) in address.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).unwrap_or_default() as u8;
        *byte = digit(0) << 4 | digit(1);
    }
    let mixed = digits.bytes().any(|digit| digit.is_ascii_lowercase()) && digits.bytes().any(|digit| digit.is_ascii_uppercase());
    if mixed && show_evm(&address) != text {
        return Err("address has a wrong checksum: its capital letters are not where they belong; copy it again".into());
    }
    Ok(address)
}

/// The same as text, with its checksum.
pub fn show_evm(address: &[u8; 20]) -> String {
    let mut small = String::with_capacity(40);
    for byte in address {
        // Into a string it cannot fail.
        let _ = write!(small, "{byte:02x}");
    }
    let hash = keccak256(small.as_bytes());
    let capital = |(at, digit): (usize, char)| {
        let bits = hash[at / 2] >> (4 * (1 - at % 2)) & 0xf;
        if bits >= 8 { digit.to_ascii_uppercase() } else { digit }
    };
    "0x".chars().chain(small.chars().enumerate().map(capital)).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The examples of EIP-55.
    #[test]
    fn capital_letters_are_a_checksum() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let address = evm(text).unwrap();
            assert_eq!(show_evm(&address), text);
            for other in [text.to_lowercase(), format!("0x{}", text[2..].to_uppercase())] {
                assert_eq!(evm(&other), Ok(address));
            }
            let swapped: String = text
                .chars()
                .map(|c| {
                    if c == 'b' {
                        'B'
                    } else if c == 'B' {
                        'b'
                    } else {
                        c
                    }
                })
                .collect();
            assert!(evm(&swapped).unwrap_err().contains("checksum"), "{swapped}");
        }
        for text in [
            "",
            "0x",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
            "0xé",
        ] {
            assert!(evm(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bitcoin_addresses_are_of_the_network_and_miners_of_those_that_the_pool_pays() {
        let (main, regtest) = (Network::Main, Network::Regtest);
        let bech = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
        assert_eq!(bitcoin(&bech.to_uppercase(), main).unwrap().0, bech);
        assert!(bitcoin(bech, regtest).unwrap_err().contains("not regtest"));
        assert!(miner(bech, main).is_ok());
        let old = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
        assert!(bitcoin(old, main).is_ok() && miner(old, main).unwrap_err().contains("can pay"));
        for text in ["", "hello", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"] {
            assert!(bitcoin(text, main).is_err(), "{text}");
        }
    }
}
