//! `DATADIR/secret`: what the node signs tokens with. Who can read the file may change the node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bitcoin::hex::{DisplayHex, FromHex};
use rockpool_net::reactor::Clock;

use crate::exit::Failure;
use crate::http::token::{self, Caller, Scope, Secret};
use crate::limits::{TOKEN_CLI_S, TOKEN_DAYS_MAX};

/// Bytes of the file: 64 hexadecimal digits and the end of a line.
const FILE_BYTES: usize = 65;

/// The secret of a data directory, made at the first start. The caller holds the directory's lock.
pub fn load(datadir: &Path) -> Result<Secret, Failure> {
    let file = file(datadir);
    match fs::symlink_metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = draw()?;
            create(&file, &secret).map_err(|error| Failure::Mistake(format!("cannot write {}: {error}", file.display())))?;
            Ok(secret)
        }
        _ => read(datadir),
    }
}

/// The secret of a data directory on which a node has run.
pub fn read(datadir: &Path) -> Result<Secret, Failure> {
    let file = file(datadir);
    let name = file.display();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::Mistake(format!("{name} is not there: the node makes it when it is first run on this directory"))
        }
        _ => Failure::Mistake(format!("cannot read {name}: {error}")),
    };
    let opened = File::open(&file).map_err(unreadable)?;
    let mode = opened.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(Failure::Mistake(format!("{name} is open to others (mode {mode:o}), who could change the node: chmod 600 {name}")));
    }
    let mut text = Vec::new();
    opened.take(FILE_BYTES as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    let digits = std::str::from_utf8(&text).map(str::trim_end).ok();
    let secret = digits.and_then(|digits| <[u8; 32]>::from_hex(digits).ok()).map(Secret);
    let broken =
        || format!("{name} does not hold 64 hexadecimal digits: delete it, and the node makes a new one; older tokens end with it");
    secret.ok_or_else(|| Failure::Mistake(broken()))
}

/// A secret that nobody has.
pub fn draw() -> Result<Secret, Failure> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::Fault(format!("the system gives no randomness: {error}")))?;
    Ok(Secret(secret))
}

/// `rockpool token`: a token for so many days.
pub fn token(datadir: &Path, sub: &str, scope: Scope, days: u64) -> Result<String, Failure> {
    if days == 0 || days > TOKEN_DAYS_MAX {
        return Err(Failure::Mistake(format!("--days is a number from 1 to {TOKEN_DAYS_MAX}")));
    }
    signed(&read(datadir)?, sub, scope, days * 86_400)
}

/// A token for a command: signed with a data directory's secret for as long as it takes, or else what `ROCKPOOL_TOKEN` says.
pub fn of_command(datadir: Option<&Path>, given: Option<String>) -> Result<String, Failure> {
    let signed = datadir.map(|datadir| signed(&read(datadir)?, "cli", Scope::Admin, TOKEN_CLI_S));
    match (signed, given) {
        (Some(Ok(token)), _) => Ok(token),
        // It becomes a line of a request's head.
        (_, Some(token)) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token),
        (_, Some(_)) => Err(Failure::Mistake("ROCKPOOL_TOKEN is no token; `rockpool token` prints one".into())),
        (Some(Err(unread)), None) => Err(unread),
        (None, None) => Err(Failure::Mistake(
            "this needs a token: give --datadir DIR of the node, or set ROCKPOOL_TOKEN to one that `rockpool token` has printed".into(),
        )),
    }
}

/// A token for so many seconds from now on.
pub fn signed(secret: &Secret, sub: &str, scope: Scope, seconds: u64) -> Result<String, Failure> {
    let now = Clock::start().now().wall.as_secs();
    let caller = Caller { sub: sub.to_owned(), scope };
    token::sign(secret, &caller, now, seconds).map_err(|_| Failure::Mistake("--sub is a name of 1 to 64 bytes in one line".into()))
}

fn file(datadir: &Path) -> PathBuf {
    datadir.join("secret")
}

/// Whoever reads it sees all of it or nothing, and nobody but the node's own user ever does.
fn create(file: &Path, secret: &Secret) -> io::Result<()> {
    let new = file.with_extension("new");
    // What a start that was cut short has left.
    let _ = fs::remove_file(&new);
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(opened, "{}", secret.0.to_lower_hex_string())?;
    opened.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |datadir| File::open(datadir)?.sync_all())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::http::token::Refusal;
    use crate::limits::TOKEN_LEEWAY_S;

    #[test]
    fn a_secret_is_made_once_and_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().ends_with("when it is first run on this directory"));
        fs::write(dir.path().join("secret.new"), "half").unwrap();
        let secret = load(dir.path()).unwrap();
        assert_eq!((load(dir.path()).unwrap(), read(dir.path()).unwrap()), (secret.clone(), secret.clone()));
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let metadata = fs::metadata(file(dir.path())).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, FILE_BYTES as u64));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load(other.path()).unwrap(), secret);
    }

    #[test]
    fn a_secret_that_is_none_or_open_to_others_is_the_users_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path()).unwrap();
        let file = file(dir.path());
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let failure = load(dir.path()).unwrap_err();
            assert!(failure.code() == 2 && failure.to_string().contains("chmod 600"), "{failure}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        for text in [String::new(), "ab".repeat(31), "ab".repeat(33), "xy".repeat(32), "ab".repeat(32) + "\nmore"] {
            fs::write(&file, text).unwrap();
            let failure = load(dir.path()).unwrap_err();
            assert!(failure.code() == 2 && failure.to_string().contains("delete it"), "{failure}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(load(dir.path()).unwrap_err().code(), 2);
        assert_eq!(load(&dir.path().join("nowhere")).unwrap_err().code(), 2);
    }

    #[test]
    fn tokens_are_signed_for_days_or_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let secret = load(dir.path()).unwrap();
        let now = Clock::start().now().wall.as_secs();
        let caller = |token: &str| token::verify(&secret, token, now).unwrap();
        let long = token(dir.path(), "ann", Scope::User, TOKEN_DAYS_MAX).unwrap();
        assert_eq!(caller(&long), Caller { sub: "ann".into(), scope: Scope::User });
        let own = of_command(Some(dir.path()), Some("another".into())).unwrap();
        assert_eq!(caller(&own), Caller { sub: "cli".into(), scope: Scope::Admin });
        assert_eq!(token::verify(&secret, &own, now + TOKEN_CLI_S + 2 * TOKEN_LEEWAY_S), Err(Refusal::Expired));
        let nowhere = dir.path().join("nowhere");
        for datadir in [None, Some(&*nowhere)] {
            assert_eq!(of_command(datadir, Some("a.b.c".into())), Ok("a.b.c".into()));
            for (given, why) in [(None, if datadir.is_some() { "is not there" } else { "--datadir" }), (Some("a b\r\nc"), "is no token")] {
                let failure = of_command(datadir, given.map(str::to_owned)).unwrap_err();
                assert!(failure.code() == 2 && failure.to_string().contains(why), "{failure}");
            }
        }
        for days in [0, TOKEN_DAYS_MAX + 1] {
            assert_eq!(token(dir.path(), "ann", Scope::User, days).unwrap_err().code(), 2);
        }
        assert!(token(dir.path(), "", Scope::User, 1).unwrap_err().to_string().starts_with("--sub"));
    }
}
