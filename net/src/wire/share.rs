//! A share: a Bitcoin header with the proof that ties a place in the share chain to it. Its stored form is its wire form.
//!
//! In order, all integers little-endian (`store/SPEC.md`, ENC-1):
//!
//! committed: Bitcoin header 80 · version 1 · flags 1 · parent 32 · uncles 32n · script 1 + 20/32 · bits 4 · time 4 ·
//! height 4 · lead 4 · score 16 · salt 4 · value 8 · witness commitment 32 · Bitcoin height 4 ‖
//! proof: prefix length 4 · midstate 32 · extranonce 12 · count 1 · branch 32m.
//!
//! flags: bits 0–1 class (0 = 12, 1 = 46, 2 = 144, 3 = 360 outputs), bit 2 layout (0 tail, 1 front), bits 3–4 uncle count,
//! bits 5–7 zero.

use crate::id::ShareId;
use crate::limits::{BRANCH_MAX, PREFIX_BYTES_MAX, PREFIX_BYTES_MIN, SHARE_BYTES_MAX, UNCLES_MAX};
use crate::sha256::{BLOCK_BYTES, Midstate, sha256, sha256d, tagged};
use crate::wire::WireError;
use crate::wire::codec::{Reader, Writer};

/// Size of the coinbase that a share's miner can hold, as the most outputs it may pay (SHARECHAIN §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// At most 12 outputs: a coinbase of at most 752 bytes, which any device holds.
    N12,
    /// At most 46 outputs, 2,160 bytes.
    N46,
    /// At most 144 outputs, 6,384 bytes.
    N144,
    /// At most 360 outputs, 15,664 bytes.
    N360,
}

/// Where the extranonce stands in the coinbase (SHARECHAIN §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// In the last output, so that all before it is hashed once per template.
    Tail,
    /// As the third push of the scriptSig, for firmware that reads outputs out of `coinb2`.
    Front,
}

/// Who is paid for a share: a witness program of one of the three kinds that a share may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Script {
    /// Pay to witness public key hash (type byte 0).
    P2wpkh([u8; 20]),
    /// Pay to witness script hash (type byte 1).
    P2wsh([u8; 32]),
    /// Pay to taproot (type byte 2).
    P2tr([u8; 32]),
}

/// What ties the committed fields to the 80 bytes of the Bitcoin header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Bytes of the coinbase before X (layout tail: before the extranonce), a multiple of 64.
    pub prefix_len: u32,
    /// SHA-256 state after these bytes, big-endian words as in a digest.
    pub midstate: [u8; 32],
    /// extranonce1 (4) ‖ extranonce2 (8).
    pub extranonce: [u8; 12],
    /// Merkle siblings from the coinbase up, at most 16.
    pub branch: Vec<[u8; 32]>,
}

/// A share. Field names and order are those of its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The Bitcoin header, 80 bytes as hashed.
    pub header: [u8; 80],
    /// The ruleset in force at its height.
    pub version: u8,
    /// Coinbase size class.
    pub class: Class,
    /// Coinbase layout.
    pub layout: Layout,
    /// The share it builds on.
    pub parent: ShareId,
    /// Uncles it credits, ascending, at most 3.
    pub uncles: Vec<ShareId>,
    /// Who is paid.
    pub script: Script,
    /// Its target, compact.
    pub bits: u32,
    /// When its job was made, Unix seconds.
    pub time: u32,
    /// Height in the share chain; genesis is 0.
    pub height: u32,
    /// Seconds that the chain runs ahead of its schedule (SHARECHAIN §4).
    pub lead: u32,
    /// Sum that decides between branches (SHARECHAIN §5).
    pub score: u128,
    /// Drawn by the node, so that two nodes with one address never hash the same job.
    pub salt: u32,
    /// What the coinbase pays out, satoshis.
    pub value: u64,
    /// The block's witness commitment.
    pub witness_commitment: [u8; 32],
    /// Height of the Bitcoin block that it tries to be.
    pub bitcoin_height: u32,
    /// The proof.
    pub proof: Proof,
}

impl Class {
    /// All classes, smallest first.
    pub const ALL: [Class; 4] = [Class::N12, Class::N46, Class::N144, Class::N360];

