use rockpool_store::figures::FigureRows;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::limits::BATCH_OPS_MAX;

use super::*;

const DAY: u64 = 86_400;
/// A page that nothing is left out of.
const ALL: (usize, usize) = (0, usize::MAX);

fn now(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall: Duration::from_secs(1_700_000_000 + seconds) }
}

fn script(number: u32) -> Script {
    Script::P2wsh(rockpool_net::sha256::sha256d(&number.to_be_bytes()))
}

fn submit(achieved: f64) -> Accepted {
    Accepted { difficulty: 1.0, achieved, share: false }
}

/// What goes to the disk. Its rows.
fn write(miners: &mut Miners, seconds: u64, kv: &MemKv) -> usize {
    let jobs = miners.take(now(seconds));
    assert!(jobs.iter().all(|job| job.sync && job.ops.len() <= BATCH_OPS_MAX));
    jobs.iter().for_each(|job| kv.write(&job.ops, true).unwrap());
    miners.line.credit();
    jobs.iter().map(|job| job.ops.len()).sum()
}

fn again(kv: &MemKv, seconds: u64) -> Miners {
    let rows = FigureRows::open(kv).unwrap();
    assert_eq!(rows.bad, []);
    Miners::open(rows, now(seconds))
}

fn close(one: &Rate, other: &Rate) -> bool {
    one.iter().zip(other).all(|(one, other)| (one - other).abs() <= 1e-9 * one.max(*other))
}

#[test]
fn workers_sum_up_to_their_address_and_addresses_to_the_total() {
    let mut miners = Miners::default();
    let ids: Vec<_> = (0..12).map(|number| miners.arrive(now(0), &script(number / 4), &format!("rig{}", number % 4))).collect();
    let twice = miners.arrive(now(0), &script(0), "rig1");
    assert_eq!((twice, miners.workers()), (ids[1], 12), "the same worker on another connection");
    for second in 0..5_000u64 {
        for (number, id) in ids.iter().enumerate().filter(|(number, _)| second % (*number as u64 + 2) == 0) {
            let submit = Accepted { difficulty: 2.0, achieved: 2.0 + (second * 7919 % 1_000) as f64 + number as f64, share: second == 0 };
            miners.accepted(now(second), *id, submit);
        }
        miners.rejected(ids[(second % 12) as usize], SubmitRefusal::Stale);
    }
    let at = Duration::from_secs(5_060);
    miners.look(now(5_060), Some(1.0), 13);
    let addresses = miners.addresses(at);
    assert_eq!(addresses.iter().map(|address| address.workers).collect::<Vec<_>>(), [4, 4, 4]);
    let mut all = Figures::default();
    for address in &addresses {
        let mut of_workers = Figures::default();
        miners.of_address(at, &address.script, ALL).iter().for_each(|(_, _, figures)| of_workers.add(figures));
        assert_eq!(of_workers, address.figures);
        all.add(&address.figures);
    }
    let totals = miners.totals();
    assert!(close(&all.rates, &totals.rates) && all.rates[SHORT] > 0.0);
    assert_eq!((all.tally, all.best, all.connected), (totals.tally, totals.best, totals.connected));
    assert_eq!((totals.tally.rejected, totals.tally.shares), ([5_000, 0, 0, 0, 0], 12));
    assert!(miners.is_own(&script(1)) && !miners.is_own(&script(9)));
    assert_eq!(miners.of_address(at, &script(9), ALL).len(), 0);
}

#[test]
fn the_best_hash_of_the_session_and_ever() {
    let (mut miners, kv) = (Miners::default(), MemKv::new());
    let [one, other] = ["one", "other"].map(|name| miners.arrive(now(0), &script(1), name));
    assert!(miners.accepted(now(1), one, submit(500.0)));
    assert!(!miners.accepted(now(2), other, submit(400.0)), "best of its worker, not of all");
    assert!(miners.accepted(now(3), other, submit(9_000.0)) && !miners.accepted(now(4), other, submit(9_000.0)));
    let ever = miners.best()[0].cloned().unwrap();
    assert_eq!((ever.difficulty, ever.time, &*ever.name), (9_000.0, 1_700_000_003, "other"));
    assert_eq!(miners.best()[1], Some(&ever));
    // At once, and nothing of charts with it; then again in ten seconds at the earliest.
    assert_eq!(write(&mut miners, 4, &kv), 3);
    miners.accepted(now(5), one, submit(9_001.0));
    let soon = 4 + BEST_WRITE_EVERY.as_secs();
    assert_eq!((write(&mut miners, soon - 1, &kv), write(&mut miners, soon, &kv), write(&mut miners, soon + 1, &kv)), (0, 2, 0));
    let mut again = again(&kv, 100);
    assert_eq!((again.best()[0].unwrap().difficulty, again.best()[1]), (9_001.0, None));
    let id = again.arrive(now(100), &script(1), "one");
    assert!(!again.accepted(now(101), id, submit(7.0)));
    let [ever, session] = again.best().map(|best| best.unwrap().difficulty);
    assert_eq!((ever, session), (9_001.0, 7.0));
    let (_, _, figures) = again.of_address(Duration::from_secs(102), &script(1), ALL)[0];
    assert_eq!((figures.best, figures.tally.best), (7.0, 9_001.0));
}

