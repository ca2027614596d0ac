//! What work miners hear of, which of them share a line, and how long a past job is taken.

use rockpool_workers::emission::EmissionWorker;
use rockpool_workers::jobs::{Output, Stage};
use rockpool_workers::template::Template;

use super::*;
use crate::limits::{JOB_AGE_MAX, LINES_SHARED_MAX, TEMPLATES_PAST_BYTES_MAX};

/// P2WPKH addresses of regtest.
fn address(number: u32) -> String {
    let mut hash = [7; 20];
    hash[..4].copy_from_slice(&number.to_le_bytes());
    let program = bitcoin::WitnessProgram::new(bitcoin::WitnessVersion::V0, &hash).unwrap();
    bitcoin::Address::from_witness_program(program, bitcoin::Network::Regtest).to_string()
}

/// A template on regtest's first block that is no other's work.
fn template(world: &World<Recorder>, sequence: u64, txs: Vec<Arc<Tx>>) -> Template {
    let template = EmbeddedChain::new(regtest(), None).template(world.now().unix());
    Template { sequence, mintime: template.mintime + sequence as u32, txs, ..template }
}

fn tx(number: u8, bytes: usize) -> Arc<Tx> {
    Arc::new(Tx { ids: TxIds { txid: [number; 32], wtxid: [number; 32] }, data: vec![number; bytes].into() })
}

fn offer(world: &mut World<Recorder>, template: Template) {
    world.mail(Answer::Template(Arc::new(template)), Vec::new());
}

#[test]
fn miners_of_one_payee_share_a_line_and_are_told_apart_all_the_same() {
    let (mut world, bitcoin) = serving();
    let miners = [miner(&mut world).0, miner(&mut world).0];
    let other = world.connect(STRATUM);
    world.line(other, SUBSCRIBE);
    world.line(other, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{}"]}}"#, address(1)));
    world.lines(other);
    world.template(&bitcoin, 2);
    let lines = [miners[0], miners[1], other].map(|conn| world.taken(conn));
    assert_eq!(lines[0], lines[1]);
    assert_ne!(lines[0], lines[2], "whom a job pays stands in it");
    let job: Value = serde_json::from_slice::<Value>(&lines[0]).unwrap()["params"].clone();
    for conn in miners {
        // Their extranonce1 differ, so this is not the same work.
        world.line(conn, &submit(&job, 1));
        assert!(world.lines(conn).is_empty());
        world.line(conn, &submit(&job, 1));
        assert_eq!(error_code(&world.lines(conn)), 22);
    }
    world.line(other, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(other)), 21, "it was never given that job");
    let extranonces: Vec<_> = emitted(&mut world).iter().map(|job| job.extranonce).collect();
    assert!(extranonces.len() == 2 && extranonces[0] != extranonces[1]);
}

#[test]
fn lines_are_kept_for_few_payees() {
    let (mut world, _) = serving();
    let mut most = 0;
    for number in 0..2 * LINES_SHARED_MAX as u32 {
        let conn = world.connect(STRATUM);
        world.line(conn, SUBSCRIBE);
        world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{}"]}}"#, address(number)));
        most = most.max(world.node.server.boards.lines_held());
    }
    assert_eq!(most, LINES_SHARED_MAX);
}

#[test]
fn a_template_that_is_no_other_work_is_not_told_of() {
    let (mut world, _) = serving();
    let (conn, _) = miner(&mut world);
    let now = template(&world, 2, vec![tx(1, 100)]);
    let again = Template { sequence: 3, curtime: now.curtime + 30, txs: now.txs.clone(), trims: now.trims.clone(), ..now };
    assert!(again.same_work(&now));
    offer(&mut world, now);
    assert!(notify(&world.lines(conn)).is_some());
    offer(&mut world, again);
    assert!(world.lines(conn).is_empty());
    // But a miner hears of something once a minute.
    world.pass(NOTIFY_EVERY);
    assert_eq!(notify(&world.lines(conn)).unwrap()[8], false);
    // Another fee is other work.
    let mut dearer = template(&world, 4, Vec::new());
    dearer.trims.iter_mut().for_each(|trim| trim.value += 1);
    offer(&mut world, dearer);
    assert!(notify(&world.lines(conn)).is_some());
}

