#![expect(clippy::unwrap_used, reason = "tests")]
use rockpool_store::kv::MemKv;
use rockpool_store::limits::{ACCOUNTS_MAX, PORTFOLIOS_MAX};

use super::*;
use crate::portfolio::model::{Account, Amount, Coin, Holding, Price, Snapshot, Source};
use crate::portfolio::value::snapshot;

const NOW: u64 = 1_790_000_000;
const BECH: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const EVM: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// A book, a disk and a desk on them.
struct World {
    book: Book,
    kv: MemKv,
    sealer: Option<Sealer>,
    now: u64,
}

impl World {
    fn new() -> World {
        World { book: Book::default(), kv: MemKv::new(), sealer: Sealer::new(&[7; 32]), now: NOW }
    }

    fn user(&mut self, sub: &str) -> UserId {
        self.book.meet("rockpool", sub, self.now).unwrap()
    }

    fn ask_in(&mut self, user: &UserId, question: Question, currency: Option<&str>) -> Told {
        let currencies = ["usd".to_owned(), "eur".to_owned()];
        let (sealer, network) = (self.sealer.as_ref(), Network::Regtest);
        let mut desk = Desk { book: &mut self.book, kv: &self.kv, sealer, currencies: &currencies, network, now: self.now };
        desk.answer(user, question, currency)
    }

    fn ask(&mut self, user: &UserId, question: Question) -> Told {
        self.ask_in(user, question, None)
    }

    fn add(&mut self, user: &UserId, new: Json) -> Told {
        self.ask(user, Question::AddAccount(1, serde_json::from_value(new).unwrap()))
    }

    fn hold(&mut self, user: &UserId, account: u32, holdings: Vec<Holding>) {
        self.book.set_holdings(&AccountKey { user: *user, portfolio: 1, account }, self.now, holdings);
    }
}

fn refused(told: Told) -> (Code, String) {
    let Refused { code, why } = told.unwrap_err();
    (code, why)
}

fn holding(asset: &str, amount: &str, counted: bool) -> Holding {
    Holding { asset: asset.into(), place: "bitcoin".into(), amount: Amount::parse(amount).unwrap(), counted }
}

fn price(asset: &str, at: u64, usd: f64) -> Price {
    Price { asset: asset.into(), at, values: [("usd".to_owned(), usd)].into() }
}

fn bitcoin() -> Json {
    json!({ "kind": "bitcoin", "name": " cold ", "address": BECH })
}

#[test]
fn what_is_another_s_is_as_little_there_as_what_is_nobody_s() {
    let mut world = World::new();
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    world.ask(&ann, Question::Add(NewPortfolio { name: "two".into() })).unwrap();
    world.ask(&ann, Question::AddAccount(2, serde_json::from_value(bitcoin()).unwrap())).unwrap();
    world.hold(&ann, 1, vec![holding("bitcoin", "1", true)]);
    let before = format!("{:?}", world.book);
    let all = |portfolio: u32| {
        [
            Question::Show(portfolio),
            Question::Accounts(portfolio),
            Question::Holdings(portfolio),
            Question::History(portfolio, 9),
            Question::Remove(portfolio),
            Question::RemoveAccount(portfolio, 1),
            Question::AddAccount(portfolio, serde_json::from_value(bitcoin()).unwrap()),
        ]
    };
    // Bob has a first portfolio of his own, but no second and no third: Ann's second looks to him as the third does, which nobody has.
    for (another, none) in all(2).into_iter().zip(all(3)) {
        let (another, none) = (refused(world.ask(&bob, another)), refused(world.ask(&bob, none)));
        assert_eq!((another.0, &another), (Code::NotFound, &none));
    }
    assert_eq!(refused(world.ask(&bob, Question::RemoveAccount(1, 1))).0, Code::NotFound, "an account of hers in a portfolio of his");
    assert_eq!(refused(world.ask(&ann, Question::RemoveAccount(1, 1))).0, Code::NotFound, "an account of another portfolio");
    assert_eq!(format!("{:?}", world.book), before, "nothing has changed");
    let (_, list) = world.ask(&bob, Question::List).unwrap();
    assert_eq!(list["user"], json!({ "name": "bob", "issuer": "rockpool", "since": NOW }));
    assert_eq!(list["portfolios"].as_array().unwrap().len(), 1);
    assert!(!list.to_string().contains("ann") && !list.to_string().contains("two"));
}

