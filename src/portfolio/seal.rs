//! Keys to exchanges, encrypted at rest: whoever has the data directory alone learns nothing of them.
//!
//! The key is in a file of its own, of the node's user alone and outside the data directory (`--portfolio-key FILE`). Each text is
//! encrypted for one account of one user, so that nobody who can change rows has another's keys used in his place.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bitcoin::hex::{DisplayHex, FromHex};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::connect::okx::Keys;
use super::model::{AccountKey, Sealed};
use crate::exit::Failure;
use crate::limits::OKX_KEY_BYTES_MAX;

/// Bytes of the file: 64 hexadecimal digits and the end of a line.
const FILE_BYTES: usize = 65;
/// What a sealed text is for: another use of the same key would have another word.
const PURPOSE: &[u8] = b"rockpool/okx";

/// Keys of an account at OKX that may stand in lines of a header.
pub fn okx_keys(key: String, secret: String, passphrase: String) -> Option<Keys> {
    let good = |text: &String| (1..=OKX_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let all = [&key, &secret, &passphrase].into_iter().all(good);
    all.then_some(Keys { key, secret, passphrase })
}

/// Seals and opens.
pub struct Sealer {
    key: LessSafeKey,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// With this key.
    pub fn new(key: &[u8; 32]) -> Option<Sealer> {
        Some(Sealer { key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?) })
    }

    /// With the key of this file, which is made if it is not there. It must lie outside the data directory, and be its user's alone.
    pub fn load(file: &Path, datadir: &Path) -> Result<Sealer, Failure> {
        let name = file.display();
        if lies_within(file, datadir) {
            let why = format!("--portfolio-key {name} lies in the data directory, whose thief would have both: keep it elsewhere");
            return Err(Failure::Mistake(why));
        }
        if fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            create(file).map_err(|error| Failure::Mistake(format!("cannot write {name}: {error}")))?;
        }
        let unreadable = |error: io::Error| Failure::Mistake(format!("cannot read {name}: {error}"));
        let opened = File::open(file).map_err(unreadable)?;
        let mode = opened.metadata().map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            let mode = mode & 0o777;
            return Err(Failure::Mistake(format!(
                "{name} is open to others (mode {mode:o}), who could read users' keys: chmod 600 {name}"
            )));
        }
        let mut text = Vec::new();
        opened.take(FILE_BYTES as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
        let key = std::str::from_utf8(&text).ok().and_then(|digits| <[u8; 32]>::from_hex(digits.trim_end()).ok());
        let broken = || {
            let what = "bring it back from a backup, or delete it: keys that were sealed with it must then be given again";
            Failure::Mistake(format!("{name} does not hold 64 hexadecimal digits: {what}"))
        };
        key.and_then(|key| Sealer::new(&key)).ok_or_else(broken)
    }

    /// Keys for an account, sealed under a nonce that was drawn for them.
    pub fn seal(&self, keys: &Keys, of: &AccountKey) -> Option<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut text = [keys.key.as_str(), &keys.secret, &keys.passphrase].join("\n").into_bytes();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound(of)), &mut text).ok()?;
        Some(Sealed([&nonce[..], &text].concat()))
    }

    /// The keys of an account; `None` if they were sealed with another key, for another account, or are no longer what was sealed.
    pub fn open(&self, sealed: &Sealed, of: &AccountKey) -> Option<Keys> {
        let (nonce, text) = sealed.0.split_first_chunk()?;
        let mut text = text.to_vec();
        let text = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound(of)), &mut text).ok()?;
        let mut parts = std::str::from_utf8(text).ok()?.split('\n').map(str::to_owned);
        okx_keys(parts.next()?, parts.next()?, parts.next()?).filter(|_| parts.next().is_none())
    }
}

/// What a sealed text is bound to.
fn bound(of: &AccountKey) -> Vec<u8> {
    [PURPOSE, &of.user.0, &of.portfolio.to_be_bytes(), &of.account.to_be_bytes()].concat()
}

/// Whether a file, there or not yet, lies in a directory, by whatever way.
fn lies_within(file: &Path, dir: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (dir, file, parent) = (real(dir), real(file), real(parent));
    dir.is_some_and(|dir| [file, parent].into_iter().flatten().any(|path: PathBuf| path.starts_with(&dir)))
}

