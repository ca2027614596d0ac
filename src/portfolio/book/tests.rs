#![expect(clippy::unwrap_used, reason = "tests")]
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_store::kv::{Family, Kv, MemKv};
use rockpool_store::limits::{
    COINS_MAX, CONTRACTS_MAX, CURRENCIES_MAX, HOLDINGS_ALL_MAX, HOLDINGS_MAX, HOLDINGS_USER_MAX, PAID_MAX, PAID_OUTPUTS_MAX, PRICES_MAX,
    ROWS_PER_BATCH, SNAPSHOT_ASSETS_MAX,
};
use rockpool_store::portfolios::rows::SNAPSHOTS;

use super::*;
use crate::limits::CHECKED_WRITE_EVERY_S;
use crate::portfolio::model::{Amount, Sealed, Snapshot};

const NOW: u64 = 1_790_000_000;

fn bitcoin() -> Source {
    Source::Bitcoin { address: "bc1q".into() }
}

fn holding(asset: &str, units: u128) -> Holding {
    Holding { asset: asset.into(), place: "bitcoin".into(), amount: Amount { units, decimals: 8 }, counted: true }
}

fn price(asset: &str, at: u64, usd: f64) -> Price {
    Price { asset: asset.into(), at, values: BTreeMap::from([("usd".into(), usd)]) }
}

fn coins(count: usize) -> Vec<Coin> {
    let coin = |rank| Coin { rank, id: format!("coin{rank}"), symbol: "c".into(), name: "Coin".into() };
    (1..=count as u16).map(coin).collect()
}

fn contracts(count: usize) -> Vec<Contract> {
    let contract = |n: usize| {
        let mut address = [0; 20];
        address[..8].copy_from_slice(&n.to_be_bytes());
        Contract { chain: (n % 3) as u8, address, coin: "c".into(), decimals: None }
    };
    (0..count).map(contract).collect()
}

fn snapshot(day: u32, assets: usize) -> Snapshot {
    let assets = (0..assets).map(|n| (format!("a{n}"), Amount::sats(1))).collect();
    Snapshot { day, values: BTreeMap::from([("usd".into(), f64::from(day))]), assets }
}

/// Writes what has changed as the stage does; how many batches and rows that were.
fn save(book: &mut Book, kv: &dyn Kv) -> (usize, usize) {
    let batches = book.take();
    for batch in &batches {
        assert!((1..=ROWS_PER_BATCH).contains(&batch.len()));
        kv.write(batch, false).unwrap();
    }
    sweep(book, kv);
    (batches.len(), batches.iter().map(Vec::len).sum())
}

fn sweep(book: &mut Book, kv: &dyn Kv) {
    for (user, portfolio) in book.take_gone() {
        while let Some(ops) = Some(gone_rows(kv, &user, portfolio).unwrap()).filter(|ops| !ops.is_empty()) {
            assert!(ops.len() <= ROWS_PER_BATCH);
            kv.write(&ops, false).unwrap();
        }
    }
}

/// All that a start finds again.
fn shape(book: &Book) -> String {
    let accounts: Vec<_> = book.accounts().map(|(key, account)| (key, Account { checked: None, ..account.clone() })).collect();
    let holdings: Vec<_> = book.accounts().map(|(key, _)| book.holdings(&key).to_vec()).collect();
    let members: Vec<_> = book.members.values().map(|member| (&member.user, &member.portfolios, member.accounts)).collect();
    let (prices, coins, contracts, paid, marks) = (&book.prices, &book.coins, &book.contracts, &book.paid, &book.marks);
    format!("{members:?} {accounts:?} {holdings:?} {} {prices:?} {coins:?} {contracts:?} {paid:?} {marks:?}", book.holdings)
}

fn rows(kv: &dyn Kv, from: &[u8]) -> usize {
    let mut count = 0;
    kv.scan(Family::Portfolios, from, &mut |_, _| {
        count += 1;
        true
    })
    .unwrap();
    count
}