#[test]
fn values_say_what_they_are_made_of_and_how_old_that_is() {
    let mut world = World::new();
    let ann = world.user("ann");
    let value = |world: &mut World| world.ask(&ann, Question::List).unwrap().1["portfolios"][0]["value"].clone();
    let nothing = json!({ "amount": 0.0, "complete": true, "unpriced": 0, "price_age_s": null, "checked_age_s": null });
    assert_eq!(value(&mut world), nothing, "an empty portfolio is worth nothing");
    world.add(&ann, bitcoin()).unwrap();
    world.add(&ann, json!({ "kind": "evm", "name": "e", "address": EVM })).unwrap();
    let unknown = json!({ "amount": null, "complete": false, "unpriced": 0, "price_age_s": null, "checked_age_s": null });
    assert_eq!(value(&mut world), unknown, "nobody has looked yet");
    world.hold(&ann, 1, vec![holding("bitcoin", "0.5", true)]);
    world.now += 100;
    world.hold(&ann, 2, vec![holding("ethereum", "2", true), holding("evm:base:0x00", "7", true), holding("bitcoin", "0.5", false)]);
    assert_eq!(value(&mut world)["unpriced"], 3);
    world.book.set_prices(vec![price("bitcoin", NOW, 60_000.0), price("ethereum", NOW + 50, 2_000.0)]);
    let some = json!({ "amount": 34_000.0, "complete": false, "unpriced": 1, "price_age_s": 100, "checked_age_s": 100 });
    assert_eq!(value(&mut world), some, "the oldest price, the account that was checked longest ago");
    assert_eq!(world.ask_in(&ann, Question::List, Some("EUR")).unwrap().1["portfolios"][0]["value"]["amount"], json!(null));
    assert_eq!(
        refused(world.ask_in(&ann, Question::List, Some("gbp"))),
        (Code::BadParameter, "currency: this node tells values in usd, eur".into())
    );
    // By asset, the most first; what counts elsewhere is left out, what has no price comes last.
    world.book.set_coins(20_000, vec![Coin { rank: 1, id: "bitcoin".into(), symbol: "btc".into(), name: "Bitcoin".into() }]);
    let (_, shown) = world.ask(&ann, Question::Show(1)).unwrap();
    let part = |asset: &str, symbol: Json, name: Json, amount: &str, price: Json, age: Json, value: Json, share: Json| {
        json!({
            "asset": asset,
            "symbol": symbol,
            "name": name,
            "amount": amount,
            "price": price,
            "price_age_s": age,
            "value": value,
            "share": share,
        })
    };
    let null = Json::Null;
    let parts = [
        part("bitcoin", json!("BTC"), json!("Bitcoin"), "0.5", json!(60_000.0), json!(100), json!(30_000.0), json!(30.0 / 34.0)),
        part("ethereum", json!("ETH"), null.clone(), "2", json!(2_000.0), json!(50), json!(4_000.0), json!(4.0 / 34.0)),
        part("evm:base:0x00", null.clone(), null.clone(), "7", null.clone(), null.clone(), null.clone(), null),
    ];
    assert_eq!(shown["allocation"], json!(parts));
    let (_, holdings) = world.ask(&ann, Question::Holdings(1)).unwrap();
    let list = holdings["list"].as_array().unwrap();
    assert_eq!((list.len(), &list[0]["account"], &list[1]["counted"], &list[1]["value"]), (4, &json!(1), &json!(false), &json!(30_000.0)));
    let (_, coins) = world.ask(&ann, Question::Coins).unwrap();
    assert_eq!((&coins["day"], &coins["list"][0]["price"]), (&json!(20_000 * DAY_S), &json!(60_000.0)));
}