#[test]
fn what_was_done_survives_restarts_and_is_written_every_ten_minutes() {
    let (mut miners, kv) = (Miners::default(), MemKv::new());
    let (id, every) = (miners.arrive(now(0), &script(1), "rig"), FIGURES_WRITE_EVERY.as_secs());
    miners.arrive(now(0), &script(2), "stranger");
    let mut rows = Vec::new();
    for second in 0..=3 * every {
        miners.accepted(now(second), id, submit(if second == 0 { 8.0 } else { 1.0 }));
        if miners.is_due(Duration::from_secs(second)) {
            miners.look(now(second), Some(5e15), 1);
        }
        rows.push(write(&mut miners, second, &kv));
    }
    let writes: Vec<_> = rows.iter().enumerate().filter(|(_, rows)| **rows > 0).map(|(second, _)| second as u64).collect();
    assert_eq!(writes, [0, every, 2 * every, 3 * every]);
    miners.rejected(id, SubmitRefusal::Duplicate);
    miners.found_block(id);
    miners.rejected(id, SubmitRefusal::BadField("x"));
    miners.hurry();
    assert!(!miners.is_clean());
    // At the end at once, if nothing is on its way.
    let end = 3 * every + 1;
    assert!(!miners.take(now(end)).is_empty() && miners.is_clean());
    miners.hurry();
    assert!(miners.take(now(end)).is_empty() && !miners.is_clean(), "one message at a time");
    miners.line.credit();
    miners.look(now(end), Some(5e15), 1);
    write(&mut miners, end, &kv);
    let mut back = again(&kv, end);
    back.look(now(end), Some(1.0), 0);
    assert_eq!((back.workers(), back.totals().tally.accepted), (1, 3 * every + 1), "a stranger is worth no row");
    assert_eq!(back.charts().points(1).len(), (3 * every / 300 + 1) as usize);
    assert!(back.totals().rates[SHORT] > 0.9 * HASHES && back.totals().rates[SHORT] < 1.1 * HASHES);
}

/// The node looks a little more than a second after it looked last, and yet no step is without its point.
#[test]
fn late_looks_leave_no_gap_in_a_chart() {
    let mut miners = Miners::default();
    let begin = now(7);
    for look in 0..3_000u64 {
        let late = Duration::from_millis(1_037) * look as u32;
        miners.look(Now { mono: begin.mono + late, wall: begin.wall + late }, Some(5e15), 1);
    }
    let times: Vec<u32> = miners.charts().points(0).map(|point| point.time).collect();
    assert!(times.len() > 300 && times.windows(2).all(|two| two[1] - two[0] == 10), "{times:?}");
    assert!(miners.charts().points(0).all(|point| (9_000..=12_000).contains(&point.observed_ms) || point.time == times[0]));
}

/// A machine without a battery begins in 1970, and has its clock set a little later.
#[test]
fn a_clock_that_is_not_yet_set_takes_nothing_from_the_charts() {
    let (mut miners, kv) = (Miners::default(), MemKv::new());
    (0..2_000).for_each(|second| miners.look(now(second), Some(5e15), 1));
    miners.hurry();
    write(&mut miners, 2_000, &kv);
    let points = |miners: &Miners| miners.charts().points(1).copied().collect::<Vec<_>>();
    let (mut back, before) = (again(&kv, 2_000), points(&miners));
    assert!(before.len() > 5);
    back.earliest = now(0).unix();
    for second in 0..60 {
        back.look(Now { mono: Duration::from_secs(second), wall: Duration::from_secs(second) }, Some(5e15), 1);
    }
    assert_eq!(points(&back), before);
    for second in 60..90 {
        back.look(Now { mono: Duration::from_secs(second), wall: now(2_000 + second).wall }, Some(5e15), 1);
    }
    assert!(points(&back).starts_with(&before[..before.len() - 1]) && points(&back).last().unwrap().observed_ms > 0);
}

/// What was rejected, found and counted comes back as it was.
#[test]
fn every_count_comes_back() {
    let (mut miners, kv) = (Miners::default(), MemKv::new());
    let id = miners.arrive(now(0), &script(1), "");
    miners.accepted(now(1), id, Accepted { difficulty: 4.0, achieved: 5.0, share: true });
    let refusals = [SubmitRefusal::Stale, SubmitRefusal::Duplicate, SubmitRefusal::LowDifficulty, SubmitRefusal::BadField("x")];
    for (times, refusal) in refusals.into_iter().chain([SubmitRefusal::Refused("x")]).enumerate() {
        (0..=times).for_each(|_| miners.rejected(id, refusal));
    }
    miners.rejected(WorkerId::default(), SubmitRefusal::Stale);
    miners.found_block(id);
    miners.hurry();
    write(&mut miners, 2, &kv);
    let mut back = again(&kv, 3);
    back.look(now(3), None, 0);
    let tally = Tally {
        accepted: 1,
        rejected: [1, 2, 3, 4, 5],
        shares: 1,
        blocks: 1,
        best: 5.0,
        first_seen: 1_700_000_000,
        last_share: 1_700_000_001,
    };
    assert_eq!(back.of_address(Duration::ZERO, &script(1), ALL)[0].2.tally, tally);
    assert_eq!(back.totals().tally, Tally { rejected: [2, 2, 3, 4, 5], ..tally }, "of nobody's too");
}