#[test]
fn a_user_is_made_at_first_sight_and_never_again() {
    let (mut book, kv) = (Book::default(), MemKv::new());
    let ann = book.meet("rockpool", "ann", NOW).unwrap();
    assert_eq!(save(&mut book, &kv), (1, 2));
    for now in [NOW, NOW + 9] {
        assert_eq!(book.meet("rockpool", "ann", now), Ok(ann));
    }
    assert!(!book.is_changed());
    let main: Vec<_> = book.portfolios(&ann).map(|portfolio| (portfolio.id, portfolio.name.as_str(), portfolio.since)).collect();
    assert_eq!((main, book.user(&ann).unwrap().since), (vec![(1, "main", NOW)], NOW));
    // Nobody else is the same, however the two names are cut.
    let others =
        [("rockpool", "bob"), ("rockpoola", "nn"), ("https://id", "ann"), ("", "rockpool\0ann")].map(|(issuer, sub)| user_id(issuer, sub));
    assert!(others.iter().all(|other| *other != ann && book.portfolio(other, 1).is_none() && book.user(other).is_none()));
}

#[test]
fn ids_are_never_used_again() {
    let (mut book, kv) = (Book::default(), MemKv::new());
    let ann = book.meet("rockpool", "ann", NOW).unwrap();
    assert_eq!(book.add_portfolio(&ann, "b".into(), NOW), Ok(2));
    assert!(book.remove_portfolio(&ann, 2) && book.remove_portfolio(&ann, 1) && !book.remove_portfolio(&ann, 1));
    save(&mut book, &kv);
    let mut book = Book::open(&kv).unwrap();
    assert_eq!(book.add_portfolio(&ann, "c".into(), NOW), Ok(3));
    let key = book.add_account(&ann, 3, "a".into(), bitcoin(), NOW).unwrap();
    assert!(book.remove_account(&key) && !book.remove_account(&key));
    assert_eq!((key.account, book.next_account(&ann)), (1, Ok(2)));
    assert_eq!(book.add_account(&ann, 1, "a".into(), bitcoin(), NOW), Err(Full::Portfolios), "a portfolio that is no more");
}

#[test]
fn nobody_fills_the_book_and_whoever_has_an_account_stays() {
    let mut book = Book::default();
    let user = |n: usize| format!("user{n}");
    for n in 0..USERS_MAX {
        book.meet("i", &user(n), NOW + n as u64).unwrap();
    }
    let first = user_id("i", "user0");
    let key = book.add_account(&first, 1, "a".into(), bitcoin(), NOW).unwrap();
    book.meet("i", "one more", NOW + 99_999).unwrap();
    assert_eq!(book.users(), USERS_MAX);
    assert!(book.account(&key).is_some() && book.user(&user_id("i", "user1")).is_none() && book.user(&user_id("i", "user2")).is_some());
    // Accounts and portfolios of one user.
    for n in 1..PORTFOLIOS_MAX {
        book.add_portfolio(&first, user(n), NOW).unwrap();
    }
    assert_eq!(book.add_portfolio(&first, "x".into(), NOW), Err(Full::Portfolios));
    for n in 1..ACCOUNTS_MAX {
        book.add_account(&first, 1 + (n % PORTFOLIOS_MAX) as u32, user(n), bitcoin(), NOW).unwrap();
    }
    assert_eq!(book.add_account(&first, 1, "x".into(), bitcoin(), NOW), Err(Full::Accounts));
    // And of all.
    let mut n = 2;
    while book.accounts.len() < ACCOUNTS_ALL_MAX {
        let id = user_id("i", &user(n));
        n += usize::from(book.add_account(&id, 1, "a".into(), bitcoin(), NOW) == Err(Full::Accounts));
    }
    assert_eq!(book.add_account(&user_id("i", "one more"), 1, "a".into(), bitcoin(), NOW), Err(Full::AllAccounts));
    // Full of users who have something: there is no room for another.
    let mut book = Book::default();
    for n in 0..USERS_MAX {
        let id = book.meet("i", &user(n), NOW).unwrap();
        book.add_account(&id, 1, "a".into(), bitcoin(), NOW).unwrap();
    }
    assert_eq!(book.meet("i", "one more", NOW), Err(Full::Users));
    assert_eq!(book.users(), USERS_MAX);
}

