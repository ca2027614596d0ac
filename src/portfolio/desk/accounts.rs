//! Accounts: what is told of them, and what a new one must be.

use rockpool_store::limits::SEALED_BYTES_MAX;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Desk, Refused, Told, name};
use crate::http::error::Code;
use crate::portfolio::address;
use crate::portfolio::chains::{self, CHAINS};
use crate::portfolio::model::{Account, AccountKey, Amount, Source, UserId};
use crate::portfolio::seal::okx_keys;
use crate::portfolio::value;

/// An account to be added. It has no `Debug`: some of it is secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// `bitcoin`, `evm`, `okx` or `miner`.
    pub kind: String,
    /// What it is to be called.
    pub name: String,
    /// Of all kinds but `okx`.
    pub address: Option<String>,
    /// Of `evm`: which chains; all that are known if it does not say.
    pub chains: Option<Vec<String>>,
    /// Of `okx`: the API key,
    pub key: Option<String>,
    /// its secret,
    pub secret: Option<String>,
    /// and its word.
    pub passphrase: Option<String>,
}

impl Desk<'_> {
    pub(super) fn accounts(&self, user: &UserId, id: u32, currency: &str) -> Result<Json, Refused> {
        self.portfolio(user, id)?;
        let list: Vec<_> = self.book.accounts_in(user, id).map(|(key, account)| self.account(&key, account, currency)).collect();
        Ok(json!({ "list": list }))
    }

    pub(super) fn account(&self, key: &AccountKey, account: &Account, currency: &str) -> Json {
        let (kind, address, on) = match &account.source {
            Source::Bitcoin { address } => ("bitcoin", Some(address.clone()), None),
            Source::Miner { address } => ("miner", Some(address.clone()), None),
            Source::Evm { address, chains } => ("evm", Some(address::show_evm(address)), Some(chains)),
            Source::Okx { .. } => ("okx", None, None),
        };
        let on = on.map(|ids| ids.iter().filter_map(|id| chains::by_id(*id)).map(|chain| chain.name).collect::<Vec<_>>());
        let value = value::value(self.book, std::iter::once((*key, account)), currency);
        json!({
            "id": account.id,
            "name": account.name,
            "kind": kind,
            "address": address,
            "chains": on,
            "since": account.since,
            "checked": account.checked,
            "checked_age_s": account.checked.map(|at| self.age(at)),
            "trouble": account.trouble,
            "value": self.value(&value),
            "pending": self.book.pending(key).map(|sats| Amount::sats(sats).to_string()),
        })
    }

    pub(super) fn add_account(&mut self, user: &UserId, portfolio: u32, new: NewAccount, currency: &str) -> Told {
        self.portfolio(user, portfolio)?;
        let name = name(&new.name)?;
        let key = AccountKey { user: *user, portfolio, account: self.book.next_account(user)? };
        let api_key = new.key.clone();
        let source = self.source(new, &key)?;
        // Twice the same would be worth twice as much.
        if self.book.accounts_in(user, portfolio).any(|(_, account)| same(&account.source, &source)) {
            return Err(Refused::new(Code::Conflict, "an account of this kind and address is in this portfolio already"));
        }
        let sealed_key = |(of, account): (AccountKey, &Account)| match &account.source {
            Source::Okx { sealed } => Some(self.sealer?.open(sealed, &of)?.key),
            _ => None,
        };
        if api_key.is_some() && self.book.accounts_in(user, portfolio).any(|account| sealed_key(account) == api_key) {
            return Err(Refused::new(Code::Conflict, "an account with this API key is in this portfolio already"));
        }
        let key = self.book.add_account(user, portfolio, name, source, self.now)?;
        let account = self.book.account(&key).ok_or_else(super::no_portfolio)?;
        Ok((201, self.account(&key, account, currency)))
    }

    /// What a new account is of.
    fn source(&self, new: NewAccount, key: &AccountKey) -> Result<Source, Refused> {
        let bad = |why: String| Refused::new(Code::BadBody, why);
        let NewAccount { kind, address, chains, key: api_key, secret, passphrase, .. } = new;
        let secrets = [&api_key, &secret, &passphrase].into_iter().any(Option::is_some);
        if kind != "okx" && secrets {
            return Err(bad("key, secret and passphrase are for accounts of kind okx alone".into()));
        }
        if kind != "evm" && chains.is_some() {
            return Err(bad("chains are for accounts of kind evm alone".into()));
        }
        let given = || address.as_deref().map(str::trim).ok_or_else(|| bad("address is missing".into()));
        match kind.as_str() {
            "bitcoin" => Ok(Source::Bitcoin { address: address::bitcoin(given()?, self.network).map_err(bad)?.0 }),
            "miner" => Ok(Source::Miner { address: address::miner(given()?, self.network).map_err(bad)?.0 }),
            "evm" => Ok(Source::Evm { address: address::evm(given()?).map_err(bad)?, chains: on(chains).map_err(bad)? }),
            "okx" if address.is_some() => Err(bad("accounts of kind okx have no address".into())),
            "okx" => {
                let without = "this node keeps no secrets: whoever runs it starts it with --portfolio-key FILE";
                let sealer = self.sealer.ok_or_else(|| Refused::new(Code::Conflict, without))?;
                let (Some(api_key), Some(secret), Some(passphrase)) = (api_key, secret, passphrase) else {
                    return Err(bad("an okx account needs key, secret and passphrase".into()));
                };
                let keys = okx_keys(api_key, secret, passphrase);
                let keys = keys.ok_or_else(|| bad("key, secret and passphrase are what OKX shows: copy them again".into()))?;
                let sealed = sealer.seal(&keys, key).filter(|sealed| sealed.0.len() <= SEALED_BYTES_MAX);
                let sealed = sealed.ok_or_else(|| Refused::new(Code::Internal, "the keys cannot be encrypted"))?;
                Ok(Source::Okx { sealed })
            }
            _ => Err(bad("kind is one of bitcoin, evm, okx, miner".into())),
        }
    }
}

/// The ids of chains by their names, ascending; of all where none are named.
fn on(names: Option<Vec<String>>) -> Result<Vec<u8>, String> {
    let Some(names) = names else { return Ok(CHAINS.iter().map(|chain| chain.id).collect()) };
    let known = || CHAINS.iter().map(|chain| chain.name).collect::<Vec<_>>().join(", ");
    let id = |name: &String| chains::by_name(name).map(|chain| chain.id).ok_or_else(|| format!("chains: choose from {}", known()));
    let mut ids = names.iter().map(id).collect::<Result<Vec<u8>, String>>()?;
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() { Err(format!("chains: choose from {}", known())) } else { Ok(ids) }
}

/// Whether two accounts would hold the same. Sealed keys do not tell.
fn same(one: &Source, other: &Source) -> bool {
    match (one, other) {
        (Source::Bitcoin { address: a }, Source::Bitcoin { address: b }) | (Source::Miner { address: a }, Source::Miner { address: b }) => {
            a == b
        }
        (Source::Evm { address: a, .. }, Source::Evm { address: b, .. }) => a == b,
        _ => false,
    }
}
