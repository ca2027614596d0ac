//! The EVM chains that are known. A row's `id` is on disk: rows join at the end and never move.

/// An EVM chain.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// What rows on disk say for it.
    pub id: u8,
    /// As flags and the API name it.
    pub name: &'static str,
    /// CoinGecko's id of the platform, under which it lists contracts.
    pub platform: &'static str,
    /// CoinGecko's id of the coin that fees are paid in.
    pub native: &'static str,
    /// That coin's symbol.
    pub symbol: &'static str,
    /// What `eth_chainId` answers.
    pub chain_id: u64,
    /// A public endpoint, where the configuration names none.
    pub url: &'static str,
}

/// Decimals of the coin that fees are paid in: 18 on all of them.
pub const NATIVE_DECIMALS: u8 = 18;

/// All of them, by id.
pub static CHAINS: [Chain; 6] = [
    Chain {
        id: 0,
        name: "ethereum",
        platform: "ethereum",
        native: "ethereum",
        symbol: "ETH",
        chain_id: 1,
        url: "https://ethereum-rpc.publicnode.com",
    },
    Chain {
        id: 1,
        name: "arbitrum",
        platform: "arbitrum-one",
        native: "ethereum",
        symbol: "ETH",
        chain_id: 42_161,
        url: "https://arbitrum-one-rpc.publicnode.com",
    },
    Chain {
        id: 2,
        name: "optimism",
        platform: "optimistic-ethereum",
        native: "ethereum",
        symbol: "ETH",
        chain_id: 10,
        url: "https://optimism-rpc.publicnode.com",
    },
    Chain {
        id: 3,
        name: "base",
        platform: "base",
        native: "ethereum",
        symbol: "ETH",
        chain_id: 8_453,
        url: "https://base-rpc.publicnode.com",
    },
    Chain {
        id: 4,
        name: "polygon",
        platform: "polygon-pos",
        native: "polygon-ecosystem-token",
        symbol: "POL",
        chain_id: 137,
        url: "https://polygon-bor-rpc.publicnode.com",
    },
    Chain {
        id: 5,
        name: "bsc",
        platform: "binance-smart-chain",
        native: "binancecoin",
        symbol: "BNB",
        chain_id: 56,
        url: "https://bsc-rpc.publicnode.com",
    },
];

/// The chain of a row.
pub fn by_id(id: u8) -> Option<&'static Chain> {
    CHAINS.get(usize::from(id))
}

/// The chain that a flag or a request names.
pub fn by_name(name: &str) -> Option<&'static Chain> {
    CHAINS.iter().find(|chain| chain.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_places_and_nothing_stands_twice() {
        for (place, chain) in CHAINS.iter().enumerate() {
            assert_eq!(usize::from(chain.id), place, "{}", chain.name);
            assert_eq!(by_id(chain.id), Some(chain));
            assert_eq!(by_name(chain.name), Some(chain));
            assert!(chain.url.starts_with("https://"), "{}", chain.url);
        }
        for of in [|chain: &Chain| chain.name, |chain: &Chain| chain.platform, |chain: &Chain| chain.url] {
            assert_eq!(CHAINS.iter().map(of).collect::<BTreeSet<_>>().len(), CHAINS.len());
        }
        assert_eq!((by_id(6), by_name("Ethereum")), (None, None));
    }
}