    /// The most outputs that pay someone.
    pub fn outputs(self) -> usize {
        match self {
            Class::N12 => 12,
            Class::N46 => 46,
            Class::N144 => 144,
            Class::N360 => 360,
        }
    }
}

impl Script {
    /// The byte that says which kind it is.
    pub fn type_byte(&self) -> u8 {
        match self {
            Script::P2wpkh(_) => 0,
            Script::P2wsh(_) => 1,
            Script::P2tr(_) => 2,
        }
    }

    /// The witness program.
    pub fn program(&self) -> &[u8] {
        match self {
            Script::P2wpkh(program) => program,
            Script::P2wsh(program) | Script::P2tr(program) => program,
        }
    }

    /// The output script: witness version, push, program.
    pub fn script_pubkey(&self) -> Vec<u8> {
        let version = if matches!(self, Script::P2tr(_)) { 0x51 } else { 0x00 };
        let program = self.program();
        let mut script = Vec::with_capacity(2 + program.len());
        script.extend([version, program.len() as u8]);
        script.extend_from_slice(program);
        script
    }

    /// From its encoding's two parts; `None` unless the type is one of the three and the program has its length.
    pub fn from_parts(type_byte: u8, program: &[u8]) -> Option<Script> {
        match type_byte {
            0 => program.try_into().ok().map(Script::P2wpkh),
            1 => program.try_into().ok().map(Script::P2wsh),
            2 => program.try_into().ok().map(Script::P2tr),
            _ => None,
        }
    }

    /// From an output script; `None` if it is not one of the three kinds.
    pub fn from_script_pubkey(script: &[u8]) -> Option<Script> {
        let (head, program) = script.split_at_checked(2)?;
        match (head, program.len()) {
            ([0x00, 20], 20) => Script::from_parts(0, program),
            ([0x00, 32], 32) => Script::from_parts(1, program),
            ([0x51, 32], 32) => Script::from_parts(2, program),
            _ => None,
        }
    }
}

impl Share {
    /// Its encoding, on the wire and on the disk. Of a share that breaks [`Share::check_limits`] come bytes that decode to nothing or to
    /// another share; decoded ones never do.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(SHARE_BYTES_MAX);
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Writes its encoding; see [`Share::encode`].
    pub fn write(&self, writer: &mut Writer) {
        writer.put(&self.header);
        self.write_committed(writer);
        writer.u32(self.proof.prefix_len);
        writer.put(&self.proof.midstate);
        writer.put(&self.proof.extranonce);
        writer.u8(self.proof.branch.len() as u8);
        self.proof.branch.iter().for_each(|sibling| writer.put(sibling));
    }

    /// The share that these bytes are, no byte more or less.
    pub fn decode(bytes: &[u8]) -> Result<Share, WireError> {
        if bytes.len() > SHARE_BYTES_MAX {
            return Err(WireError::TooMany { what: "bytes of a share", count: bytes.len() as u64, max: SHARE_BYTES_MAX });
        }
        let mut reader = Reader::new(bytes);
        let share = Share::read(&mut reader)?;
        reader.finish()?;
        Ok(share)
    }

    /// The share that comes next. What it encodes to again are the bytes that were read.
    pub fn read(reader: &mut Reader<'_>) -> Result<Share, WireError> {
        let header = reader.array()?;
        let version = reader.u8()?;
        let (class, layout, uncle_count) = read_flags(reader.u8()?)?;
        let share = Share {
            header,
            version,
            class,
            layout,
            parent: ShareId(reader.array()?),
            uncles: (0..uncle_count).map(|_| reader.array().map(ShareId)).collect::<Result<_, _>>()?,
            script: read_script(reader)?,
            bits: reader.u32()?,
            time: reader.u32()?,
            height: reader.u32()?,
            lead: reader.u32()?,
            score: reader.u128()?,
            salt: reader.u32()?,
            value: reader.u64()?,
            witness_commitment: reader.array()?,
            bitcoin_height: reader.u32()?,
            proof: read_proof(reader)?,
        };
        share.check_limits()?;
        Ok(share)
    }

