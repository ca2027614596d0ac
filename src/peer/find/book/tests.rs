use rand_chacha::rand_core::SeedableRng;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::limits::PEER_ADDRS_MAX;

use super::*;

const NOW: u32 = 1_700_000_000;

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

fn book(seed: u64) -> Book {
    Book::open(&PeerRows::default(), false, &mut rng(seed))
}

/// The `number`th address of a netgroup.
fn addr(group: u16, number: u16) -> SocketAddr {
    let ([a, b], [c, d]) = (group.to_be_bytes(), number.to_be_bytes());
    SocketAddr::from(([20_u8.wrapping_add(a), b, c, d], 9_333))
}

fn any(_: SocketAddr) -> bool {
    true
}

fn stored(book: &mut Book, kv: &MemKv) {
    kv.write(&book.take(true), true).unwrap();
    assert!(!book.has_changed() && !book.has_stamps());
}

fn reopened(kv: &MemKv) -> Book {
    Book::open(&PeerRows::open(kv).unwrap(), false, &mut rng(99))
}

fn same(a: &Book, b: &Book) -> bool {
    let rows = |book: &Book| book.entries.values().map(|entry| entry.row).collect::<Vec<_>>();
    (&a.new, &a.tried, a.key, rows(a)) == (&b.new, &b.tried, b.key, rows(b))
}

#[test]
fn what_is_no_address_of_the_network_is_not_taken() {
    let mut book = book(1);
    let source = addr(1, 1).ip();
    for text in ["127.0.0.1:9333", "10.0.0.1:9333", "192.168.1.1:9333", "203.0.113.7:9333", "1.2.3.4:0", "[fd00::1]:9333", "[::1]:9333"] {
        assert!(!book.add(NOW, text.parse().unwrap(), 0, NOW, source), "{text}");
    }
    assert!(book.add(NOW, "[::ffff:1.2.3.4]:9333".parse().unwrap(), 0, NOW, source));
    assert!(!book.add(NOW, "1.2.3.4:9333".parse().unwrap(), 0, NOW, source), "it is the same");
    let mut regtest = Book::open(&PeerRows::default(), true, &mut rng(1));
    for text in ["127.0.0.1:9333", "10.0.0.1:9333", "[::1]:9333"] {
        assert!(regtest.add(NOW, text.parse().unwrap(), 0, NOW, source), "{text}");
    }
    assert!(!regtest.add(NOW, "127.0.0.1:0".parse().unwrap(), 0, NOW, source));
}

#[test]
fn our_own_addresses_are_forgotten_and_never_taken_again() {
    let (kv, mut book) = (MemKv::new(), book(1));
    book.add(NOW, addr(1, 1), 0, NOW, addr(2, 1).ip());
    book.good(NOW, addr(1, 1), 0);
    stored(&mut book, &kv);
    book.is_own(addr(1, 1));
    assert_eq!(book.sizes(), (0, 0));
    assert!(!book.add(NOW, addr(1, 1), 0, NOW, addr(2, 1).ip()));
    stored(&mut book, &kv);
    assert_eq!(reopened(&kv).sizes(), (0, 0));
    (0..BOOK_OWN_MAX as u16).for_each(|number| book.is_own(addr(3, number)));
    assert!(book.add(NOW, addr(1, 1), 0, NOW, addr(2, 1).ip()), "of many the oldest is forgotten");
}

/// Who has all addresses of eight netgroups, and tells of millions, fills a part of either table and no more.
#[test]
fn few_netgroups_fill_few_buckets_however_many_addresses_they_tell_of() {
    let mut book = book(2);
    for number in 0..20_000_u16 {
        let of = addr(number % 8, number);
        book.add(NOW, addr(1_000 + number % 500, number), 0, NOW, of.ip());
        book.add(NOW, of, 0, NOW, of.ip());
        book.good(NOW, of, 0);
    }
    let filled = |table: &[Option<SocketAddr>]| table.chunks(BUCKET_SLOTS).filter(|bucket| bucket.iter().any(Option::is_some)).count();
    let (new, tried) = (filled(&book.new), filled(&book.tried));
    assert!(new <= 8 * NEW_PER_SOURCE && new > NEW_BUCKETS / 4, "{new} buckets");
    assert!(tried <= 8 * TRIED_PER_GROUP && tried > TRIED_PER_GROUP, "{tried} buckets");
    book.sanity_check().unwrap();
    // One netgroup alone.
    let one = (0..20_000).filter(|number| book.add(NOW, addr(9, *number), 0, NOW, addr(10, 0).ip())).count();
    assert!(one <= BUCKET_SLOTS, "told of by one source, a netgroup has one bucket: {one}");
}

