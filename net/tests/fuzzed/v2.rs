//! BIP324 against a peer of the crate's own making: what was said is heard, however it is cut; once a byte is changed, nothing else is.

use std::collections::VecDeque;

use bip324::{PacketType, Role};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::limits::V2_HELLO_BYTES_MAX;
use rockpool_net::transport::V2Error;
use rockpool_net::transport::v2::{Opened, V2};
use secp256k1::Secp256k1;

use crate::far::Far;

const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];
const CAP: usize = 4 << 10;
/// Bytes in front: who dials, garbage, a decoy before the version, where a byte is changed and how, and the length of the pieces.
const HEAD: usize = 6;

/// What was heard, how many decoys, and what ended it.
type Outcome = (Vec<Vec<u8>>, u32, Option<V2Error>);

/// The head as above; the rest are packets: a byte that says whether it is a decoy, one for its length, and its contents.
pub fn v2(data: &[u8]) {
    let Some((head, mut rest)) = data.split_at_checked(HEAD) else { return };
    let mut packets = Vec::new();
    while let [kind, len, after @ ..] = rest {
        let (contents, left) = after.split_at(usize::from(*len).min(after.len()));
        packets.push((kind % 4 == 0, contents));
        rest = left;
    }
    let said: Vec<Vec<u8>> = packets.iter().filter(|(decoy, _)| !decoy).map(|(_, contents)| contents.to_vec()).collect();
    let whole = talk(head, &packets, usize::MAX);
    for piece in [1, usize::from(head[5]).max(2)] {
        let cut = talk(head, &packets, piece);
        // Where the end of the garbage was changed it is looked for in vain, and pieces cost more of what may be looked at.
        assert!(cut == whole || (head[4] != 0 && cut.0 == whole.0), "{cut:?} in pieces of {piece}, {whole:?}");
    }
    if head[4] == 0 {
        let decoys = packets.len() - said.len() + usize::from(head[2] % 2);
        assert_eq!(whole, (said, decoys as u32, None));
    } else {
        assert!(said.starts_with(&whole.0), "{:?} of {said:?}", whole.0);
    }
}

/// One conversation, in pieces of so many bytes.
fn talk(head: &[u8], packets: &[(bool, &[u8])], piece: usize) -> Outcome {
    let [who, garbage, decoy, at, change, _] = *head else { panic!("{head:?}") };
    let (mut us, role) = if who % 2 == 0 { (V2::dialled(), Role::Responder) } else { (V2::accepted(), Role::Initiator) };
    let mut far = Far::new(role, MAGIC, 3, &vec![who; usize::from(garbage)]);
    far.decoys = vec![vec![at; usize::from(decoy)]; usize::from(decoy % 2)];
    let (mut rng, curve) = (ChaCha12Rng::seed_from_u64(u64::from(who)), Secp256k1::signing_only());
    let mut wire: VecDeque<u8> = far.hello.iter().copied().collect();
    let (mut buf, mut heard, mut came, mut asked) = (Vec::new(), Vec::new(), 0, false);
    let mut decoys = 0;
    // Who dials has a key to send before anything comes.
    let mut more = who % 2 == 0;
    loop {
        while more || !buf.is_empty() {
            more = false;
            let used = match us.open(MAGIC, CAP, &mut buf) {
                Ok(Opened::Need(bytes)) => {
                    assert!(bytes > buf.len() && bytes <= V2_HELLO_BYTES_MAX.max(2 * CAP), "{bytes} wanted, {} there", buf.len());
                    break;
                }
                Ok(Opened::Keys) => {
                    let says = match us.exchange(MAGIC, &buf, &mut rng, &curve) {
                        Ok(says) => says,
                        Err(error) => return (heard, decoys, Some(error)),
                    };
                    wire.extend(far.feed(&says).0);
                    if far.is_ready() && !std::mem::replace(&mut asked, true) {
                        for (decoy, contents) in packets {
                            let kind = if *decoy { PacketType::Decoy } else { PacketType::Genuine };
                            wire.extend(far.packet(contents, kind));
                        }
                    }
                    0
                }
                Ok(Opened::Skip(used)) => used,
                Ok(Opened::Packet(contents, used)) => {
                    heard.push(contents.to_vec());
                    used
                }
                Err(error) => return (heard, decoys, Some(error)),
            };
            decoys += us.take_decoys();
            buf.drain(..used);
        }
        if wire.is_empty() {
            return (heard, decoys, None);
        }
        for byte in wire.drain(..piece.min(wire.len())) {
            buf.push(if came == usize::from(at) { byte ^ change } else { byte });
            came += 1;
        }
    }
}