    /// The lengths and orders that every share keeps, whatever the chain (SHARECHAIN §1, first check).
    pub fn check_limits(&self) -> Result<(), WireError> {
        let (uncles, branch, prefix) = (self.uncles.len(), self.proof.branch.len(), self.proof.prefix_len);
        if uncles > UNCLES_MAX {
            return Err(WireError::TooMany { what: "uncles", count: uncles as u64, max: UNCLES_MAX });
        }
        if !self.uncles.is_sorted_by(|a, b| a < b) {
            return Err(WireError::Bad("order of uncles"));
        }
        if branch > BRANCH_MAX {
            return Err(WireError::TooMany { what: "merkle siblings", count: branch as u64, max: BRANCH_MAX });
        }
        if !(PREFIX_BYTES_MIN..=PREFIX_BYTES_MAX).contains(&prefix) || !(prefix as usize).is_multiple_of(BLOCK_BYTES) {
            return Err(WireError::Bad("length of the coinbase before X"));
        }
        Ok(())
    }

    /// Its name: the SHA256d of its Bitcoin header.
    pub fn id(&self) -> ShareId {
        ShareId(sha256d(&self.header))
    }

    /// What its coinbase must commit to: every committed field after the Bitcoin header, exactly as sent, under the chain's genesis.
    pub fn commitment(&self, genesis: &ShareId) -> [u8; 32] {
        let mut writer = Writer::with_capacity(SHARE_BYTES_MAX);
        self.write_committed(&mut writer);
        tagged(&[b"rockpool/share", &genesis.0[..]].concat(), &[&writer.into_bytes()])
    }

    /// Whether its proof ties every field to the header's 80 bytes. If it does not, nothing may be concluded about its id.
    pub fn tied(&self, genesis: &ShareId) -> bool {
        let Some(locktime) = self.bitcoin_height.checked_sub(1) else { return false };
        if self.check_limits().is_err() {
            return false;
        }
        let x = match self.layout {
            Layout::Tail => self.proof.extranonce,
            Layout::Front => [0; 12],
        };
        // Layout front: the extranonce stands before X, in bytes that only a rebuilt coinbase can show. Here it is not looked at.
        let tail = [&x[..], &self.commitment(genesis), &locktime.to_le_bytes()].concat();
        let start = Midstate::from_bytes(self.proof.midstate, u64::from(self.proof.prefix_len));
        let coinbase_id = sha256(&start.finish(&tail));
        merkle_root(coinbase_id, &self.proof.branch) == self.merkle_root()
    }

    /// The header's version, with the bits that miners roll.
    pub fn header_version(&self) -> u32 {
        u32::from_le_bytes(self.header_field(0))
    }

    /// The Bitcoin block that the header builds on, bytes as hashed.
    pub fn bitcoin_prev(&self) -> [u8; 32] {
        self.header_field(4)
    }

    /// The header's merkle root, bytes as hashed.
    pub fn merkle_root(&self) -> [u8; 32] {
        self.header_field(36)
    }

    /// The header's time, Unix seconds.
    pub fn header_time(&self) -> u32 {
        u32::from_le_bytes(self.header_field(68))
    }

    /// The header's compact target, Bitcoin's own.
    pub fn header_bits(&self) -> u32 {
        u32::from_le_bytes(self.header_field(72))
    }

    /// The header's nonce.
    pub fn header_nonce(&self) -> u32 {
        u32::from_le_bytes(self.header_field(76))
    }

    fn header_field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.header[at..at + N]);
        field
    }

    fn write_committed(&self, writer: &mut Writer) {
        writer.u8(self.version);
        writer.u8(self.class as u8 | (self.layout as u8) << 2 | (self.uncles.len() as u8) << 3);
        writer.put(&self.parent.0);
        self.uncles.iter().for_each(|uncle| writer.put(&uncle.0));
        writer.u8(self.script.type_byte());
        writer.put(self.script.program());
        writer.u32(self.bits);
        writer.u32(self.time);
        writer.u32(self.height);
        writer.u32(self.lead);
        writer.u128(self.score);
        writer.u32(self.salt);
        writer.u64(self.value);
        writer.put(&self.witness_commitment);
        writer.u32(self.bitcoin_height);
    }
}