#[test]
fn a_full_book_is_bounded_in_number_and_in_memory() {
    let mut book = book(3);
    for number in 0..60_000_u16 {
        book.add(NOW, addr(number, number), 0, NOW, addr(number ^ 0x5555, 0).ip());
        if number % 4 == 0 {
            book.good(NOW, addr(number, number), 0);
        }
    }
    let (new, tried) = book.sizes();
    assert!(new > NEW_BUCKETS * BUCKET_SLOTS * 9 / 10 && tried > TRIED_BUCKETS * BUCKET_SLOTS / 2, "{new}, {tried}");
    assert!(new + tried <= PEER_ADDRS_MAX);
    book.sanity_check().unwrap();
    // An entry with its key in a map of nodes at least half full, thrice in sets, and its slot.
    let key = size_of::<SocketAddr>();
    let each = 2 * (key + size_of::<Entry>()) + 2 * 2 * key + size_of::<Option<SocketAddr>>();
    assert!(PEER_ADDRS_MAX * each <= 2_000_000, "{each} bytes each");
}

#[test]
fn of_two_tables_tried_weighs_as_many_netgroups_as_it_has() {
    let (mut book, mut draws) = (book(13), rng(14));
    let share = |book: &Book, draws: &mut ChaCha12Rng| {
        let tried = |_: &u32| book.pick(NOW + 2 * RETRY_S, draws, false, &any).is_some_and(|addr| book.row(addr).unwrap().tried);
        (0..2_000).filter(tried).count()
    };
    (0..200).for_each(|number| _ = book.add(NOW, addr(1_000 + number, 1), 0, NOW, addr(number, 2).ip()));
    assert_eq!(share(&book, &mut draws), 0, "there is nobody else");
    for number in 0..NEW_WEIGHT as u16 {
        // Many addresses of a netgroup are no more than one.
        for more in 0..4 {
            book.add(NOW, addr(number, more), 0, NOW, addr(number, 2).ip());
            book.good(NOW, addr(number, more), 0);
        }
    }
    let even = share(&book, &mut draws);
    assert!((850..1_150).contains(&even), "{even} of 2,000");
    assert_eq!(book.pick(NOW, &mut draws, true, &|addr| book.row(addr).unwrap().tried), None, "a feeler goes to new");
}

#[test]
fn who_failed_seldom_comes_up_and_who_never_answers_gives_way() {
    let mut book = book(4);
    for number in 0..2 {
        book.add(NOW, addr(number, 1), 0, NOW, addr(number, 2).ip());
    }
    // Somebody has answered before each of these, so that they count.
    for dial in 0..6 {
        book.answered = NOW + dial * RETRY_S;
        book.dialled(NOW + dial * RETRY_S, addr(0, 1));
    }
    let later = NOW + 7 * RETRY_S;
    let mut draws = rng(5);
    let share = (0..1_000).filter(|_| book.pick(later, &mut draws, false, &any) == Some(addr(0, 1))).count();
    assert!((40..160).contains(&share), "0.66⁶ of the other's chances: {share} of 1,000");
    let picked = book.pick(later, &mut draws, false, &|of| of != addr(1, 1));
    assert_eq!(picked, Some(addr(0, 1)), "where there is no other it is drawn all the same");
    assert_eq!(book.pick(later, &mut draws, false, &|_| false), None);
    assert!(book.row(addr(0, 1)).unwrap().attempts >= ADDR_FAILURES_EVER && book.is_bad(later, addr(0, 1)));
    assert!(!book.is_bad(later, addr(1, 1)));
    assert!(!book.is_bad(NOW + ADDR_HORIZON_S, addr(1, 1)) && book.is_bad(NOW + ADDR_HORIZON_S + 1, addr(1, 1)));
    // One that has answered is given longer.
    book.good(later, addr(0, 1), 0);
    for dial in 0..u32::from(ADDR_FAILURES_MAX) {
        book.answered = later + dial;
        book.dialled(later + dial, addr(0, 1));
    }
    assert!(!book.is_bad(later + ADDR_FAILURES_S, addr(0, 1)) && book.is_bad(later + ADDR_FAILURES_S + 1, addr(0, 1)));
}

