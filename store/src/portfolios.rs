//! Users' portfolios: what they consist of, and how they stand on disk ([`rows`]).

pub mod amount;
pub mod rows;

use std::collections::BTreeMap;
use std::fmt;

pub use amount::Amount;
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;

/// Who a user is, whatever he calls himself: made of issuer and subject of his token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserId(pub [u8; 16]);

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who he is.
    pub id: UserId,
    /// Who vouches for him.
    pub issuer: String,
    /// His name there.
    pub sub: String,
    /// When he was first seen, Unix seconds.
    pub since: u64,
    /// The newest portfolio's id: ids count up, and none is used again.
    pub last_portfolio: u32,
    /// The newest account's id, of all his portfolios.
    pub last_account: u32,
}

/// A portfolio of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portfolio {
    /// Which of the user's, from 1.
    pub id: u32,
    /// What he calls it.
    pub name: String,
    /// When it was made, Unix seconds.
    pub since: u64,
}

/// Which account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountKey {
    /// Whose.
    pub user: UserId,
    /// In which of his portfolios.
    pub portfolio: u32,
    /// Which of his accounts, from 1.
    pub account: u32,
}

/// Keys to an exchange, encrypted with a key that is not in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

/// Where an account's holdings are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// What an address holds on Bitcoin's chain.
    Bitcoin {
        /// The address, as Bitcoin writes it.
        address: String,
    },
    /// What an address holds on chains like Ethereum's.
    Evm {
        /// The address.
        address: [u8; 20],
        /// Which chains, ascending: their places in the table of chains.
        chains: Vec<u8>,
    },
    /// An account at OKX.
    Okx {
        /// Its keys.
        sealed: Sealed,
    },
    /// What this node's pool pays an address.
    Miner {
        /// The address, as Bitcoin writes it.
        address: String,
    },
}

/// An account: somewhere a user has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which of the user's, from 1.
    pub id: u32,
    /// In which of his portfolios.
    pub portfolio: u32,
    /// What he calls it.
    pub name: String,
    /// When it was added, Unix seconds.
    pub since: u64,
    /// Where its holdings are.
    pub source: Source,
    /// When it was last known what it holds, Unix seconds; an hour older at most where that changed nothing.
    pub checked: Option<u64>,
    /// Why that is not known any better.
    pub trouble: Option<String>,
}

/// How much of an asset an account has somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// CoinGecko's id of the coin (`bitcoin`), or `evm:ethereum:0x…`, `okx:XYZ` where it has none.
    pub asset: String,
    /// A chain, or `trading`, `funding`, `paid`, `immature`.
    pub place: String,
    /// How much.
    pub amount: Amount,
    /// Whether it is part of the portfolio's value: not where another account of it holds the same.
    pub counted: bool,
}

/// What a coin is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// CoinGecko's id of the coin.
    pub asset: String,
    /// The service's own time of it, Unix seconds, so that the same answer is the same row.
    pub at: u64,
    /// By currency, in CoinGecko's spelling.
    pub values: BTreeMap<String, f64>,
}

/// One of the top coins of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Its place by market value, from 1.
    pub rank: u16,
    /// CoinGecko's id.
    pub id: String,
    /// Short for its name, as exchanges write it.
    pub symbol: String,
    /// Its name.
    pub name: String,
}

/// Where a coin lives on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The chain's place in the table of chains.
    pub chain: u8,
    /// The contract's address.
    pub address: [u8; 20],
    /// CoinGecko's id of the coin.
    pub coin: String,
    /// Places after the point of its amounts, once the contract was asked.
    pub decimals: Option<u8>,
}

/// What a portfolio was worth at the beginning of a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Days since 1970, UTC.
    pub day: u32,
    /// By currency.
    pub values: BTreeMap<String, f64>,
    /// What it consisted of, by asset.
    pub assets: Vec<(String, Amount)>,
}

/// What a confirmed found block paid to whom, satoshis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The block.
    pub hash: ShareId,
    /// Its outputs to scripts that miners have.
    pub outputs: Vec<(Script, u64)>,
}

/// What is done once a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daily {
    /// Which coins are the top ones.
    Coins,
    /// Where they live on which chain.
    Contracts,
    /// What each portfolio is worth.
    Snapshots,
}

impl Daily {
    /// All of them.
    pub const ALL: [Daily; 3] = [Daily::Coins, Daily::Contracts, Daily::Snapshots];
}
