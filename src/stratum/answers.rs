//! What miners are told, as lines: answers to their requests, and what is pushed.
//!
//! `client.reconnect` is not among it. A node that stops closes its connections, which every firmware takes for what it is: it tries its
//! other pools, and comes back. Told to reconnect, cgminer's kin would wait for this one instead, NerdMiner does not hear it, and ESP-Miner
//! does what it does on a close anyway. A device that is stuck is told to drop its work first, and given another extranonce1
//! ([`crate::stratum::session`]).

use rockpool_net::id::ConnId;
use rockpool_workers::jobs::SubmitRefusal;
use serde_json::Value;

use crate::status::Serving;
use crate::turn::Turn;

/// A refusal as Stratum spells it: code and text.
pub type Refusal<'a> = (i32, &'a str);

pub const UNAUTHORISED: Refusal<'static> = (24, "Unauthorized worker: send mining.authorize first");
pub const NOT_SUBSCRIBED: Refusal<'static> = (25, "Not subscribed: send mining.subscribe first");
pub const STALE: Refusal<'static> = (21, "Job not found (stale)");
/// JSON-RPC's own code.
pub const GARBAGE: Refusal<'static> = (-32_700, "Parse error: send one JSON object to a line");
pub const UNKNOWN_METHOD: Refusal<'static> = (-3, "Method not found");
const DUPLICATE: Refusal<'static> = (22, "Duplicate share");

/// A refused submit.
pub fn refusal(refused: SubmitRefusal) -> Refusal<'static> {
    match refused {
        SubmitRefusal::Stale => STALE,
        SubmitRefusal::Duplicate => DUPLICATE,
        SubmitRefusal::LowDifficulty => (23, "Low difficulty share"),
        SubmitRefusal::BadField(why) | SubmitRefusal::Refused(why) => (20, why),
    }
}

/// Answers of this length need no memory of their own: they join what waits to be written.
const SHORT: usize = 160;

/// Answers a request.
pub fn reply(conn: ConnId, turn: &mut Turn<'_>, id: &str, result: &str) {
    say(conn, turn, &["{\"id\":", id, ",\"result\":", result, ",\"error\":null}\n"]);
}

/// Sends a line that is made of these parts.
fn say(conn: ConnId, turn: &mut Turn<'_>, parts: &[&str]) {
    let (mut line, mut end) = ([0; SHORT], 0);
    for part in parts {
        let Some(to) = line.get_mut(end..end + part.len()) else { return turn.out.send_bytes(conn, parts.concat().into_bytes()) };
        to.copy_from_slice(part.as_bytes());
        end += part.len();
    }
    turn.out.send_copy(conn, &line[..end]);
}

/// Refuses a request.
pub fn refuse(conn: ConnId, turn: &mut Turn<'_>, id: &str, (code, text): Refusal<'_>) {
    // What a user typed may stand in it.
    let text = Value::from(text);
    turn.out.send_bytes(conn, format!("{{\"id\":{id},\"result\":null,\"error\":[{code},{text},null]}}\n").into_bytes());
}

/// Pushes a notification with these parameters, JSON values.
pub fn push(conn: ConnId, turn: &mut Turn<'_>, method: &str, params: &str) {
    turn.out.send_bytes(conn, format!("{{\"id\":null,\"method\":\"{method}\",\"params\":[{params}]}}\n").into_bytes());
}

/// Pushes a sentence for whoever looks at the device.
pub fn show(conn: ConnId, turn: &mut Turn<'_>, text: &str) {
    push(conn, turn, "client.show_message", &Value::from(text).to_string());
}

/// Why there is no work yet.
pub fn waiting(serving: Serving) -> String {
    match serving {
        Serving::Yes | Serving::NoTemplate => {
            "Rockpool waits for a block template from bitcoind; work comes as soon as there is one".to_owned()
        }
        Serving::NoPeer => "Rockpool waits for a peer; work comes as soon as there is one".to_owned(),
        Serving::Behind { height } => format!("Rockpool fetches the share chain up to height {height}; work comes when it is there"),
    }
}