/// A line that is down fails all dials alike; that says nothing about who was dialled.
#[test]
fn failures_count_once_until_somebody_answers() {
    let mut book = book(4);
    book.add(NOW, addr(0, 1), 0, NOW, addr(0, 2).ip());
    book.add(NOW, addr(1, 1), 0, NOW, addr(1, 2).ip());
    (0..20).for_each(|dial| book.dialled(NOW + dial, addr(0, 1)));
    assert_eq!(book.row(addr(0, 1)).unwrap().attempts, 1);
    book.good(NOW + 30, addr(1, 1), 0);
    book.dialled(NOW + 31, addr(0, 1));
    book.dialled(NOW + 32, addr(0, 1));
    assert_eq!(book.row(addr(0, 1)).unwrap().attempts, 2);
}

/// A clock that was wrong for a while leaves nobody in his place for years, nor makes the book forget who is good.
#[test]
fn a_clock_that_was_set_back_lets_places_change_again() {
    let (mut book, year) = (book(6), 365 * 86_400);
    let (first, second) = rivals(&book);
    for (addr, source) in [(first, addr(100, 1)), (second, addr(200, 1))] {
        book.add(NOW + year, addr, 0, NOW + year, source.ip());
    }
    book.dialled(NOW + year, first);
    book.good(NOW + year, first, 0);
    book.good(NOW + year + RIVAL_FRESH_S, second, 0);
    assert_eq!(book.rivals.len(), 1);
    // From here on the clock is right, and the first is gone.
    book.dialled(NOW, first);
    assert_eq!(book.doubted(NOW + DIALLING_S), []);
    for hour in 1..8 {
        let now = NOW + hour * 3_600;
        book.good(now, second, 0);
        if book.doubted(now).contains(&first) {
            book.dialled(now, first);
        }
    }
    assert!(book.row(second).unwrap().tried && !book.row(first).unwrap().tried);
    book.sanity_check().unwrap();
    // And back in 1970 everybody is as good as before, once it is right again.
    let mut book = self::book(6);
    book.add(NOW, first, 0, NOW, addr(100, 1).ip());
    book.good(NOW, first, 0);
    (10..30).for_each(|second| book.dialled(second, first));
    assert!(!is_bad(NOW + 86_400, book.row(first).unwrap()) && book.row(first).unwrap().attempts <= 2);
}

/// Whom we reach in our own house says nothing of the line.
#[test]
fn a_neighbour_that_answers_makes_no_failures_of_others() {
    let (mut book, neighbour) = (book(4), "192.168.1.2:9333".parse().unwrap());
    book.add(NOW, addr(0, 1), 0, NOW, addr(0, 2).ip());
    for dial in 0..20 {
        book.dialled(NOW + dial, addr(0, 1));
        book.good(NOW + dial, neighbour, 0);
    }
    assert_eq!(book.row(addr(0, 1)).unwrap().attempts, 1);
}

/// Two addresses of one netgroup whose place in *tried* is the same.
fn rivals(book: &Book) -> (SocketAddr, SocketAddr) {
    let first = addr(7, 0);
    let second = (1..).map(|number| addr(7, number)).find(|other| book.tried_place(*other) == book.tried_place(first)).unwrap();
    (first, second)
}