/// Makes the file, for the node's own user alone, or nothing.
fn create(file: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    let new = file.with_extension("new");
    // What a start that was cut short has left.
    let _ = fs::remove_file(&new);
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(opened, "{}", key.to_lower_hex_string())?;
    opened.sync_all()?;
    fs::rename(&new, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rockpool_store::limits::SEALED_BYTES_MAX;

    use super::*;
    use crate::portfolio::model::UserId;

    const OF: AccountKey = AccountKey { user: UserId([1; 16]), portfolio: 2, account: 3 };

    fn keys() -> Keys {
        okx_keys("the-key".into(), "the-secret".into(), "the-pass!".into()).unwrap()
    }

    #[test]
    fn sealed_keys_open_with_the_key_for_their_own_account_alone() {
        let (sealer, other) = (Sealer::new(&[7; 32]).unwrap(), Sealer::new(&[8; 32]).unwrap());
        let sealed = sealer.seal(&keys(), &OF).unwrap();
        assert_eq!(sealer.open(&sealed, &OF), Some(keys()));
        assert_ne!(sealer.seal(&keys(), &OF).unwrap(), sealed, "a nonce of its own each");
        assert_eq!(other.open(&sealed, &OF), None);
        for of in [
            AccountKey { user: UserId([2; 16]), ..OF },
            AccountKey { portfolio: 3, ..OF },
            AccountKey { account: 2, ..OF },
            AccountKey { portfolio: 3, account: 2, ..OF },
        ] {
            assert_eq!(sealer.open(&sealed, &of), None, "{of:?}");
        }
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert_eq!(sealer.open(&changed, &OF), None);
            assert_eq!(sealer.open(&Sealed(sealed.0[..at].to_vec()), &OF), None);
        }
        for part in ["the-key", "the-secret", "the-pass!"] {
            assert!(!sealed.0.windows(part.len()).any(|window| window == part.as_bytes()), "{part}");
            assert!(!format!("{:?} {sealed:?} {sealer:?}", keys()).contains(part));
        }
    }

    #[test]
    fn keys_fit_lines_of_a_header_and_a_row() {
        let long = "k".repeat(OKX_KEY_BYTES_MAX);
        let most = okx_keys(long.clone(), long.clone(), long.clone()).unwrap();
        assert!(Sealer::new(&[7; 32]).unwrap().seal(&most, &OF).unwrap().0.len() <= SEALED_BYTES_MAX);
        for bad in ["", "a b", "a\nb", "a\r\nX: y", "é", &(long + "k")] {
            for at in 0..3 {
                let [key, secret, passphrase] = std::array::from_fn(|part| if part == at { bad.to_owned() } else { "good".into() });
                assert_eq!(okx_keys(key, secret, passphrase), None, "{bad:?}");
            }
        }
    }

    #[test]
    fn the_key_file_is_made_once_outside_the_data_directory_and_for_its_user_alone() {
        let (data, keep) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = keep.path().join("portfolio.key");
        let sealed = Sealer::load(&file, data.path()).unwrap().seal(&keys(), &OF).unwrap();
        assert_eq!(Sealer::load(&file, data.path()).unwrap().open(&sealed, &OF), Some(keys()), "the same again");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 1);
        let mistake = |file: &Path| {
            let failure = Sealer::load(file, data.path()).map(drop).unwrap_err();
            assert_eq!(failure.code(), 2);
            failure.to_string()
        };
        for mode in [0o640, 0o604, 0o601] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert!(mistake(&file).contains("chmod 600"));
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        for text in [String::new(), "ab".repeat(31), "xy".repeat(32), "ab".repeat(32) + "\nmore"] {
            fs::write(&file, text).unwrap();
            assert!(mistake(&file).contains("64 hexadecimal digits"));
        }
        // By whatever way it comes to lie there.
        let within = data.path().join("sub");
        fs::create_dir(&within).unwrap();
        symlink(&within, keep.path().join("way")).unwrap();
        fs::write(within.join("real"), "").unwrap();
        symlink(within.join("real"), keep.path().join("link")).unwrap();
        for file in
            [data.path().join("key"), within.join("key"), within.join("../key"), keep.path().join("way/key"), keep.path().join("link")]
        {
            assert!(mistake(&file).contains("lies in the data directory"), "{}", file.display());
        }
        assert!(mistake(&keep.path().join("none/key")).contains("cannot write"));
    }
}