/// The merkle root above a coinbase: at each step the sibling stands on the right, since a coinbase is the first transaction.
pub fn merkle_root(coinbase_id: [u8; 32], branch: &[[u8; 32]]) -> [u8; 32] {
    branch.iter().fold(coinbase_id, |left, right| {
        let mut pair = [0; 64];
        pair[..32].copy_from_slice(&left);
        pair[32..].copy_from_slice(right);
        sha256d(&pair)
    })
}

fn read_flags(flags: u8) -> Result<(Class, Layout, usize), WireError> {
    if flags >> 5 != 0 {
        return Err(WireError::Bad("flags: an unused bit is set"));
    }
    let class = Class::ALL[usize::from(flags & 3)];
    let layout = if flags & 4 == 0 { Layout::Tail } else { Layout::Front };
    Ok((class, layout, usize::from(flags >> 3)))
}

fn read_script(reader: &mut Reader<'_>) -> Result<Script, WireError> {
    match reader.u8()? {
        0 => reader.array().map(Script::P2wpkh),
        1 => reader.array().map(Script::P2wsh),
        2 => reader.array().map(Script::P2tr),
        _ => Err(WireError::Bad("script type")),
    }
}

fn read_proof(reader: &mut Reader<'_>) -> Result<Proof, WireError> {
    let (prefix_len, midstate, extranonce) = (reader.u32()?, reader.array()?, reader.array()?);
    let siblings = usize::from(reader.u8()?);
    if siblings > BRANCH_MAX {
        return Err(WireError::TooMany { what: "merkle siblings", count: siblings as u64, max: BRANCH_MAX });
    }
    let branch = (0..siblings).map(|_| reader.array()).collect::<Result<_, _>>()?;
    Ok(Proof { prefix_len, midstate, extranonce, branch })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::limits::SHARE_BYTES_MIN;
    use crate::wire::sample::{GENESIS, ids, share, share_of, tied_share};

    #[test]
    fn a_usual_share_has_648_bytes_and_the_extremes_keep_the_limits() {
        assert_eq!(share().encode().len(), 648);
        assert_eq!(share_of(0, false, 0).encode().len(), SHARE_BYTES_MIN);
        let longest = share_of(UNCLES_MAX, true, BRANCH_MAX).encode();
        assert_eq!(longest.len(), 884);
        assert_eq!(Share::decode(&longest).map(|share| share.encode()), Ok(longest));
        let over = vec![0; SHARE_BYTES_MAX + 1];
        assert_eq!(Share::decode(&over), Err(WireError::TooMany { what: "bytes of a share", count: 901, max: 900 }));
    }

    #[test]
    fn fields_stand_where_the_encoding_says() {
        let mut share = share_of(2, false, 1);
        share.class = Class::N144;
        share.layout = Layout::Front;
        let bytes = share.encode();
        assert_eq!(bytes[..80], share.header);
        assert_eq!(bytes[80], share.version);
        assert_eq!(bytes[81], 0b0001_0110, "class 2, front, two uncles");
        assert_eq!(bytes[82..114], share.parent.0);
        assert_eq!(bytes[114..146], share.uncles[0].0);
        assert_eq!(bytes[146..178], share.uncles[1].0);
        assert_eq!(bytes[178], 0);
        assert_eq!(bytes[179..199], *share.script.program());
        assert_eq!(bytes[199..203], share.bits.to_le_bytes());
        assert_eq!(bytes[203..207], share.time.to_le_bytes());
        assert_eq!(bytes[207..211], share.height.to_le_bytes());
        assert_eq!(bytes[211..215], share.lead.to_le_bytes());
        assert_eq!(bytes[215..231], share.score.to_le_bytes());
        assert_eq!(bytes[231..235], share.salt.to_le_bytes());
        assert_eq!(bytes[235..243], share.value.to_le_bytes());
        assert_eq!(bytes[243..275], share.witness_commitment);
        assert_eq!(bytes[275..279], share.bitcoin_height.to_le_bytes());
        assert_eq!(bytes[279..283], share.proof.prefix_len.to_le_bytes());
        assert_eq!(bytes[283..315], share.proof.midstate);
        assert_eq!(bytes[315..327], share.proof.extranonce);
        assert_eq!(bytes[327], 1);
        assert_eq!(bytes[328..], share.proof.branch[0]);
        assert_eq!(share.commitment(&GENESIS), tagged(&[b"rockpool/share", &GENESIS.0[..]].concat(), &[&bytes[80..279]]));
        assert_ne!(share.commitment(&GENESIS), share.commitment(&ShareId([0; 32])), "another chain, another commitment");
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let refuse = |spoil: fn(&mut Share), why: WireError| {
            let mut share = share_of(2, false, 2);
            spoil(&mut share);
            assert_eq!(share.check_limits(), Err(why.clone()));
            assert!(Share::decode(&share.encode()).is_err(), "{why}");
            assert!(!share.tied(&GENESIS));
        };
        let prefix = WireError::Bad("length of the coinbase before X");
        refuse(|share| share.proof.prefix_len = PREFIX_BYTES_MIN - 64, prefix.clone());
        refuse(|share| share.proof.prefix_len = PREFIX_BYTES_MAX + 64, prefix.clone());
        refuse(|share| share.proof.prefix_len = 100, prefix.clone());
        refuse(|share| share.proof.prefix_len = u32::MAX, prefix);
        refuse(|share| share.proof.branch = vec![[0; 32]; 17], WireError::TooMany { what: "merkle siblings", count: 17, max: 16 });
        refuse(|share| share.uncles = ids(4), WireError::TooMany { what: "uncles", count: 4, max: 3 });
        refuse(|share| share.uncles.reverse(), WireError::Bad("order of uncles"));
        refuse(|share| share.uncles[1] = share.uncles[0], WireError::Bad("order of uncles"));
        for fits in [PREFIX_BYTES_MIN, PREFIX_BYTES_MAX] {
            let mut share = share();
            share.proof.prefix_len = fits;
            assert_eq!(Share::decode(&share.encode()), Ok(share));
        }
        let spoil = |at: usize, byte: u8| {
            let mut bytes = share_of(0, false, 0).encode();
            bytes[at] = byte;
            Share::decode(&bytes)
        };
        for bit in 5..8 {
            assert_eq!(spoil(81, 1 << bit), Err(WireError::Bad("flags: an unused bit is set")));
        }
        assert_eq!(spoil(114, 3), Err(WireError::Bad("script type")));
        assert_eq!(spoil(263, 17), Err(WireError::TooMany { what: "merkle siblings", count: 17, max: 16 }));
    }

    #[test]
    fn scripts_have_the_three_known_forms_and_no_other() {
        for (script, head) in
            [(Script::P2wpkh([7; 20]), [0x00, 20]), (Script::P2wsh([7; 32]), [0x00, 32]), (Script::P2tr([7; 32]), [0x51, 32])]
        {
            let pubkey = script.script_pubkey();
            assert_eq!(pubkey[..2], head);
            assert_eq!(pubkey[2..], *script.program());
            assert_eq!(Script::from_script_pubkey(&pubkey), Some(script));
            assert_eq!(Script::from_parts(script.type_byte(), script.program()), Some(script));
            assert_eq!(Script::from_parts(script.type_byte(), &script.program()[1..]), None);
            assert_eq!(Script::from_script_pubkey(&pubkey[..pubkey.len() - 1]), None);
        }
        assert_eq!(Script::from_parts(3, &[7; 32]), None);
        assert_eq!(Script::from_script_pubkey(&[&[0x51, 20][..], &[7; 20]].concat()), None);
        assert_eq!(Script::from_script_pubkey(&[&[0x52, 32][..], &[7; 32]].concat()), None);
        assert_eq!(Script::from_script_pubkey(&[0x51]), None);
        assert_eq!(Class::ALL.map(Class::outputs), [12, 46, 144, 360]);
    }

    #[test]
    fn header_fields_are_read_where_bitcoin_puts_them() {
        let mut share = share();
        share.header = std::array::from_fn(|at| at as u8);
        assert_eq!(share.header_version(), 0x0302_0100);
        assert_eq!(share.bitcoin_prev().to_vec(), (4..36).collect::<Vec<u8>>());
        assert_eq!(share.merkle_root().to_vec(), (36..68).collect::<Vec<u8>>());
        assert_eq!(share.header_time(), 0x4746_4544);
        assert_eq!(share.header_bits(), 0x4b4a_4948);
        assert_eq!(share.header_nonce(), 0x4f4e_4d4c);
        assert_eq!(share.id().0, sha256d(&share.header));
    }

    /// The shares' coinbases are put together byte by byte and hashed whole in `sample`, without midstate and `tied`.
    #[test]
    fn the_tie_holds_in_both_layouts_and_each_flipped_bit_breaks_it() {
        for layout in [Layout::Tail, Layout::Front] {
            for (uncles, branch) in [(0, 0), (3, 12)] {
                let share = tied_share(layout, uncles, branch);
                assert!(share.tied(&GENESIS), "{layout:?}");
                assert!(!share.tied(&ShareId([0; 32])), "another chain");
                let bytes = share.encode();
                let extranonce = bytes.len() - 1 - 32 * branch - 12..bytes.len() - 1 - 32 * branch;
                for bit in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let Ok(flipped) = Share::decode(&flipped) else { continue };
                    // The header beside its merkle root is the id itself: another id, judged by its own proof of work. In layout front
                    // the extranonce is part of what only the rebuilt coinbase shows.
                    let other_id = bit / 8 < 80;
                    let in_prefix = layout == Layout::Front && extranonce.contains(&(bit / 8));
                    assert_eq!(flipped.id() != share.id(), other_id);
                    let untouched = (other_id && !(36..68).contains(&(bit / 8))) || in_prefix;
                    assert_eq!(flipped.tied(&GENESIS), untouched, "{layout:?}, byte {}", bit / 8);
                }
            }
        }
    }

    #[test]
    fn a_branch_longer_or_shorter_or_a_bitcoin_height_of_zero_is_not_tied() {
        let share = tied_share(Layout::Tail, 0, 3);
        let mut shorter = share.clone();
        shorter.proof.branch.pop();
        let mut longer = share.clone();
        longer.proof.branch.push([0; 32]);
        let mut zero = share.clone();
        zero.bitcoin_height = 0;
        assert!(share.tied(&GENESIS));
        // These two would fold to their roots: it is their lengths that are refused.
        let (deep, many) = (tied_share(Layout::Tail, 0, BRANCH_MAX + 1), tied_share(Layout::Tail, UNCLES_MAX + 1, 3));
        assert!(tied_share(Layout::Tail, UNCLES_MAX, BRANCH_MAX).tied(&GENESIS));
        assert!(![shorter, longer, zero, deep, many].iter().any(|share| share.tied(&GENESIS)));
    }

    #[test]
    fn a_share_cut_short_or_arbitrary_is_refused_or_read_exactly() {
        let bytes = share_of(3, true, 16).encode();
        for cut in 0..bytes.len() {
            assert!(matches!(Share::decode(&bytes[..cut]), Err(WireError::Short { .. })), "cut at {cut}");
        }
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let mut read = 0;
        for _ in 0..100_000 {
            let mut bytes = vec![0; 200 + rng.next_u32() as usize % 750];
            rng.fill_bytes(&mut bytes);
            // Bytes that decide on the form are led near what is allowed, or hardly any case would get past them.
            bytes[81] &= 0x3f;
            let uncles = usize::from(bytes[81] >> 3 & 3);
            if let Some(kind) = bytes.get_mut(114 + 32 * uncles) {
                *kind &= 3;
                let proof = 114 + 32 * uncles + if *kind == 0 { 101 } else { 113 };
                if let Some(prefix) = bytes.get_mut(proof..proof + 4) {
                    prefix.copy_from_slice(&(rng.next_u32() % 300 * 64).to_le_bytes());
                }
                if let Some(siblings) = bytes.get_mut(proof + 48) {
                    *siblings %= 18;
                    let end = proof + 49 + 32 * usize::from(*siblings);
                    bytes.truncate(end);
                }
            }
            if let Ok(share) = Share::decode(&bytes) {
                assert_eq!(share.encode(), bytes);
                assert!(!share.tied(&GENESIS));
                read += 1;
            }
        }
        assert!(read > 1_000, "{read} read");
        let mut reader = Reader::new(&bytes);
        assert_eq!(Share::read(&mut reader).unwrap().encode(), bytes);
        assert_eq!(reader.left(), 0);
    }
}