#[test]
fn holdings_are_bounded_for_one_and_for_all_and_what_is_left_out_is_told() {
    let mut book = Book::default();
    let many = |count: usize| (0..count).map(|n| holding(&format!("a{n:04}"), 1)).collect::<Vec<_>>();
    let mut keys = Vec::new();
    for n in 0..HOLDINGS_ALL_MAX / HOLDINGS_MAX + 1 {
        let id = book.meet("i", &n.to_string(), NOW).unwrap();
        keys.push(book.add_account(&id, 1, "a".into(), bitcoin(), NOW).unwrap());
    }
    book.set_holdings(&keys[0], NOW, many(HOLDINGS_MAX + 3));
    assert_eq!(book.holdings(&keys[0]).len(), HOLDINGS_MAX);
    assert!(book.account(&keys[0]).unwrap().trouble.as_deref().unwrap().starts_with("3 of its holdings are left out"));
    for key in &keys {
        book.set_holdings(key, NOW, many(HOLDINGS_MAX));
    }
    assert_eq!((book.holdings, book.holdings(keys.last().unwrap()).len()), (HOLDINGS_ALL_MAX, 0));
    assert_eq!(book.account(&keys[0]).unwrap().trouble, None);
    book.remove_account(&keys[0]);
    book.set_holdings(keys.last().unwrap(), NOW, many(HOLDINGS_MAX));
    assert_eq!((book.holdings, book.holdings(keys.last().unwrap()).len()), (HOLDINGS_ALL_MAX, HOLDINGS_MAX));
    book.set_holdings(&keys[0], NOW, many(1));
    assert!(book.holdings(&keys[0]).is_empty(), "it has gone meanwhile");
    // One user with several accounts.
    let mut book = Book::default();
    let ann = book.meet("i", "ann", NOW).unwrap();
    for n in 0..4 {
        let key = book.add_account(&ann, 1, "a".into(), bitcoin(), NOW).unwrap();
        book.set_holdings(&key, NOW, many(HOLDINGS_MAX));
        let left = HOLDINGS_USER_MAX.saturating_sub(n * HOLDINGS_MAX).min(HOLDINGS_MAX);
        assert_eq!((book.holdings(&key).len(), book.account(&key).unwrap().trouble.is_some()), (left, left < HOLDINGS_MAX));
    }
}

#[test]
fn what_was_collected_is_bounded() {
    let mut book = Book::default();
    for n in 0..=PRICES_MAX {
        book.set_prices(vec![price(&format!("p{n}"), NOW + n as u64, 1.0)]);
    }
    assert!(book.prices.len() == PRICES_MAX && book.price("p0").is_none() && book.price("p1").is_some());
    let values = (0..=CURRENCIES_MAX).map(|n| (format!("c{n}"), 1.0)).chain([("bad".into(), f64::NAN), ("less".into(), -1.0)]).collect();
    book.set_prices(vec![Price { asset: "p1".into(), at: NOW, values }, price("", NOW, 1.0), price("a\nb", NOW, 1.0)]);
    assert_eq!((book.price("p1").unwrap().values.len(), book.prices.len()), (CURRENCIES_MAX, PRICES_MAX));
    book.set_coins(1, coins(COINS_MAX + 1));
    book.set_contracts(contracts(CONTRACTS_MAX + 1));
    assert_eq!((book.coins().len(), book.contracts.len()), (COINS_MAX, CONTRACTS_MAX));
    let script = Script::P2wpkh([1; 20]);
    for n in 0..=PAID_MAX {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        book.set_paid(ShareId(hash), vec![(script, 1); PAID_OUTPUTS_MAX + 1]);
    }
    assert_eq!(book.all_paid().map(|(_, outputs)| outputs.len()).collect::<Vec<_>>(), [PAID_OUTPUTS_MAX; PAID_MAX]);
    book.keep_paid(&|hash| hash.0[7] == 1);
    assert_eq!(book.all_paid().count(), PAID_MAX / 256 + 1);
    let ann = book.meet("i", "ann", NOW).unwrap();
    book.take();
    book.snapshot(&ann, 1, snapshot(7, SNAPSHOT_ASSETS_MAX + 1));
    let kv = MemKv::new();
    save(&mut book, &kv);
    let mut assets = 0;
    kv.scan(Family::Portfolios, SNAPSHOTS, &mut |key, value| {
        let Row::Snapshot(_, _, snapshot) = Row::decode(key, value).unwrap() else { panic!("no snapshot") };
        assets = snapshot.assets.len();
        true
    })
    .unwrap();
    assert_eq!(assets, SNAPSHOT_ASSETS_MAX);
    book.snapshot(&ann, 2, snapshot(7, 1));
    assert!(!book.is_changed(), "of a portfolio that is no more");
}