#[test]
fn accounts_are_what_they_say_or_are_refused() {
    let mut world = World::new();
    let ann = world.user("ann");
    let (status, told) = world.add(&ann, bitcoin()).unwrap();
    assert_eq!(
        (status, &told["id"], &told["name"], &told["kind"], &told["address"]),
        (201, &json!(1), &json!("cold"), &json!("bitcoin"), &json!(BECH))
    );
    let (_, told) = world
        .add(&ann, json!({ "kind": "evm", "name": "e", "address": EVM.to_lowercase(), "chains": ["base", "ethereum", "base"] }))
        .unwrap();
    assert_eq!((&told["address"], &told["chains"]), (&json!(EVM), &json!(["ethereum", "base"])));
    let (_, told) = world.add(&ann, json!({ "kind": "miner", "name": "m", "address": BECH })).unwrap();
    assert_eq!((&told["kind"], &told["pending"], &told["checked"]), (&json!("miner"), &json!(null), &json!(null)));
    world.book.set_pending(&AccountKey { user: ann, portfolio: 1, account: 3 }, Some(12_000));
    assert_eq!(world.ask(&ann, Question::Accounts(1)).unwrap().1["list"][2]["pending"], "0.00012");
    let okx = || json!({ "kind": "okx", "name": "o", "key": "K1", "secret": "S1", "passphrase": "P1" });
    for (new, code, says) in [
        (bitcoin(), Code::Conflict, "in this portfolio already"),
        (json!({ "kind": "bitcoin", "name": "x", "address": BECH.to_uppercase() }), Code::Conflict, "already"),
        (json!({ "kind": "evm", "name": "x", "address": EVM }), Code::Conflict, "already"),
        (json!({ "kind": "bitcoin", "name": "x", "address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4" }), Code::BadBody, "not regtest"),
        (json!({ "kind": "bitcoin", "name": "x" }), Code::BadBody, "address is missing"),
        (
            json!({ "kind": "miner", "name": "x", "address": "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn" }),
            Code::BadBody,
            "none that the pool can pay",
        ),
        (json!({ "kind": "evm", "name": "x", "address": EVM.replace("5aA", "5aa") }), Code::BadBody, "checksum"),
        (
            json!({ "kind": "evm", "name": "x", "address": format!("{}0", &EVM[..41]).to_lowercase(), "chains": [] }),
            Code::BadBody,
            "choose from ethereum, ",
        ),
        (json!({ "kind": "evm", "name": "x", "address": EVM, "chains": ["solana"] }), Code::BadBody, "choose from"),
        (json!({ "kind": "bitcoin", "name": "x", "address": BECH, "chains": ["base"] }), Code::BadBody, "evm alone"),
        (json!({ "kind": "bitcoin", "name": "x", "address": BECH, "secret": "S1" }), Code::BadBody, "okx alone"),
        (json!({ "kind": "okx", "name": "x", "key": "K1", "secret": "S1" }), Code::BadBody, "needs key, secret and passphrase"),
        (json!({ "kind": "okx", "name": "x", "key": "K1", "secret": "S1\r\nX: y", "passphrase": "P1" }), Code::BadBody, "what OKX shows"),
        (
            json!({ "kind": "okx", "name": "x", "address": "x", "key": "K1", "secret": "S1", "passphrase": "P1" }),
            Code::BadBody,
            "no address",
        ),
        (json!({ "kind": "bank", "name": "x" }), Code::BadBody, "one of bitcoin, evm, okx, miner"),
        (json!({ "kind": "bitcoin", "name": " ", "address": BECH }), Code::BadBody, "1 to 64 characters"),
        (json!({ "kind": "bitcoin", "name": "a\nb", "address": BECH }), Code::BadBody, "1 to 64 characters"),
        (json!({ "kind": "bitcoin", "name": "é".repeat(NAME_CHARS_MAX + 1), "address": BECH }), Code::BadBody, "1 to 64 characters"),
    ] {
        let before = world.book.noted();
        let (is, why) = refused(world.add(&ann, new.clone()));
        assert!(is == code && why.contains(says) && !why.contains("S1"), "{new}: {is:?} {why}");
        assert_eq!(world.book.noted(), before);
    }
    // What is secret is nowhere but in its account, sealed.
    let (_, told) = world.add(&ann, okx()).unwrap();
    let all = [Question::List, Question::Show(1), Question::Accounts(1), Question::Holdings(1)]
        .map(|ask| world.ask(&ann, ask).unwrap().1.to_string());
    let shown = format!("{told} {all:?} {:?}", world.book);
    assert!(["K1", "S1", "P1"].iter().all(|secret| !shown.contains(secret)), "{shown}");
    let key = AccountKey { user: ann, portfolio: 1, account: 4 };
    let Some(Account { source: Source::Okx { sealed }, .. }) = world.book.account(&key) else { panic!("no account at OKX") };
    assert_eq!(world.sealer.as_ref().unwrap().open(sealed, &key).unwrap().secret, "S1");
    world.sealer = None;
    let (code, why) = refused(world.add(&ann, okx()));
    assert!(code == Code::Conflict && why.contains("--portfolio-key FILE"), "{why}");
}

