//! SIGTERM under load: an ordered stop in under 3 s, exit code 0, nothing acknowledged is lost.

use std::time::Duration;

use crate::kit::{ADDRESS, Miner, Rockpool, temp};

#[test]
fn sigterm_ends_it_in_order_within_three_seconds() {
    let dir = temp();
    let mut node = Rockpool::start(dir.path(), &[]);
    let mut miner = Miner::connect(node.stratum, ADDRESS);
    let mined: Vec<_> = (0..5).map(|_| miner.mine()).collect();
    let (status, took) = node.stop();
    assert!(status.success(), "{status}: {}", node.log());
    assert!(took < Duration::from_secs(3), "took {took:?}");
    miner.read_to_the_end();
    drop(node);
    let node = Rockpool::start(dir.path(), &[]);
    for share in mined {
        assert_eq!(share.verdict, Ok(()));
        assert!(node.confirmed(share.id));
    }
}