#[test]
fn a_hundred_prices_are_one_write_and_a_second_run_is_none() {
    let (mut book, kv) = (Book::default(), MemKv::new());
    let ann = book.meet("i", "ann", NOW).unwrap();
    let key = book.add_account(&ann, 1, "a".into(), bitcoin(), NOW).unwrap();
    save(&mut book, &kv);
    let prices = |at| (0..100).map(|n| price(&format!("p{n}"), at, f64::from(n))).collect::<Vec<_>>();
    book.set_trouble(&key, None);
    assert!(!book.is_changed());
    book.set_prices(prices(NOW));
    assert_eq!(save(&mut book, &kv), (1, 100));
    let mut run = |now: u64| {
        book.set_prices(prices(NOW));
        book.set_coins(20_000, coins(100));
        book.set_contracts(contracts(7));
        book.set_decimals(&[(0, contracts(1)[0].address, 6), (9, [9; 20], 6)]);
        book.set_paid(ShareId([1; 32]), vec![(Script::P2tr([1; 32]), 5)]);
        book.set_holdings(&key, now, vec![holding("bitcoin", 5), holding("bitcoin", 6), holding("nothing", 0), holding("a", 1)]);
        book.set_pending(&key, Some(now));
        book.set_mark(Daily::Snapshots, 20_000);
        assert_eq!(book.account(&key).unwrap().checked, Some(now), "in memory it is exact");
        save(&mut book, &kv)
    };
    let first = run(NOW);
    assert!(first.1 == 100 + 1 + 7 + 1 + 1 + 3 + 1 && first.0 == 2, "{first:?}");
    for now in [NOW, NOW + 60, NOW + CHECKED_WRITE_EVERY_S] {
        assert_eq!(run(now), (0, 0));
    }
    assert_eq!(run(NOW + CHECKED_WRITE_EVERY_S + 1), (1, 1), "once an hour it is written that it was checked");
    // The same list anew forgets no decimals.
    assert_eq!(book.contracts(0).next().unwrap().decimals, Some(6));
    assert_eq!((book.contracts(0).count(), book.contracts(9).count()), (3, 0));
    assert_eq!(book.holdings(&key).iter().map(|holding| holding.asset.as_str()).collect::<Vec<_>>(), ["a", "bitcoin"]);
    for trouble in [Some("no\nanswer".to_owned()), Some("no answer".to_owned())] {
        book.set_trouble(&key, trouble);
    }
    assert_eq!(save(&mut book, &kv), (1, 1));
    assert_eq!(shape(&Book::open(&kv).unwrap()), shape(&book));
}

