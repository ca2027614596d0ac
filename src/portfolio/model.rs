//! What portfolios consist of: the types that the desk tells of, the collector fills, and the store keeps.

pub use rockpool_store::portfolios::{
    Account, AccountKey, Amount, Coin, Contract, Daily, Holding, Paid, Portfolio, Price, Sealed, Snapshot, Source, User, UserId,
};
