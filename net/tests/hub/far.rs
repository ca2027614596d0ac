//! A v2 peer of the crate's own making, which may misbehave. The garbage of a run is leaked: the crate borrows it, and tests are short.

use bip324::{CipherSession, FillBytes, GarbageResult, Handshake, Initialized, OutboundCipher, PacketType, ReceivedKey, Role};
use bip324::{SentKey, SentVersion, VersionResult};
use secp256k1::Secp256k1;

/// A secret of this byte alone.
struct Secret(u8);

impl FillBytes for Secret {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = [self.0; 32];
    }
}

/// One side of a v2 connection.
pub struct Far {
    /// Key and garbage: what it says first.
    pub hello: Vec<u8>,
    /// Contents of decoys before its version packet.
    pub decoys: Vec<Vec<u8>>,
    keyed: Option<Handshake<SentKey<'static>>>,
    versioned: Option<Handshake<SentVersion>>,
    ready: Option<CipherSession>,
    buf: Vec<u8>,
    packet: Option<usize>,
    /// Bytes that are leaked.
    pub leaked: usize,
}

impl Far {
    pub fn new(role: Role, magic: [u8; 4], secret: u8, garbage: &[u8]) -> Far {
        let keyed = Handshake::<Initialized>::new_with_rng(magic, role, &mut Secret(secret), &Secp256k1::signing_only()).unwrap();
        // The crate makes no more garbage than is allowed; what is said may have more.
        let own: &'static [u8] = garbage[..garbage.len().min(4_095)].to_vec().leak();
        let mut hello = vec![0; Handshake::<Initialized>::send_key_len(Some(own))];
        let keyed = keyed.send_key(Some(own), &mut hello).unwrap();
        hello.extend(&garbage[own.len()..]);
        Far { hello, decoys: vec![], keyed: Some(keyed), versioned: None, ready: None, buf: vec![], packet: None, leaked: own.len() }
    }

    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Bytes have come. Returns what is to be said, and the contents of the packets that are whole.
    pub fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
        self.buf.extend(bytes);
        let (mut says, mut packets) = (vec![], vec![]);
        if self.keyed.is_some() && self.buf.len() >= 64 {
            let theirs: Vec<u8> = self.buf.drain(..64).collect();
            let keyed = self.keyed.take().unwrap().receive_key(theirs.try_into().unwrap()).unwrap();
            let decoys: Vec<&[u8]> = self.decoys.iter().map(|decoy| &decoy[..]).collect();
            says = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(Some(&decoys))];
            self.versioned = Some(keyed.send_version(&mut says, Some(&decoys)).unwrap());
        }
        if self.buf.len() >= 36
            && let Some(versioned) = self.versioned.take()
        {
            let seen: &'static [u8] = self.buf[..self.buf.len() - 20].to_vec().leak();
            self.leaked += seen.len();
            match versioned.receive_garbage(seen).unwrap() {
                GarbageResult::NeedMoreData(versioned) => self.versioned = Some(versioned),
                GarbageResult::FoundGarbage { mut handshake, consumed_bytes } => {
                    self.buf.drain(..consumed_bytes);
                    let mut version: Vec<u8> = self.buf.drain(..20).collect();
                    assert_eq!(handshake.decrypt_packet_len(*version.first_chunk().unwrap()), Ok(17));
                    let VersionResult::Complete { cipher } = handshake.receive_version(&mut version[3..]).unwrap() else { panic!() };
                    self.ready = Some(cipher);
                }
            }
        }
        while let Some(session) = &mut self.ready {
            let Some(&length) = self.buf.first_chunk::<3>() else { break };
            let bytes = *self.packet.get_or_insert_with(|| session.inbound().decrypt_packet_len(length));
            if self.buf.len() < 3 + bytes {
                break;
            }
            let mut packet: Vec<u8> = self.buf.drain(..3 + bytes).collect();
            self.packet = None;
            let (_, plain) = session.inbound().decrypt_in_place(&mut packet[3..], None).unwrap();
            packets.push(plain[1..].to_vec());
        }
        (says, packets)
    }

    /// A packet with these contents.
    pub fn packet(&mut self, contents: &[u8], kind: PacketType) -> Vec<u8> {
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.ready.as_mut().unwrap().outbound().encrypt(contents, &mut packet, kind, None).unwrap();
        packet
    }

    /// A message of ours, by its long type.
    pub fn long(&mut self, name: [u8; 12], payload: &[u8]) -> Vec<u8> {
        self.packet(&[&[0], &name[..], payload].concat(), PacketType::Genuine)
    }
}
