//! What nobody should send, and what a seeded generator makes of it.

use super::{SUBSCRIBE, authorize, error_code, miner, serving};
use crate::limits::GARBAGE_LINES_MAX;
use crate::testing::STRATUM;

#[test]
fn what_is_no_json_is_told_and_ends_a_connection_that_says_nothing_else() {
    let (mut world, _) = serving();
    let (good, _) = miner(&mut world);
    let bad = world.connect(STRATUM);
    let garbage = ["hello there", "{\"id\":1,\"method\":", "[]", "{\"id\":1,\"method\":\"mining.ping\"}}", "\u{fffd}\u{1}"];
    for line in garbage.iter().cycle().take(GARBAGE_LINES_MAX as usize) {
        world.line(bad, line);
        let said = world.lines(bad);
        assert_eq!((error_code(&said), &said[0]["id"]), (-32_700, &serde_json::Value::Null), "{line}");
    }
    // One good line between, and the count begins anew.
    world.line(bad, r#"{"id":1,"method":"mining.ping"}"#);
    assert_eq!(world.lines(bad)[0]["result"], "pong");
    for _ in 0..GARBAGE_LINES_MAX {
        world.line(bad, "garbage");
        assert!(world.is_open(bad));
    }
    world.line(bad, "garbage");
    assert!(!world.is_open(bad) && world.is_open(good));
    world.line(good, r#"{"id":1,"method":"mining.ping"}"#);
    assert_eq!(world.lines(good)[0]["result"], "pong");
}

#[test]
fn numbers_that_no_machine_holds_are_no_reason_to_drop_anybody() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    for line in [
        r#"{"id":1e999,"method":"mining.suggest_difficulty","params":[1e999]}"#,
        r#"{"id":1,"method":"mining.suggest_difficulty","params":[-1e999]}"#,
        r#"{"id":99999999999999999999999999,"method":"mining.ping","x":1e999,"params":1e999}"#,
        SUBSCRIBE,
        &authorize(),
    ] {
        world.line(conn, line);
        let text = String::from_utf8(world.taken(conn)).unwrap();
        assert!(text.contains("\"error\":null"), "{line}: {text}");
    }
}