#[test]
fn a_place_in_tried_is_lost_only_by_who_no_longer_answers() {
    let begin = || {
        let mut book = book(6);
        let (first, second) = rivals(&book);
        for (addr, source) in [(first, addr(100, 1)), (second, addr(200, 1))] {
            assert!(book.add(NOW, addr, 0, NOW, source.ip()));
            book.dialled(NOW, addr);
            book.good(NOW, addr, 0);
        }
        assert_eq!((book.sizes(), book.row(first).unwrap().tried, book.rivals.len()), ((1, 1), true, 1));
        (book, first, second)
    };
    // It answered a moment ago.
    let (mut book, first, second) = begin();
    assert_eq!((book.doubted(NOW + 1), book.rivals.len()), (vec![], 0));
    // It has not for long, and answers when it is tested.
    book.good(NOW + RIVAL_FRESH_S, second, 0);
    let now = NOW + RIVAL_FRESH_S + 1;
    assert_eq!(book.doubted(now), [first]);
    book.dialled(now, first);
    assert_eq!(book.doubted(now + 1), [], "it is being tested");
    book.good(now + 2, first, 0);
    assert_eq!((book.doubted(now + 3), book.row(first).unwrap().tried), (vec![], true));
    // It does not answer.
    let (mut book, first, second) = begin();
    book.doubted(NOW + 1);
    book.good(NOW + RIVAL_FRESH_S, second, 0);
    book.dialled(now, first);
    assert_eq!((book.doubted(now + DIALLING_S), book.row(first).unwrap().tried, book.row(second).unwrap().tried), (vec![], false, true));
    book.sanity_check().unwrap();
    // Nobody comes to test it.
    let (mut book, first, second) = begin();
    book.doubted(NOW + 1);
    book.good(NOW + RIVAL_FRESH_S, second, 0);
    book.settle(NOW + RIVAL_FRESH_S + RIVAL_TEST_S - 1);
    assert!(book.row(first).unwrap().tried);
    book.settle(NOW + RIVAL_FRESH_S + RIVAL_TEST_S);
    assert!(book.row(second).unwrap().tried && !book.row(first).unwrap().tried);
    book.sanity_check().unwrap();
}

#[test]
fn those_who_wait_for_a_place_are_bounded() {
    let mut book = book(7);
    for number in 0..20_000_u16 {
        book.add(NOW, addr(7, number), 0, NOW, addr(number, 9).ip());
        book.good(NOW, addr(7, number), 0);
    }
    assert_eq!(book.rivals.len(), BOOK_RIVALS_MAX);
}

#[test]
fn a_stranger_is_told_a_part_and_of_a_small_network_all() {
    let (mut book, mut draws) = (book(8), rng(9));
    for number in 0..GETADDR_FEW as u16 {
        book.add(NOW, addr(number, 1), 7, NOW - 5, addr(number, 2).ip());
    }
    let known = book.sizes().0;
    let told = book.sample(NOW, &mut draws);
    assert_eq!((told.len(), told[0].services, told[0].time), (known, 7, NOW - 5));
    for number in 100..2_000 {
        book.add(NOW, addr(number, 1), 7, NOW - 5, addr(number, 2).ip());
    }
    let (told, again) = (book.sample(NOW, &mut draws), book.sample(NOW, &mut draws));
    assert_eq!(told.len(), book.sizes().0 * GETADDR_PERCENT / 100);
    assert_ne!(told, again);
    let sockets: BTreeSet<_> = told.iter().filter_map(AddrEntry::socket).collect();
    assert_eq!(sockets.len(), told.len(), "each once");
    for number in 2_000..40_000 {
        book.add(NOW, addr(number, 1), 7, NOW - 5, addr(number, 2).ip());
    }
    assert!(book.sizes().0 * GETADDR_PERCENT / 100 < ADDRS_MAX);
    assert!(book.sample(NOW + ADDR_HORIZON_S, &mut draws).is_empty(), "nobody is told of what is not there");
}

#[test]
fn stamps_alone_are_no_reason_to_write() {
    let (kv, mut book) = (MemKv::new(), book(10));
    book.add(NOW, addr(1, 1), 0, NOW, addr(2, 1).ip());
    assert!(book.has_changed());
    stored(&mut book, &kv);
    book.add(NOW + SEEN_STEP_S - 1, addr(1, 1), 0, NOW + SEEN_STEP_S - 1, addr(2, 1).ip());
    assert!(!book.has_stamps());
    book.add(NOW + SEEN_STEP_S, addr(1, 1), 0, NOW + SEEN_STEP_S, addr(2, 1).ip());
    assert!(book.has_stamps() && !book.has_changed() && book.take(false).is_empty() && book.has_stamps());
    stored(&mut book, &kv);
    assert_eq!(reopened(&kv).row(addr(1, 1)).unwrap().seen, NOW + SEEN_STEP_S);
    book.left(NOW + 9 * SEEN_STEP_S, addr(1, 1));
    assert!(book.has_stamps() && book.row(addr(1, 1)).unwrap().seen == NOW + 9 * SEEN_STEP_S);
    // Nobody makes an address fresher than now.
    book.add(NOW, addr(3, 1), 0, u32::MAX, addr(2, 1).ip());
    assert_eq!(book.row(addr(3, 1)).unwrap().seen, NOW);
}