/// One thing that a user does or a collection brings, drawn.
fn step(book: &mut Book, rng: &mut ChaCha12Rng, now: u64) {
    let mut draw = |below: usize| rng.next_u32() as usize % below;
    let user = book.meet("i", &draw(5).to_string(), now).unwrap();
    // One that is there, if any is.
    let ids: Vec<_> = book.portfolios(&user).map(|portfolio| portfolio.id).collect();
    let portfolio = ids.get(draw(ids.len().max(1))).copied().unwrap_or(1);
    let keys: Vec<_> = book.accounts_in(&user, portfolio).map(|(key, _)| key).collect();
    let key = keys.get(draw(keys.len().max(1))).copied().unwrap_or(AccountKey { user, portfolio, account: 1 });
    match draw(12) {
        0 => drop(book.add_portfolio(&user, format!("p{now}"), now)),
        1 if draw(2) == 0 => assert!(!book.remove_portfolio(&user, portfolio) || book.accounts_in(&user, portfolio).count() == 0),
        2 if draw(2) == 0 => {
            book.remove_account(&key);
        }
        3 => drop(book.add_account(&user, portfolio, "a".into(), Source::Okx { sealed: Sealed(vec![draw(9) as u8; 40]) }, now)),
        4 => drop(book.add_account(&user, portfolio, "b".into(), bitcoin(), now)),
        5 | 6 => {
            let count = draw(250);
            book.set_holdings(&key, now, (0..count).map(|n| holding(&format!("a{n}"), draw(3) as u128)).collect());
        }
        7 => book.set_trouble(&key, (draw(2) == 0).then(|| "no answer in time".to_owned())),
        8 => book.set_prices((0..draw(120)).map(|n| price(&format!("p{n}"), now, 1.0)).collect()),
        9 => book.set_coins(now as u32 % 9, coins(draw(COINS_MAX))),
        10 => (0..draw(250)).for_each(|day| book.snapshot(&user, portfolio, snapshot(day as u32, 2))),
        _ => book.set_contracts(contracts(draw(150))),
    }
}

#[test]
fn what_is_written_is_found_again() {
    for seed in 0..8 {
        let (mut rng, mut book, kv) = (ChaCha12Rng::seed_from_u64(seed), Book::default(), MemKv::new());
        for n in 0..150 {
            step(&mut book, &mut rng, NOW + n);
            save(&mut book, &kv);
            let again = Book::open(&kv).unwrap();
            assert_eq!(shape(&again), shape(&book), "seed {seed} step {n}");
            assert!(!again.is_changed(), "nothing is left over");
        }
        assert!(book.accounts().count() > 2, "{}", book.accounts().count());
    }
}

/// A crash may leave any prefix of the batches: the next start takes what leads somewhere, deletes the rest, and is then as good as any.
#[test]
fn a_crash_between_batches_leaves_nothing_that_a_start_refuses() {
    let mut cleaned = 0;
    for seed in 100..160 {
        let (mut rng, mut book, kv) = (ChaCha12Rng::seed_from_u64(seed), Book::default(), MemKv::new());
        for n in 0..80 {
            step(&mut book, &mut rng, NOW + n);
            if rng.next_u32() % 2 > 0 {
                save(&mut book, &kv);
                kv.flush().unwrap();
                continue;
            }
            // In the middle of writing, or of deleting snapshots.
            save(&mut book, &kv);
            kv.crash(rng.next_u32() as usize % (kv.unsynced() + 1));
            book = Book::open(&kv).unwrap();
            cleaned += usize::from(book.is_changed());
            save(&mut book, &kv);
            kv.flush().unwrap();
            let again = Book::open(&kv).unwrap();
            assert_eq!(shape(&again), shape(&book), "seed {seed} step {n}");
            assert!(!again.is_changed());
        }
        // Snapshots of portfolios that are there, and no others.
        kv.scan(Family::Portfolios, SNAPSHOTS, &mut |key, _| {
            let (user, portfolio, _) = rockpool_store::portfolios::rows::snapshot_of(key).unwrap();
            assert!(book.portfolio(&user, portfolio).is_some());
            true
        })
        .unwrap();
    }
    assert!(cleaned > 2, "{cleaned} crashes left anything over");
}

#[test]
fn rows_that_are_none_take_nothing_from_the_others() {
    let (mut book, kv) = (Book::default(), MemKv::new());
    let ann = book.meet("i", "ann", NOW).unwrap();
    book.snapshot(&ann, 1, snapshot(7, 1));
    save(&mut book, &kv);
    let good = rows(&kv, &[]);
    for key in [vec![], vec![1, 2], vec![5], vec![9], vec![9; 40], vec![10], vec![255; 30]] {
        kv.write(&[Op::Put(Family::Portfolios, key, vec![1])], true).unwrap();
    }
    let mut again = Book::open(&kv).unwrap();
    assert_eq!(shape(&again), shape(&book));
    save(&mut again, &kv);
    assert_eq!(rows(&kv, &[]), good);
}
