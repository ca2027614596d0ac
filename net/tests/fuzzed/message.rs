//! What peers say: read without a panic, and written as it was read.

use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::wire::bitcoin;
use rockpool_net::wire::message::{Command, Message};

/// The first byte picks the command and who says it, the rest is the payload.
pub fn message(data: &[u8]) {
    let Some((&number, payload)) = data.split_first() else { return };
    let command = Command::ALL[usize::from(number) % Command::ALL.len()];
    if number >= 0x80 {
        return said_by_a_bitcoin_node(command, payload);
    }
    if let Ok(message) = Message::decode(command, payload) {
        assert_eq!(message.command(), command);
        let bytes = message.to_bytes([0; 4]).expect("what was read can be written");
        assert_eq!(&bytes[HEADER_BYTES..], payload, "{command}");
    }
}

fn said_by_a_bitcoin_node(command: Command, payload: &[u8]) {
    match bitcoin::Message::decode(command, payload) {
        // What newer nodes append, and what they ask for, is not looked at.
        Ok(bitcoin::Message::Version(_) | bitcoin::Message::GetHeaders(_)) | Err(_) => {}
        Ok(message) => {
            let bytes = message.to_bytes([0; 4]).expect("what was read can be written");
            assert_eq!(&bytes[HEADER_BYTES..], payload, "{command}");
        }
    }
}