/// However many names strangers have, who mined is still known, and who mines is never forgotten.
#[test]
fn strangers_do_not_push_out_who_mined() {
    let (mut miners, kv) = (Miners::default(), MemKv::new());
    let mined: Vec<_> = (0..40).map(|number| miners.arrive(now(0), &script(number), "rig")).collect();
    for second in 0..100 {
        mined.iter().for_each(|id| _ = miners.accepted(now(second), *id, submit(1.0)));
    }
    // Half of them have left long ago.
    mined[20..].iter().for_each(|id| miners.leave(*id));
    let late = 30 * DAY;
    mined[..20].iter().for_each(|id| _ = miners.accepted(now(late), *id, submit(1.0)));
    let (mut connected, mut placed) = (Vec::new(), 0);
    for number in 0..3 * WORKERS_KEPT as u32 {
        let id = miners.arrive(now(late + u64::from(number) / 64), &script(1_000 + number / 7), &format!("name{number}"));
        placed += usize::from(miners.knows(id));
        if number % 2 == 0 {
            connected.push(id)
        } else {
            miners.leave(id)
        }
        assert!(miners.workers() <= WORKERS_KEPT);
    }
    assert!(mined.iter().all(|id| miners.knows(*id)), "all that ever mined");
    assert_eq!(placed, 3 * WORKERS_KEPT);
    assert!(miners.slots.len() <= WORKERS_KEPT);
    // A stranger that was forgotten while it was connected is nobody, not somebody else.
    let forgotten = connected.iter().filter(|id| !miners.knows(**id)).count();
    assert!(forgotten > 0);
    connected.iter().for_each(|id| miners.leave(*id));
    assert!(mined[..20].iter().all(|id| miners.get_mut(*id).unwrap().connected == 1));
    miners.hurry();
    write(&mut miners, late, &kv);
    assert_eq!(FigureRows::open(&kv).unwrap().workers.len(), 40);

    // All places taken by who mines: who did least and is gone makes room, and where all are at work, nobody does.
    let mut full = Miners::default();
    let ids: Vec<_> = (0..WORKERS_KEPT as u32).map(|number| full.arrive(now(0), &script(number), "rig")).collect();
    for second in [0, 10, 20] {
        ids.iter().enumerate().for_each(|(number, id)| _ = full.accepted(now(second), *id, submit(1.0 + number as f64)));
    }
    assert_eq!(full.arrive(now(21), &script(9_999_999), "new"), WorkerId::default());
    full.leave(ids[7]);
    full.leave(ids[8]);
    assert_eq!(full.arrive(now(21), &script(9_999_999), "new"), WorkerId::default(), "not twice in a moment");
    let before = full.totals.accepted;
    full.accepted(now(22), WorkerId::default(), submit(1.0));
    full.accepted(now(32), WorkerId::default(), submit(1.0));
    full.look(now(33), None, 0);
    let sum = full.addresses(now(33).mono).iter().fold(0.0, |sum, address| sum + address.figures.rates[SHORT]);
    assert!(full.totals().rates[SHORT] > sum && full.totals.accepted == before + 2, "counted in the totals alone");
    full.accepted(now(33), ids[8], submit(1.0));
    full.hurry();
    write(&mut full, 33, &kv);
    let new = full.arrive(now(33 + ROOM_EVERY.as_secs()), &script(9_999_999), "new");
    assert!(full.knows(new) && !full.knows(ids[7]) && full.knows(ids[8]) && full.workers() == WORKERS_KEPT);
    assert!(write(&mut full, 44, &kv) >= 1, "its row goes too");
    assert!(FigureRows::open(&kv).unwrap().workers.iter().all(|row| row.script != script(7) || &*row.name != "rig"));
}

#[test]
fn names_are_cut_and_found() {
    let mut miners = Miners::default();
    let long = "é".repeat(WORKER_NAME_BYTES);
    let id = miners.arrive(now(0), &script(1), &long);
    assert_eq!(miners.find(&script(1), &(long.clone() + "x")), Some(id));
    assert_eq!((miners.find(&script(2), &long), miners.find(&script(1), "x")), (None, None));
    let of = miners.of_address(Duration::ZERO, &script(1), ALL);
    assert_eq!((of.len(), of[0].1.len()), (1, WORKER_NAME_BYTES));
}

/// What an idle worker costs: with 1.65 KiB of its connection no more than 2 KiB.
#[test]
fn a_worker_is_small() {
    let entry = size_of::<Name>() + size_of::<u32>();
    // Nodes of a tree that grows in order are half full.
    let bytes = size_of::<Worker>() + size_of::<Slot>() + 2 * entry + 16;
    assert!(bytes <= 390, "{bytes} bytes: {} {} {entry}", size_of::<Worker>(), size_of::<Slot>());
}