#[test]
fn without_its_key_a_book_stands_elsewhere_and_keeps_what_fits() {
    let (kv, mut book) = (MemKv::new(), book(11));
    for number in 0..200 {
        book.add(NOW, addr(number, 1), 0, NOW, addr(number, 2).ip());
        if number % 2 == 0 {
            book.good(NOW, addr(number, 1), 0);
        }
    }
    stored(&mut book, &kv);
    let rows = PeerRows { key: None, ..PeerRows::open(&kv).unwrap() };
    let mut other = Book::open(&rows, false, &mut rng(12));
    other.sanity_check().unwrap();
    let (new, tried) = other.sizes();
    assert!(new + tried > 150 && other.key != book.key);
    // What found no place is deleted, and the new key is kept.
    stored(&mut other, &kv);
    assert!(same(&other, &reopened(&kv)));
}

/// Whatever is done with it, it holds together, is bounded, and is the same when it is read from its rows.
#[test]
fn random_histories_hold_together_and_read_back() {
    for seed in 0..20 {
        let (kv, mut book, mut draws) = (MemKv::new(), book(seed), rng(seed + 1_000));
        let (groups, mut now) = (1 + below(&mut draws, 3_000) as u16, NOW);
        for round in 0..3_000 {
            let mut drawn = || addr(below(&mut draws, usize::from(groups)) as u16, below(&mut draws, 8) as u16);
            let (one, two) = (drawn(), drawn());
            match below(&mut draws, 20) {
                0..8 => _ = book.add(now, one, 0, now - below(&mut draws, 40 * 86_400) as u32, two.ip()),
                8..12 => book.dialled(now, one),
                12..16 => book.good(now, one, 1),
                16 => book.left(now, one),
                17 => _ = book.doubted(now),
                18 if round % 50 == 0 => book.is_own(one),
                _ => now += below(&mut draws, 20_000) as u32,
            }
            if let Some(picked) = book.pick(now, &mut draws, false, &any).filter(|_| round % 100 == 0) {
                assert!(book.row(picked).is_some());
            }
            if round % 500 == 499 {
                book.sanity_check().unwrap();
                stored(&mut book, &kv);
                let again = reopened(&kv);
                again.sanity_check().unwrap();
                assert!(same(&book, &again), "seed {seed}");
            }
        }
        assert!(book.entries.len() > 3, "{} of {groups} groups", book.entries.len());
    }
}

/// Also from rows that no book has written.
#[test]
fn rows_at_random_make_a_book_that_holds_together() {
    for seed in 0..10 {
        let mut draws = rng(seed);
        let row = |draws: &mut ChaCha12Rng| AddrRow {
            addr: addr(below(draws, 2_000) as u16, below(draws, 3) as u16),
            source: addr(below(draws, 20) as u16, 0).ip(),
            services: draws.next_u64(),
            seen: draws.next_u32(),
            success: draws.next_u32(),
            tried_at: draws.next_u32(),
            attempts: draws.next_u32() as u8,
            tried: draws.next_u32().is_multiple_of(2),
        };
        let rows = PeerRows { addrs: (0..2_000).map(|_| row(&mut draws)).collect(), ..PeerRows::default() };
        let mut book = Book::open(&rows, false, &mut draws);
        book.sanity_check().unwrap();
        for _ in 0..200 {
            let (now, of) = (draws.next_u32(), addr(below(&mut draws, 2_000) as u16, 0));
            book.good(now, of, 0);
            book.dialled(now, of);
            let _ = book.doubted(now);
            let _ = (book.pick(now, &mut draws, true, &any), book.sample(now, &mut draws));
        }
        book.sanity_check().unwrap();
    }
}