#[test]
fn the_first_work_on_a_block_is_clean_and_the_complete_one_is_not() {
    let (mut world, _) = serving();
    let (conn, before) = miner(&mut world);
    let on_next = |template: Template| Template { prev: [9; 32], height: 2, ..template };
    let first = on_next(template(&world, 2, Vec::new()));
    let mut full = Template { sequence: 3, txs: vec![tx(1, 100)], trims: first.trims.clone(), ..first };
    full.trims.iter_mut().for_each(|trim| (trim.kept, trim.value, trim.branch) = (1, trim.value + 7, vec![[1; 32]]));
    offer(&mut world, first);
    let lines = world.lines(conn);
    let first = notify(&lines).unwrap().clone();
    assert_eq!((&first[8], &first[4]), (&json!(true), &json!([])));
    world.line(conn, &submit(&before, 1));
    assert_eq!(error_code(&world.lines(conn)), 21);
    offer(&mut world, full);
    let lines = world.lines(conn);
    let full = notify(&lines).unwrap();
    assert_eq!((&full[1], &full[8], full[4].as_array().unwrap().len()), (&first[1], &json!(false), 1));
    // What was found meanwhile is a block like any other.
    world.line(conn, &submit(&first, 1));
    assert_eq!(emitted(&mut world).len(), 1);
}

#[test]
fn a_past_job_is_taken_until_it_is_old() {
    let at_age = |age: Duration| {
        let (mut world, bitcoin) = serving();
        let (conn, first) = miner(&mut world);
        world.template(&bitcoin, 2);
        world.pass(age);
        world.lines(conn);
        world.line(conn, &submit(&first, 1));
        (emitted(&mut world).len(), world.lines(conn).iter().filter_map(|line| line["error"][0].as_i64()).collect::<Vec<_>>())
    };
    assert_eq!(at_age(JOB_AGE_MAX - Duration::from_secs(1)), (1, vec![]));
    assert_eq!(at_age(JOB_AGE_MAX), (0, vec![21]));
}

#[test]
fn past_jobs_keep_so_many_bytes_of_templates_and_no_more() {
    let list = size_of::<Arc<Tx>>();
    for (bytes, kept) in [(TEMPLATES_PAST_BYTES_MAX - 2 * list, true), (TEMPLATES_PAST_BYTES_MAX - 2 * list + 1, false)] {
        let (mut world, _) = serving();
        let (conn, _) = miner(&mut world);
        let shared = tx(1, TEMPLATES_PAST_BYTES_MAX);
        let large = Arc::new(template(&world, 2, vec![Arc::clone(&shared), tx(2, bytes)]));
        let weak = Arc::downgrade(&large);
        world.mail(Answer::Template(large), Vec::new());
        let job = notify(&world.lines(conn)).unwrap().clone();
        // What a newer one holds too costs nothing.
        let newer = template(&world, 3, vec![shared]);
        offer(&mut world, newer);
        assert_eq!(weak.strong_count() > 0, kept);
        world.lines(conn);
        world.line(conn, &submit(&job, 1));
        assert_eq!(emitted(&mut world).len(), usize::from(kept));
        let refused: Vec<_> = world.lines(conn).iter().filter_map(|line| line["error"][0].as_i64()).collect();
        assert_eq!(refused, if kept { vec![] } else { vec![21] });
    }
}

/// BTC-7: on testnet4 a header 20 minutes after its parent needs other bits than the job has. The miner hears of it from emission, and its
/// job proposes no such time however long it lasts.
#[test]
fn a_time_at_which_other_bits_are_demanded_is_refused_and_never_proposed() {
    let (mut world, _) = serving();
    let (conn, _) = miner(&mut world);
    let mut bounded = template(&world, 2, Vec::new());
    bounded.maxtime = bounded.curtime + 20;
    let maxtime = bounded.maxtime;
    offer(&mut world, bounded);
    world.lines(conn);
    world.pass(NOTIFY_EVERY);
    let job = notify(&world.lines(conn)).unwrap().clone();
    assert_eq!(job[7], format!("{maxtime:08x}"));
    let mut judged = |ntime: u32| {
        let line = submit(&job, ntime).replace(job[7].as_str().unwrap(), &format!("{ntime:08x}"));
        world.line(conn, &line);
        let mut out = Output::default();
        EmissionWorker::new(regtest()).step(world.now(), &mut emitted(&mut world), &mut out);
        out.mail.into_iter().filter_map(|(answer, _)| if let Answer::Verdict { result, .. } = answer { Some(result) } else { None }).next()
    };
    assert!(!matches!(judged(maxtime), Some(Err(SubmitRefusal::BadField(_)))));
    assert_eq!(judged(maxtime + 1), Some(Err(SubmitRefusal::BadField("ntime is later than the job's target allows"))));
}
