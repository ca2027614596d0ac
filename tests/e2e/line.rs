//! A share submitted at A, in a line A–B–C, is confirmed at all three and served by B's HTTP.

use crate::kit::{ADDRESS, Miner, Rockpool, temp, until};

#[test]
fn a_share_submitted_at_one_end_is_confirmed_at_the_other() {
    let dirs = [temp(), temp(), temp()];
    let b = Rockpool::start(dirs[1].path(), &[]);
    let to_b = b.p2p.to_string();
    let a = Rockpool::start(dirs[0].path(), &["--peer", &to_b]);
    let c = Rockpool::start(dirs[2].path(), &["--peer", &to_b]);
    until("A and C to be connected to B", || (b.status()["peers"] == 2).then_some(()));

    let mut miner = Miner::connect(a.stratum, &format!("{ADDRESS}.garage"));
    for _ in 0..5 {
        let share = miner.mine();
        assert_eq!(share.verdict, Ok(()));
        for (name, node) in [("A", &a), ("B", &b), ("C", &c)] {
            until(&format!("{} confirmed at {name}", share.id), || node.confirmed(share.id).then_some(()));
        }
        let (code, body) = b.get(&format!("/api/v1/share/{}", share.id));
        assert!(code == 200 && body.contains(ADDRESS), "B serves the share: {code} {body}");
    }
    until("one tip", || (a.tip() == b.tip() && b.tip() == c.tip()).then_some(()));
    assert_eq!(a.tip().1, 5);
}

#[test]
fn a_node_that_comes_late_syncs_the_chain() {
    let dirs = [temp(), temp()];
    let a = Rockpool::start(dirs[0].path(), &[]);
    let mut miner = Miner::connect(a.stratum, ADDRESS);
    for _ in 0..30 {
        assert_eq!(miner.mine().verdict, Ok(()));
    }
    let b = Rockpool::start(dirs[1].path(), &["--peer", &a.p2p.to_string()]);
    until("B on A's tip", || (a.tip() == b.tip()).then_some(()));
    assert!(b.tip().1 > 0);
}