#[test]
fn a_user_has_so_many_and_no_more() {
    let mut world = World::new();
    let ann = world.user("ann");
    let longest = "é".repeat(NAME_CHARS_MAX);
    for n in 2..=PORTFOLIOS_MAX {
        let told = world.ask(&ann, Question::Add(NewPortfolio { name: longest.clone() })).unwrap();
        assert_eq!(told, (201, json!({ "id": n, "name": longest, "since": NOW })));
    }
    assert_eq!(refused(world.ask(&ann, Question::Add(NewPortfolio { name: "x".into() }))).0, Code::Conflict);
    assert_eq!(world.ask(&ann, Question::Remove(2)), Ok((200, json!({ "removed": 2 }))));
    assert_eq!(refused(world.ask(&ann, Question::Remove(2))).0, Code::NotFound);
    assert_eq!(world.ask(&ann, Question::Add(NewPortfolio { name: "x".into() })).unwrap().1["id"], PORTFOLIOS_MAX + 1);
    let address = |n: usize| json!({ "kind": "evm", "name": "e", "address": format!("0x{n:040x}") });
    for n in 0..ACCOUNTS_MAX {
        world.add(&ann, address(n)).unwrap();
    }
    assert_eq!(refused(world.add(&ann, address(ACCOUNTS_MAX))).0, Code::Conflict);
    assert_eq!(world.ask(&ann, Question::RemoveAccount(1, 1)), Ok((200, json!({ "removed": 1 }))));
    assert_eq!(world.add(&ann, address(ACCOUNTS_MAX)).unwrap().1["id"], ACCOUNTS_MAX + 1);
}

/// An answer longer than its place in an outbox would cut the connection.
#[test]
fn the_longest_answer_fits_an_outbox() {
    use rockpool_net::limits::{OUTBOX_HTTP_BYTES, OUTBOX_SOFT_BYTES};
    use rockpool_store::limits::{COINS_MAX, HOLDINGS_MAX, HOLDINGS_USER_MAX};

    use crate::limits::{COIN_NAME_BYTES, COIN_SYMBOL_BYTES};

    let mut world = World::new();
    let ann = world.user("ann");
    let id = |n: usize| format!("{n:0>128}");
    let coin = |rank| Coin { rank, id: id(rank.into()), symbol: "\"".repeat(99), name: "\"".repeat(99) };
    world.book.set_coins(1, (1..=COINS_MAX as u16).map(coin).collect());
    assert_eq!((world.book.coins()[0].symbol.len(), world.book.coins()[0].name.len()), (COIN_SYMBOL_BYTES, COIN_NAME_BYTES));
    for account in 0..ACCOUNTS_MAX {
        world.add(&ann, json!({ "kind": "evm", "name": "\"".repeat(NAME_CHARS_MAX), "address": format!("0x{account:040x}") })).unwrap();
        let amount = Amount { units: u128::MAX, decimals: 38 };
        // Those that have a name are in it too.
        let of = |n: usize| Holding { asset: id(account * HOLDINGS_MAX + n), place: "p".repeat(128), amount, counted: true };
        world.hold(&ann, account as u32 + 1, (0..HOLDINGS_MAX).map(of).collect());
        world.book.set_trouble(&AccountKey { user: ann, portfolio: 1, account: account as u32 + 1 }, Some("\"".repeat(999)));
    }
    let held: usize =
        (1..=ACCOUNTS_MAX as u32).map(|account| world.book.holdings(&AccountKey { user: ann, portfolio: 1, account }).len()).sum();
    assert_eq!(held, HOLDINGS_USER_MAX);
    let prices = (0..HOLDINGS_USER_MAX).map(|n| price(&id(n), 1, 1.0 / 3e-300)).collect();
    world.book.set_prices(prices);
    for question in [Question::Show(1), Question::Holdings(1), Question::Accounts(1)] {
        let bytes = world.ask(&ann, question).unwrap().1.to_string().len();
        assert!(bytes < OUTBOX_HTTP_BYTES - OUTBOX_SOFT_BYTES - 1_000, "{bytes}");
    }
}

#[test]
fn history_is_what_each_day_was_worth() {
    let mut world = World::new();
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    world.add(&ann, bitcoin()).unwrap();
    world.hold(&ann, 1, vec![holding("bitcoin", "2", true), holding("okx:XYZ", "1", true)]);
    let today = (NOW / DAY_S) as u32;
    let currencies = ["usd".to_owned(), "eur".to_owned()];
    let unknown = snapshot(&world.book, &ann, 1, today, &currencies);
    assert!(unknown.values.is_empty() && unknown.assets.len() == 2, "{unknown:?}");
    for back in [0, 1, 2, 9, SNAPSHOT_DAYS_MAX, SNAPSHOT_DAYS_MAX + 1] {
        world.book.set_prices(vec![price("bitcoin", NOW, f64::from(back))]);
        let taken = snapshot(&world.book, &ann, 1, today - back, &currencies);
        assert_eq!(
            taken,
            Snapshot { day: today - back, values: [("usd".to_owned(), 2.0 * f64::from(back))].into(), assets: unknown.assets.clone() }
        );
        world.book.snapshot(&ann, 1, taken);
        world.book.snapshot(&bob, 1, unknown.clone());
    }
    world.book.take().iter().for_each(|batch| world.kv.write(batch, true).unwrap());
    let mut days = |user: &UserId, days: u32, currency: &str| {
        let (_, told) = world.ask_in(user, Question::History(1, days), Some(currency)).unwrap();
        let back = |point: &Json| (u64::from(today) - point[0].as_u64().unwrap() / DAY_S, point[1].as_f64());
        told["points"].as_array().unwrap().iter().map(back).collect::<Vec<_>>()
    };
    assert_eq!(days(&ann, 2, "usd"), [(1, Some(2.0)), (0, Some(0.0))]);
    assert_eq!(days(&ann, 3, "eur"), [(2, None), (1, None), (0, None)]);
    assert_eq!(days(&ann, u32::MAX, "usd").len(), 4, "ten years and no more");
    assert_eq!(days(&bob, 9, "usd"), [(0, None)]);
    // Of days to come, which a calendar that was ahead has left, nothing is told.
    for ahead in [1, 366] {
        world.book.snapshot(&ann, 1, Snapshot { day: today + ahead, values: [("usd".to_owned(), 9.0)].into(), assets: Vec::new() });
    }
    world.book.take().iter().for_each(|batch| world.kv.write(batch, true).unwrap());
    let (_, told) = world.ask(&ann, Question::History(1, 2)).unwrap();
    assert_eq!(told["points"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_api_key_is_one_account() {
    let mut world = World::new();
    let ann = world.user("ann");
    let okx = |key: &str| json!({ "kind": "okx", "name": "o", "key": key, "secret": "s", "passphrase": "p" });
    world.add(&ann, okx("one")).unwrap();
    let (code, why) = refused(world.add(&ann, okx("one")));
    assert!(code == Code::Conflict && !why.contains("one"), "{why}");
    world.add(&ann, okx("two")).unwrap();
}
